//! The command line: one file per command.
//!
//! | file | holds |
//! | --- | --- |
//! | `generate`, `interactive`, `serve`, `score`, `needle`, `inspect`, `compare` | one command each: its options, and what it does |
//! | `verify`, `bench`, `info`, `devices`, `convert`, `merge`, `completions`, `man` | the same |
//! | `args`, `settings` | options that commands share: model, device and context; how to generate |
//! | `bench_report` | the tables of `bench` |
//! | `position_report` | the tables of `score --by-position` |
//! | `input` | prompts, texts and token lists, from the command line, files or standard input |
//! | `output` | standard output, and notices on standard error |
//! | `download_bar` | how far a model's download is |
//! | `failure` | why a command stopped, and the exit code for it |
//! | `advice` | the library's errors with options as flags, and with advice |
//! | `interrupt` | Ctrl-C |
//! | `format` | numbers and tables for people |
//!
//! Results go to standard output and everything else to standard error.

mod advice;
mod args;
mod bench;
mod bench_report;
mod compare;
mod completions;
mod convert;
mod devices;
mod download_bar;
mod failure;
mod format;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod generate;
mod info;
mod input;
mod inspect;
mod interactive;
mod interrupt;
mod man;
mod merge;
mod needle;
mod output;
mod position_report;
mod predict_report;
mod score;
#[cfg(feature = "server")]
mod serve;
mod settings;
mod verify;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use failure::Failure;
use std::ffi::OsString;
use std::process::ExitCode;

const ABOUT: &str = "Run Baby Dragon Hatchling (BDH) language models on the GPU or the CPU";

const EXAMPLES: &str = "\
Examples:
  bdh-gpu generate --prompt \"To be or not to be\"
  bdh-gpu generate --prompt \"KING:\" --max-new-tokens 500 --temperature 0.7 --seed 1
  bdh-gpu generate --prompts prompts.txt --output texts.txt --num-return-sequences 3
  bdh-gpu interactive
  bdh-gpu score --text \"The king is dead.\"
  bdh-gpu verify --device gpu

Without --model, the commands use the model inside the program. Results go to standard output,
everything else to standard error.

Exit codes: 0 done, 1 failed, 2 bad usage, 130 interrupted.";

/// The whole command line.
#[derive(Parser)]
#[command(
    name = "bdh-gpu",
    version,
    about = ABOUT,
    after_help = EXAMPLES,
    max_term_width = 100,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Generate(Box<generate::Generate>),
    Interactive(Box<interactive::Interactive>),
    #[cfg(feature = "server")]
    Serve(Box<serve::Serve>),
    Score(score::Score),
    Needle(needle::Needle),
    Inspect(Box<inspect::Inspect>),
    Compare(compare::Compare),
    Verify(verify::Verify),
    Bench(bench::Bench),
    Info(info::Info),
    Devices(devices::Devices),
    Completions(completions::Completions),
    Man(man::Man),
    Convert(convert::Convert),
    Merge(merge::Merge),
}

impl Command {
    /// Whether signals end it. A server has its own way to end.
    fn is_interrupted(&self) -> bool {
        #[cfg(feature = "server")]
        return !matches!(self, Self::Serve(_));
        #[cfg(not(feature = "server"))]
        true
    }

    fn run(&self) -> Result<(), Failure> {
        match self {
            Self::Generate(command) => command.run(),
            Self::Interactive(command) => command.run(),
            #[cfg(feature = "server")]
            Self::Serve(command) => command.run(),
            Self::Score(command) => command.run(),
            Self::Needle(command) => command.run(),
            Self::Inspect(command) => command.run(),
            Self::Compare(command) => command.run(),
            Self::Verify(command) => command.run(),
            Self::Bench(command) => command.run(),
            Self::Info(command) => command.run(),
            Self::Devices(command) => command.run(),
            Self::Completions(command) => command.run(),
            Self::Man(command) => command.run(),
            Self::Convert(command) => command.run(),
            Self::Merge(command) => command.run(),
        }
    }
}

/// Does what the command line says and returns the exit code. To be called once, before there are threads.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    quieten_vulkan();
    failure::quieten_caught_panics();
    let parsed = parser().try_get_matches_from(arguments).and_then(|matches| Cli::from_arg_matches(&matches));
    let result = match parsed {
        Ok(cli) => {
            if cli.command.is_interrupted() {
                interrupt::install();
            }
            cli.command.run()
        }
        Err(error) => Err(Failure::Arguments(error)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Without a desktop session, Mesa's device selection layer writes an `error:` of its own to standard
/// error whenever adapters are listed. There it has nothing to select by, so it is switched off.
#[allow(unsafe_code, reason = "an environment variable, set before there are threads")]
fn quieten_vulkan() {
    if cfg!(target_os = "linux") && std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: no other thread exists yet that could read the environment at the same time.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}

/// Options that say what to work on: two of one kind are a mistake, as two of different kinds are.
const INPUTS: [&str; 6] = ["prompt", "prompt_file", "prompts", "tokens", "text", "file"];

/// The parser, which knows every long option with underscores too. Of an option that is given twice the last one counts,
/// so that an alias of the shell can be overridden; those that collect values collect.
fn parser() -> clap::Command {
    let spell_both_ways = |arg: clap::Arg| match arg.get_long().filter(|long| long.contains('-')) {
        Some(long) => {
            let alias = long.replace('-', "_");
            arg.alias(alias)
        }
        None => arg,
    };
    let last_one_counts = |arg: clap::Arg| {
        let collects = matches!(arg.get_action(), clap::ArgAction::Append | clap::ArgAction::Count);
        if collects || arg.is_positional() || INPUTS.contains(&arg.get_id().as_str()) {
            return arg;
        }
        let id = arg.get_id().clone();
        arg.overrides_with(id)
    };
    let cli = Cli::command().mut_subcommands(|command| command.mut_args(spell_both_ways).mut_args(last_one_counts));
    #[cfg(feature = "server")]
    let cli = cli.mut_subcommand("serve", |serve| serve.mut_args(from_environment));
    cli
}

/// Lets an option be given as an environment variable, as containers do.
#[cfg(feature = "server")]
fn from_environment(arg: clap::Arg) -> clap::Arg {
    match arg.get_long() {
        Some(long) => {
            let name = format!("BDH_{}", long.replace('-', "_").to_uppercase());
            arg.env(name).hide_env(true)
        }
        None => arg,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parser_is_sound() {
        parser().debug_assert();
    }

    #[test]
    fn every_long_option_is_accepted_with_underscores() {
        for command in parser().get_subcommands() {
            for arg in command.get_arguments() {
                let Some(long) = arg.get_long().filter(|long| long.contains('-')) else { continue };
                let aliases = arg.get_all_aliases().unwrap_or_default();
                assert!(aliases.contains(&long.replace('-', "_").as_str()), "{} --{long}", command.get_name());
            }
        }
    }
}
