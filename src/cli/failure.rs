//! Why a command stopped, and the exit code for it.

use super::advice;
use bdh_gpu::backend::BackendError;
use bdh_gpu::generation::{BeamError, GenerationError, StateError};
use bdh_gpu::model::{HubError, ModelError};
use bdh_gpu::verify::VerifyError;
use clap::error::ErrorKind;
use std::process::ExitCode;

const FAILED: u8 = 1;
const BAD_USAGE: u8 = 2;
/// 128 + SIGINT, as shells report it.
pub const INTERRUPTED: u8 = 130;

/// Why a command did not run to its end.
#[derive(Debug)]
pub enum Failure {
    /// The parser stopped: bad usage, or a request for help or the version.
    Arguments(clap::Error),
    /// Options that cannot be used, or input that the model cannot read.
    Usage(String),
    /// Anything else that went wrong.
    Failed(String),
    /// The device failed.
    Device(String),
    /// What went wrong has been said, and the work went on.
    Reported,
    /// Ctrl-C.
    Interrupted,
    /// Nobody reads the output any more, as in `| head -1`: not an error.
    ClosedPipe,
}

impl Failure {
    /// Says what went wrong, in one line, and returns the exit code.
    pub fn report(self) -> ExitCode {
        // Where standard error is closed there is nobody left to tell, so errors of printing are dropped.
        match self {
            Self::Arguments(error) => match error.kind() {
                ErrorKind::DisplayHelp
                | ErrorKind::DisplayVersion
                | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                    let _ = error.print();
                    u8::try_from(error.exit_code()).unwrap_or(BAD_USAGE).into()
                }
                _ => print(&one_line(&error.render().to_string()), BAD_USAGE),
            },
            Self::Usage(message) => print(&message, BAD_USAGE),
            Self::Failed(message) | Self::Device(message) => print(&message, FAILED),
            Self::Reported => FAILED.into(),
            Self::Interrupted => INTERRUPTED.into(),
            Self::ClosedPipe => ExitCode::SUCCESS,
        }
    }
}

/// What a parser's error says, its advice after it, without the summary of the usage.
pub fn one_line(rendered: &str) -> String {
    let words = |text: &str| {
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let mut paragraphs = rendered.split("\n\n").map(words);
    let message = paragraphs.next().unwrap_or_default();
    let mut line = message.strip_prefix("error: ").unwrap_or(&message).to_string();
    let tips: Vec<String> = paragraphs.filter_map(|words| words.strip_prefix("tip: ").map(str::to_string)).collect();
    if tips.is_empty() {
        line.push_str("; see --help");
    }
    for tip in tips {
        line.push_str("; ");
        line.push_str(&tip);
    }
    line
}

/// Keeps panics from being printed that the library catches and returns as errors: those of the tokenizers crate, and
/// wgpu's answer to a driver that reports the loss of its device while the program waits for it.
pub fn quieten_caught_panics() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let is_loss = |message: &String| message.starts_with("Error in Device::poll");
        let lost = panic.payload().downcast_ref::<String>().is_some_and(is_loss);
        if !lost && !bdh_gpu::tokenizer::panic_is_caught() {
            print(panic);
        }
    }));
}

/// Says what went wrong where the work goes on all the same.
pub fn complain(message: &str) {
    let _ = print(message, FAILED);
}

/// Prints in the style of the parser's own errors: `error:` is red on a terminal, unless NO_COLOR is set.
fn print(message: &str, code: u8) -> ExitCode {
    let error = clap::Error::raw(ErrorKind::Io, format!("{message}\n"));
    let _ = error.with_cmd(&super::parser()).print();
    code.into()
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        let message = advice::model(&error);
        match error {
            ModelError::Hub(HubError::Name { .. }) => Self::Usage(message),
            _ => Self::Failed(message),
        }
    }
}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Self {
        Self::Device(advice::backend(&error))
    }
}

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Self {
        let message = advice::verify(&error);
        match error {
            VerifyError::CpuIsTheReference | VerifyError::NoModel | VerifyError::UnknownKernel { .. } => {
                Self::Usage(message)
            }
            _ => Self::Failed(message),
        }
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        Self::Failed(advice::state(&error))
    }
}

impl From<BeamError> for Failure {
    fn from(error: BeamError) -> Self {
        GenerationError::from(error).into()
    }
}

impl From<GenerationError> for Failure {
    fn from(error: GenerationError) -> Self {
        match error {
            GenerationError::Backend(error) => error.into(),
            error if error.is_usage() => Self::Usage(advice::generation(&error, advice::flag)),
            error => Self::Failed(advice::generation(&error, advice::flag)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::one_line;

    #[test]
    fn the_parsers_errors_become_one_line() {
        let error = "error: unexpected argument '--top_x' found\n\n  tip: a similar argument exists: '--top-k'\n\n\
                     Usage: bdh-gpu\n\nFor more information, try '--help'.\n";
        assert_eq!(one_line(error), "unexpected argument '--top_x' found; a similar argument exists: '--top-k'");
        let error = "error: invalid value 'x' for '--format'\n  [possible values: text, json]\n\nFor more\n";
        assert_eq!(one_line(error), "invalid value 'x' for '--format' [possible values: text, json]; see --help");
        assert_eq!(one_line("error: a '\u{1b}[1m\n' b"), "a ' [1m ' b; see --help");
    }
}
