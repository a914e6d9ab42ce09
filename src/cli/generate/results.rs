//! Finished texts on their way out: blocks, plain text or JSON, to standard output or a file.

use crate::cli::failure::Failure;
use crate::cli::output::Output;
use bdh_gpu::files::PendingFile;
use bdh_gpu::generation::FinishReason;
use bdh_gpu::tokenizer::TextStream;
use std::io::Write;
use std::path::{Path, PathBuf};

/// How texts are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The text and a line end.
    Plain,
    /// `Prompt: …` and `Generated: …`, blank lines between texts.
    Blocks,
    /// One JSON object on a line.
    Jsonl,
}

/// A finished text.
#[derive(Clone, Debug)]
pub struct Text<'a> {
    /// The prompt's text.
    pub prompt: &'a str,
    /// What turns the new tokens into text.
    pub stream: &'a TextStream,
    /// Index among the prompt's texts.
    pub index: usize,
    /// The new tokens.
    pub tokens: &'a [u32],
    /// Text after them: what a token has before the stop text within it.
    pub tail: &'a str,
    /// Why there are no more.
    pub finish_reason: FinishReason,
    /// The seed it was drawn with, if it was drawn.
    pub seed: Option<u64>,
    /// The score that beam search gave it.
    pub score: Option<f64>,
}

/// Where results go.
pub enum Target {
    /// Standard output.
    Stdout(Output),
    /// A file, which takes its place in the end.
    File { file: PendingFile, path: PathBuf },
}

impl Target {
    /// Standard output, or the file named.
    pub fn open(path: Option<&Path>) -> Result<Self, Failure> {
        match path {
            None => Ok(Self::Stdout(Output::new())),
            Some(path) => match PendingFile::create(path) {
                Ok(file) => Ok(Self::File { file, path: path.to_owned() }),
                Err(error) => Err(unwritable(path, &error)),
            },
        }
    }

    /// Whether a person is looking.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Stdout(output) if output.is_terminal())
    }

    /// Writes text; on standard output it is seen at once.
    pub fn write(&mut self, text: &str) -> Result<(), Failure> {
        match self {
            Self::Stdout(output) => output.write(text),
            Self::File { file, path } => file.write_all(text.as_bytes()).map_err(|error| unwritable(path, &error)),
        }
    }

    /// Puts the file in its place.
    pub fn commit(self) -> Result<(), Failure> {
        match self {
            Self::Stdout(_) => Ok(()),
            Self::File { file, path } => file.commit().map_err(|error| unwritable(&path, &error)),
        }
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("{}: cannot be written: {error}", path.display()))
}

/// Writes texts in one layout.
pub struct Results {
    pub target: Target,
    pub layout: Layout,
    /// Whether texts begin with their prompts.
    pub echo: bool,
    /// Whether the model has texts, and not token ids alone.
    pub has_text: bool,
    /// How many texts have been written.
    pub written: usize,
}

impl Results {
    /// Writes the next text.
    pub fn write(&mut self, text: &Text<'_>) -> Result<(), Failure> {
        let shown = match self.layout {
            Layout::Plain => self.body(&text.split()) + "\n",
            Layout::Blocks => {
                let gap = if self.written > 0 { "\n" } else { "" };
                let split = text.split();
                format!("{gap}Prompt: {}\nGenerated: {}\n", split.0, self.body(&split))
            }
            Layout::Jsonl => format!("{}\n", self.object(text)),
        };
        self.written += 1;
        self.target.write(&shown)
    }

    /// A prompt and what follows it, as the text format shows them.
    fn body(&self, (prompt, text): &(String, String)) -> String {
        if self.echo { format!("{prompt}{text}") } else { text.clone() }
    }

    fn object(&self, text: &Text<'_>) -> serde_json::Value {
        let (prompt, new) = if self.has_text { text.split() } else { Default::default() };
        let shown = |text: String| self.has_text.then_some(text);
        serde_json::json!({
            "prompt": shown(prompt),
            "index": text.index,
            "text": shown(new),
            "tokens": text.tokens,
            "finish_reason": text.finish_reason.to_string(),
            "seed": text.seed,
            "score": text.score,
        })
    }
}

impl Text<'_> {
    /// The prompt and what follows it: two parts of one text.
    fn split(&self) -> (String, String) {
        let text = self.stream.clone().text(self.tokens) + self.tail;
        if self.tokens.is_empty() && self.tail.is_empty() {
            // A character that the prompt ends in the midst of stays with it.
            return (self.prompt.to_owned() + &text, String::new());
        }
        (self.prompt.to_owned(), text)
    }
}
