//! How likely a model finds a text.

use super::{Bdh, GenerationError};
use crate::model::forgetting::Forgetting;
use crate::sampling::SamplingError;
use maybe_async::maybe_async;
use std::ops::ControlFlow;

/// A model's opinion of a sequence of tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// Natural log-probability of each token given those before it; the first has none.
    pub logprobs: Vec<Option<f64>>,
    /// Whether no token was likelier, each given those before it; the first has nothing to be likelier than.
    pub greedy: Vec<Option<bool>>,
}

impl Score {
    /// Sum of the log-probabilities, nats.
    pub fn total(&self) -> f64 {
        self.logprobs.iter().flatten().sum()
    }

    /// Mean negative log-probability per predicted token, nats.
    pub fn mean_loss(&self) -> f64 {
        -self.total() / (self.tokens.len() - 1) as f64
    }

    /// e to the mean loss.
    pub fn perplexity(&self) -> f64 {
        self.mean_loss().exp()
    }

    /// Bits per predicted token; for byte models, bits per byte.
    pub fn bits_per_token(&self) -> f64 {
        self.mean_loss() / std::f64::consts::LN_2
    }

    /// Mean loss (nats per token) of each block of `size` predictions.
    pub fn blocks(&self, size: usize) -> Vec<f64> {
        let losses: Vec<f64> = self.logprobs.iter().flatten().map(|p| -p).collect();
        losses.chunks(size.max(1)).map(|block| block.iter().sum::<f64>() / block.len() as f64).collect()
    }
}

#[maybe_async]
impl Bdh {
    /// Scores tokens as one context; `progress` hears how many have been read, and may end the reading: the
    /// score is then of those tokens and the next.
    ///
    /// # Errors
    /// [`GenerationError`] for fewer than two tokens, an id outside the vocabulary, logits that are not
    /// numbers, or a device that fails.
    pub async fn score(
        &self,
        tokens: &[u32],
        forgetting: Forgetting,
        mut progress: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Score, GenerationError> {
        if tokens.len() < 2 {
            return Err(GenerationError::TooShort(tokens.len()));
        }
        let (mut logprobs, mut greedy) = (vec![None], vec![None]);
        self.session_with(forgetting)
            .await?
            .trace(tokens, |index, logits| {
                let target = tokens[index + 1] as usize;
                let logprob = log_softmax(logits, target);
                if logprob.is_nan() {
                    let source = Some(SamplingError::NanLogits);
                    return Err(GenerationError::Sampling { position: index as u64, sequence: 0, source });
                }
                logprobs.push(Some(logprob));
                greedy.push(Some(logits.iter().all(|&other| other <= logits[target])));
                Ok(progress(index + 1))
            })
            .await?;
        Ok(Score { tokens: tokens[..logprobs.len()].to_vec(), logprobs, greedy })
    }

    /// The logits after every token, `[T, V]` row by row, T being the number of tokens. `progress` hears how many
    /// have been read, and may end the reading: there are then as many rows.
    ///
    /// # Errors
    /// [`GenerationError`] for an id outside the vocabulary, or a device that fails.
    pub async fn logits(
        &self,
        tokens: &[u32],
        forgetting: Forgetting,
        mut progress: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Vec<f32>, GenerationError> {
        let mut rows = Vec::with_capacity(tokens.len() * self.model().config.vocab_size);
        // A session reads a token when there is one after it. The one added here is never read.
        let followed = [tokens, &[0]].concat();
        self.session_with(forgetting)
            .await?
            .trace(&followed, |index, logits| {
                rows.extend_from_slice(logits);
                Ok(progress(index + 1))
            })
            .await?;
        Ok(rows)
    }
}

/// ln softmax(logits)[target], in f64.
pub(crate) fn log_softmax(logits: &[f32], target: usize) -> f64 {
    let [highest, sum] = log_sum(logits);
    logits[target] as f64 - highest - sum
}

/// The highest logit and ln Σ e^(logit − highest), in f64.
pub(crate) fn log_sum(logits: &[f32]) -> [f64; 2] {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
    let sum: f64 = logits.iter().map(|&l| (l as f64 - highest).exp()).sum();
    [highest, sum.ln()]
}
