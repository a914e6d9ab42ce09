//! How to generate, as `generate` and `interactive` are told.

use super::args;
use super::failure::Failure;
use bdh_gpu::generation::{Request, Settings};
use bdh_gpu::model::{EarlyStopping, Model};
use clap::{Args, ValueEnum};

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

impl From<When> for EarlyStopping {
    fn from(when: When) -> Self {
        match when {
            When::True => Self::WhenEnoughEnded,
            When::False => Self::WhenUnlikely,
            When::Never => Self::Never,
        }
    }
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
        let Self { length, drawing, beams } = self;
        let request = Request {
            max_new_tokens: length.max_new_tokens,
            min_new_tokens: length.min_new_tokens,
            stop: length.stop.clone(),
            eos_token_ids: length.eos_token_id.clone(),
            ignore_eos: length.ignore_eos,
            do_sample: drawing.greedy.then_some(false),
            temperature: drawing.temperature,
            top_k: drawing.top_k,
            top_p: drawing.top_p,
            min_p: drawing.min_p,
            repetition_penalty: drawing.repetition_penalty,
            presence_penalty: drawing.presence_penalty,
            frequency_penalty: drawing.frequency_penalty,
            seed: drawing.seed,
            num_beams: beams.num_beams,
            length_penalty: beams.length_penalty,
            early_stopping: beams.early_stopping.map(EarlyStopping::from),
        };
        Ok(Settings::new(&request, model)?)
    }
}
