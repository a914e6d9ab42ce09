//! Ctrl-C: the first stops a text that is being written, so that what there is of it comes out; the
//! second ends the program, and so does the first where no text is being written.

use super::failure::INTERRUPTED;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

/// Held while a Ctrl-C is dealt with: work that would begin while the program ends never does.
static DECIDING: Mutex<()> = Mutex::new(());
static WRITING: AtomicBool = AtomicBool::new(false);
static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Listens for Ctrl-C from now on. Where that is impossible, Ctrl-C ends the program as ever.
pub fn install() {
    let _ = ctrlc::set_handler(|| {
        let _deciding = DECIDING.lock().unwrap_or_else(PoisonError::into_inner);
        if !WRITING.load(SeqCst) || REQUESTED.swap(true, SeqCst) {
            bdh_gpu::files::discard_pending();
            std::process::exit(INTERRUPTED.into());
        }
    });
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
