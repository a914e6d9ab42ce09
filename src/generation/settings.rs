//! How to generate, put together from what a caller asks for, what the model's files say, and the defaults.

use super::{BeamOptions, GenerationError, GenerationOptions};
use crate::model::forgetting::{Forgetting, default_tau};
use crate::model::{Config, Model};
use crate::options::{self, EarlyStopping, Effect, OutOfRange, Request, Spec, Value, defaults, specs};
use crate::sampling::BiasRow;

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

impl Default for Settings {
    fn default() -> Self {
        Self {
            options: GenerationOptions::default(),
            num_beams: defaults::num_beams,
            length_penalty: defaults::length_penalty,
            early_stopping: defaults::early_stopping,
        }
    }
}

impl Settings {
    /// The model's own: its generation_config.json over the built-in ones.
    pub fn of_model(model: &Model) -> Self {
        let mut settings = Self::default();
        settings.apply(&model.generation.options);
        settings.options = GenerationOptions::of_model(model);
        settings
    }

    /// The options in effect: what is asked for over the model's over the built-in ones.
    ///
    /// # Errors
    /// [`GenerationError`] for an option out of its range, and for options that exclude each other.
    pub fn new(request: &Request, model: &Model) -> Result<Self, GenerationError> {
        check_eos(request, model.config.vocab_size)?;
        if let Some(biases) = &request.logit_bias {
            BiasRow::new(biases, model.config.vocab_size)?;
        }
        let mut settings = Self::of_model(model);
        if let Some(option) = asks_for_drawing(request) {
            // Beam search draws nothing, as a greedy request asks.
            let draws = Some(option) != specs::do_sample.opposite;
            if draws && request.num_beams.is_some_and(|beams| beams > 1) {
                return Err(GenerationError::DrawingInBeamSearch { option });
            }
            // The model's own beams and its do_sample false give way to what was asked for here.
            settings.num_beams = 1;
            settings.options.sampling.do_sample = true;
        }
        settings.apply(request);
        check_used(request, &settings, model)?;
        settings.validate()?;
        if !settings.uses_beams() && request.values().any(|(spec, _)| spec.effect == Effect::Beams) {
            return Err(GenerationError::NoBeams);
        }
        Ok(settings)
    }

    /// Takes over what is asked for.
    pub fn apply(&mut self, request: &Request) {
        self.options.apply(request);
        self.num_beams = request.num_beams.unwrap_or(self.num_beams);
        self.length_penalty = request.length_penalty.unwrap_or(self.length_penalty);
        self.early_stopping = request.early_stopping.unwrap_or(self.early_stopping);
    }

    /// The request that asks for exactly these settings.
    pub fn request(&self) -> Request {
        Request {
            num_beams: Some(self.num_beams),
            length_penalty: Some(self.length_penalty),
            early_stopping: Some(self.early_stopping),
            ..self.options.request()
        }
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
            logit_bias: self.options.logit_bias.clone(),
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

/// The first option given that asks for drawing; of a switch that is off, its opposite's name.
fn asks_for_drawing(request: &Request) -> Option<&'static str> {
    let drawing = request.values().find(|(spec, _)| spec.effect == Effect::Drawing);
    drawing.map(|(spec, value)| match spec.opposite {
        Some(opposite) if value == Value::Switch(false) => opposite,
        _ => spec.name,
    })
}

/// Refuses end-of-sequence ids that are no tokens.
fn check_eos(request: &Request, vocab: usize) -> Result<(), GenerationError> {
    let ids = request.eos_token_id.iter().flatten().filter(|_| request.ignore_eos != Some(true));
    match ids.copied().find(|&id| id as usize >= vocab) {
        Some(id) => Err(OutOfRange::new("eos_token_id", format!("below the vocabulary size {vocab}"), id).into()),
        None => Ok(()),
    }
}

/// Refuses values of generation_config.json that cannot be used, where they would be.
fn check_used(request: &Request, settings: &Settings, model: &Model) -> Result<(), GenerationError> {
    let beams = settings.uses_beams();
    let drawn = !beams && settings.options.sampling.do_sample;
    let drawing_given = asks_for_drawing(request).is_some();
    let is_used = |spec: &Spec| match spec.effect {
        _ if spec.given(request).is_some() => false,
        _ if spec.name == specs::num_beams.name => !drawing_given,
        _ if spec.name == specs::do_sample.name => !beams && !drawing_given,
        _ if spec.name == specs::eos_token_id.name => request.ignore_eos != Some(true),
        Effect::Always => true,
        Effect::Drawing | Effect::OnlyDrawing => drawn,
        Effect::Beams => beams,
    };
    let mut used = options::in_help_order().filter(|spec| is_used(spec));
    match used.find_map(|spec| Some((spec.name, model.generation.problem(spec.name)?))) {
        Some((key, problem)) => Err(GenerationError::ModelOption { problem: problem.to_owned(), key }),
        None => Ok(()),
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

/// How much of the past is to count, as a caller says it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Past {
    /// How much counts in full, where older tokens fade.
    pub context: Option<Context>,
    /// Time constant of the fading, in tokens.
    pub forget_tau: Option<f64>,
    /// Length of a sliding window, in tokens.
    pub window: Option<u32>,
}

impl Past {
    /// What this means for a model; what is not given is the model's.
    ///
    /// # Errors
    /// [`GenerationError`] for a time constant that is not finite and above 0, or that has no context to go with;
    /// for an empty window, and for one beside a context.
    pub fn forgetting(self, config: &Config) -> Result<Forgetting, GenerationError> {
        let Self { context: given, forget_tau: tau, window } = self;
        match window {
            Some(0) => return Err(OutOfRange::new("window", "above 0", 0).into()),
            Some(_) if given.is_some() || tau.is_some() => return Err(GenerationError::WindowAndContext),
            Some(tokens) => return Ok(Forgetting::Window { tokens }),
            None => {}
        }
        if let Some(tau) = tau.filter(|tau| !(tau.is_finite() && *tau > 0.0)) {
            return Err(OutOfRange::new("forget_tau", "finite and above 0", tau).into());
        }
        let context = match given {
            Some(Context::Full) => None,
            Some(Context::After(context)) => Some(context),
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
