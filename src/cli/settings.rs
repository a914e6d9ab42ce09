//! How to generate, as `generate` and `interactive` are told.

use super::args;
use super::failure::Failure;
use bdh_gpu::generation::{BeamOptions, GenerationOptions};
use bdh_gpu::model::{EarlyStopping, Model};
use clap::{Args, ValueEnum};

/// The options in effect.
#[derive(Clone, Debug)]
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
    pub fn validate(&self) -> Result<(), Failure> {
        self.options.validate()?;
        Ok(self.beam_options(1).validate()?)
    }
}

/// How much to write.
#[derive(Debug, Args)]
#[command(next_help_heading = "Length")]
pub struct LengthArgs {
    /// Tokens to generate at most [default: 100]
    #[arg(short = 'n', long, value_name = "N", value_parser = args::whole::<usize>, allow_hyphen_values = true)]
    max_new_tokens: Option<usize>,
    /// Tokens to generate before an end-of-sequence token may come [default: 0]
    #[arg(long, value_name = "N", value_parser = args::whole::<u32>, allow_hyphen_values = true)]
    min_new_tokens: Option<u32>,
    /// End the text before this one, which is left out; repeatable
    #[arg(long, value_name = "TEXT", value_parser = stop_text, allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Tokens that end the text, instead of the model's own; repeatable, or separated by commas
    #[arg(
        long,
        value_name = "ID",
        value_parser = args::whole::<u32>,
        value_delimiter = ',',
        allow_hyphen_values = true
    )]
    eos_token_id: Vec<u32>,
    /// Write on past every end-of-sequence token
    #[arg(long, conflicts_with = "eos_token_id")]
    ignore_eos: bool,
}

fn stop_text(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("expected a text that is not empty".to_string()) } else { Ok(text.to_string()) }
}

/// How each token is chosen.
#[derive(Debug, Args)]
#[command(next_help_heading = "Choosing tokens")]
pub struct DrawingArgs {
    /// Divide the logits by T, 0 or more: below 1 is safer, above 1 wilder, 0 greedy [default: 1]
    #[arg(long, value_name = "T", value_parser = args::number, allow_hyphen_values = true)]
    temperature: Option<f32>,
    /// Draw from the K likeliest tokens; 0 is all [default: 0]
    #[arg(long, value_name = "K", value_parser = args::whole::<u32>, allow_hyphen_values = true)]
    top_k: Option<u32>,
    /// Draw from the likeliest tokens that make up this share of the probability, above 0, up to 1
    /// [default: 1]
    #[arg(long, value_name = "P", value_parser = args::number, allow_hyphen_values = true)]
    top_p: Option<f32>,
    /// Draw from tokens with at least this share of the likeliest one's probability, 0 to 1 [default: 0]
    #[arg(long, value_name = "P", value_parser = args::number, allow_hyphen_values = true)]
    min_p: Option<f32>,
    /// Make tokens of the prompt and the text less likely (above 1) or more (below 1); above 0
    /// [default: 1]
    #[arg(long, value_name = "R", value_parser = args::number, allow_hyphen_values = true)]
    repetition_penalty: Option<f32>,
    /// Taken off the logit of every token already generated [default: 0]
    #[arg(long, value_name = "A", value_parser = args::number, allow_hyphen_values = true)]
    presence_penalty: Option<f32>,
    /// Taken off a token's logit for each time it was generated [default: 0]
    #[arg(long, value_name = "A", value_parser = args::number, allow_hyphen_values = true)]
    frequency_penalty: Option<f32>,
    /// Always take the likeliest token
    #[arg(long)]
    greedy: bool,
    /// Seed of the random numbers [default: a new one each time, reported]
    #[arg(long, value_name = "SEED", value_parser = args::whole::<u64>, allow_hyphen_values = true)]
    seed: Option<u64>,
}

/// How beam search goes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Beam search")]
pub struct BeamArgs {
    /// Follow the N likeliest texts, 1 to 1024, instead of drawing; 1 is no search [default: 1]
    #[arg(long, value_name = "N", value_parser = args::whole::<usize>, allow_hyphen_values = true)]
    num_beams: Option<usize>,
    /// Divide a text's log-probability by its length to this power: above 0 favours long texts
    /// [default: 1]
    #[arg(long, value_name = "A", value_parser = finite, allow_hyphen_values = true)]
    length_penalty: Option<f64>,
    /// When to stop looking: as soon as enough texts have ended (true), when better ones are unlikely
    /// (false) or impossible (never) [default: false]
    #[arg(long, value_name = "WHEN", value_enum, num_args = 0..=1, default_missing_value = "true")]
    early_stopping: Option<When>,
}

/// [`EarlyStopping`] as the command line spells it.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum When {
    True,
    False,
    Never,
}

fn finite(text: &str) -> Result<f64, String> {
    let finite = text.parse().ok().filter(|number: &f64| number.is_finite());
    finite.ok_or_else(|| "expected a finite number".to_string())
}

/// How to generate.
#[derive(Debug, Args)]
pub struct SettingsArgs {
    #[command(flatten)]
    length: LengthArgs,
    #[command(flatten)]
    drawing: DrawingArgs,
    #[command(flatten)]
    beams: BeamArgs,
}

impl SettingsArgs {
    /// The options in effect: the command line's over the model's over the built-in ones.
    pub fn settings(&self, model: &Model) -> Result<Settings, Failure> {
        let mut settings = Settings::of_model(model);
        self.length.apply(&mut settings.options, model.config.vocab_size)?;
        self.drawing.apply(&mut settings.options);
        let asks_for_drawing = self.drawing.asks_for_drawing();
        if let Some(num_beams) = self.beams.num_beams {
            settings.num_beams = num_beams;
            if let (true, Some(option)) = (num_beams > 1, asks_for_drawing) {
                return Err(Failure::Usage(format!(
                    "--{option} has no place in beam search, which draws nothing; leave out --{option} or --num-beams"
                )));
            }
        } else if asks_for_drawing.is_some() {
            // The model's own beams give way to what was asked for here.
            settings.num_beams = 1;
        }
        set(&mut settings.length_penalty, self.beams.length_penalty);
        let early_stopping = self.beams.early_stopping.map(|when| match when {
            When::True => EarlyStopping::WhenEnoughEnded,
            When::False => EarlyStopping::WhenUnlikely,
            When::Never => EarlyStopping::Never,
        });
        set(&mut settings.early_stopping, early_stopping);
        settings.validate()?;
        if !settings.uses_beams() && (self.beams.length_penalty.is_some() || self.beams.early_stopping.is_some()) {
            return Err(Failure::Usage(
                "--length-penalty and --early-stopping are for beam search; give --num-beams N, above 1, too"
                    .to_string(),
            ));
        }
        Ok(settings)
    }
}

impl LengthArgs {
    fn apply(&self, options: &mut GenerationOptions, vocab: usize) -> Result<(), Failure> {
        set(&mut options.max_new_tokens, self.max_new_tokens);
        set(&mut options.sampling.min_new_tokens, self.min_new_tokens);
        options.stop.clone_from(&self.stop);
        if self.ignore_eos {
            options.eos_token_ids.clear();
        } else if !self.eos_token_id.is_empty() {
            if let Some(id) = self.eos_token_id.iter().find(|&&id| id as usize >= vocab) {
                return Err(Failure::Usage(format!(
                    "--eos-token-id must be below the vocabulary size {vocab}, got {id}"
                )));
            }
            options.eos_token_ids.clone_from(&self.eos_token_id);
        }
        Ok(())
    }
}

impl DrawingArgs {
    /// The first option given that decides how tokens are drawn.
    fn asks_for_drawing(&self) -> Option<&'static str> {
        let given = [
            ("temperature", self.temperature.is_some()),
            ("top-k", self.top_k.is_some()),
            ("top-p", self.top_p.is_some()),
            ("min-p", self.min_p.is_some()),
            ("greedy", self.greedy),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(name, _)| name)
    }

    fn apply(&self, options: &mut GenerationOptions) {
        let sampling = &mut options.sampling;
        sampling.do_sample = (sampling.do_sample || self.asks_for_drawing().is_some()) && !self.greedy;
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
