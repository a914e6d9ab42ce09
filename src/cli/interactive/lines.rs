//! Where lines come from: a terminal with editing, history and completion, or a pipe.

use super::commands;
use crate::cli::failure::Failure;
use crate::cli::format;
use crate::cli::input::LONGEST;
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::history::DefaultHistory;
use rustyline::{
    Cmd, ConditionalEventHandler, Config, Context, Editor, Event, EventContext, EventHandler, Helper, Hinter, KeyCode,
    KeyEvent, Modifiers, Movement, RepeatCount, Validator,
};
use std::borrow::Cow;
use std::io::{BufRead, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

const PROMPT: &str = "> ";

/// What was typed.
pub enum Input {
    /// A line, or several that belong together, without the last line end.
    Line(Vec<u8>),
    /// Ctrl-C, which discarded a line that was not empty.
    Discarded,
    /// Ctrl-C at an empty prompt.
    Interrupted,
    /// The end: Ctrl-D, or nothing more in the pipe.
    End,
}

/// A source of lines.
pub enum Lines {
    Terminal(Box<Terminal>),
    Pipe(std::io::StdinLock<'static>),
}

impl Lines {
    /// The next line.
    pub fn next(&mut self) -> Result<Input, Failure> {
        match self {
            Self::Terminal(terminal) => terminal.next(),
            Self::Pipe(stdin) => {
                let mut lines = Vec::new();
                loop {
                    let mut limited = stdin.take(LONGEST + 1 - lines.len() as u64);
                    let count = limited.read_until(b'\n', &mut lines).map_err(|error| unreadable(&error))?;
                    if lines.len() as u64 > LONGEST {
                        return Err(unreadable(&format!("a line is longer than {}", format::bytes(LONGEST))));
                    }
                    if count == 0 {
                        return Ok(if lines.is_empty() { Input::End } else { Input::Line(lines) });
                    }
                    if lines.last() == Some(&b'\n') {
                        lines.pop();
                        lines.pop_if(|last| *last == b'\r');
                    }
                    if !goes_on(&lines) {
                        return Ok(Input::Line(lines));
                    }
                    lines.pop();
                    lines.push(b'\n');
                }
            }
        }
    }
}

/// Whether a text has another line to come: a backslash stands at its end. Commands have one line.
fn goes_on(text: &[u8]) -> bool {
    text.ends_with(b"\\") && !text.starts_with(b"/")
}

fn unreadable(error: &dyn std::fmt::Display) -> Failure {
    Failure::Failed(format!("standard input: cannot be read: {error}"))
}

/// A terminal.
pub struct Terminal {
    editor: Editor<Assistant, DefaultHistory>,
    history: Option<PathBuf>,
    /// Whether the line that Ctrl-C discarded was empty.
    was_empty: Arc<AtomicBool>,
}

impl Terminal {
    /// Takes the terminal; `coloured` says whether its prompt may be.
    pub fn new(coloured: bool) -> Result<Self, Failure> {
        let config = Config::builder().max_history_size(1000).and_then(|config| config.history_ignore_dups(true));
        let config = config.map_err(|error| unreadable(&error))?.auto_add_history(true).build();
        let mut editor = Editor::with_config(config).map_err(|error| unreadable(&error))?;
        editor.set_helper(Some(Assistant { files: FilenameCompleter::new(), coloured }));
        let was_empty = Arc::new(AtomicBool::new(true));
        let handler = EventHandler::Conditional(Box::new(NoteEmptyLine(was_empty.clone())));
        editor.bind_sequence(Event::from(KeyEvent::ctrl('C')), handler);
        for enter in [KeyEvent(KeyCode::Enter, Modifiers::NONE), KeyEvent::ctrl('J')] {
            editor.bind_sequence(Event::from(enter), EventHandler::Conditional(Box::new(BeginLine)));
        }
        let alt_enter = Event::from(KeyEvent(KeyCode::Enter, Modifiers::ALT));
        editor.bind_sequence(alt_enter, EventHandler::Simple(Cmd::Newline));
        let history = history_file();
        if let Some(path) = &history {
            // A history that does not exist yet, or cannot be read, is an empty one.
            let _ = editor.load_history(path);
        }
        Ok(Self { editor, history, was_empty })
    }

    fn next(&mut self) -> Result<Input, Failure> {
        match self.editor.readline(PROMPT) {
            Ok(line) => Ok(Input::Line(line.into_bytes())),
            Err(ReadlineError::Interrupted) if self.was_empty.load(SeqCst) => Ok(Input::Interrupted),
            Err(ReadlineError::Interrupted) => Ok(Input::Discarded),
            Err(ReadlineError::Eof) => Ok(Input::End),
            Err(error) => Err(unreadable(&error)),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let Some(path) = &self.history else { return };
        // A history that cannot be written is not worth an error at the very end.
        if let Some(folder) = path.parent() {
            let _ = private_folder(folder);
        }
        let _ = self.editor.save_history(path);
    }
}

/// Makes a folder that only its owner can look into.
fn private_folder(path: &std::path::Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Where lines are kept from one run to the next: the platform's folder for such things.
fn history_file() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = if cfg!(windows) {
        absolute("LOCALAPPDATA")?
    } else {
        match absolute("XDG_STATE_HOME") {
            Some(folder) => folder,
            None => absolute("HOME")?.join(".local/state"),
        }
    };
    Some(state.join("bdh-gpu").join("history"))
}

/// Notes on Ctrl-C whether the line was empty, and interrupts it as ever.
struct NoteEmptyLine(Arc<AtomicBool>);

impl ConditionalEventHandler for NoteEmptyLine {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext) -> Option<Cmd> {
        self.0.store(context.line().is_empty(), SeqCst);
        Some(Cmd::Interrupt)
    }
}

/// On Enter after a backslash, puts a line end in its place.
struct BeginLine;

impl ConditionalEventHandler for BeginLine {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext) -> Option<Cmd> {
        let at_end = context.pos() == context.line().len();
        let line_end = Cmd::Replace(Movement::BackwardChar(1), Some("\n".to_string()));
        (at_end && goes_on(context.line().as_bytes())).then_some(line_end)
    }
}

/// Completes commands and file names, and colours the prompt.
#[derive(Helper, Hinter, Validator)]
struct Assistant {
    files: FilenameCompleter,
    coloured: bool,
}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(&self, line: &str, position: usize, context: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let typed = &line[..position];
        if typed.starts_with("/save ") || typed.starts_with("/load ") {
            return self.files.complete(line, position, context);
        }
        let pair = |name: &str| Pair { display: name.to_string(), replacement: format!("{name} ") };
        let names = commands::all().map(|entry| format!("/{}", entry.name));
        let fitting = names.filter(|name| typed.starts_with('/') && name.starts_with(typed));
        Ok((0, fitting.map(|name| pair(&name)).collect()))
    }
}

impl Highlighter for Assistant {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        if self.coloured { Cow::Owned(format!("\x1b[1;32m{prompt}\x1b[0m")) } else { Cow::Borrowed(prompt) }
    }
}
