//! Options of the beam search.

pub use crate::options::MAX_BEAMS;
use crate::options::{EarlyStopping, LogitBias, OutOfRange, Value, defaults, specs};

/// How to search. What is done to each step's log-probabilities is for
/// [`SamplerParams`](crate::sampling::SamplerParams) to say.
#[derive(Clone, Debug, PartialEq)]
pub struct BeamOptions {
    /// Texts that are followed at the same time, 1 to [`MAX_BEAMS`].
    pub num_beams: usize,
    /// Texts to return, 1 to `num_beams`.
    pub num_return_sequences: usize,
    /// Exponent of the length that a text's summed log-probability is divided by; finite. Above 0 it
    /// favours long texts.
    pub length_penalty: f64,
    /// When to stop looking for better texts.
    pub early_stopping: EarlyStopping,
    /// Tokens to generate at most.
    pub max_new_tokens: usize,
    /// Tokens that end a text.
    pub eos_token_ids: Vec<u32>,
    /// Texts that end a text, none of them empty. They count for its score, and are cut off in the end.
    pub stop: Vec<String>,
    /// Added to log-probabilities after the penalties, by token id; -100 bans a token.
    pub logit_bias: LogitBias,
}

impl Default for BeamOptions {
    fn default() -> Self {
        Self {
            num_beams: 4,
            num_return_sequences: 1,
            length_penalty: defaults::length_penalty,
            early_stopping: defaults::early_stopping,
            max_new_tokens: defaults::max_new_tokens,
            eos_token_ids: Vec::new(),
            stop: Vec::new(),
            logit_bias: LogitBias::new(),
        }
    }
}

impl BeamOptions {
    /// Checks every option against its valid range.
    ///
    /// # Errors
    /// [`BeamError`] for the first option that is out of range.
    pub fn validate(&self) -> Result<(), BeamError> {
        let Self { num_beams, num_return_sequences, length_penalty, .. } = *self;
        specs::num_beams.check(&Value::Whole(num_beams as u64))?;
        if !(1..=num_beams).contains(&num_return_sequences) {
            let range = format!("at least 1 and at most the number of beams ({num_beams})");
            return Err(OutOfRange::new("num_return_sequences", range, num_return_sequences).into());
        }
        specs::length_penalty.check(&Value::Double(length_penalty))?;
        specs::logit_bias.check(&Value::Biases(self.logit_bias.clone()))?;
        if self.stop.iter().any(String::is_empty) {
            return Err(BeamError::EmptyStop);
        }
        Ok(())
    }
}

/// A beam option that cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BeamError {
    /// A number out of its range: no beams, more than are supported, fewer than the texts to return.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    /// A stop text without text.
    #[error("a stop text must not be empty")]
    EmptyStop,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_range_are_refused() {
        let message = |change: &dyn Fn(&mut BeamOptions)| {
            let mut options = BeamOptions::default();
            change(&mut options);
            options.validate().unwrap_err().to_string()
        };
        assert_eq!(message(&|o| o.num_beams = 0), "num_beams must be at least 1 and at most 1024, got 0");
        assert_eq!(message(&|o| o.num_beams = 1025), "num_beams must be at least 1 and at most 1024, got 1025");
        let at_most_four = "num_return_sequences must be at least 1 and at most the number of beams (4), got";
        assert_eq!(message(&|o| o.num_return_sequences = 5), format!("{at_most_four} 5"));
        assert_eq!(message(&|o| o.num_return_sequences = 0), format!("{at_most_four} 0"));
        assert_eq!(message(&|o| o.length_penalty = f64::NAN), "length_penalty must be finite, got NaN");
        assert_eq!(message(&|o| o.length_penalty = -f64::INFINITY), "length_penalty must be finite, got -inf");
        let widest = BeamOptions { num_beams: MAX_BEAMS, num_return_sequences: MAX_BEAMS, ..BeamOptions::default() };
        assert!(widest.validate().is_ok());
    }
}
