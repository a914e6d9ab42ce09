//! Conversations.

use crate::errors::{self, BDHError};
use crate::fork::Owned;
use crate::input::Input;
use crate::options::Options;
use crate::signals::{Signals, detached};
use crate::stream::{Continued, Source, TextStream};
use bdh_gpu::Bdh;
use bdh_gpu::generation;
use numpy::PyArray1;
use pyo3::exceptions::{PyRuntimeWarning, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::ffi::CString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, TryLockError};

/// A conversation whose state stays on the device from turn to turn; BDH.session starts one. If the device fails, it goes
/// on on the CPU, with a RuntimeWarning.
#[pyclass(frozen, module = "bdh_gpu")]
pub struct Session {
    bdh: Owned<Bdh>,
    place: Owned<Place>,
}

/// Where a conversation is to be found, but for the time in which a stream has it.
pub type Place = Arc<Mutex<Option<generation::Session>>>;

/// A conversation's state at one moment, in the host's memory.
#[pyclass(frozen, module = "bdh_gpu")]
pub struct Snapshot {
    snapshot: generation::Snapshot,
    bdh: Owned<Bdh>,
}

impl Session {
    pub fn new(bdh: &Bdh, session: generation::Session) -> Self {
        Self { bdh: Owned::new(bdh.clone()), place: Owned::new(Arc::new(Mutex::new(Some(session)))) }
    }

    /// Works on the conversation while other Python threads run. Warns if its device has failed.
    fn work<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut generation::Session, &mut Signals) -> PyResult<T> + Send,
    ) -> PyResult<T> {
        let (result, failover) = self.enter(py, |place, signals| {
            let session = place.as_mut().ok_or_else(streaming)?;
            let result = work(session, signals);
            Ok((result, session.take_failover()))
        })?;
        if let Some(failover) = failover {
            let message = CString::new(failover.to_string())?;
            PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &message, 1)?;
        }
        result
    }

    /// Works on the place of the conversation while other Python threads run.
    fn enter<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Option<generation::Session>, &mut Signals) -> PyResult<T> + Send,
    ) -> PyResult<T> {
        let place = self.place.get()?;
        detached(py, |signals| match place.try_lock() {
            Ok(mut place) => work(&mut place, signals),
            Err(TryLockError::Poisoned(poisoned)) => work(&mut poisoned.into_inner(), signals),
            Err(TryLockError::WouldBlock) => {
                Err(BDHError::new_err("another thread uses this session; fork it, or wait for that thread"))
            }
        })
    }

    /// The next piece of the text.
    fn next(
        &self,
        py: Python<'_>,
        name: &str,
        max_new_tokens: Option<&Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Next> {
        let settings = Options::read(name, &[], max_new_tokens, options)?.settings(&self.bdh)?;
        self.work(py, |session, signals| {
            let stream = session.text_stream();
            let texts = session.run(&settings, 1, |_| signals.flow()).map_err(errors::generation)?;
            let best = texts.into_iter().next();
            let (tokens, tail) = best.map(|text| (text.tokens, text.tail)).unwrap_or_default();
            Ok(Next { tokens, tail, stream })
        })
    }
}

/// What a conversation goes on with.
struct Next {
    tokens: Vec<u32>,
    /// Text after them.
    tail: String,
    /// What turns them into text.
    stream: bdh_gpu::tokenizer::TextStream,
}

/// The error of a conversation that a stream goes on with.
fn streaming() -> PyErr {
    BDHError::new_err("a stream goes on with this session; take the rest of it, or close() it")
}

#[pymethods]
impl Session {
    /// The device that it runs on; the CPU, if another one has failed since.
    #[getter]
    fn device(&self, py: Python<'_>) -> PyResult<String> {
        self.work(py, |session, _| Ok(session.device().to_string()))
    }

    /// Number of tokens read and generated so far.
    #[getter]
    fn position(&self, py: Python<'_>) -> PyResult<u64> {
        self.work(py, |session, _| Ok(session.position()))
    }

    /// The seed of the last generation, if there was one.
    #[getter]
    fn seed(&self, py: Python<'_>) -> PyResult<Option<u64>> {
        self.work(py, |session, _| Ok(session.seed()))
    }

    /// Reads a text, which is added exactly as it is, or token ids. After a Ctrl-C the rest is read before what comes next.
    fn feed(&self, py: Python<'_>, prompt: &Bound<'_, PyAny>) -> PyResult<()> {
        let input = Input::read(&self.bdh, prompt)?;
        self.work(py, |session, signals| {
            let tokens = match input {
                Input::Text(text) => session.encode(text.as_bytes()).map_err(errors::generation)?,
                Input::Ids(ids) => ids,
            };
            session.feed_with(&tokens, |_| signals.flow()).map_err(errors::generation)
        })
    }

    /// Continues the conversation and returns the new token ids. Options are those of BDH.generate, without echo,
    /// context, forget_tau and window. After a Ctrl-C the conversation goes on after what was generated until then.
    #[pyo3(signature = (max_new_tokens=None, **options))]
    fn generate(
        &self,
        py: Python<'_>,
        max_new_tokens: Option<&Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Vec<u32>> {
        Ok(self.next(py, "generate", max_new_tokens, options)?.tokens)
    }

    /// As generate, but returns the new text. A character whose last tokens are yet to come is part of the text that they
    /// come with.
    #[pyo3(signature = (max_new_tokens=None, **options))]
    fn generate_text(
        &self,
        py: Python<'_>,
        max_new_tokens: Option<&Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<String> {
        self.bdh.check_text().map_err(errors::generation)?;
        let Next { tokens, tail, mut stream } = self.next(py, "generate_text", max_new_tokens, options)?;
        Ok(stream.take(&tokens) + &tail)
    }

    /// As generate_text, but hands the text out as it comes. The conversation belongs to the stream until its end or
    /// close(), and goes on after the pieces that were taken. Beam search finds whole texts: for generate_text.
    #[pyo3(signature = (max_new_tokens=None, **options))]
    fn generate_stream(
        &self,
        py: Python<'_>,
        max_new_tokens: Option<&Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<TextStream> {
        let settings = Options::read("generate_stream", &[], max_new_tokens, options)?.settings(&self.bdh)?;
        self.bdh.check_text().map_err(errors::generation)?;
        if settings.uses_beams() {
            return Err(PyValueError::new_err("num_beams must be 1 in a session's stream; generate_text searches"));
        }
        self.enter(py, |place, _| {
            let session = place.take().ok_or_else(streaming)?;
            let pieces = session.into_stream(settings.options);
            Ok(TextStream::new(Source::Continued(Continued::new(pieces, &self.place))))
        })
    }

    /// The logits of the token that comes next, a NumPy array [V] of float32, without penalties and
    /// temperature. The conversation stays as it is.
    fn next_logits<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray1<f32>>> {
        // Says so in Python's words where NumPy is missing.
        py.import("numpy")?;
        let logits = self.work(py, |session, _| session.next_logits().map_err(errors::generation))?;
        Ok(PyArray1::from_vec(py, logits))
    }

    /// A second conversation with the same past.
    fn fork(&self, py: Python<'_>) -> PyResult<Self> {
        let fork = self.work(py, |session, _| session.fork().map_err(errors::generation))?;
        Ok(Self::new(&self.bdh, fork))
    }

    /// The conversation's state, to go back to.
    fn snapshot(&self, py: Python<'_>) -> PyResult<Snapshot> {
        let snapshot = self.work(py, |session, _| session.snapshot().map_err(errors::generation))?;
        Ok(Snapshot { snapshot, bdh: Owned::new(self.bdh.clone()) })
    }

    /// Goes back to a snapshot of this or another conversation with the same model.
    fn restore(&self, py: Python<'_>, snapshot: &Snapshot) -> PyResult<()> {
        self.work(py, |session, _| session.restore(&snapshot.snapshot).map_err(errors::generation))
    }

    /// Forgets the whole conversation.
    fn reset(&self, py: Python<'_>) -> PyResult<()> {
        self.work(py, |session, _| session.reset().map_err(errors::generation))
    }

    /// Writes a state file, which BDH.load_session and bdh-gpu --load-state read.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        self.snapshot(py)?.save(py, path)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let name = &self.bdh.model().name;
        // A thread or a stream that has the conversation is no reason not to show it.
        Ok(match self.position(py) {
            Ok(position) => format!("<bdh_gpu.Session of {name} at position {position}>"),
            Err(_) => format!("<bdh_gpu.Session of {name}, at work>"),
        })
    }
}

#[pymethods]
impl Snapshot {
    /// Number of tokens read and generated so far.
    #[getter]
    fn position(&self) -> u64 {
        self.snapshot.position()
    }

    /// Bytes that it takes.
    #[getter]
    fn nbytes(&self) -> u64 {
        self.snapshot.bytes()
    }

    /// Writes a state file, which BDH.load_session and bdh-gpu --load-state read.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        let bdh = self.bdh.get()?;
        detached(py, |_| self.snapshot.save(bdh, &path).map_err(errors::state))
    }

    fn __repr__(&self) -> String {
        format!("<bdh_gpu.Snapshot of {} at position {}>", self.bdh.model().name, self.position())
    }
}
