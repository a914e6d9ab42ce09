//! How likely a model finds a text.

use bdh_gpu::Bdh;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// A model's opinion of a text, as BDH.score returns it. Logarithms are natural.
#[pyclass(frozen, get_all, eq, module = "bdh_gpu")]
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// The tokens.
    tokens: Vec<u32>,
    /// Log-probability of each token given those before it; None for the first.
    logprobs: Vec<Option<f64>>,
    /// Whether each token is the likeliest one after those before it; None for the first.
    greedy: Vec<Option<bool>>,
    /// The sum of the log-probabilities.
    total: f64,
    /// Mean negative log-probability of a token.
    mean_loss: f64,
    /// e to the mean loss.
    perplexity: f64,
    /// The mean loss in base 2; None where a token is no byte.
    bits_per_byte: Option<f64>,
}

impl Score {
    pub fn new(score: bdh_gpu::generation::Score, bdh: &Bdh) -> Self {
        let are_bytes = score.tokens.iter().all(|&token| bdh.model().tokenizer.byte(token).is_some());
        Self {
            total: score.total(),
            mean_loss: score.mean_loss(),
            perplexity: score.perplexity(),
            bits_per_byte: are_bytes.then(|| score.bits_per_token()),
            tokens: score.tokens,
            logprobs: score.logprobs,
            greedy: score.greedy,
        }
    }
}

#[pymethods]
impl Score {
    #[new]
    fn from_parts(
        tokens: Vec<u32>,
        logprobs: Vec<Option<f64>>,
        greedy: Vec<Option<bool>>,
        total: f64,
        mean_loss: f64,
        perplexity: f64,
        bits_per_byte: Option<f64>,
    ) -> Self {
        Self { tokens, logprobs, greedy, total, mean_loss, perplexity, bits_per_byte }
    }

    /// For pickle and copy.
    fn __reduce__<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let Self { tokens, logprobs, greedy, total, mean_loss, perplexity, bits_per_byte } = this.get();
        let arguments =
            (tokens, logprobs, greedy, total, mean_loss, perplexity, bits_per_byte).into_pyobject(this.py())?;
        (this.get_type(), arguments).into_pyobject(this.py())
    }

    fn __repr__(&self) -> String {
        let Self { tokens, total, perplexity, .. } = self;
        format!("Score({} tokens, total={total}, perplexity={perplexity})", tokens.len())
    }
}
