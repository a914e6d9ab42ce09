//! Ctrl-C while the device works.

use pyo3::prelude::*;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// How long a signal may wait beyond the burst that runs when it comes. Asking needs the interpreter, which another
/// thread may hold for some milliseconds: asking after every burst of a fast device would hold that up.
const PATIENCE: Duration = Duration::from_millis(20);

/// Asks now and then whether Python has a signal to deal with.
pub struct Signals {
    asked: Instant,
    raised: Option<PyErr>,
}

impl Signals {
    /// Breaks once a signal's handler has raised an exception, as Ctrl-C does.
    pub fn flow(&mut self) -> ControlFlow<()> {
        if self.raised.is_none() && self.asked.elapsed() >= PATIENCE {
            self.raised = Python::attach(|py| py.check_signals()).err();
            self.asked = Instant::now();
        }
        if self.raised.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// As [`Signals::flow`], with the exception.
    pub fn check(&mut self) -> PyResult<()> {
        let _ = self.flow();
        self.raised.take().map_or(Ok(()), Err)
    }
}

/// Does work that other Python threads need not wait for. The work hears of signals; where one has raised an
/// exception, that is the result.
pub fn detached<T: Send>(py: Python<'_>, work: impl FnOnce(&mut Signals) -> PyResult<T> + Send) -> PyResult<T> {
    py.detach(|| {
        let mut signals = Signals { asked: Instant::now(), raised: None };
        let result = work(&mut signals);
        signals.raised.map_or(result, Err)
    })
}
