//! What a generation may be asked for, and what it returns.

use super::GenerationError;
use crate::model::Model;
use crate::sampling::SamplingOptions;

/// How to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationOptions {
    /// Tokens to generate at most.
    pub max_new_tokens: usize,
    /// How each token is drawn.
    pub sampling: SamplingOptions,
    /// Seed of the random numbers; drawn and reported when absent.
    pub seed: Option<u64>,
    /// Tokens that end a sequence.
    pub eos_token_ids: Vec<u32>,
    /// Texts that end a sequence, none of them empty. The sequence is cut before the first that appears,
    /// whatever tokens it is spread over.
    pub stop: Vec<String>,
}

impl Default for GenerationOptions {
    fn default() -> Self {
        Self {
            max_new_tokens: 100,
            sampling: SamplingOptions::default(),
            seed: None,
            eos_token_ids: Vec::new(),
            stop: Vec::new(),
        }
    }
}

impl GenerationOptions {
    /// The defaults that come with a model: its generation_config.json over the built-in ones.
    pub fn of_model(model: &Model) -> Self {
        let given = &model.generation;
        let built_in = Self::default();
        let s = built_in.sampling;
        let count = |value: Option<usize>| value.map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        Self {
            max_new_tokens: given.max_new_tokens.unwrap_or(built_in.max_new_tokens),
            sampling: SamplingOptions {
                do_sample: given.do_sample.unwrap_or(s.do_sample),
                temperature: given.temperature.unwrap_or(s.temperature),
                top_k: count(given.top_k).unwrap_or(s.top_k),
                top_p: given.top_p.unwrap_or(s.top_p),
                min_p: given.min_p.unwrap_or(s.min_p),
                repetition_penalty: given.repetition_penalty.unwrap_or(s.repetition_penalty),
                presence_penalty: given.presence_penalty.unwrap_or(s.presence_penalty),
                frequency_penalty: given.frequency_penalty.unwrap_or(s.frequency_penalty),
                min_new_tokens: count(given.min_new_tokens).unwrap_or(s.min_new_tokens),
            },
            seed: given.seed,
            eos_token_ids: model.config.eos_token_ids.clone(),
            stop: Vec::new(),
        }
    }

    /// Checks every option's range.
    ///
    /// # Errors
    /// [`GenerationError::Options`] naming the option, the value and the range.
    pub fn validate(&self) -> Result<(), GenerationError> {
        self.sampling.validate()?;
        check_stops(&self.stop)
    }
}

/// Refuses a stop text that would stop every text.
pub(super) fn check_stops(stops: &[String]) -> Result<(), GenerationError> {
    if stops.iter().any(String::is_empty) { Err(GenerationError::EmptyStop) } else { Ok(()) }
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FinishReason {
    /// It has as many tokens as were asked for.
    Length,
    /// It drew an end-of-sequence token.
    Eos,
    /// It came to a stop text, or the caller had enough.
    Stop,
    /// The device failed, or its logits allowed no draw: there would have been more.
    Error,
}

impl std::fmt::Display for FinishReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Length => "length",
            Self::Eos => "eos",
            Self::Stop => "stop",
            Self::Error => "error",
        })
    }
}

/// A generated sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The new tokens, an end-of-sequence token included, a stop text left out.
    pub tokens: Vec<u32>,
    /// Text after those tokens: what the token that a stop text begins within has before it. Mostly empty.
    pub tail: String,
    /// Why there are no more.
    pub finish_reason: FinishReason,
    /// The seed that gives this text alone; none for a text that beam search found.
    pub seed: Option<u64>,
    /// Score of a text that beam search found.
    pub score: Option<f64>,
}
