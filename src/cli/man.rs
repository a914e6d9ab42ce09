//! `bdh-gpu man`: manual pages, made of the help texts.

use super::failure::Failure;
use clap::builder::{PossibleValue, Resettable};
use clap::{Arg, Args, Command, ValueHint};
use clap_mangen::Man as Page;
use clap_mangen::roff::{Roff, bold, roman};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  bdh-gpu man ~/.local/share/man/man1
  man bdh-gpu-generate

man finds pages in ~/.local/share/man if ~/.local/bin is in PATH. bdh-gpu.1 is about the program,
bdh-gpu-COMMAND.1 about one command. The text is that of --help.";

/// Exit codes, on every page.
const EXIT_CODES: [(&str, &str); 6] = [
    ("0", "Done; also if the reader of the output has left."),
    ("1", "Failed: a file, a model or a device cannot be used, or a check found a difference."),
    ("2", "Bad usage: an option or a value that does not exist, a prompt that the model cannot read."),
    ("130", "Stopped by Ctrl-C."),
    ("143", "Ended by SIGTERM."),
    ("129", "Ended by SIGHUP."),
];

/// Environment variables, on the program's page.
const ENVIRONMENT: [(&str, &str); 7] = [
    ("NO_COLOR", "No colours in the output."),
    ("HF_HOME", "Folder of the Hugging Face Hub's cache, where models that are downloaded by name are kept."),
    ("HF_TOKEN", "Token for models of the Hub that are not public."),
    ("HF_ENDPOINT", "Address of the Hub, or of a mirror."),
    ("HF_HUB_OFFLINE", "1 takes models from the cache only."),
    ("VK_DRIVER_FILES", "Vulkan drivers to load instead of the system's, separated by colons."),
    ("BDH_PORT", "For bdh-gpu serve, in place of --port; each of its options has such a variable."),
];

/// Write the manual pages
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Man {
    /// Folder for the pages; it is made if it does not exist
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    folder: PathBuf,
}

impl Man {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        let failed = |path: &Path, error| Failure::Failed(format!("cannot write {}: {error}", path.display()));
        std::fs::create_dir_all(&self.folder).map_err(|error| failed(&self.folder, error))?;
        for (name, text) in pages() {
            let path = self.folder.join(name);
            std::fs::write(&path, text).map_err(|error| failed(&path, error))?;
        }
        Ok(())
    }
}

/// File names and texts of all pages.
fn pages() -> Vec<(String, String)> {
    let mut program = super::parser().disable_help_subcommand(true);
    program.build();
    let commands: Vec<Command> = program.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    let names: Vec<String> = std::iter::once(&program).chain(&commands).map(page_name).collect();
    std::iter::once(program).chain(commands).map(|command| page(command, &names)).collect()
}

/// A page's name without its section: `bdh-gpu-generate`.
fn page_name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

/// File name and text of a command's page. `names` are those of all pages.
fn page(mut command: Command, names: &[String]) -> (String, String) {
    let name = page_name(&command);
    let usage = command.render_usage().to_string();
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (examples, prose): (Vec<&str>, Vec<&str>) =
        help.split("\n\n").partition(|paragraph| paragraph.contains("\n  "));
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut description = format!("{about}.");
    // The section about exit codes says more.
    for paragraph in prose.iter().filter(|paragraph| !paragraph.starts_with("Exit codes:")) {
        description.push_str("\n\n");
        description.push_str(paragraph);
    }

    let mut sections = Roff::new();
    if command.has_subcommands() {
        list(&mut sections, "ENVIRONMENT", &ENVIRONMENT);
    }
    list(&mut sections, "EXIT STATUS", &EXIT_CODES);
    as_they_are(&mut sections, &examples);
    let others: Vec<String> = names.iter().filter(|other| **other != name).map(|other| format!("{other}(1)")).collect();
    sections.control("SH", ["SEE ALSO"]).text([roman(others.join(", "))]);

    // clap_mangen's own synopsis lists every option, and its text after the options loses line breaks.
    let command = command
        .override_usage(usage.trim_start_matches("Usage:").trim().to_owned())
        .long_about(description)
        .after_help(Resettable::Reset)
        .mut_args(with_values);
    let page = Page::new(command)
        .title(name.to_uppercase())
        // None, as an argument of its own.
        .date("\"\"")
        .source(concat!("bdh-gpu ", env!("CARGO_PKG_VERSION")))
        .manual("User Commands");
    let mut text = Vec::new();
    page.render(&mut text).expect("a vector takes all");
    let mut text = String::from_utf8(text).expect("help texts are UTF-8");
    // The page begins with it already.
    let preamble = Roff::new().render();
    let sections = sections.render();
    text.push_str(sections.strip_prefix(&preamble).unwrap_or(&sections));
    // A backslash. `\\`, as which the crate writes it, is one only inside of macros.
    let text = text.replace(r"\\", r"\(rs");
    (format!("{name}.1"), text)
}

/// Adds an argument's possible values to its help, as `--help` does. clap_mangen makes a list of them, a line each.
fn with_values(arg: Arg) -> Arg {
    let values = arg.get_possible_values();
    let names: Vec<&str> = values.iter().filter(|value| !value.is_hide_set()).map(PossibleValue::get_name).collect();
    if names.is_empty() || !arg.get_num_args().is_some_and(|count| count.takes_values()) {
        return arg;
    }
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    arg.help(format!("{help} [possible values: {}]", names.join(", "))).hide_possible_values(true)
}

/// A section of names and their meanings.
fn list(roff: &mut Roff, heading: &str, entries: &[(&str, &str)]) {
    roff.control("SH", [heading]);
    for (name, meaning) in entries {
        roff.control("TP", []).text([bold(*name)]).text([roman(*meaning)]);
    }
}

/// A section of examples, whose lines stay as they are.
fn as_they_are(roff: &mut Roff, paragraphs: &[&str]) {
    if paragraphs.is_empty() {
        return;
    }
    roff.control("SH", ["EXAMPLES"]);
    for paragraph in paragraphs {
        for line in paragraph.lines().filter(|line| *line != "Examples:") {
            match line.strip_prefix("  ") {
                Some(example) => roff.control("EX", []).text([roman(example)]).control("EE", []),
                None => roff.text([roman(line)]),
            };
        }
    }
}
