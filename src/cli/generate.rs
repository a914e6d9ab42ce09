//! `bdh-gpu generate`: continue a text.

use super::args::{self, ContextArgs, DeviceArgs, ModelArgs};
use super::failure::Failure;
use super::format;
use super::input::{self, TokenSource};
use super::interrupt::Writing;
use super::output::{Notices, Output};
use bdh_gpu::generation::{Bdh, FinishReason, GenerationOptions};
use bdh_gpu::model::Model;
use bdh_gpu::model::forgetting::Forgetting;
use bdh_gpu::tokenizer::TextStream;
use clap::{Args, ValueEnum, ValueHint};
use std::ffi::OsString;
use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A model that names no trained context and forgets nothing is likely to be lost past this position.
const ADVISED_CONTEXT: u64 = 1024;

const ADVICE: &str = "note: the text has passed position 1,024, and this model does not say what context it was trained \
    with; if the text loses its thread, --context N lets everything older than about N tokens fade";

const EXAMPLES: &str = "\
Examples:
  bdh-gpu generate --prompt \"To be or not to be\"
  bdh-gpu generate --prompt \"KING:\" --seed 7 --temperature 0.7 --top-p 0.95
  bdh-gpu generate --prompt \"KING:\" --greedy --max-new-tokens 50 --no-echo
  bdh-gpu generate --prompt-file play.txt --format jsonl > next.jsonl
  echo -n \"O Romeo\" | bdh-gpu generate --prompt-file -
  bdh-gpu generate --tokens \"75 73 78 71 58\" --device cpu

Options given here win over the model's generation_config.json, which wins over the defaults shown.
--temperature, --top-k, --top-p and --min-p ask for drawing where the model's default is greedy.
The same seed draws the same text. Ctrl-C stops the text, a second one the program.";

/// Continue a text
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Generate {
    #[command(flatten)]
    prompt: PromptArgs,
    #[command(flatten)]
    length: LengthArgs,
    #[command(flatten)]
    drawing: DrawingArgs,
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
}

/// How much to write.
#[derive(Debug, Args)]
#[command(next_help_heading = "Length")]
struct LengthArgs {
    /// Tokens to generate at most [default: 100]
    #[arg(short = 'n', long, value_name = "N", value_parser = args::whole::<usize>, allow_hyphen_values = true)]
    max_new_tokens: Option<usize>,
    /// Tokens to generate before an end-of-sequence token may come [default: 0]
    #[arg(long, value_name = "N", value_parser = args::whole::<u32>, allow_hyphen_values = true)]
    min_new_tokens: Option<u32>,
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

/// How each token is chosen.
#[derive(Debug, Args)]
#[command(next_help_heading = "Choosing tokens")]
struct DrawingArgs {
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

/// What to print.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
struct OutputArgs {
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
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Text,
    Jsonl,
}

impl Generate {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        self.prompt.check()?;
        let model = self.model.load(&self.notices)?;
        let mut options = self.options(&model)?;
        let forgetting = self.context.forgetting(&model.config)?;
        let prompt = self.prompt.read(&model)?;
        let bdh = self.device.open(model, &self.notices)?;
        if options.seed.is_none() {
            // 32 bits are short to type, and exact in every JSON reader.
            let seed = rand::random::<u32>();
            options.seed = Some(seed.into());
            if !options.sampling.is_greedy() {
                self.notices.say(format_args!("seed {seed} (--seed {seed} repeats this text)"));
            }
        }
        self.notices.detail(format_args!("options: {}", format::generation_options(&options)));
        let advice = (forgetting == Forgetting::Full && self.context.context.is_none()).then_some(ADVICE);
        let (bdh, prompt, options) = (&bdh, &prompt[..], &options);
        let run = Run { bdh, prompt, options, forgetting, notices: &self.notices, advice, discreet: false };
        match self.output.format {
            Format::Text => self.write_text(run),
            Format::Jsonl => self.write_jsonl(run),
        }
    }

    /// The options in effect: the command line's over the model's over the built-in ones.
    fn options(&self, model: &Model) -> Result<GenerationOptions, Failure> {
        let mut options = GenerationOptions::of_model(model);
        let LengthArgs { max_new_tokens, min_new_tokens, eos_token_id, ignore_eos } = &self.length;
        set(&mut options.max_new_tokens, *max_new_tokens);
        set(&mut options.sampling.min_new_tokens, *min_new_tokens);
        if *ignore_eos {
            options.eos_token_ids.clear();
        } else if !eos_token_id.is_empty() {
            let vocab = model.config.vocab_size;
            if let Some(id) = eos_token_id.iter().find(|&&id| id as usize >= vocab) {
                return Err(Failure::Usage(format!(
                    "--eos-token-id must be below the vocabulary size {vocab}, got {id}"
                )));
            }
            options.eos_token_ids.clone_from(eos_token_id);
        }
        self.drawing.apply(&mut options);
        options.validate()?;
        Ok(options)
    }

    fn write_text(&self, run: Run<'_>) -> Result<(), Failure> {
        let output = Output::new();
        let live = self.output.stream || (!self.output.no_stream && output.is_terminal());
        let run = Run { discreet: live && std::io::stderr().is_terminal(), ..run };
        let mut writer = TextWriter { output, stream: run.bdh.text_stream(), text: String::new(), live };
        let echo = if self.output.no_echo { &[] } else { run.prompt };
        let mut begun = false;
        let result = run.generate(|event| match event {
            Event::PromptRead => {
                begun = true;
                writer.push(echo)
            }
            Event::Tokens(tokens) => writer.push(tokens),
        });
        if begun && !matches!(result, Err(Failure::ClosedPipe)) {
            // What there is of the text comes out, also after an interrupt or a failure.
            writer.finish()?;
        }
        self.conclude(result?)
    }

    fn write_jsonl(&self, run: Run<'_>) -> Result<(), Failure> {
        let mut tokens = Vec::new();
        let outcome = run.generate(|event| {
            if let Event::Tokens(new) = event {
                tokens.extend_from_slice(new);
            }
            Ok(())
        })?;
        Output::new().json(&serde_json::json!({
            "prompt": run.bdh.decode(run.prompt),
            "index": 0,
            "text": run.bdh.decode(&tokens),
            "tokens": tokens,
            "finish_reason": outcome.finish_reason.to_string(),
            "seed": run.options.seed,
            "score": null,
        }))?;
        self.conclude(outcome)
    }

    /// Says what is left to say after a text.
    fn conclude(&self, outcome: Outcome) -> Result<(), Failure> {
        if let Some(advice) = outcome.advice {
            self.notices.say(advice);
        }
        let Outcome { reading, writing, tokens, .. } = outcome;
        self.notices.detail(format_args!(
            "prompt read in {:.2} s, {} tokens generated in {:.2} s ({:.1} tokens/s)",
            reading.as_secs_f64(),
            tokens,
            writing.as_secs_f64(),
            tokens as f64 / writing.as_secs_f64().max(1e-9)
        ));
        if outcome.interrupted { Err(Failure::Interrupted) } else { Ok(()) }
    }
}

impl PromptArgs {
    /// The prompt's tokens; none stand for a start from nothing.
    fn read(&self, model: &Model) -> Result<Vec<u32>, Failure> {
        match self {
            Self { prompt: Some(text), .. } => input::encode(text.as_encoded_bytes(), model),
            Self { prompt_file: Some(path), .. } => input::encode(&input::read_file(path)?, model),
            Self { tokens: Some(source), .. } => source.read(&model.config),
            _ => Err(no_prompt()),
        }
    }

    /// Refuses a command line without a prompt, before any work starts.
    fn check(&self) -> Result<(), Failure> {
        let given = self.prompt.is_some() || self.prompt_file.is_some() || self.tokens.is_some();
        if given { Ok(()) } else { Err(no_prompt()) }
    }
}

fn no_prompt() -> Failure {
    Failure::Usage(
        "no prompt: give --prompt TEXT, --prompt-file FILE (- is standard input) or --tokens IDS; \
         --prompt \"\" starts from nothing"
            .to_string(),
    )
}

impl DrawingArgs {
    fn apply(&self, options: &mut GenerationOptions) {
        let sampling = &mut options.sampling;
        let drawing =
            self.temperature.is_some() || self.top_k.is_some() || self.top_p.is_some() || self.min_p.is_some();
        sampling.do_sample = (sampling.do_sample || drawing) && !self.greedy;
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

/// Text on its way out.
struct TextWriter {
    output: Output,
    stream: TextStream,
    /// What is ready but not yet written.
    text: String,
    /// Write text as it comes.
    live: bool,
}

impl TextWriter {
    fn push(&mut self, tokens: &[u32]) -> Result<(), Failure> {
        for &token in tokens {
            self.stream.push(token, &mut self.text);
        }
        if self.live { self.flush() } else { Ok(()) }
    }

    /// Ends the text with a line end.
    fn finish(&mut self) -> Result<(), Failure> {
        self.stream.finish(&mut self.text);
        self.text.push('\n');
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let written = self.output.write(&self.text);
        self.text.clear();
        written
    }
}

/// What happens in a generation.
enum Event<'a> {
    /// The model knows the prompt; text begins.
    PromptRead,
    /// New tokens.
    Tokens(&'a [u32]),
}

/// One generation.
#[derive(Clone, Copy)]
struct Run<'a> {
    bdh: &'a Bdh,
    prompt: &'a [u32],
    options: &'a GenerationOptions,
    forgetting: Forgetting,
    notices: &'a Notices,
    /// What to say once a text gets long, if anything.
    advice: Option<&'static str>,
    /// Keep standard error out of a text that appears on the same terminal.
    discreet: bool,
}

/// How a generation went.
struct Outcome {
    finish_reason: FinishReason,
    interrupted: bool,
    /// Number of new tokens.
    tokens: usize,
    reading: Duration,
    writing: Duration,
    /// What is still to be said.
    advice: Option<&'static str>,
}

impl Run<'_> {
    /// Generates; `sink` hears of everything as it happens, and ends the run where it fails.
    fn generate(&self, mut sink: impl FnMut(Event<'_>) -> Result<(), Failure>) -> Result<Outcome, Failure> {
        let mut outcome = Outcome {
            finish_reason: FinishReason::Length,
            interrupted: false,
            tokens: 0,
            reading: Duration::ZERO,
            writing: Duration::ZERO,
            advice: None,
        };
        if self.options.max_new_tokens == 0 {
            sink(Event::PromptRead)?;
            return Ok(outcome);
        }
        let mut session = self.bdh.session(self.forgetting)?;
        let start = Instant::now();
        let bar = self.notices.progress("Reading the prompt", self.prompt.len());
        let read = session.feed(self.prompt, |read| {
            bar.set_position(read as u64);
            ControlFlow::Continue(())
        });
        bar.finish_and_clear();
        read?;
        outcome.reading = start.elapsed();

        let mut position = session.position();
        let mut advice = self.advice;
        let mut advise = |position| {
            if position > ADVISED_CONTEXT && !self.discreet {
                advice.take().inspect(|advice| self.notices.say(advice));
            }
        };
        advise(position);
        let writing = Writing::begin();
        sink(Event::PromptRead)?;
        let start = Instant::now();
        let mut sunk = Ok(());
        let generated = session.generate(self.options, |tokens| {
            position += tokens.len() as u64;
            advise(position);
            sunk = sink(Event::Tokens(tokens));
            if sunk.is_err() || writing.interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        sunk?;
        outcome.writing = start.elapsed();
        outcome.tokens = generated.tokens.len();
        outcome.finish_reason = generated.finish_reason;
        outcome.interrupted = generated.finish_reason == FinishReason::Stop;
        outcome.advice = advice.filter(|_| position > ADVISED_CONTEXT);
        Ok(outcome)
    }
}
