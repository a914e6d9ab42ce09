//! The class `Trace`.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `csr` | `CSR`, the neurons as sparse rows |
//! | `reread` | what a token reads, from the state rebuilt up to it |
//! | `labels` | names that people give to neurons |
//! | `table` | the text as a table, for notebooks |
//! | `tuples` | what lists hold |

mod csr;
mod labels;
mod reread;
mod table;
mod tuples;

pub use csr::Csr;
pub use reread::Host;

use crate::errors::{self, BDHError};
use crate::fork::Owned;
use crate::signals::{Signals, detached};
use bdh_gpu::files;
use bdh_gpu::inspect::{self, PageText, Reading};
use bdh_gpu::model::NeuronName;
use bdh_gpu::{Bdh, Forgetting};
use numpy::{PyArray1, PyArray4, PyArrayMethods};
use pyo3::exceptions::{PyFileNotFoundError, PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyList, PyString};
use reread::Reread;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The neurons of a text, as BDH.trace returns them: what the device computed while it read the
/// text as one context. Tokens, layers and heads are counted from 0, or from the end if negative. A
/// neuron's name is "HEAD.INDEX"; weights are shared, so it is the same neuron in every layer.
///
/// Arrays are NumPy's, and read-only.
#[pyclass(frozen, module = "bdh_gpu")]
pub struct Trace {
    bdh: Owned<Bdh>,
    trace: Arc<inspect::Trace>,
    forgetting: Forgetting,
    /// `[T]`; None for a model without a tokenizer.
    pieces: Option<Vec<String>>,
    u: Py<Csr>,
    g: Py<Csr>,
    surprise: PyOnceLock<Py<PyArray1<f32>>>,
    /// `[L, H, N, D]`: with each token's own phases, and as read.
    states: [PyOnceLock<Py<PyArray4<f32>>>; 2],
    reread: Mutex<Reread>,
}

impl Trace {
    pub fn new(
        py: Python<'_>,
        bdh: &Bdh,
        host: &Arc<Host>,
        trace: inspect::Trace,
        forgetting: Forgetting,
    ) -> PyResult<Self> {
        let trace = Arc::new(trace);
        let [u, g] = Csr::pair(&trace).map(|csr| Py::new(py, csr));
        Ok(Self {
            pieces: bdh.check_text().is_ok().then(|| bdh.text_stream().pieces(&trace.tokens)),
            u: u?,
            g: g?,
            surprise: PyOnceLock::new(),
            states: [PyOnceLock::new(), PyOnceLock::new()],
            reread: Mutex::new(Reread::new(host.clone())),
            bdh: Owned::new(bdh.clone()),
            trace,
            forgetting,
        })
    }

    /// The text of each token, or the error of a model without a tokenizer.
    fn pieces_or_error(&self) -> PyResult<&[String]> {
        self.bdh.check_text().map_err(errors::generation)?;
        Ok(self.pieces.as_deref().unwrap_or_default())
    }

    /// A token's text, for tuples; empty for a model without a tokenizer.
    fn piece(&self, token: usize) -> &str {
        self.pieces.as_ref().map_or("", |pieces| &pieces[token])
    }

    fn token(&self, given: isize) -> PyResult<usize> {
        index("token", given, self.trace.tokens.len())
    }

    fn layer(&self, given: isize) -> PyResult<usize> {
        index("layer", given, self.trace.layers)
    }

    /// A neuron by its name or its number h·N + i.
    fn neuron(&self, given: &Bound<'_, PyAny>) -> PyResult<u32> {
        let config = &self.bdh.model().config;
        let number = match given.cast::<PyString>() {
            Ok(name) => name.to_cow()?.parse::<NeuronName>().and_then(|name| name.number(config)),
            Err(_) => return Ok(index("neuron", given.extract()?, config.neurons())? as u32),
        };
        number.map_err(|error| PyValueError::new_err(error.to_string()))
    }

    fn name(&self, neuron: u32) -> String {
        NeuronName::of_number(neuron, &self.bdh.model().config).to_string()
    }

    /// A token's read-out in a layer. Rebuilds the state up to it.
    fn look<T: Send>(
        &self,
        py: Python<'_>,
        token: usize,
        layer: usize,
        look: impl FnOnce(&Reading) -> T + Send,
    ) -> PyResult<T> {
        let bdh = self.bdh.get()?;
        detached(py, |signals| {
            let mut reread = self.reread.lock().unwrap_or_else(PoisonError::into_inner);
            reread.go_to(bdh, &self.trace, self.forgetting, token, signals)?;
            Ok(reread.look(&self.trace, layer, look))
        })
    }

    /// Reads the text again for its state.
    fn read_state(&self, py: Python<'_>, as_read: bool) -> PyResult<Py<PyArray4<f32>>> {
        let bdh = self.bdh.get()?;
        let state = detached(py, |signals| {
            let mut session = bdh.session_with(self.forgetting).map_err(errors::generation)?;
            session.feed_with(&self.trace.tokens, |_| signals.flow()).map_err(errors::generation)?;
            signals.check()?;
            let state = if as_read { session.state_as_read() } else { session.state() };
            state.map_err(errors::generation)
        })?;
        let array = PyArray1::from_vec(py, state.numbers).reshape(state.shape)?;
        read_only(&array)?;
        Ok(array.unbind())
    }

    fn page_text(&self, title: Option<String>, labels: Option<&Bound<'_, PyAny>>) -> PyResult<PageText> {
        let labels = labels.map_or(Ok(Default::default()), |labels| labels::read(labels, &self.bdh))?;
        let title = title.unwrap_or_else(|| self.title());
        Ok(PageText { title, command: None, labels })
    }

    /// The beginning of the text.
    fn title(&self) -> String {
        const LONGEST: usize = 40;
        match &self.pieces {
            Some(pieces) => {
                let start: String = pieces.iter().flat_map(|piece| piece.chars()).take(LONGEST).collect();
                start.split_whitespace().collect::<Vec<_>>().join(" ")
            }
            None => format!("{} tokens", self.trace.tokens.len()),
        }
    }
}

/// An index as Python counts: from the end if negative.
pub fn index(what: &str, given: isize, count: usize) -> PyResult<usize> {
    let from_start = if given < 0 { given.checked_add_unsigned(count) } else { Some(given) };
    from_start
        .and_then(|index| usize::try_from(index).ok())
        .filter(|index| *index < count)
        .ok_or_else(|| PyIndexError::new_err(format!("{what} {given} is out of range: there are {count}")))
}

/// Makes an array read-only: it is kept, and handed out again.
pub fn read_only(array: &Bound<'_, PyAny>) -> PyResult<()> {
    array.getattr("flags")?.setattr("writeable", false)
}

fn unwritable(path: &Path, error: &io::Error) -> PyErr {
    let message = format!("{}: cannot be written: {error}", path.display());
    match error.kind() {
        io::ErrorKind::NotFound => PyFileNotFoundError::new_err(message),
        _ => BDHError::new_err(message),
    }
}

#[pymethods]
impl Trace {
    /// The token ids.
    #[getter]
    fn tokens(&self) -> Vec<u32> {
        self.trace.tokens.clone()
    }

    /// The text of the tokens.
    #[getter]
    fn text(&self) -> PyResult<String> {
        Ok(self.pieces_or_error()?.concat())
    }

    /// The text of each token. Joined, they are the text: a character of several tokens is the text
    /// of its last.
    #[getter]
    fn pieces(&self) -> PyResult<Vec<String>> {
        Ok(self.pieces_or_error()?.to_vec())
    }

    /// How unexpected each token was, in bits, [T] of float32: -log2 of its probability given those
    /// before it. NaN for the first.
    #[getter]
    fn surprise(&self, py: Python<'_>) -> PyResult<Py<PyArray1<f32>>> {
        py.import("numpy")?;
        let array = self.surprise.get_or_try_init(py, || {
            let array = PyArray1::from_slice(py, &self.trace.surprise);
            read_only(&array)?;
            Ok::<_, PyErr>(array.unbind())
        })?;
        Ok(array.clone_ref(py))
    }

    /// Activations above 0, where neurons fire.
    #[getter]
    fn u(&self, py: Python<'_>) -> Py<Csr> {
        self.u.clone_ref(py)
    }

    /// Gates above 0: activations times what each neuron reads out of the state.
    #[getter]
    fn g(&self, py: Python<'_>) -> Py<Csr> {
        self.g.clone_ref(py)
    }

    /// Number of layers, L.
    #[getter]
    fn layers(&self) -> usize {
        self.trace.layers
    }

    /// Number of heads, H.
    #[getter]
    fn heads(&self) -> usize {
        self.trace.heads
    }

    /// Number of neurons in a head, N.
    #[getter]
    fn neurons_per_head(&self) -> usize {
        self.bdh.model().config.neurons_per_head
    }

    /// The k neurons of a token in a layer with the largest gates, then activations: a list of
    /// Firing(neuron, u, g).
    #[pyo3(signature = (token, layer, k=16))]
    fn topk<'py>(&self, py: Python<'py>, token: isize, layer: isize, k: usize) -> PyResult<Bound<'py, PyList>> {
        let firings = self.trace.topk(self.token(token)?, self.layer(layer)?, k);
        tuples::list(py, "Firing", firings.iter().map(|firing| (self.name(firing.neuron), firing.u, firing.g)))
    }

    /// The state after the last token, [N, D] of float32, a row for each neuron of the head. As the
    /// next token reads it: neuron i reads u of i times row i. With as_read=False, as it is stored:
    /// each token's part has the rotary phases of its own position, and a row mixes with its pair's
    /// when it is read. The first call reads the text again, and keeps the state of all layers and
    /// heads: 4·L·H·N·D bytes, for each of the two forms.
    #[pyo3(signature = (layer, head, as_read=true))]
    fn state<'py>(&self, py: Python<'py>, layer: isize, head: isize, as_read: bool) -> PyResult<Bound<'py, PyAny>> {
        // Says so in Python's words where NumPy is missing.
        py.import("numpy")?;
        let at = (self.layer(layer)?, index("head", head, self.heads())?);
        let kept = &self.states[usize::from(as_read)];
        let state = match kept.get(py) {
            Some(state) => state,
            None => {
                let state = self.read_state(py, as_read)?;
                kept.get_or_init(py, || state)
            }
        };
        state.bind(py).get_item(at)
    }

    /// Contributions to the read-out z of a neuron, before the rectifier, from the neurons of its
    /// head that fire: a list of Contribution(neuron, value), the largest first; they sum to z. neuron
    /// is a name, "3.1021", or a number h·N + i.
    ///
    /// The state is rebuilt on the host, token by token up to this one, and kept there: 4·L·H·N·D
    /// bytes, and 16 bytes for each neuron that has fired. A later token goes on from there, an
    /// earlier one begins again; the same token costs nothing more.
    fn contributions<'py>(
        &self,
        py: Python<'py>,
        token: isize,
        layer: isize,
        neuron: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyList>> {
        let (token, layer, neuron) = (self.token(token)?, self.layer(layer)?, self.neuron(neuron)?);
        let mut all = self.look(py, token, layer, |reading| reading.contributions(neuron))?;
        all.sort_by(|a, b| b.value.abs().total_cmp(&a.value.abs()));
        tuples::list(py, "Contribution", all.iter().map(|given| (self.name(given.from), given.value)))
    }

    /// Past tokens whose writing a token reads in a layer: a list of Source(token, piece, share,
    /// scores), the largest share first. Shares sum to 1; the read-out y of a head is the
    /// sum of scores[head] times the residual stream at that token. Costs are those of
    /// contributions.
    fn sources<'py>(&self, py: Python<'py>, token: isize, layer: isize) -> PyResult<Bound<'py, PyList>> {
        let (token, layer) = (self.token(token)?, self.layer(layer)?);
        let all = self.look(py, token, layer, |reading| reading.largest_sources(usize::MAX))?;
        let rows = all.into_iter().map(|source| {
            let token = source.position as usize;
            let scores = pyo3::types::PyTuple::new(py, source.scores)?;
            Ok((token, self.piece(token), source.share, scores))
        });
        tuples::list(py, "Source", rows.collect::<PyResult<Vec<_>>>()?)
    }

    /// Writes all neurons as a NumPy archive: version, tokens, position, surprise, shape (T, L, H,
    /// N), and u_indptr, u_indices, u_data, g_indptr, g_indices, g_data.
    fn save_npz(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        detached(py, |_| self.trace.write_npz(&path).map_err(|error| unwritable(&path, &error)))
    }

    /// The page of the text, an HTML document with everything that it needs. Reads the text again,
    /// twice. labels: names of neurons, {"3.1021": "royalty"} or {"3.1021": {"name": …, "note": …,
    /// "score": …}}.
    #[pyo3(signature = (title=None, labels=None))]
    fn html(&self, py: Python<'_>, title: Option<String>, labels: Option<&Bound<'_, PyAny>>) -> PyResult<String> {
        let (bdh, text) = (self.bdh.get()?, self.page_text(title, labels)?);
        let page = |signals: &mut Signals| {
            inspect::text_page(bdh, &self.trace.tokens, self.forgetting, &text, |_| signals.flow())
        };
        detached(py, |signals| page(signals).map_err(errors::generation))
    }

    /// Writes the page that html makes into a file.
    #[pyo3(signature = (path, title=None, labels=None))]
    fn save_html(
        &self,
        py: Python<'_>,
        path: PathBuf,
        title: Option<String>,
        labels: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let page = self.html(py, title, labels)?;
        detached(py, |_| files::write(&path, page.as_bytes()).map_err(|error| unwritable(&path, &error)))
    }

    /// The data of the page, JSON, of the first `count` tokens.
    #[pyo3(signature = (count, title=None, labels=None))]
    fn _page_data<'py>(
        &self,
        py: Python<'py>,
        count: usize,
        title: Option<String>,
        labels: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let (bdh, text) = (self.bdh.get()?, self.page_text(title, labels)?);
        let tokens = &self.trace.tokens[..count.min(self.trace.tokens.len())];
        let data = |signals: &mut Signals| {
            inspect::text_data(bdh, tokens, self.forgetting, &text, |_| signals.flow()).map(|data| data.to_string())
        };
        let data = detached(py, |signals| data(signals).map_err(errors::generation))?;
        Ok(PyBytes::new(py, data.as_bytes()))
    }

    /// The text as a table, coloured by surprise, for notebooks: HTML without scripts, at most
    /// max_bytes of it.
    #[pyo3(signature = (max_bytes=200_000))]
    fn _repr_html_(&self, max_bytes: usize) -> String {
        table::html(&self.trace, self.pieces.as_deref(), &self.bdh, max_bytes)
    }

    fn __len__(&self) -> usize {
        self.trace.tokens.len()
    }

    fn __repr__(&self) -> String {
        let (count, name) = (self.trace.tokens.len(), &self.bdh.model().name);
        let [layers, heads, neurons] = [self.layers(), self.heads(), self.neurons_per_head()];
        format!("<bdh_gpu.Trace of {name}: {count} tokens, {layers} layers, {heads} × {neurons} neurons>")
    }
}
