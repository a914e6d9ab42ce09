//! Text as it comes.

use crate::completion::Job;
use crate::errors::{self, BDHError};
use crate::fork::Owned;
use crate::session::Place;
use crate::signals::{Signals, detached};
use bdh_gpu::Bdh;
use bdh_gpu::generation::{GenerationError, SessionPieces, TextPieces};
use pyo3::prelude::*;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::task::Poll;
use std::time::Duration;

/// How long to wait for a piece before signals are looked for.
const WAIT: Duration = Duration::from_millis(20);

/// The pieces of a text, as BDH.generate_stream and Session.generate_stream make them. close(), or the end of the
/// iterator's life, stops the device.
#[pyclass(frozen, module = "bdh_gpu")]
pub struct TextStream {
    source: Owned<Mutex<Source>>,
}

/// Where pieces come from.
pub enum Source {
    /// A text that is drawn, token by token.
    Drawn(TextPieces),
    /// A conversation's next text.
    Continued(Continued),
    /// A text that beam search will find: one piece, when it has been found.
    Searched(Box<Search>),
    /// Nothing more will come.
    Closed,
}

/// A conversation while a stream goes on with it. Afterwards it is in its place again.
pub struct Continued {
    /// Absent only while it is dropped.
    pieces: Option<SessionPieces>,
    place: Place,
}

impl Continued {
    pub fn new(pieces: SessionPieces, place: &Place) -> Self {
        Self { pieces: Some(pieces), place: Arc::clone(place) }
    }

    fn next_within(&mut self, time: Duration) -> Poll<Option<Result<String, GenerationError>>> {
        self.pieces.as_mut().map_or(Poll::Ready(None), |pieces| pieces.next_within(time))
    }
}

impl Drop for Continued {
    fn drop(&mut self) {
        let session = self.pieces.take().map(SessionPieces::into_session);
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = session;
    }
}

/// A beam search to be done.
pub struct Search {
    pub bdh: Bdh,
    pub prompt: Vec<u32>,
    pub job: Job,
    /// What the piece begins with: the prompt, if it is wanted.
    pub shown: String,
}

impl TextStream {
    pub fn new(source: Source) -> Self {
        Self { source: Owned::new(Mutex::new(source)) }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Source) -> PyResult<T>) -> PyResult<T> {
        match self.source.get()?.try_lock() {
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
            Self::Drawn(pieces) => wait(signals, || pieces.next_within(WAIT))
                .map_or(Ok(None), |piece| piece.transpose().map_err(errors::generation)),
            Self::Continued(session) => {
                let piece = wait(signals, || session.next_within(WAIT));
                if !matches!(piece, Some(Some(Ok(_)))) {
                    // The text has ended, or was interrupted: the session goes on without this stream.
                    *self = Self::Closed;
                }
                piece.map_or(Ok(None), |piece| piece.transpose().map_err(errors::generation))
            }
            Self::Searched(search) => {
                let prompts = [std::mem::take(&mut search.prompt)];
                let found = search.job.run(&search.bdh, &prompts, signals)?;
                let shown = std::mem::take(&mut search.shown);
                let text = found.first().map(|text| shown + &text.text(&search.bdh, &prompts));
                *self = Self::Closed;
                Ok(text)
            }
            Self::Closed => Ok(None),
        }
    }
}

/// Waits for a piece; nothing where a signal came first.
fn wait<T>(signals: &mut Signals, mut next: impl FnMut() -> Poll<T>) -> Option<T> {
    loop {
        match next() {
            Poll::Ready(piece) => return Some(piece),
            Poll::Pending if signals.flow().is_break() => return None,
            Poll::Pending => {}
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

    /// Stops the device. What it has written and nobody has taken is lost; a session goes on after what was taken.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        detached(py, |_| {
            self.with(|source| {
                *source = Source::Closed;
                Ok(())
            })
        })
    }
}
