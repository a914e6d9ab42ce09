//! How to generate, put together from what a caller asks for, what the model's files say, and the defaults.

use super::{BeamOptions, GenerationError, GenerationOptions};
use crate::model::forgetting::{Forgetting, default_tau};
use crate::model::{Config, EarlyStopping, Model};
use crate::options::OutOfRange;

/// The option that draws nothing.
const GREEDY: &str = "greedy";

/// The options in effect, those of a beam search included.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Lengths, drawing and stops.
    pub options: GenerationOptions,
    /// Texts followed at the same time; 1 draws instead.
    pub num_beams: usize,
    /// Exponent of the length that a beam's score is divided by.
    pub length_penalty: f64,
    /// When beam search stops.
    pub early_stopping: EarlyStopping,
}

/// What a caller asks for; what is `None` or empty is left to the model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// Tokens to generate at most.
    pub max_new_tokens: Option<usize>,
    /// Tokens to generate before an end-of-sequence token may come.
    pub min_new_tokens: Option<u32>,
    /// Texts that end a sequence.
    pub stop: Vec<String>,
    /// Tokens that end a sequence, in the place of the model's.
    pub eos_token_ids: Vec<u32>,
    /// Go on past every end-of-sequence token.
    pub ignore_eos: bool,
    /// Draw at random (true) or take the likeliest token (false).
    pub do_sample: Option<bool>,
    /// As [`SamplingOptions::temperature`](crate::sampling::SamplingOptions::temperature); those that follow too.
    pub temperature: Option<f32>,
    /// Number of likeliest tokens to draw from.
    pub top_k: Option<u32>,
    /// Probability mass to draw from.
    pub top_p: Option<f32>,
    /// Least probability relative to the likeliest token's.
    pub min_p: Option<f32>,
    /// Factor against tokens of the prompt and the text.
    pub repetition_penalty: Option<f32>,
    /// Taken off the logit of every token already generated.
    pub presence_penalty: Option<f32>,
    /// Taken off a token's logit for each time it was generated.
    pub frequency_penalty: Option<f32>,
    /// Seed of the random numbers.
    pub seed: Option<u64>,
    /// Texts followed at the same time; 1 draws instead.
    pub num_beams: Option<usize>,
    /// Exponent of the length that a beam's score is divided by.
    pub length_penalty: Option<f64>,
    /// When beam search stops.
    pub early_stopping: Option<EarlyStopping>,
}

impl Settings {
    /// The model's own: its generation_config.json over the built-in ones.
    pub fn of_model(model: &Model) -> Self {
        let built_in = BeamOptions::default();
        let given = &model.generation;
        Self {
            options: GenerationOptions::of_model(model),
            num_beams: given.num_beams.unwrap_or(1),
            length_penalty: given.length_penalty.map_or(built_in.length_penalty, f64::from),
            early_stopping: given.early_stopping.unwrap_or(built_in.early_stopping),
        }
    }

    /// The options in effect: what is asked for over the model's over the built-in ones.
    ///
    /// # Errors
    /// [`GenerationError`] for an option out of its range, and for options that exclude each other.
    pub fn new(request: &Request, model: &Model) -> Result<Self, GenerationError> {
        let mut settings = Self::of_model(model);
        request.apply_lengths(&mut settings.options, model.config.vocab_size)?;
        request.apply_drawing(&mut settings.options);
        let asks_for_drawing = request.asks_for_drawing();
        if let Some(num_beams) = request.num_beams {
            settings.num_beams = num_beams;
            // Beam search draws nothing, as greedy asks.
            let contradiction = asks_for_drawing.filter(|&option| option != GREEDY);
            if let (true, Some(option)) = (num_beams > 1, contradiction) {
                return Err(GenerationError::DrawingInBeamSearch { option });
            }
        } else if asks_for_drawing.is_some() {
            // The model's own beams give way to what was asked for here.
            settings.num_beams = 1;
        }
        set(&mut settings.length_penalty, request.length_penalty);
        set(&mut settings.early_stopping, request.early_stopping);
        request.check_used(&settings, model)?;
        settings.validate()?;
        if !settings.uses_beams() && (request.length_penalty.is_some() || request.early_stopping.is_some()) {
            return Err(GenerationError::NoBeams);
        }
        Ok(settings)
    }

    /// Whether texts are searched for rather than drawn.
    pub fn uses_beams(&self) -> bool {
        self.num_beams > 1
    }

    /// The options of a beam search that returns so many texts.
    pub fn beam_options(&self, num_return_sequences: usize) -> BeamOptions {
        BeamOptions {
            num_beams: self.num_beams,
            num_return_sequences,
            length_penalty: self.length_penalty,
            early_stopping: self.early_stopping,
            max_new_tokens: self.options.max_new_tokens,
            eos_token_ids: self.options.eos_token_ids.clone(),
            stop: self.options.stop.clone(),
        }
    }

    /// Checks every option's range.
    ///
    /// # Errors
    /// [`GenerationError`] naming the option, the value and the range.
    pub fn validate(&self) -> Result<(), GenerationError> {
        self.options.validate()?;
        Ok(self.beam_options(1).validate()?)
    }
}

impl Request {
    fn apply_lengths(&self, options: &mut GenerationOptions, vocab: usize) -> Result<(), GenerationError> {
        set(&mut options.max_new_tokens, self.max_new_tokens);
        set(&mut options.sampling.min_new_tokens, self.min_new_tokens);
        options.stop.clone_from(&self.stop);
        if self.ignore_eos {
            options.eos_token_ids.clear();
        } else if !self.eos_token_ids.is_empty() {
            if let Some(&id) = self.eos_token_ids.iter().find(|&&id| id as usize >= vocab) {
                return Err(OutOfRange::new("eos_token_id", format!("below the vocabulary size {vocab}"), id).into());
            }
            options.eos_token_ids.clone_from(&self.eos_token_ids);
        }
        Ok(())
    }

    /// Refuses values of generation_config.json that cannot be used, where they would be.
    fn check_used(&self, settings: &Settings, model: &Model) -> Result<(), GenerationError> {
        let sampling = &settings.options.sampling;
        let drawn = !settings.uses_beams() && sampling.do_sample;
        let beams = settings.uses_beams();
        let keys = [
            ("max_new_tokens", self.max_new_tokens.is_none()),
            ("min_new_tokens", self.min_new_tokens.is_none()),
            ("do_sample", !beams && self.do_sample.is_none() && self.asks_for_drawing().is_none()),
            ("temperature", drawn && self.temperature.is_none()),
            ("top_k", drawn && self.top_k.is_none()),
            ("top_p", drawn && self.top_p.is_none()),
            ("min_p", drawn && self.min_p.is_none()),
            ("repetition_penalty", self.repetition_penalty.is_none()),
            ("presence_penalty", self.presence_penalty.is_none()),
            ("frequency_penalty", self.frequency_penalty.is_none()),
            ("num_beams", self.num_beams.is_none() && self.asks_for_drawing().is_none()),
            ("length_penalty", beams && self.length_penalty.is_none()),
            ("early_stopping", beams && self.early_stopping.is_none()),
            ("eos_token_id", self.eos_token_ids.is_empty() && !self.ignore_eos),
            ("seed", drawn && self.seed.is_none()),
        ];
        let used = keys.into_iter().filter(|(_, used)| *used);
        match used.filter_map(|(key, _)| Some((key, model.generation.problem(key)?))).next() {
            Some((key, problem)) => Err(GenerationError::ModelOption { problem: problem.to_owned(), key }),
            None => Ok(()),
        }
    }

    /// The first option given that decides how tokens are drawn.
    fn asks_for_drawing(&self) -> Option<&'static str> {
        let given = [
            ("temperature", self.temperature.is_some()),
            ("top_k", self.top_k.is_some()),
            ("top_p", self.top_p.is_some()),
            ("min_p", self.min_p.is_some()),
            ("do_sample", self.do_sample == Some(true)),
            (GREEDY, self.do_sample == Some(false)),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
    }

    fn apply_drawing(&self, options: &mut GenerationOptions) {
        let sampling = &mut options.sampling;
        sampling.do_sample = self.do_sample.unwrap_or(sampling.do_sample || self.asks_for_drawing().is_some());
        set(&mut sampling.temperature, self.temperature);
        set(&mut sampling.top_k, self.top_k);
        set(&mut sampling.top_p, self.top_p);
        set(&mut sampling.min_p, self.min_p);
        set(&mut sampling.repetition_penalty, self.repetition_penalty);
        set(&mut sampling.presence_penalty, self.presence_penalty);
        set(&mut sampling.frequency_penalty, self.frequency_penalty);
        options.seed = self.seed.or(options.seed);
    }
}

/// Replaces an option by what was given, if anything was.
fn set<T>(option: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *option = given;
    }
}

/// How much of the past is to count in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// Everything.
    Full,
    /// Everything up to this position; what is older fades after it.
    After(u32),
}

impl Context {
    /// What a context and a time constant (in tokens) mean for a model; what is not given is the model's.
    ///
    /// # Errors
    /// [`GenerationError`] for a time constant that is not finite and above 0, or that has no context to go with.
    pub fn forgetting(given: Option<Self>, tau: Option<f64>, config: &Config) -> Result<Forgetting, GenerationError> {
        if let Some(tau) = tau.filter(|tau| !(tau.is_finite() && *tau > 0.0)) {
            return Err(OutOfRange::new("forget_tau", "finite and above 0", tau).into());
        }
        let context = match given {
            Some(Self::Full) => None,
            Some(Self::After(context)) => Some(context),
            None => config.trained_context,
        };
        match (context, tau) {
            (Some(context), tau) => Ok(Forgetting::After { context, tau: tau.unwrap_or_else(|| default_tau(context)) }),
            (None, None) => Ok(Forgetting::Full),
            (None, Some(_)) if given.is_some() => Err(GenerationError::ForgetTauOfFull),
            (None, Some(_)) => Err(GenerationError::ForgetTauAlone),
        }
    }
}
