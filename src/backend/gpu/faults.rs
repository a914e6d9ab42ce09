//! Faults of a device that come to light outside the calls that caused them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

/// Faults reported outside the calls that caused them.
#[derive(Default)]
pub(super) struct Faults {
    /// Why the device is lost, if it is.
    pub(super) lost: Option<String>,
    /// Each thread's first error since its last check: wgpu reports an error on the thread whose
    /// call caused it.
    pub(super) errors: HashMap<ThreadId, Fault>,
}

/// An error that a driver reports.
pub(super) enum Fault {
    /// Memory ran out.
    OutOfMemory,
    /// It rejected a command or a shader, with this message.
    Rejected(String),
}

/// Notes an error of the calling thread, if it is its first since its last check.
pub(super) fn note(faults: &Mutex<Faults>, fault: Fault) {
    lock(faults).errors.entry(thread::current().id()).or_insert(fault);
}

pub(super) fn lock(faults: &Mutex<Faults>) -> MutexGuard<'_, Faults> {
    faults.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A driver's message on one line.
pub(super) fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
