//! `bdh-gpu interactive`: a conversation at a prompt.
//!
//! | file | holds |
//! | --- | --- |
//! | `commands` | the commands' names and help, and what a line asks for |
//! | `conversation` | the state on the device, and the turns that can be taken back |
//! | `file_names` | names of files as they are typed |
//! | `lines` | where lines come from: a terminal or a pipe |
//! | `turns` | where a turn ends |
//! | `values` | settings: shown, and changed |

pub(super) mod commands;
mod conversation;
mod file_names;
mod lines;
pub(super) mod turns;
pub(super) mod values;

use self::commands::Line;
use self::conversation::{Conversation, Ended};
use self::lines::{Input, Lines, Terminal};
use self::turns::Turns;
use super::args::{self, CheckArgs, ContextArgs, DeviceArgs, ModelArgs};
use super::failure::{self, Failure};
use super::format;
use super::interrupt::Writing;
use super::output::{Notices, Output};
use super::settings::SettingsArgs;
use bdh_gpu::generation::Settings;
use bdh_gpu::generation::{Bdh, GenerationError};
use bdh_gpu::model::Model;
use bdh_gpu::model::forgetting::Forgetting;
use bdh_gpu::verify::Start;
use clap::Args;
use std::io::IsTerminal;
use std::path::Path;

const EXAMPLES: &str = "\
Examples:
  bdh-gpu interactive
  bdh-gpu interactive --temperature 0.7 --max-new-tokens 500 --seed 1
  bdh-gpu interactive --turns line
  bdh-gpu interactive --stop QUEEN: --stop ROMEO:
  bdh-gpu interactive --model models/bdh-shakespeare --device cpu
  printf 'KING:\\n/temp 0.5\\nQUEEN:\\n' | bdh-gpu interactive --quiet

The model goes on with what is typed, up to an empty line unless --turns says otherwise; the
conversation is one text that grows from turn to turn. Enter alone lets it write on. Alt-Enter, or a
backslash at the end of a line, begins another line. At the prompt, /help lists the commands:
settings, /undo, /retry, /save, /load and more. Ctrl-C stops a text, Ctrl-D ends the program. Lines
that come from a pipe are read one by one.";

/// Write a text together, turn by turn
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Interactive {
    #[command(flatten)]
    settings: SettingsArgs,
    /// End a turn at a line end, at an empty line (paragraph), or only at --max-new-tokens
    /// (length); stop texts end it instead
    #[arg(long, value_name = "WHERE", value_enum, default_value_t, help_heading = "Length")]
    turns: Turns,
    /// Accepted for the sake of habit: text always appears as it comes
    #[arg(long, hide = true)]
    stream: bool,
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

impl Interactive {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        let model = self.model.load(&self.notices)?;
        let (mut settings, forgetting) = self.settings_for(&model)?;
        self.device.check(forgetting)?;
        model.tokenizer.check().map_err(GenerationError::from)?;
        settings.options.seed.get_or_insert_with(|| rand::random::<u32>().into());
        let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let bdh = if terminal {
            self.device.open_silently(model, &self.notices)?
        } else {
            self.device.open(model, &self.notices)?
        };
        args::note_context(&bdh, forgetting, &self.notices);
        let start = Start {
            prompt: &[],
            sampling: &settings.options.sampling,
            seed: settings.options.seed.unwrap_or_default(),
            forgetting,
            beam: settings.uses_beams().then(|| settings.beam_options(1)),
        };
        self.check.run(&bdh, &start, &self.notices)?;
        let mut output = Output::new();
        if terminal && !self.notices.is_quiet() {
            output.write(&banner(&bdh))?;
        }
        let lines = if terminal {
            let coloured = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            Lines::Terminal(Box::new(Terminal::new(coloured)?))
        } else {
            Lines::Pipe(std::io::stdin().lock())
        };
        let conversation = Conversation::new(bdh, forgetting)?;
        let writing = Writing::hold();
        let (turns, notices) = (self.turns, self.notices);
        Loop { conversation, settings, turns, output, notices, terminal, writing, device_failed: false }.run(lines)
    }
}

impl Interactive {
    /// What the options mean for a model: the settings, and how much of the past counts.
    pub fn settings_for(&self, model: &Model) -> Result<(Settings, Forgetting), Failure> {
        Ok((self.settings.settings(model)?, self.context.forgetting(&model.config)?))
    }
}

fn banner(bdh: &Bdh) -> String {
    let parameters = format::short(bdh.model().config.parameters() as u64);
    format!(
        "BDH Interactive Generation\nModel: {} ({parameters} parameters) on {}\n\
         Type 'quit' to exit, 'help' for commands\n",
        bdh.model().name,
        bdh.device()
    )
}

/// The loop.
struct Loop {
    conversation: Conversation,
    settings: Settings,
    turns: Turns,
    output: Output,
    notices: Notices,
    /// Whether a person sits at the other end.
    terminal: bool,
    writing: Writing,
    /// Whether a turn was lost to the device: that shows in the exit code.
    device_failed: bool,
}

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Line,
    End,
}

impl Loop {
    fn run(mut self, mut lines: Lines) -> Result<(), Failure> {
        let mut asked = false;
        loop {
            if self.terminal {
                // A Ctrl-C that comes just as a text ends must not end the program.
                self.writing.restart();
            }
            let input = lines.next()?;
            let line = match input {
                Input::Line(line) => line,
                Input::End => return self.end(),
                Input::Discarded => {
                    asked = false;
                    continue;
                }
                Input::Interrupted if asked => return Err(Failure::Interrupted),
                Input::Interrupted => {
                    asked = true;
                    self.output.line("Press Ctrl-C again to exit, or type 'quit'")?;
                    continue;
                }
            };
            asked = false;
            match self.line(&line) {
                Ok(Next::Line) => {}
                Ok(Next::End) => return self.end(),
                Err(Failure::Usage(message) | Failure::Failed(message)) => failure::complain(&message),
                Err(Failure::Device(message)) => {
                    self.device_failed = true;
                    failure::complain(&message);
                }
                Err(failure) => return Err(failure),
            }
            if let Some(failover) = self.conversation.take_failover() {
                self.notices.say(format_args!("note: {failover}"));
            }
        }
    }

    fn end(&self) -> Result<(), Failure> {
        if self.device_failed { Err(Failure::Reported) } else { Ok(()) }
    }

    fn line(&mut self, line: &[u8]) -> Result<Next, Failure> {
        let text = String::from_utf8_lossy(line);
        match commands::parse(&text) {
            // In a pipe, blank lines part the others.
            Line::Blank if !self.terminal => {}
            Line::Blank => {
                let seed = self.seed();
                self.turn(Vec::new(), seed)?;
            }
            Line::Text(_) => {
                let prompt = self.conversation.encode(line, self.turns)?;
                let seed = self.seed();
                self.turn(prompt, seed)?;
            }
            Line::Command("quit", _) => return Ok(Next::End),
            Line::Command(name, argument) => self.command(name, argument)?,
            Line::Unknown(word, closest) => return Err(Failure::Usage(commands::unknown(word, closest))),
        }
        Ok(Next::Line)
    }

    fn command(&mut self, name: &str, argument: &str) -> Result<(), Failure> {
        match name {
            "help" => self.output.write(&commands::help()),
            "settings" => {
                let text = values::all(&self.settings, self.turns, self.conversation.forgetting());
                self.output.write(&text)
            }
            "stats" => self.stats(),
            "reset" => {
                self.conversation.reset()?;
                self.say("Conversation forgotten")
            }
            "undo" => {
                self.conversation.undo()?;
                self.say(&format!("Took back one turn; at position {}", self.conversation.position()))
            }
            "retry" => {
                let (prompt, seed) = self.conversation.undo()?;
                self.turn(prompt, seed.wrapping_add(1))
            }
            "save" | "load" if argument.is_empty() => {
                Err(Failure::Usage(format!("/{name} needs the name of a file, as in /{name} talk.state")))
            }
            "save" => {
                let path = file_names::read(argument);
                self.conversation.save(&path)?;
                self.say(&format!("Saved to {} at position {}", path.display(), self.conversation.position()))
            }
            "load" => {
                let typed = Path::new(argument);
                let path = if typed.exists() { typed.to_owned() } else { file_names::read(argument) };
                if let Some(seed) = self.conversation.load(&path, &self.notices)? {
                    self.settings.options.seed = Some(seed);
                }
                self.say(&format!("Loaded {}; at position {}", path.display(), self.conversation.position()))
            }
            _ if argument.is_empty() => {
                let value = self.show(name);
                self.output.line(value)
            }
            "turns" => {
                self.turns = values::turns(argument)?;
                self.changed(name)
            }
            "context" => {
                let forgetting = values::context(argument)?;
                self.conversation.set_forgetting(forgetting)?;
                self.changed(name)
            }
            _ => {
                self.settings = values::changed(&self.settings, name, argument)?;
                self.changed(name)
            }
        }
    }

    /// Says what a setting is now.
    fn changed(&mut self, name: &str) -> Result<(), Failure> {
        let value = self.show(name);
        self.say(&value)
    }

    /// A setting.
    fn show(&self, name: &str) -> String {
        values::show(name, &self.settings, self.turns, self.conversation.forgetting())
    }

    /// Says something that only a person wants to know.
    fn say(&mut self, text: &str) -> Result<(), Failure> {
        if self.terminal { self.output.line(text) } else { Ok(()) }
    }

    fn seed(&self) -> u64 {
        self.settings.options.seed.unwrap_or_default()
    }

    /// Goes on with what was typed.
    fn turn(&mut self, prompt: Vec<u32>, seed: u64) -> Result<(), Failure> {
        self.writing.restart();
        let (mut stream, mut text) = (self.conversation.continuation(&prompt), String::new());
        let (turns, output) = (self.turns, &mut self.output);
        let ended = self.conversation.turn(prompt, &self.settings, turns, seed, &self.writing, &mut |tokens, tail| {
            text.push_str(&(stream.take(tokens) + tail));
            // Line ends wait for what follows them: those at the end of a turn are not shown.
            let line_ends = text.split_off(text.trim_end_matches('\n').len());
            output.write(&std::mem::replace(&mut text, line_ends))
        });
        if !self.terminal {
            // At rest, a Ctrl-C ends a program that reads from a pipe.
            self.writing.end();
        }
        if !matches!(ended, Err(Failure::ClosedPipe)) {
            let by_line = turns != Turns::Length && self.settings.options.stop.is_empty();
            if by_line && matches!(ended, Ok(Ended::Complete)) {
                text.clear();
            }
            stream.finish(&mut text);
            self.output.write(&(text + "\n"))?;
        }
        match ended? {
            Ended::Complete => Ok(()),
            Ended::Cut if turns == Turns::Length => Ok(()),
            Ended::Cut => self.say("(max_tokens reached; Enter writes on)"),
            Ended::Stopped if self.terminal => self.say("(stopped)"),
            Ended::TakenBack if self.terminal => self.say("(stopped before the text began; the turn is taken back)"),
            // A script's Ctrl-C is meant for the program.
            Ended::Stopped | Ended::TakenBack => Err(Failure::Interrupted),
        }
    }

    fn stats(&mut self) -> Result<(), Failure> {
        let stats = self.conversation.stats;
        let (turns, bytes) = self.conversation.kept();
        let bdh = self.conversation.bdh();
        let last = match stats.last {
            None => "none".to_string(),
            Some((tokens, seconds)) => {
                let seed = stats.seed.map_or(String::new(), |seed| format!(", seed {seed}"));
                format!("{tokens} tokens, {:.1} tokens/s{seed}", tokens as f64 / seconds.max(1e-9))
            }
        };
        self.output.write(&format::pairs(&[
            ("position", format::thousands(self.conversation.position())),
            ("tokens", format!("{} read, {} generated", stats.read, stats.generated)),
            ("last turn", last),
            (
                "state",
                format!(
                    "{} on {}",
                    format::bytes(bdh.backend().state_type().state_bytes(&bdh.model().config)),
                    self.conversation.device()
                ),
            ),
            ("undo", format!("{turns} turns kept, {}", format::bytes(bytes))),
        ]))
    }
}
