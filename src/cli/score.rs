//! `bdh-gpu score`: how likely the model finds a text.

use super::args::{self, ContextArgs, DeviceArgs, ModelArgs};
use super::failure::Failure;
use super::format::{self, Report};
use super::input::{self, TokenSource};
use super::output::{Notices, Output};
use super::position_report;
use bdh_gpu::generation::{self, ByPosition};
use bdh_gpu::model::{Model, Tokenizer};
use clap::{Args, ValueEnum, ValueHint};
use serde_json::json;
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

const EXAMPLES: &str = "\
Examples:
  bdh-gpu score --text \"The king is dead.\"
  bdh-gpu score --file play.txt --blocks 2000
  bdh-gpu score --file play.txt --by-position
  bdh-gpu score --file play.txt --by-position=4096 --forget-tau 256 --format csv
  bdh-gpu score --file play.txt --context full --device cpu
  bdh-gpu score --tokens @ids.txt --format json

The whole input is one context. The first token has no prediction. Logarithms are natural; bits per
byte are the mean loss in base 2. The JSON object holds the log-probability of every token.

--by-position says how well tokens are predicted by their position: 0-255, 256-511, 512-1023, and so
on. A text that is cut into pieces gives several tokens for every position, and after ± the standard
error over the pieces.";

/// Say how likely the model finds a text
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Score {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    notices: Notices,
}

/// The text: exactly one of these.
#[derive(Debug, Args)]
#[group(multiple = false)]
#[command(next_help_heading = "Input (one of these)")]
pub struct InputArgs {
    /// The text
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    text: Option<OsString>,
    /// A file that holds the text; - is standard input
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// Token ids, separated by spaces or commas, or @FILE to read them from a file
    #[arg(long, value_name = "IDS|@FILE", allow_hyphen_values = true)]
    tokens: Option<TokenSource>,
}

/// What to print.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// How to print the result
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    format: Report,
    /// Print bits per token, or per byte, by position instead: of the text as one conversation, or with =N of pieces of
    /// N tokens, each a conversation of its own
    #[arg(long, value_name = "N", value_parser = args::whole::<usize>, num_args = 0..=1, require_equals = true,
        conflicts_with = "blocks", allow_hyphen_values = true)]
    by_position: Option<Option<usize>>,
    /// Also print the mean loss of each block of N predictions, N above 0
    #[arg(long, value_name = "N", value_parser = block_size, allow_hyphen_values = true)]
    blocks: Option<usize>,
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// Reads the size of a block.
pub fn block_size(text: &str) -> Result<usize, String> {
    match args::whole(text)? {
        0 => Err("expected a whole number above 0".to_string()),
        size => Ok(size),
    }
}

impl Score {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        self.input.check()?;
        self.output.check()?;
        let model = self.model.load(&self.notices)?;
        let forgetting = self.context.forgetting(&model.config)?;
        self.device.check(forgetting)?;
        let tokens = self.input.read(&model)?;
        generation::piece_length(tokens.len(), self.output.by_position.flatten())?;
        let bdh = self.device.open(model, &self.notices)?;
        let bar = self.notices.progress("Scoring", tokens.len());
        let start = Instant::now();
        let progress = |read: usize| {
            bar.set_position(read as u64);
            ControlFlow::Continue(())
        };
        let scored = match self.output.by_position {
            None => bdh.score(&tokens, forgetting, progress).map(Scored::Whole),
            Some(length) => bdh.score_by_position(&tokens, length, forgetting, progress).map(Scored::ByPosition),
        };
        bar.finish_and_clear();
        let scored = scored?;
        let time = start.elapsed().as_secs_f64();
        self.notices.detail(format_args!("{:.2} s ({:.1} tokens/s)", time, tokens.len() as f64 / time.max(1e-9)));
        match scored {
            Scored::Whole(score) => self.output.print(&score, &bdh.model().tokenizer),
            Scored::ByPosition(score) => position_report::print(&score, self.output.format, &self.notices),
        }
    }
}

/// What was computed.
enum Scored {
    Whole(generation::Score),
    ByPosition(ByPosition),
}

impl OutputArgs {
    /// Refuses a format that the result does not have.
    fn check(&self) -> Result<(), Failure> {
        match (self.format, self.by_position) {
            (Report::Csv, None) => Err(Failure::Usage("--format csv is for --by-position; use json".to_string())),
            _ => Ok(()),
        }
    }

    /// Prints the score of a whole text.
    fn print(&self, score: &generation::Score, tokenizer: &Tokenizer) -> Result<(), Failure> {
        let blocks = self.blocks.map(|size| (size, score.blocks(size)));
        if self.format == Report::Text {
            return Output::new().write(&report(score, tokenizer, blocks.as_ref()));
        }
        let mut object = json!({
            "tokens": score.tokens,
            "logprobs": score.logprobs,
            "total": score.total(),
            "perplexity": score.perplexity(),
            "bits_per_byte": are_bytes(&score.tokens, tokenizer).then(|| score.bits_per_token()),
        });
        if let Some((_, losses)) = blocks {
            object["blocks"] = losses.into();
        }
        Output::new().json(&object)
    }
}

impl InputArgs {
    /// The tokens of it.
    pub fn read(&self, model: &Model) -> Result<Vec<u32>, Failure> {
        match self {
            Self { text: Some(text), .. } => input::encode(text.as_encoded_bytes(), model),
            Self { file: Some(path), .. } => input::encode(&input::read_file(path)?, model),
            Self { tokens: Some(source), .. } => source.read(&model.config),
            _ => Err(no_input()),
        }
    }

    /// Refuses to begin without any.
    pub fn check(&self) -> Result<(), Failure> {
        let given = self.text.is_some() || self.file.is_some() || self.tokens.is_some();
        if given { Ok(()) } else { Err(no_input()) }
    }
}

fn no_input() -> Failure {
    Failure::Usage("no text: give --text TEXT, --file FILE (- is standard input) or --tokens IDS".to_string())
}

/// Whether every token is a byte, so that bits per token are bits per byte.
fn are_bytes(tokens: &[u32], tokenizer: &Tokenizer) -> bool {
    tokens.iter().all(|&token| tokenizer.byte(token).is_some())
}

/// The result for people.
fn report(score: &generation::Score, tokenizer: &Tokenizer, blocks: Option<&(usize, Vec<f64>)>) -> String {
    let unit = if are_bytes(&score.tokens, tokenizer) { "bits per byte" } else { "bits per token" };
    let mut text = format::pairs(&[
        ("tokens", format::thousands(score.tokens.len() as u64)),
        ("log-probability", format!("{:.4}", score.total())),
        ("perplexity", format!("{:.4}", score.perplexity())),
        (unit, format!("{:.4}", score.bits_per_token())),
    ]);
    if let Some((size, losses)) = blocks {
        let rows: Vec<[String; 3]> = losses
            .iter()
            .enumerate()
            .map(|(index, loss)| {
                let first = 1 + index * size;
                let last = (first - 1).saturating_add(*size).min(score.tokens.len() - 1);
                [format!("{first}-{last}"), format!("{loss:.4}"), format!("{:.4}", loss / std::f64::consts::LN_2)]
            })
            .collect();
        text.push('\n');
        text.push_str(&format::columns(["tokens", "loss", unit], &rows));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_every_prediction() {
        let score = generation::Score {
            tokens: vec![1, 2, 3, 300],
            logprobs: vec![None, Some(-1.0), Some(-1.0), Some(-2.0)],
            greedy: vec![None, Some(true), Some(true), Some(false)],
        };
        let text = report(&score, &Tokenizer::bytes(256), Some(&(2, score.blocks(2))));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "tokens           4");
        assert_eq!(lines[1], "log-probability  -4.0000");
        assert_eq!(lines[5..], ["tokens  loss    bits per token", "1-2     1.0000  1.4427", "3-3     2.0000  2.8854"]);
        let whole = report(&score, &Tokenizer::bytes(256), Some(&(usize::MAX, score.blocks(usize::MAX))));
        assert!(whole.contains("1-3 "), "{whole}");
    }
}
