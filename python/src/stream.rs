//! Text as it comes.

use crate::completion::Job;
use crate::errors::{self, BDHError};
use crate::signals::{Signals, detached};
use bdh_gpu::Bdh;
use bdh_gpu::generation::TextPieces;
use pyo3::prelude::*;
use std::sync::{Mutex, TryLockError};
use std::task::Poll;
use std::time::Duration;

/// How long to wait for a piece before signals are looked for.
const WAIT: Duration = Duration::from_millis(20);

/// The pieces of a text, as BDH.generate_stream makes them. The device works on the next piece while this one is
/// dealt with. close(), or the end of the iterator's life, stops it.
#[pyclass(frozen, module = "bdh_gpu")]
pub struct TextStream {
    source: Mutex<Source>,
}

/// Where pieces come from.
pub enum Source {
    /// A text that is drawn, token by token.
    Drawn(TextPieces),
    /// A text that beam search will find: one piece, when it has been found.
    Searched(Box<Search>),
    /// Nothing more will come.
    Closed,
}

/// A beam search to be done.
pub struct Search {
    pub bdh: Bdh,
    pub prompt: Vec<u32>,
    pub job: Job,
    pub echo: bool,
}

impl TextStream {
    pub fn new(source: Source) -> Self {
        Self { source: Mutex::new(source) }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Source) -> PyResult<T>) -> PyResult<T> {
        match self.source.try_lock() {
            Ok(mut source) => work(&mut source),
            Err(TryLockError::Poisoned(poisoned)) => work(&mut poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                Err(BDHError::new_err("another thread waits for this stream's next piece"))
            }
        }
    }
}

impl Source {
    fn next(&mut self, signals: &mut Signals) -> PyResult<Option<String>> {
        match self {
            Self::Drawn(pieces) => loop {
                match pieces.next_within(WAIT) {
                    Poll::Ready(piece) => return piece.transpose().map_err(errors::generation),
                    Poll::Pending if signals.flow().is_break() => return Ok(None),
                    Poll::Pending => {}
                }
            },
            Self::Searched(search) => {
                let prompts = [std::mem::take(&mut search.prompt)];
                let found = search.job.run(&search.bdh, &prompts, signals)?;
                let text = found.first().map(|text| search.bdh.decode(&text.joined(&prompts, search.echo)));
                *self = Self::Closed;
                Ok(text)
            }
            Self::Closed => Ok(None),
        }
    }
}

#[pymethods]
impl TextStream {
    fn __iter__(this: Bound<'_, Self>) -> Bound<'_, Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<String>> {
        detached(py, |signals| self.with(|source| source.next(signals)))
    }

    /// Stops the device. What it has written and nobody has taken is lost.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, |_| {
            self.with(|source| {
                *source = Source::Closed;
                Ok(())
            })
        })
    }
}
