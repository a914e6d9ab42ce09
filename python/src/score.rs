//! How likely a model finds a text.

use bdh_gpu::Bdh;
use pyo3::prelude::*;

/// A model's opinion of a text, as BDH.score returns it. Logarithms are natural.
#[pyclass(frozen, get_all, module = "bdh_gpu")]
pub struct Score {
    /// The tokens.
    tokens: Vec<u32>,
    /// Log-probability of each token given those before it; None for the first.
    logprobs: Vec<Option<f64>>,
    /// Their sum.
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
        }
    }
}

#[pymethods]
impl Score {
    fn __repr__(&self) -> String {
        let Self { tokens, total, perplexity, .. } = self;
        format!("Score({} tokens, total={total}, perplexity={perplexity})", tokens.len())
    }
}
