//! Calls into the crate that reads tokenizer.json, which panics on some files and texts.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// What `work` returns; `None` where it panics. What it borrows must be of no further use then, or still sound.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    INSIDE.set(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    INSIDE.set(false);
    result.ok()
}

/// Whether a panic on this thread, now, will be caught and become an error: a panic hook need not report it.
pub fn panic_is_caught() -> bool {
    INSIDE.get()
}
