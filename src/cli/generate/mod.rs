//! `bdh-gpu generate`: continue texts.
//!
//! | file | holds |
//! | --- | --- |
//! | `single` | one text, streamed, from a state to a state |
//! | `many` | several prompts or several texts, side by side |
//! | `trace` | the neurons of one text, in a file |
//! | `results` | finished texts: layouts, standard output, files |

mod many;
mod results;
mod single;
mod trace;

use self::many::Job;
use self::results::{Layout, Results, Target};
use self::single::{Event, Outcome, Run, TextWriter};
use self::trace::{Form, Seen, TraceFile};
use super::advice;
use super::args::{self, CheckArgs, ContextArgs, DeviceArgs, ModelArgs};
use super::failure::Failure;
use super::format;
use super::input::{self, Prompts, TokenSource};
use super::interrupt::Writing;
use super::output::Notices;
use super::settings::SettingsArgs;
use bdh_gpu::files::PendingFile;
use bdh_gpu::generation::Settings;
use bdh_gpu::generation::{Bdh, FinishReason, Session, Snapshot};
use bdh_gpu::model::Model;
use bdh_gpu::model::forgetting::Forgetting;
use bdh_gpu::numpy::{self, Numbers};
use bdh_gpu::verify::Start;
use clap::{Args, ValueEnum, ValueHint};
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// A model that names no trained context and forgets nothing is likely to be lost past this position.
pub const ADVISED_CONTEXT: u64 = 512;

pub const ADVICE: &str = "note: the text has passed position 512, and this model does not say what context it was trained \
    with; if the text loses its thread, --context N lets everything older than about N tokens fade";

const EXAMPLES: &str = "\
Examples:
  bdh-gpu generate --prompt \"To be or not to be\"
  bdh-gpu generate --prompt \"KING:\" --seed 7 --temperature 0.7 --top-p 0.95
  bdh-gpu generate --prompt \"KING:\" --greedy --max-new-tokens 50 --no-echo
  bdh-gpu generate --prompt \"KING:\" --stop \"QUEEN:\" --stop \"ROMEO:\"
  bdh-gpu generate --prompt \"KING:\" --stop $'\\n\\n'    (bash, zsh: up to an empty line)
  bdh-gpu generate --prompt \"KING:\" --num-beams 4 --num-return-sequences 2
  bdh-gpu generate --prompt-file play.txt --format jsonl > next.jsonl
  bdh-gpu generate --prompts prompts.txt --output texts.txt --num-return-sequences 3
  echo -n \"O Romeo\" | bdh-gpu generate --prompt-file -
  bdh-gpu generate --tokens \"75 73 78 71 58\" --device cpu
  bdh-gpu generate --prompt \"Act I\" --save-state act1.state
  bdh-gpu generate --load-state act1.state --max-new-tokens 500
  bdh-gpu generate --prompt \"To be or \" --max-new-tokens 0 --logits next.npy
  bdh-gpu generate --prompt \"KING:\" --device gpu --check

Options given here win over the model's generation_config.json, which wins over the defaults shown.
--temperature, --top-k, --top-p and --min-p ask for drawing where the model's default is greedy.
The same seed draws the same text. Ctrl-C stops the text, a second one the program.";

/// Continue a text, or many
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Generate {
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    state: StateArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    check: CheckArgs,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    notices: Notices,
}

/// What to continue: exactly one of these.
#[derive(Debug, Args)]
#[group(multiple = false)]
#[command(next_help_heading = "Prompt (one of these)")]
struct PromptArgs {
    /// The text to continue; an empty one starts from nothing
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<OsString>,
    /// A file that holds the text to continue, byte for byte; - is standard input
    #[arg(short = 'f', long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    prompt_file: Option<PathBuf>,
    /// Token ids to continue, separated by spaces or commas, or @FILE to read them from a file
    #[arg(long, value_name = "IDS|@FILE", allow_hyphen_values = true)]
    tokens: Option<TokenSource>,
    /// A file with a text to continue on each line, blank lines aside; - is standard input
    #[arg(
        long,
        value_name = "FILE",
        value_hint = ValueHint::FilePath,
        conflicts_with_all = ["save_state", "load_state", "logits", "trace"]
    )]
    prompts: Option<PathBuf>,
}

/// What to print.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
    /// Texts for each prompt, above 0 [default: 1]
    #[arg(long, value_name = "N", value_parser = sequences, allow_hyphen_values = true)]
    num_return_sequences: Option<usize>,
    /// Print text as it comes [default: on a terminal]
    #[arg(long, overrides_with = "no_stream")]
    stream: bool,
    /// Print the text when it is complete
    #[arg(long, overrides_with = "stream")]
    no_stream: bool,
    /// Leave the prompt out
    #[arg(long)]
    no_echo: bool,
    /// text, or one JSON object per line, printed when the text is complete
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    format: Format,
    /// Write to this file instead, which keeps its old content until everything is complete; - is
    /// standard output
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "stream")]
    output: Option<PathBuf>,
}

/// Where a text begins and what it leaves behind.
#[derive(Debug, Args)]
#[command(next_help_heading = "State")]
struct StateArgs {
    /// Go on from a state that --save-state or /save wrote; without a prompt, where it stopped
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    load_state: Option<PathBuf>,
    /// Write the state after the text, to go on from later
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    save_state: Option<PathBuf>,
    /// Write the logits of the token that comes after the text, float32 [V], in NumPy's format
    /// (.npy)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    logits: Option<PathBuf>,
    /// Write which neurons fire at every token of the text, to a file that ends in .jsonl, .npz or
    /// .html; not one token changes by that
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    trace: Option<TraceFile>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Text,
    Jsonl,
}

fn sequences(text: &str) -> Result<usize, String> {
    match args::whole(text)? {
        0 => Err("expected a whole number above 0".to_string()),
        count => Ok(count),
    }
}

impl Generate {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        if self.state.load_state.is_none() {
            self.prompt.check()?;
        }
        let model = self.model.load(&self.notices)?;
        let (mut settings, sequences, forgetting) = self.settings_for(&model)?;
        if self.state.load_state.is_none() {
            self.device.check(forgetting)?;
        }
        if self.output.format == Format::Text || !settings.options.stop.is_empty() {
            self.check_text(&model)?;
        }
        let mut prompts = self.prompt.read(&model)?;
        if let Some(path) = &self.state.save_state {
            // Better now than after the text.
            drop(PendingFile::create(path).map_err(|error| unwritable_state(path, &error))?);
        }
        if let Some(path) = &self.state.logits {
            drop(PendingFile::create(path).map_err(|error| unwritable_logits(path, &error))?);
        }
        if let Some(TraceFile { path, .. }) = &self.state.trace {
            drop(PendingFile::create(path).map_err(|error| super::inspect::unwritable(path, &error))?);
        }
        let bdh = match self.state.trace {
            None => self.device.open(model, &self.notices)?,
            Some(_) => self.device.open_watchable(model, &self.notices)?,
        };
        args::note_context(&bdh, forgetting, &self.notices);
        let session = if self.uses_session(&settings, sequences) {
            Some(self.session(&bdh, forgetting, &mut settings)?)
        } else {
            None
        };
        if let (Some(session), Some(text)) = (&session, prompts.texts.first().and_then(Option::as_ref)) {
            // A text that goes on with a state's is not read as the first of its kind.
            prompts.tokens[0] = session.encode(text.as_bytes())?;
        }
        if settings.options.seed.is_none() && !settings.uses_beams() && prompts.tokens.len() < 2 {
            // 32 bits are short to type, and exact in every JSON reader.
            let seed = rand::random::<u32>();
            settings.options.seed = Some(seed.into());
            if !settings.options.sampling.is_greedy() {
                self.notices.say(format_args!("seed {seed} (--seed {seed} repeats this text)"));
            }
        }
        self.notices.detail(format_args!("options: {}", format::settings(&settings)));
        let start = Start {
            prompt: prompts.tokens.first().map_or(&[], Vec::as_slice),
            sampling: &settings.options.sampling,
            seed: settings.options.seed.unwrap_or_default(),
            forgetting,
            beam: settings.uses_beams().then(|| settings.beam_options(sequences)),
        };
        self.check.run(&bdh, &start, &self.notices)?;
        match session {
            Some(session) => self.one(&bdh, session, &prompts, &settings, sequences),
            None => self.many(&bdh, &prompts, &settings, sequences, forgetting),
        }
    }

    /// Refuses to write texts for a model that has none.
    fn check_text(&self, model: &Model) -> Result<(), Failure> {
        model.tokenizer.check().map_err(|error| {
            let jsonl = if self.output.format == Format::Text { " with --tokens and --format jsonl" } else { "" };
            Failure::Usage(format!("{}{jsonl}", advice::encode(&error)))
        })
    }

    /// What the options mean for a model: the settings, the texts for each prompt, and how much of the past counts.
    pub fn settings_for(&self, model: &Model) -> Result<(Settings, usize, Forgetting), Failure> {
        let settings = self.settings.settings(model)?;
        let sequences = self.sequences(model, &settings)?;
        Ok((settings, sequences, self.context.forgetting(&model.config)?))
    }

    /// Texts for each prompt.
    fn sequences(&self, model: &Model, settings: &Settings) -> Result<usize, Failure> {
        let given = self.output.num_return_sequences;
        let several = given.is_some_and(|count| count > 1);
        let state = &self.state;
        if several && state.save_state.is_some() {
            return Err(Failure::Usage(
                "--save-state saves one text's state; leave out --num-return-sequences".to_string(),
            ));
        }
        if several && state.logits.is_some() {
            return Err(Failure::Usage(
                "--logits are those after one text; leave out --num-return-sequences".to_string(),
            ));
        }
        if several && state.load_state.is_some() && !settings.uses_beams() {
            return Err(Failure::Usage(
                "--load-state goes on with one text; leave out --num-return-sequences, or add --num-beams".to_string(),
            ));
        }
        let one = state.needs_session();
        if state.trace.is_some() && (several || settings.uses_beams()) {
            let what = "leave out --num-return-sequences and --num-beams";
            return Err(Failure::Usage(format!("--trace is of one text that is drawn; {what}")));
        }
        if state.load_state.is_some() && state.trace.as_ref().is_some_and(|file| file.form == Form::Page) {
            let what = "write .jsonl or .npz, or leave out --load-state";
            return Err(Failure::Usage(format!("--trace: a page begins with the text's first token; {what}")));
        }
        let of_model = model.generation.num_return_sequences.filter(|_| !one);
        let sequences = given.or(of_model).unwrap_or(1);
        if settings.uses_beams() {
            settings.beam_options(sequences).validate()?;
        }
        Ok(sequences)
    }

    /// Whether there is one text that a session writes.
    fn uses_session(&self, settings: &Settings, sequences: usize) -> bool {
        self.state.needs_session() || (self.prompt.prompts.is_none() && sequences == 1 && !settings.uses_beams())
    }

    /// A session, empty or from a state.
    fn session(&self, bdh: &Bdh, forgetting: Forgetting, settings: &mut Settings) -> Result<Session, Failure> {
        let Some(path) = &self.state.load_state else { return Ok(bdh.session_with(forgetting)?) };
        let snapshot = Snapshot::load(bdh, path)?;
        args::note_conversion(path, &snapshot, bdh, &self.notices);
        let mut session = bdh.session_with(snapshot.forgetting())?;
        session.restore(&snapshot)?;
        if self.context.is_given() {
            session.set_forgetting(forgetting)?;
        }
        self.notices.detail(format_args!("{}: at position {}", path.display(), session.position()));
        if !self.prompt.is_given() && settings.options.seed.is_none() {
            // The text goes on as if it had never stopped.
            settings.options.seed = session.seed();
        }
        Ok(session)
    }

    /// Writes one text as it comes, or the texts of a beam search from a state.
    fn one(
        &self,
        bdh: &Bdh,
        mut session: Session,
        prompts: &Prompts,
        settings: &Settings,
        sequences: usize,
    ) -> Result<(), Failure> {
        let prompt = &prompts.tokens[0];
        let mut stream = session.text_stream();
        let shown = stream.begin(prompt, prompts.texts[0].as_deref());
        let advice = session.forgetting() == Forgetting::Full && self.context.context.is_none();
        let notices = &self.notices;
        let advice = advice.then_some(ADVICE);
        let mut run = Run { prompt, shown, stream, settings, sequences, notices, advice, discreet: false };
        // An output file that has been started is tidied up after a Ctrl-C.
        let writing = if self.output.file().is_some() { Writing::begin() } else { Writing::hold() };
        let mut results = self.results(sequences, bdh)?;
        let mut written = Vec::new();
        let seen = self.state.trace.as_ref().map(|_| Seen::watch(&mut session));
        let outcome = if settings.options.max_new_tokens == 0 {
            let read = match self.state {
                StateArgs { save_state: None, logits: None, trace: None, .. } => Ok(()),
                _ => run.read(&mut session, &writing).map(drop),
            };
            read.and_then(|()| self.write_nothing(&run, &mut results)).map(|()| None)
        } else if settings.uses_beams() {
            run.search(&mut session, &writing, &mut results).map(Some)
        } else if results.layout == Layout::Jsonl {
            write_object(&run, &mut session, &writing, &mut written, &mut results).map(Some)
        } else {
            let live = self.output.stream || (!self.output.no_stream && results.target.is_terminal());
            run.discreet = live && std::io::stderr().is_terminal();
            write_text(&run, &mut session, &writing, &mut written, &mut results, live).map(Some)
        };
        if let Err(failure @ Failure::Device(_)) = outcome {
            if self.output.file().is_some() {
                notices.say(format_args!("failed after {} tokens{}", written.len(), self.unchanged()));
            }
            writing.end();
            return Err(failure);
        }
        if let Some(failover) = session.take_failover() {
            notices.say(format_args!("note: {failover}"));
        }
        let outcome = outcome?;
        if let Some((file, seen)) = self.state.trace.as_ref().zip(seen) {
            session.unwatch();
            file.write(bdh, &session, &seen)?;
            notices.say(format_args!("{}: the neurons of the text", file.path.display()));
        }
        if let Some(path) = &self.state.save_state {
            session.snapshot()?.save(bdh, path)?;
            notices.say(format_args!("{}: state saved at position {}", path.display(), session.position()));
        }
        if let Some(path) = &self.state.logits {
            let logits = session.next_logits()?;
            numpy::write_npy(path, &[logits.len()], Numbers::F32(&logits))
                .map_err(|error| unwritable_logits(path, &error))?;
            notices.say(format_args!("{}: logits saved at position {}", path.display(), session.position()));
        }
        self.conclude(outcome, results)
    }

    fn write_nothing(&self, run: &Run<'_>, results: &mut Results) -> Result<(), Failure> {
        results.write(&run.text(&[], "", FinishReason::Length))
    }

    /// Writes several texts, each when it is complete.
    fn many(
        &self,
        bdh: &Bdh,
        prompts: &Prompts,
        settings: &Settings,
        sequences: usize,
        forgetting: Forgetting,
    ) -> Result<(), Failure> {
        let notices = &self.notices;
        let texts = prompts.tokens.len().saturating_mul(sequences);
        if let (Some(path), 0) = (&self.prompt.prompts, texts) {
            notices.say(format_args!("note: {} holds no prompts; one is expected on each line", path.display()));
        }
        // From here on, what has been started is tidied up after a Ctrl-C.
        let writing = Writing::begin();
        let mut results = self.results(sequences, bdh)?;
        let job = Job { bdh, prompts, settings, sequences, forgetting, notices };
        let outcome = job.run(&mut results, &writing).inspect_err(|failure| {
            if let Failure::Device(_) = failure {
                notices.say(format_args!("failed after {} of {texts} texts{}", results.written, self.unchanged()));
            }
        })?;
        if outcome.interrupted {
            notices.say(format_args!("interrupted after {} of {texts} texts{}", outcome.written, self.unchanged()));
            return Err(Failure::Interrupted);
        }
        results.target.commit()?;
        match outcome.failed {
            0 => Ok(()),
            failed => Err(Failure::Failed(format!("{failed} of {texts} texts failed; the others are complete"))),
        }
    }

    fn results(&self, sequences: usize, bdh: &Bdh) -> Result<Results, Failure> {
        let layout = match self.output.format {
            Format::Jsonl => Layout::Jsonl,
            Format::Text if self.prompt.prompts.is_some() || sequences > 1 => Layout::Blocks,
            Format::Text => Layout::Plain,
        };
        let target = Target::open(self.output.file())?;
        Ok(Results { target, layout, echo: !self.output.no_echo, has_text: bdh.check_text().is_ok(), written: 0 })
    }

    /// Says what is left to say after a text.
    fn conclude(&self, outcome: Option<Outcome>, results: Results) -> Result<(), Failure> {
        let Some(outcome) = outcome else { return results.target.commit() };
        if let Some(advice) = outcome.advice {
            self.notices.say(advice);
        }
        let Outcome { reading, writing, tokens, .. } = outcome;
        self.notices.detail(format_args!(
            "prompt read in {:.2} s, {} tokens generated in {:.2} s ({:.1} tokens/s), finished by {}",
            reading.as_secs_f64(),
            tokens,
            writing.as_secs_f64(),
            tokens as f64 / writing.as_secs_f64().max(1e-9),
            outcome.finish_reason
        ));
        if outcome.interrupted {
            if self.output.file().is_some() {
                self.notices.say(format_args!("interrupted after {tokens} tokens{}", self.unchanged()));
            }
            return Err(Failure::Interrupted);
        }
        results.target.commit()
    }

    /// What to say of an output file after an interruption.
    fn unchanged(&self) -> String {
        self.output.file().map_or(String::new(), |path| format!("; {} is as it was", path.display()))
    }
}

/// Writes a text as it comes or when it is complete.
fn write_text(
    run: &Run<'_>,
    session: &mut Session,
    writing: &Writing,
    written: &mut Vec<u32>,
    results: &mut Results,
    live: bool,
) -> Result<Outcome, Failure> {
    let echo = if results.echo { &run.shown[..] } else { "" };
    let mut writer = TextWriter::new(&mut results.target, run.stream.clone(), live);
    let mut begun = false;
    let outcome = run.generate(session, writing, written, |event| match event {
        Event::PromptRead => {
            begun = true;
            writer.begin(echo)
        }
        Event::Tokens(tokens) => writer.push(tokens),
    });
    if begun && !matches!(outcome, Err(Failure::ClosedPipe)) {
        // What there is of the text comes out, also after an interrupt or a failure.
        writer.finish(outcome.as_ref().map_or("", |outcome| &outcome.tail))?;
    }
    outcome
}

/// Writes a text as a JSON object.
fn write_object(
    run: &Run<'_>,
    session: &mut Session,
    writing: &Writing,
    written: &mut Vec<u32>,
    results: &mut Results,
) -> Result<Outcome, Failure> {
    let mut begun = false;
    let outcome = run.generate(session, writing, written, |event| {
        begun |= matches!(event, Event::PromptRead);
        Ok(())
    });
    if begun {
        let finish_reason = outcome.as_ref().map_or(FinishReason::Error, |outcome| outcome.finish_reason);
        let tail = outcome.as_ref().map_or("", |outcome| &outcome.tail);
        results.write(&run.text(written, tail, finish_reason))?;
    }
    outcome
}

impl OutputArgs {
    /// The file to write to, if it is not standard output.
    fn file(&self) -> Option<&Path> {
        self.output.as_deref().filter(|path| *path != Path::new("-"))
    }
}

impl PromptArgs {
    /// The prompts; an empty one stands for a start from nothing, or for going on where a state stopped.
    fn read(&self, model: &Model) -> Result<Prompts, Failure> {
        match self {
            Self { prompts: Some(path), .. } => Prompts::read(path, model),
            Self { prompt: Some(text), .. } => Prompts::of_text(text.as_encoded_bytes(), model),
            Self { prompt_file: Some(path), .. } => {
                Prompts::of_text(input::without_mark(&input::read_file(path)?), model)
            }
            Self { tokens: Some(source), .. } => Ok(Prompts::of_tokens(source.read(&model.config)?)),
            _ => Ok(Prompts::of_tokens(Vec::new())),
        }
    }

    fn is_given(&self) -> bool {
        self.prompt.is_some() || self.prompt_file.is_some() || self.tokens.is_some() || self.prompts.is_some()
    }

    /// Refuses a command line without a prompt, before any work starts.
    fn check(&self) -> Result<(), Failure> {
        if self.is_given() {
            return Ok(());
        }
        Err(Failure::Usage(
            "no prompt: give --prompt TEXT, --prompt-file FILE (- is standard input), --tokens IDS or --prompts FILE; \
             --prompt \"\" starts from nothing"
                .to_string(),
        ))
    }
}

impl StateArgs {
    /// Whether there must be one session for one text.
    fn needs_session(&self) -> bool {
        self.load_state.is_some() || self.save_state.is_some() || self.logits.is_some()
    }
}

fn unwritable_logits(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("{}: the logits cannot be written: {error}", path.display()))
}

fn unwritable_state(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("{}: the state cannot be written: {error}", path.display()))
}
