//! Whether a device is compiling kernels, which takes seconds the first time on some drivers.
//!
//! A driver may compile a kernel when it is created or when it first runs, so both count.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// Number of compilations in progress in this process.
static NOW: AtomicUsize = AtomicUsize::new(0);

/// Whether a device of this process is compiling kernels, or running some for the first time.
pub fn compiling() -> bool {
    NOW.load(Relaxed) > 0
}

/// Keeps [`compiling`] true while it lives.
pub(super) struct Compiling(());

impl Compiling {
    pub fn start() -> Self {
        NOW.fetch_add(1, Relaxed);
        Self(())
    }
}

impl Drop for Compiling {
    fn drop(&mut self) {
        NOW.fetch_sub(1, Relaxed);
    }
}

/// Whether some kernels have run.
#[derive(Default)]
pub(super) struct FirstRun(AtomicBool);

impl FirstRun {
    /// Marks a run of the kernels; the first one gets a guard to hold.
    pub fn enter(&self) -> Option<Compiling> {
        (!self.0.swap(true, Relaxed)).then(Compiling::start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_run_counts() {
        let kernels = FirstRun::default();
        let first = kernels.enter();
        assert!(first.is_some() && compiling() && kernels.enter().is_none());
        drop(first);
        assert!(kernels.enter().is_none());
    }
}
