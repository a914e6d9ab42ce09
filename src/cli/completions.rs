//! `bdh-gpu completions`: scripts that complete the command line.

use super::failure::Failure;
use super::output::Output;
use clap::Args;
use clap_complete::Shell;

const EXAMPLES: &str = "\
Examples:
  bdh-gpu completions bash > ~/.local/share/bash-completion/completions/bdh-gpu
  bdh-gpu completions zsh > ~/.zfunc/_bdh-gpu
  bdh-gpu completions fish > ~/.config/fish/completions/bdh-gpu.fish
  bdh-gpu completions powershell >> $PROFILE

Start a new shell afterwards. zsh looks into ~/.zfunc if .zshrc says: fpath+=~/.zfunc; compinit";

/// Print a script that completes the command line in a shell
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Completions {
    /// The shell
    #[arg(value_parser = shells())]
    shell: Shell,
}

/// The shells that are supported.
fn shells() -> impl clap::builder::TypedValueParser<Value = Shell> {
    use clap::builder::TypedValueParser;
    clap::builder::PossibleValuesParser::new(["bash", "zsh", "fish", "powershell"])
        .try_map(|name| name.parse::<Shell>())
}

impl Completions {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::parser(), "bdh-gpu", &mut script);
        Output::new().write(&String::from_utf8_lossy(&script))
    }
}
