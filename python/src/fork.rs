//! A forked process inherits a device and cannot use it: the threads that run it stay behind.

use crate::errors::BDHError;
use pyo3::prelude::*;
use std::ops::Deref;

/// A value that works in the process that made it. In a forked one, where its threads are missing, it can be looked at;
/// it is not dropped there.
pub struct Owned<T> {
    process: u32,
    /// Absent only while it is dropped.
    value: Option<T>,
}

impl<T> Owned<T> {
    pub fn new(value: T) -> Self {
        Self { process: std::process::id(), value: Some(value) }
    }

    /// The value, to work with.
    pub fn get(&self) -> PyResult<&T> {
        if std::process::id() == self.process {
            return Ok(self);
        }
        Err(BDHError::new_err(
            "the model was loaded before this process was forked, and its threads and device stayed with the parent; load \
             it in this process, or start processes with multiprocessing's \"spawn\" method",
        ))
    }
}

impl<T> Deref for Owned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("present until it is dropped")
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if std::process::id() != self.process {
            // To drop it would wait for threads that are not there.
            std::mem::forget(self.value.take());
        }
    }
}
