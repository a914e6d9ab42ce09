//! Ctrl-C: the first stops a text that is being written, so that what there is of it comes out; the
//! second ends the program, and so does the first where no text is being written. SIGTERM and SIGHUP end
//! it at once. However it ends, no half-written files stay behind.

use super::failure::INTERRUPTED;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

/// Held while a Ctrl-C is dealt with: work that would begin while the program ends never does.
static DECIDING: Mutex<()> = Mutex::new(());
static WRITING: AtomicBool = AtomicBool::new(false);
static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Listens for Ctrl-C and the signals that end programs from now on. Where that is impossible, they end the program as
/// ever. To be called once, before there are other threads.
pub fn install() {
    #[cfg(unix)]
    let _ = ending::install();
    let _ = ctrlc::set_handler(|| {
        let _deciding = DECIDING.lock().unwrap_or_else(PoisonError::into_inner);
        if !WRITING.load(SeqCst) || REQUESTED.swap(true, SeqCst) {
            end(INTERRUPTED.into());
        }
    });
}

/// Ends the program here and now, without half-written files.
fn end(code: i32) -> ! {
    bdh_gpu::files::discard_pending();
    std::process::exit(code)
}

/// SIGTERM and SIGHUP.
#[cfg(unix)]
mod ending {
    use super::{DECIDING, PoisonError};
    use nix::sys::signal::{SigSet, Signal};

    /// Has a thread wait for them, which all others leave them to.
    pub fn install() -> std::io::Result<()> {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGHUP] {
            // What the program was started to ignore, as by nohup, stays ignored.
            if !is_ignored(signal) {
                signals.add(signal);
            }
        }
        signals.thread_block()?;
        let wait = move || {
            let Ok(signal) = signals.wait() else { return };
            let _deciding = DECIDING.lock().unwrap_or_else(PoisonError::into_inner);
            // As shells report it.
            super::end(128 + signal as i32);
        };
        match std::thread::Builder::new().name("signals".into()).spawn(wait) {
            Ok(_) => Ok(()),
            Err(error) => {
                signals.thread_unblock()?;
                Err(error)
            }
        }
    }

    /// Whether a signal is ignored, as far as the system tells.
    fn is_ignored(signal: Signal) -> bool {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
        mask >> (signal as i32 - 1) & 1 == 1
    }
}

/// While this lives, the first Ctrl-C after [`Writing::start`] only sets a flag.
pub struct Writing(());

impl Writing {
    /// For work that starts at once.
    pub fn begin() -> Self {
        let writing = Self::hold();
        writing.start();
        writing
    }

    /// For work that may start: a Ctrl-C before it ends the program.
    pub fn hold() -> Self {
        Self(())
    }

    /// Work starts: from here on a Ctrl-C asks it to stop.
    pub fn start(&self) {
        if !WRITING.load(SeqCst) {
            self.restart();
        }
    }

    /// Work starts anew: earlier requests to stop are forgotten.
    pub fn restart(&self) {
        let _deciding = DECIDING.lock().unwrap_or_else(PoisonError::into_inner);
        REQUESTED.store(false, SeqCst);
        WRITING.store(true, SeqCst);
    }

    /// Work is over: a Ctrl-C ends the program.
    pub fn end(&self) {
        WRITING.store(false, SeqCst);
    }

    /// Whether there was a Ctrl-C since the work started.
    pub fn interrupted(&self) -> bool {
        REQUESTED.load(SeqCst)
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.end();
    }
}
