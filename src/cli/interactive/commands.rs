//! The commands of the prompt loop: their names, their help, and what a line asks for.

use crate::cli::format;
use bdh_gpu::options::{self, Command, OPTIONS, Spec};

/// A command's name, its argument, and what it does.
#[derive(Clone, Copy)]
pub struct Entry {
    pub name: &'static str,
    argument: &'static str,
    help: &'static str,
}

/// The commands that set no option of the table.
const OTHERS: [Entry; 11] = [
    entry("turns", "WHERE", "end turns at a line, a paragraph (an empty line), or length (max_tokens)"),
    entry("context", "N", "let text older than N tokens fade, or full"),
    entry("settings", "", "show all of these"),
    entry("undo", "", "take back the last turn"),
    entry("retry", "", "generate the last turn again, with a new seed"),
    entry("reset", "", "forget the conversation"),
    entry("save", "FILE", "write the conversation's state to a file"),
    entry("load", "FILE", "go on from a state that /save or --save-state wrote"),
    entry("stats", "", "tokens, speed, position, memory"),
    entry("help", "", "show this"),
    entry("quit", "", "end (also exit, Ctrl-D)"),
];

const fn entry(name: &'static str, argument: &'static str, help: &'static str) -> Entry {
    Entry { name, argument, help }
}

/// Every command, in the order of the help: those that set an option first.
pub fn all() -> impl Iterator<Item = Entry> {
    let of_options = of_options().map(|(command, _)| entry(command.name, command.value_name, command.help));
    of_options.chain(OTHERS)
}

/// The commands that set an option of the table, and these options.
pub fn of_options() -> impl Iterator<Item = (&'static Command, &'static Spec)> {
    OPTIONS.into_iter().filter_map(|spec| Some((spec.command.as_ref()?, spec)))
}

const INTRODUCTION: &str = "\
Type a text and the model goes on with it, up to an empty line. Enter alone lets it write on.
Alt-Enter, or a backslash at the end of a line, begins another line. The conversation is one text;
Ctrl-C stops it. A line that begins with / is a command; a setting without a value is shown:
";

/// What /help says.
pub fn help() -> String {
    let mut text = INTRODUCTION.to_string();
    for Entry { name, argument, help } in all() {
        text.push_str(&format!("  {:<17} {help}\n", format!("/{name} {argument}")));
    }
    text
}

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Nothing.
    Blank,
    /// To go on with this text.
    Text(&'a str),
    /// A command that exists, and what follows it.
    Command(&'static str, &'a str),
    /// A command that does not exist, and the closest one that does.
    Unknown(&'a str, Option<&'static str>),
}

/// Says what a line asks for. `quit`, `exit` and `help` need no slash.
pub fn parse(line: &str) -> Line<'_> {
    let trimmed = line.trim();
    match trimmed {
        "" => return Line::Blank,
        "quit" | "exit" | "/exit" => return Line::Command("quit", ""),
        "help" => return Line::Command("help", ""),
        _ => {}
    }
    let Some(command) = line.strip_prefix('/') else { return Line::Text(line) };
    let (word, argument) = command.trim_end().split_once(char::is_whitespace).unwrap_or((command.trim_end(), ""));
    let name = word.to_lowercase().replace('-', "_");
    match all().find(|entry| entry.name == name) {
        Some(entry) => Line::Command(entry.name, argument.trim_start()),
        None => Line::Unknown(word, closest(&name)),
    }
}

/// Says that a command does not exist.
pub fn unknown(word: &str, closest: Option<&str>) -> String {
    let advice = match closest {
        Some(name) => format!("did you mean /{name}?"),
        None => "/help lists the commands".to_string(),
    };
    format!("there is no command /{}; {advice}", format::excerpt(word))
}

/// The command that a word was probably meant to be.
fn closest(word: &str) -> Option<&'static str> {
    // The option's name elsewhere.
    if let Some(command) = options::find(word).and_then(|spec| spec.command.as_ref()) {
        return Some(command.name);
    }
    let names = all().map(|entry| entry.name);
    let (distance, name) = names.map(|name| (edits(word, name), name)).min()?;
    (distance <= 1 + name.len() / 3).then_some(name)
}

/// How many letters must be put in, taken out or replaced to make one word of the other.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_text_or_commands() {
        assert_eq!(parse("  "), Line::Blank);
        assert_eq!(parse(" To be "), Line::Text(" To be "));
        assert_eq!(parse("help me"), Line::Text("help me"));
        for line in ["quit", "exit", " quit ", "/quit", "/exit", "/QUIT"] {
            assert_eq!(parse(line), Line::Command("quit", ""), "{line}");
        }
        assert_eq!(parse("/temp 0.8 "), Line::Command("temp", "0.8"));
        assert_eq!(parse("/top-k   5"), Line::Command("top_k", "5"));
        assert_eq!(parse("/save my file"), Line::Command("save", "my file"));
        assert_eq!(parse("/help"), parse("help"));
        assert_eq!(parse("/"), Line::Unknown("", None));
    }

    #[test]
    fn a_typo_finds_the_closest_command() {
        for (word, expected) in [
            ("/tmep", Some("temp")),
            ("/temperature 3", Some("temp")),
            ("/top_q", Some("top_k")),
            ("/rety", Some("retry")),
            ("/stat", Some("stats")),
            ("/undu", Some("undo")),
            ("/xyzzy", None),
        ] {
            let Line::Unknown(_, found) = parse(word) else { panic!("{word}") };
            assert_eq!(found, expected, "{word}");
        }
    }

    #[test]
    fn the_help_names_every_command_within_a_terminals_width() {
        let help = help();
        assert!(all().all(|entry| help.contains(&format!("  /{}", entry.name))));
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
    }
}
