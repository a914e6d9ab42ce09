//! Names of files as people and the completion of the prompt loop write them: in quotes, with backslashes before
//! spaces, with ~ for the home directory.

use std::path::PathBuf;

/// The file that an argument of /save or /load names.
pub fn read(argument: &str) -> PathBuf {
    let argument = argument.trim();
    for quote in ['"', '\''] {
        if let Some(inner) = argument.strip_prefix(quote) {
            // The completion leaves the last quote to the typist, who may leave it out.
            let inner = inner.strip_suffix(quote).unwrap_or(inner);
            return if quote == '"' && ESCAPES {
                unescape(inner, |c| matches!(c, '"' | '\\' | '$' | '`'))
            } else {
                inner.into()
            };
        }
    }
    let home = if argument == "~" { Some("") } else { argument.strip_prefix("~/") };
    if let (Some(rest), Some(folder)) = (home, std::env::home_dir().filter(|folder| !folder.as_os_str().is_empty())) {
        return folder.join(plain(rest));
    }
    plain(argument)
}

/// Whether backslashes take the meaning from the character that follows; on Windows they separate folders.
const ESCAPES: bool = !cfg!(windows);

fn plain(text: &str) -> PathBuf {
    if ESCAPES { unescape(text, |_| true) } else { text.into() }
}

/// Takes out the backslashes before characters that they may stand before.
fn unescape(text: &str, escaped: impl Fn(char) -> bool) -> PathBuf {
    let mut name = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letters.peek() {
            Some(&next) if letter == '\\' && escaped(next) => {
                name.push(next);
                letters.next();
            }
            _ => name.push(letter),
        }
    }
    name.into()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use rustyline::completion::{Completer, FilenameCompleter};
    use rustyline::history::DefaultHistory;

    #[test]
    fn names_are_read_as_a_shell_reads_them() {
        let home = std::env::home_dir().unwrap();
        for (typed, name) in [
            ("talk.state", PathBuf::from("talk.state")),
            ("my talk.state", "my talk.state".into()),
            (r"my\ talk.state", "my talk.state".into()),
            (r#""b c.state""#, "b c.state".into()),
            (r#""b c.state"#, "b c.state".into()),
            (r#""a\"b\c\\d""#, r#"a"b\c\d"#.into()),
            (r"'a\b c'", r"a\b c".into()),
            (r"\~/a", "~/a".into()),
            ("~", home.clone()),
            ("~/a.state", home.join("a.state")),
            (r"~/a\ b", home.join("a b")),
            ("~other/a", "~other/a".into()),
            (r"a\", r"a\".into()),
        ] {
            assert_eq!(read(typed), name, "{typed}");
        }
    }

    #[test]
    fn what_the_completion_writes_is_the_file() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a b", "c\"d", "e'f", "g\\h", "i(j)", "k&l", "m$n", "o*p", "q\tr", "s;t", "~u", "ü v"] {
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            for quote in ["", "\""] {
                let start: String = name.chars().take(1).collect();
                let line = format!("/load {quote}{}/{start}", folder.path().display());
                let history = DefaultHistory::new();
                let context = rustyline::Context::new(&history);
                let (at, found) = FilenameCompleter::new().complete(&line, line.len(), &context).unwrap();
                assert_eq!(found.len(), 1, "{name}");
                let written = format!("{}{}", &line[..at], found[0].replacement);
                assert_eq!(read(written.strip_prefix("/load ").unwrap()), path, "{written}");
            }
            std::fs::remove_file(path).unwrap();
        }
    }
}
