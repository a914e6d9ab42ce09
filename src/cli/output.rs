//! Standard output, and notices on standard error.

use super::failure::Failure;
use bdh_gpu::backend::gpu;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal, StdoutLock, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Shorter texts are read before a progress bar could be looked at.
const WORTH_A_BAR: usize = 512;

/// What compiles for longer deserves a word.
const LONG_COMPILATION: Duration = Duration::from_secs(1);

/// Standard output. A reader that has left ends the command quietly.
pub struct Output(StdoutLock<'static>);

impl Output {
    /// Takes standard output.
    pub fn new() -> Self {
        Self(std::io::stdout().lock())
    }

    /// Whether a person is looking.
    pub fn is_terminal(&self) -> bool {
        self.0.is_terminal()
    }

    /// Writes text so that it is seen at once.
    pub fn write(&mut self, text: &str) -> Result<(), Failure> {
        self.0.write_all(text.as_bytes()).and_then(|()| self.0.flush()).map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => Failure::ClosedPipe,
            _ => Failure::Failed(format!("standard output: cannot be written: {error}")),
        })
    }

    /// Writes a line.
    pub fn line(&mut self, text: impl Display) -> Result<(), Failure> {
        self.write(&format!("{text}\n"))
    }

    /// Writes a value as one line of JSON.
    pub fn json(&mut self, value: &serde_json::Value) -> Result<(), Failure> {
        self.line(value)
    }
}

/// What a command says beside its results, on standard error.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Notices {
    /// Say nothing beside results and errors
    #[arg(short, long, conflicts_with = "verbose", help_heading = "Output")]
    quiet: bool,
    /// Say more: the options in effect and how long things took
    #[arg(short, long, help_heading = "Output")]
    verbose: bool,
}

impl Notices {
    /// Says something unless --quiet was given.
    pub fn say(&self, text: impl Display) {
        if !self.quiet {
            // Where standard error is closed there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// Whether --quiet was given.
    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether --verbose was given.
    pub fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// Says something if --verbose was given.
    pub fn detail(&self, text: impl Display) {
        if self.verbose {
            self.say(text);
        }
    }

    /// From now on, says so once if a device takes long to compile its kernels; to ask for it again changes nothing.
    pub fn watch_compilation(&self) {
        static WATCHED: AtomicBool = AtomicBool::new(false);
        if self.quiet || WATCHED.swap(true, Relaxed) {
            return;
        }
        let notices = *self;
        let note = "note: compiling the kernels for this device; most drivers keep them for the next run";
        let watch = move || {
            wait_until_long(gpu::compiling, LONG_COMPILATION);
            notices.say(note);
        };
        // Without the thread the note is missing, and nothing else.
        let _ = std::thread::Builder::new().name("compilation".into()).spawn(watch);
    }

    /// A bar for reading and writing `tokens` tokens that make up `texts` texts, if a person is looking. Its
    /// message is the number of texts that are done.
    pub fn batch_progress(&self, tokens: usize, texts: usize) -> ProgressBar {
        if self.quiet || !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let template = "{msg}/{texts} texts {wide_bar} {human_pos}/{human_len} tokens, {rate}, {eta} left";
        let bar = ProgressBar::new(tokens as u64).with_message("0");
        let Ok(style) = ProgressStyle::with_template(template) else { return bar };
        let style = style
            .with_key("texts", move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = write!(out, "{texts}");
            })
            .with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = write!(out, "{:.0} tokens/s", state.per_sec());
            });
        bar.with_style(style)
    }

    /// A bar for reading `tokens` tokens, if there are many of them and a person is looking.
    pub fn progress(&self, what: &'static str, tokens: usize) -> ProgressBar {
        if self.quiet || tokens < WORTH_A_BAR || !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(tokens as u64).with_message(what);
        let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} tokens, {eta} left");
        style.map_or(bar.clone(), |style| bar.with_style(style))
    }

    /// A bar of a thousand steps for work that says how much of it is done, if a person is looking.
    pub fn share_bar(&self) -> ProgressBar {
        if self.quiet || !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(1000);
        let style = ProgressStyle::with_template("{wide_bar} {percent} %, {eta} left  {msg}");
        style.map_or(bar.clone(), |style| bar.with_style(style))
    }
}

/// Returns when `busy` has held for about as long as `long`: when that many looks in a row have found it so.
fn wait_until_long(busy: impl Fn() -> bool, long: Duration) {
    const LOOKS: u32 = 10;
    let mut found = 0;
    while found < LOOKS {
        std::thread::sleep(long / LOOKS);
        found = if busy() { found + 1 } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn only_what_goes_on_is_long() {
        let looks = Cell::new(0);
        // Every third look finds nothing, and the fortieth; all after it find something.
        let busy = || {
            looks.set(looks.get() + 1);
            looks.get() % 3 > 0 && looks.get() != 40 || looks.get() > 40
        };
        wait_until_long(busy, Duration::from_millis(1));
        assert_eq!(looks.get(), 50);
    }
}
