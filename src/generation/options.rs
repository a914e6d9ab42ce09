//! What a generation may be asked for, and what it returns.

use super::GenerationError;
use crate::model::Model;
use crate::options::{LogitBias, Request, SamplingOptions, Value, defaults, specs};

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
    /// Added to logits after the penalties, by token id, -100 to 100; -100 bans a token.
    pub logit_bias: LogitBias,
}

impl Default for GenerationOptions {
    fn default() -> Self {
        Self {
            max_new_tokens: defaults::max_new_tokens,
            sampling: SamplingOptions::DEFAULT,
            seed: None,
            eos_token_ids: Vec::new(),
            stop: Vec::new(),
            logit_bias: LogitBias::new(),
        }
    }
}

impl GenerationOptions {
    /// The defaults that come with a model: its generation_config.json over the built-in ones.
    pub fn of_model(model: &Model) -> Self {
        let mut options = Self::default();
        options.apply(&model.generation.options);
        // Either of the model's files may name them.
        options.eos_token_ids.clone_from(&model.config.eos_token_ids);
        options
    }

    /// Takes over what is asked for.
    pub fn apply(&mut self, request: &Request) {
        self.max_new_tokens = request.max_new_tokens.unwrap_or(self.max_new_tokens);
        self.sampling.apply(request);
        self.seed = request.seed.or(self.seed);
        if let Some(biases) = &request.logit_bias {
            self.logit_bias.clone_from(biases);
        }
        if let Some(stop) = &request.stop {
            self.stop.clone_from(stop);
        }
        if request.ignore_eos == Some(true) {
            self.eos_token_ids.clear();
        } else if let Some(ids) = &request.eos_token_id {
            self.eos_token_ids.clone_from(ids);
        }
    }

    /// The request that asks for exactly these options.
    pub fn request(&self) -> Request {
        Request {
            max_new_tokens: Some(self.max_new_tokens),
            seed: self.seed,
            eos_token_id: Some(self.eos_token_ids.clone()),
            stop: Some(self.stop.clone()),
            logit_bias: Some(self.logit_bias.clone()),
            ..self.sampling.request()
        }
    }

    /// Checks every option's range.
    ///
    /// # Errors
    /// [`GenerationError::Options`] naming the option, the value and the range.
    pub fn validate(&self) -> Result<(), GenerationError> {
        self.sampling.validate()?;
        specs::logit_bias.check(&Value::Biases(self.logit_bias.clone()))?;
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
