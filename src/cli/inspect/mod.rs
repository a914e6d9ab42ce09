//! `bdh-gpu inspect`: which neurons fire, and what they do.
//!
//! | file | holds |
//! | --- | --- |
//! | `edits` | what changes where neurons are edited or tokens are forgotten |
//! | `text` | the neurons of a text: table, JSON lines, NumPy archive, page |
//! | `concept` | neurons and synapses that tell two kinds of text apart |
//! | `corpus` | the atlas of a corpus |
//! | `reading` | what one token reads |
//! | `rows` | a token as a row of the table, or as an object |

mod concept;
mod corpus;
mod edits;
mod reading;
mod rows;
mod text;

use self::concept::ConceptArgs;
use self::corpus::CorpusArgs;
use self::edits::EditArgs;
pub use self::rows::Rows;
use self::text::TextArgs;
pub use self::text::{unwritable, write_file};
use super::args::{ContextArgs, DeviceArgs, ModelArgs};
use super::failure::Failure;
use super::output::Notices;
use super::settings::SettingsArgs;
use bdh_gpu::generation::{Bdh, GenerationOptions};
use bdh_gpu::inspect::{self, PageText};
use bdh_gpu::model::Model;
use bdh_gpu::model::forgetting::Forgetting;
use clap::{Args, ValueHint};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  bdh-gpu inspect --prompt \"To be or not to be\"
  bdh-gpu inspect --prompt-file play.txt --html play.html
  bdh-gpu inspect --prompt-file play.txt --npz play.npz --format jsonl --top 16 > play.jsonl
  bdh-gpu inspect --prompt \"To be\" --device gpu --top 3
  bdh-gpu inspect --prompt-file play.txt --at 57
  bdh-gpu inspect --corpus shakespeare.txt --output atlas
  bdh-gpu inspect --prompt \"KING:\" --ablate 2.310 --clamp 0.7=1.5 --seed 1
  bdh-gpu inspect --concept questions.txt --against statements.txt --top 10

A neuron fires where its activation u is above 0, in the arithmetic of the device that runs the
model. Its name is HEAD.INDEX: weights are shared, so it is the same neuron in every layer. The gate
g is u times what attention lets through. Counts are of each layer, the first on the left; surprise
is in bits. docs/inspector.md explains the page, the archive and the rest.";

/// Show which neurons fire, and what they do
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Inspect {
    #[command(flatten)]
    text: TextArgs,
    #[command(flatten)]
    corpus: CorpusArgs,
    #[command(flatten)]
    concept: ConceptArgs,
    #[command(flatten)]
    edits: EditArgs,
    /// Names of neurons for pages, a JSON file: {"h.i": {"name": …, "note": …, "score": …}}
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Output")]
    labels: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    notices: Notices,
}

/// A model that can be watched, and what goes with it.
pub struct Watched<'a> {
    pub bdh: Bdh,
    pub forgetting: Forgetting,
    pub labels: Map<String, Value>,
    pub notices: &'a Notices,
}

/// One kind of work, and what it needs.
enum Work<'a> {
    Text(Vec<u32>),
    Edits { tokens: Vec<u32>, options: GenerationOptions },
    Atlas([&'a Path; 2]),
    Concept([Vec<Vec<u32>>; 2]),
}

impl Inspect {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        self.check()?;
        let model = self.model.load(&self.notices)?;
        let labels = self.labels.as_deref().map_or(Ok(Map::new()), |path| read_labels(path, &model))?;
        let forgetting = self.context.forgetting(&model.config)?;
        self.device.check(forgetting)?;
        let work = match (self.corpus.given(), self.concept.given()) {
            (Some(paths), _) => Work::Atlas(paths),
            (None, Some(files)) => Work::Concept(concept::read(files, &model)?),
            (None, None) if self.edits.is_given() => {
                let mut options = self.settings.settings(&model)?.options;
                // The same on both sides.
                options.seed = options.seed.or(Some(0));
                Work::Edits { tokens: self.text.read(&model)?, options }
            }
            (None, None) => Work::Text(self.text.read(&model)?),
        };
        let bdh = self.device.open_watchable(model, &self.notices)?;
        let watched = Watched { bdh, forgetting, labels, notices: &self.notices };
        match work {
            Work::Edits { tokens, options } => {
                self.edits.run(&watched, &tokens, &options, self.text.top(), self.text.is_jsonl())
            }
            Work::Text(tokens) => self.text.run(&watched, &tokens),
            Work::Atlas([corpus, folder]) => self.corpus.run(&watched, corpus, folder),
            Work::Concept(texts) => concept::run(&watched, texts, self.text.top(), self.text.is_jsonl()),
        }
    }

    /// Refuses to begin without work, with two kinds of it, or with files that cannot be written.
    fn check(&self) -> Result<(), Failure> {
        let given = [
            (self.text.is_given(), "--prompt, --prompt-file or --tokens"),
            (self.corpus.given().is_some(), "--corpus"),
            (self.concept.given().is_some(), "--concept"),
        ];
        let mut given = given.into_iter().filter(|(given, _)| *given).map(|(_, name)| name);
        if let (Some(first), Some(second)) = (given.next(), given.next()) {
            return Err(Failure::Usage(format!("{first} and {second} are different kinds of work; give one of them")));
        }
        if self.edits.is_given() && (!self.text.is_given() || self.text.has_more()) {
            let what = "give them with a text, and without --at, --npz and --html";
            return Err(Failure::Usage(format!(
                "--ablate, --clamp and --forget compare two readings of a text; {what}"
            )));
        }
        if self.corpus.given().is_none() && self.concept.given().is_none() { self.text.check() } else { Ok(()) }
    }
}

impl Watched<'_> {
    /// Text of a page.
    fn page_text(&self, title: String) -> PageText {
        page_text(title, self.labels.clone())
    }
}

/// Text of a page.
pub fn page_text(title: String, labels: Map<String, Value>) -> PageText {
    PageText { title, command: Some(command_line()), labels }
}

/// A file of names.
fn read_labels(path: &Path, model: &Model) -> Result<Map<String, Value>, Failure> {
    let bytes = super::input::read_file(path)?;
    let wrong = |what: String| Failure::Failed(format!("{}: {what}", path.display()));
    let labels = serde_json::from_slice(&bytes).map_err(|error| wrong(format!("is not JSON ({error})")))?;
    inspect::labels(labels, &model.config).map_err(|error| wrong(error.to_string()))
}

/// The command as it was given, quoted for a shell.
fn command_line() -> String {
    let plain =
        |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=:,@".contains(c));
    let quoted = |word: String| if plain(&word) { word } else { format!("'{}'", word.replace('\'', r"'\''")) };
    let words = std::env::args_os().skip(1).map(|word| quoted(word.to_string_lossy().into_owned()));
    std::iter::once("bdh-gpu".to_string()).chain(words).collect::<Vec<_>>().join(" ")
}
