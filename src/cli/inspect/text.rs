//! The neurons of a text.

use super::rows::Rows;
use super::{Watched, reading};
use crate::cli::failure::Failure;
use crate::cli::input::{self, TokenSource};
use crate::cli::output::Output;
use bdh_gpu::files::{self, PendingFile};
use bdh_gpu::generation::GenerationError;
use bdh_gpu::inspect::{self, Expectation, Trace};
use bdh_gpu::model::Model;
use clap::{Args, ValueEnum, ValueHint};
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// The text, and what to make of it.
#[derive(Debug, Args)]
pub struct TextArgs {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    output: OutputArgs,
}

/// The text: exactly one of these.
#[derive(Debug, Args)]
#[group(multiple = false)]
#[command(next_help_heading = "Input (one of these)")]
struct Source {
    /// The text
    #[arg(short, long, value_name = "TEXT", alias = "text", allow_hyphen_values = true)]
    prompt: Option<OsString>,
    /// A file that holds the text; - is standard input
    #[arg(short = 'f', long, value_name = "FILE", alias = "file", value_hint = ValueHint::FilePath)]
    prompt_file: Option<PathBuf>,
    /// Token ids, separated by spaces or commas, or @FILE to read them from a file
    #[arg(long, value_name = "IDS|@FILE", allow_hyphen_values = true)]
    tokens: Option<TokenSource>,
}

/// Form of the output.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// Print a table, or a JSON object per token with the strongest neurons of each layer [default:
    /// table, unless a file is written]
    #[arg(long, value_name = "FORMAT", value_enum)]
    format: Option<Format>,
    /// Neurons to name, those with the largest gates: of all layers in the table, of each in JSON
    #[arg(long, value_name = "K", default_value_t = 4)]
    top: usize,
    /// Print what the token at this position reads instead, layer by layer: the past tokens that it
    /// comes from, and the synapses from neuron to neuron
    #[arg(long, value_name = "T")]
    at: Option<usize>,
    /// Write all neurons as sparse matrices, in NumPy's format (.npz)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    npz: Option<PathBuf>,
    /// Write a page that opens in a browser, one file that needs no network
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    html: Option<PathBuf>,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Jsonl,
}

impl TextArgs {
    /// Refuses to begin without a text, or with files that cannot be written.
    pub fn check(&self) -> Result<(), Failure> {
        if !self.is_given() {
            return Err(no_text());
        }
        for path in [&self.output.npz, &self.output.html].into_iter().flatten() {
            drop(PendingFile::create(path).map_err(|error| unwritable(path, &error))?);
        }
        Ok(())
    }

    /// Neurons to name.
    pub fn top(&self) -> usize {
        self.output.top
    }

    /// Whether more than rows is asked for.
    pub fn has_more(&self) -> bool {
        let OutputArgs { at, npz, html, .. } = &self.output;
        at.is_some() || npz.is_some() || html.is_some()
    }

    /// Whether JSON lines are asked for.
    pub fn is_jsonl(&self) -> bool {
        self.output.format == Some(Format::Jsonl)
    }

    /// Whether there is a text.
    pub fn is_given(&self) -> bool {
        let Source { prompt, prompt_file, tokens } = &self.source;
        prompt.is_some() || prompt_file.is_some() || tokens.is_some()
    }

    /// The tokens of the text.
    pub fn read(&self, model: &Model) -> Result<Vec<u32>, Failure> {
        let tokens = match &self.source {
            Source { prompt: Some(text), .. } => input::encode(text.as_encoded_bytes(), model),
            Source { prompt_file: Some(path), .. } => input::encode(&input::read_file(path)?, model),
            Source { tokens: Some(source), .. } => source.read(&model.config),
            _ => Err(no_text()),
        }?;
        if tokens.is_empty() { Err(GenerationError::EmptyPrompt.into()) } else { Ok(tokens) }
    }

    /// Reads the text and writes what was asked for.
    pub fn run(&self, watched: &Watched, tokens: &[u32]) -> Result<(), Failure> {
        let OutputArgs { format, top, at, npz, html } = &self.output;
        if let Some(position) = at {
            reading::run(watched, tokens, *position, *top, self.is_jsonl())?;
        }
        let format = match at {
            Some(_) => None,
            None => format.or((!self.has_more()).then_some(Format::Table)),
        };
        if format.is_some() || npz.is_some() {
            self.trace(watched, tokens, format, *top)?;
        }
        if let Some(path) = html {
            let title = match &self.source.prompt_file {
                Some(path) => path.display().to_string(),
                None => watched.bdh.decode(&tokens[..tokens.len().min(40)]),
            };
            let bar = watched.notices.progress("Making the page", 2 * tokens.len());
            let text = watched.page_text(title);
            let page = inspect::text_page(&watched.bdh, tokens, watched.forgetting, &text, |read| {
                bar.set_position(read as u64);
                ControlFlow::Continue(())
            });
            bar.finish_and_clear();
            write_file(path, page?.as_bytes())?;
            watched.notices.say(format_args!("{}: a page of {} tokens", path.display(), tokens.len()));
        }
        Ok(())
    }

    /// Prints rows and writes the archive.
    fn trace(&self, watched: &Watched, tokens: &[u32], format: Option<Format>, top: usize) -> Result<(), Failure> {
        let Watched { bdh, forgetting, notices, .. } = watched;
        let mut trace = self.output.npz.as_ref().map(|path| (path, Trace::new(bdh)));
        let mut output = Output::new();
        let rows = Rows::new(bdh, top, output.is_terminal());
        let bar = if format.is_none() { Some(notices.progress("Reading", tokens.len())) } else { None };
        let (mut expected, mut read) = (Expectation::default(), 0);
        if format == Some(Format::Table) {
            output.line(rows.heading())?;
        }
        bdh.watch_text(tokens, *forgetting, |token, logits| {
            let surprise = expected.surprise(token.token);
            expected = Expectation::of(logits);
            match format {
                Some(Format::Table) => output.line(rows.row(&token, surprise))?,
                Some(Format::Jsonl) => output.json(&rows.object(&token, surprise))?,
                None => {}
            }
            if let Some((_, trace)) = &mut trace {
                trace.push(&token, surprise);
            }
            read += 1;
            bar.iter().for_each(|bar| bar.set_position(read));
            Ok::<_, Failure>(ControlFlow::Continue(()))
        })?;
        bar.iter().for_each(|bar| bar.finish_and_clear());
        if let Some((path, trace)) = trace {
            trace.write_npz(path).map_err(|error| unwritable(path, &error))?;
            notices.say(format_args!("{}: the neurons of {} tokens", path.display(), tokens.len()));
        }
        Ok(())
    }
}

fn no_text() -> Failure {
    Failure::Usage("no text: give --prompt TEXT, --prompt-file FILE (- is standard input) or --tokens IDS".to_string())
}

/// Writes a whole file, which takes its place when it is complete.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    files::write(path, bytes).map_err(|error| unwritable(path, &error))
}

pub fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("{}: cannot be written: {error}", path.display()))
}
