//! The class `BDH`.

use crate::completion::{Completion, Failed, Finished, Job, Row};
use crate::errors;
use crate::fork::Owned;
use crate::input;
use crate::options::{Extra, Options};
use crate::score::Score;
use crate::session::Session;
use crate::signals::{Signals, detached};
use crate::stream::{Search, Source, TextStream};
use crate::trace::{Host, Trace};
use bdh_gpu::backend::StateType;
use bdh_gpu::generation::Snapshot;
use bdh_gpu::model::{LoadOptions, NeuronEdit, NeuronError, Rope};
use bdh_gpu::{Bdh, DeviceChoice, DeviceOptions, WeightChoice};
use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyType};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

/// A model on a device, ready to generate.
///
/// Options of the generating methods; what is not given, or None, is the model's own:
///   {options};
///   context (a number of tokens, or "full"), forget_tau, window (a number of tokens, on the CPU);
///   echo: False leaves the prompt out of the result.
///
/// Raises ValueError for an option out of its range and BDHError where the device fails. Other threads run while
/// the device works; Ctrl-C interrupts.
#[pyclass(frozen, name = "BDH", module = "bdh_gpu")]
pub struct Model {
    bdh: Owned<Bdh>,
    host: Arc<Host>,
}

const ONE: &[Extra] = &[Extra::Echo, Extra::Context];
const MANY: &[Extra] = &[Extra::Echo, Extra::Context, Extra::NumReturnSequences, Extra::Seeds];
/// Of the methods that return texts apart from their prompts.
const COMPLETE: &[Extra] = &[Extra::Context, Extra::NumReturnSequences, Extra::Seeds];

impl Model {
    fn open(
        py: Python<'_>,
        device: Option<&Bound<'_, PyAny>>,
        weights: &str,
        state: Option<&Bound<'_, PyAny>>,
        threads: Option<usize>,
        watchable: bool,
        load: impl FnOnce(&mut Signals) -> Result<bdh_gpu::Model, bdh_gpu::model::ModelError> + Send,
    ) -> PyResult<Self> {
        let device = device.map_or(Ok(DeviceChoice::Auto), device_of)?;
        let weights: WeightChoice = choice("weights", weights)?;
        let state = state.map_or(Ok(StateType::F32), state_of)?;
        if threads == Some(0) {
            return Err(PyValueError::new_err("threads is 0: at least one thread is needed"));
        }
        detached(py, |signals| {
            let model = load(signals).map_err(|error| errors::open(error.into()))?;
            let options = DeviceOptions { device, weights, state, threads, watchable };
            let bdh = Bdh::with(model, &options).map_err(|error| errors::open(error.into()))?;
            Ok(Self { bdh: Owned::new(bdh), host: Arc::default() })
        })
    }

    /// Generates for all prompts.
    fn run(&self, py: Python<'_>, prompts: &[Vec<u32>], options: &Options, several: bool) -> PyResult<Vec<Finished>> {
        let job = self.job(options, several)?;
        let bdh = self.bdh.get()?;
        detached(py, |signals| job.run(bdh, prompts, signals))
    }

    /// What the options ask for.
    fn job(&self, options: &Options, several: bool) -> PyResult<Job> {
        Ok(Job {
            settings: options.settings(&self.bdh)?,
            sequences: if several { options.sequences(&self.bdh) } else { 1 },
            forgetting: options.forgetting(&self.bdh)?,
            seeds: options.seeds.clone(),
        })
    }

    /// Continues texts; what is returned begins with the prompts if that is wanted.
    fn texts(&self, py: Python<'_>, prompts: &[String], options: &Options, several: bool) -> PyResult<Vec<String>> {
        self.bdh.check_text().map_err(errors::generation)?;
        let tokens = self.encode_all(prompts)?;
        let whole = |finished: &Finished| {
            let prompt = if options.echo { &prompts[finished.prompt][..] } else { "" };
            prompt.to_owned() + &finished.text(&self.bdh, &tokens)
        };
        Ok(self.run(py, &tokens, options, several)?.iter().map(whole).collect())
    }

    fn encode_all(&self, texts: &[String]) -> PyResult<Vec<Vec<u32>>> {
        texts.iter().map(|text| input::encode(&self.bdh, text)).collect()
    }
}

fn choice<T: FromStr<Err: std::fmt::Display>>(name: &str, text: &str) -> PyResult<T> {
    text.parse().map_err(|error| PyValueError::new_err(format!("{name} is {text:?}, {error}")))
}

/// Prompts; a single text would otherwise pass for a sequence of letters.
fn prompts(given: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    if given.is_instance_of::<PyString>() {
        return Err(PyTypeError::new_err("prompts must be a sequence of str, not str; for one prompt, give [prompt]"));
    }
    given.try_iter()?.map(|prompt| prompt?.extract()).collect()
}

/// A device by its name or index.
fn device_of(device: &Bound<'_, PyAny>) -> PyResult<DeviceChoice> {
    if let Ok(index) = device.extract::<usize>() {
        return Ok(DeviceChoice::Index(index));
    }
    match device.cast::<PyString>() {
        Ok(name) => choice("device", &name.to_cow()?),
        Err(_) => {
            let message = format!("device must be str or int, not {}", device.get_type().name()?);
            Err(PyTypeError::new_err(message))
        }
    }
}

/// The last part of a dtype's name, as Python's packages write it: torch.float16, <class
/// 'numpy.float16'>, dtype('float16'), float16.
fn dtype_name(dtype: &Bound<'_, PyAny>) -> PyResult<String> {
    let name = dtype.str()?.to_string();
    Ok(name.trim_end_matches("'>").rsplit('.').next().unwrap_or_default().to_string())
}

/// The type of weights that a dtype names.
fn weights_of(dtype: &Bound<'_, PyAny>) -> PyResult<&'static str> {
    let name = dtype_name(dtype)?;
    match name.as_str() {
        "float16" | "half" | "f16" => Ok("f16"),
        "float32" | "float" | "f32" => Ok("f32"),
        "int8" | "i8" => Ok("int8"),
        "auto" => Ok("auto"),
        _ => Err(PyValueError::new_err(format!("dtype is {name}: expected float16, float32, int8 or auto"))),
    }
}

/// The type of states that a dtype names.
fn state_of(dtype: &Bound<'_, PyAny>) -> PyResult<StateType> {
    let name = dtype_name(dtype)?;
    match name.as_str() {
        "float32" | "float" | "f32" => Ok(StateType::F32),
        "int16" | "i16" => Ok(StateType::I16),
        "int8" | "i8" => Ok(StateType::I8),
        _ => Err(PyValueError::new_err(format!("state_dtype is {name}: expected float32, int16 or int8"))),
    }
}

#[pymethods]
impl Model {
    /// Loads a model directory, a weights file, or a model of the Hugging Face Hub by its name,
    /// "owner/name[@revision][:file]", which is downloaded into the Hub's cache. device: "auto" (the
    /// best graphics card, else the CPU), "gpu", "cpu", an index, or a part of an adapter's name.
    /// weights: "auto" (f16 where that changes none), "f32", "f16", "int8". state_dtype: of the
    /// sequences' states, "float32" (exact), "int16", "int8". threads: of the CPU, by default one
    /// per processor. tokenizer: a tokenizer.json or its folder, in place of the one beside the
    /// model. rope: the kind of rotary embedding, "interleaved:65536" or "half-split:10000", for
    /// checkpoints that do not say it. dtype: another name for weights, as other packages have it:
    /// "float16", "float32", "int8", torch.float16, numpy.float32, … watchable: whether trace will
    /// be used; a graphics card must know it from the start, on the CPU it changes nothing.
    #[classmethod]
    #[pyo3(
        signature = (
            path, device=None, weights=None, tokenizer=None, rope=None, threads=None, dtype=None, state_dtype=None,
            watchable=false
        ),
        text_signature = "(path, device='auto', weights='auto', tokenizer=None, rope=None, threads=None, dtype=None, \
            state_dtype='float32', watchable=False)"
    )]
    #[allow(clippy::too_many_arguments, reason = "Python's keywords")]
    fn from_pretrained(
        class: &Bound<'_, PyType>,
        path: PathBuf,
        device: Option<&Bound<'_, PyAny>>,
        weights: Option<&str>,
        tokenizer: Option<PathBuf>,
        rope: Option<&str>,
        threads: Option<usize>,
        dtype: Option<&Bound<'_, PyAny>>,
        state_dtype: Option<&Bound<'_, PyAny>>,
        watchable: bool,
    ) -> PyResult<Self> {
        let py = class.py();
        let weights = match (weights, dtype) {
            (Some(_), Some(_)) => return Err(PyValueError::new_err("give weights or dtype, not both")),
            (_, Some(dtype)) => weights_of(dtype)?,
            (weights, None) => weights.unwrap_or("auto"),
        };
        let parse = |text: &str| {
            let parsed: Result<Rope, _> = text.parse();
            parsed.map_err(|error| PyValueError::new_err(format!("rope is {text:?}: {error}")))
        };
        let options = LoadOptions { tokenizer, rope: rope.map(parse).transpose()?, ..LoadOptions::default() };
        Self::open(py, device, weights, state_dtype, threads, watchable, |signals| {
            bdh_gpu::Model::from_pretrained(path, &options, &mut |_| signals.flow())
        })
    }

    /// The small model that comes with the package, on a device as for from_pretrained.
    #[classmethod]
    #[pyo3(
        signature = (device=None, weights="auto", threads=None, state_dtype=None, watchable=false),
        text_signature = "(device='auto', weights='auto', threads=None, state_dtype='float32', watchable=False)"
    )]
    fn embedded(
        class: &Bound<'_, PyType>,
        device: Option<&Bound<'_, PyAny>>,
        weights: &str,
        threads: Option<usize>,
        state_dtype: Option<&Bound<'_, PyAny>>,
        watchable: bool,
    ) -> PyResult<Self> {
        Self::open(class.py(), device, weights, state_dtype, threads, watchable, |_| bdh_gpu::Model::embedded())
    }

    /// Continues a text; the result begins with it.
    #[pyo3(signature = (prompt, max_new_tokens=None, **options))]
    fn generate_text(
        &self,
        py: Python<'_>,
        prompt: &str,
        max_new_tokens: Option<&Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<String> {
        let options = Options::read("generate_text", ONE, max_new_tokens, options)?;
        let texts = self.texts(py, &[prompt.to_owned()], &options, false)?;
        Ok(texts.into_iter().next().unwrap_or_default())
    }

    /// Continues token ids; the result begins with them.
    #[pyo3(signature = (tokens, max_new_tokens=None, **options))]
    fn generate(
        &self,
        py: Python<'_>,
        tokens: &Bound<'_, PyAny>,
        max_new_tokens: Option<&Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Vec<u32>> {
        let options = Options::read("generate", ONE, max_new_tokens, options)?;
        let prompts = [input::ids(&self.bdh, tokens)?];
        let new =
            self.run(py, &prompts, &options, false)?.pop().map_or_else(Vec::new, |finished| finished.generated.tokens);
        let [prompt] = prompts;
        Ok(if options.echo { [prompt, new].concat() } else { new })
    }

    /// Continues several texts side by side; results are in their order. num_return_sequences: how many for each.
    /// seeds: one for each prompt, in place of seed; a prompt with a seed of its own gets the same texts in any batch.
    #[pyo3(signature = (prompts, max_new_tokens=None, **options))]
    fn generate_batch(
        &self,
        py: Python<'_>,
        prompts: &Bound<'_, PyAny>,
        max_new_tokens: Option<&Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Vec<String>> {
        let options = Options::read("generate_batch", MANY, max_new_tokens, options)?;
        self.texts(py, &self::prompts(prompts)?, &options, true)
    }

    /// As generate_batch, but returns a Completion for each text: the new text and its tokens, without the prompt,
    /// the seed, the score and why it ended.
    #[pyo3(signature = (prompts, max_new_tokens=None, **options))]
    fn complete(
        &self,
        py: Python<'_>,
        prompts: &Bound<'_, PyAny>,
        max_new_tokens: Option<&Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Vec<Completion>> {
        let options = Options::read("complete", COMPLETE, max_new_tokens, options)?;
        let texts = self::prompts(prompts)?;
        self.bdh.check_text().map_err(errors::generation)?;
        let prompts = self.encode_all(&texts)?;
        let finished = self.run(py, &prompts, &options, true)?;
        Ok(finished.into_iter().map(|text| text.completion(&self.bdh, &texts, &prompts)).collect())
    }

    /// As complete, for token ids, a tuple for each sequence. One that fails says why in its own and the others go on; a
    /// device that fails is an error.
    #[pyo3(signature = (prompts, max_new_tokens=None, **options))]
    fn _complete(
        &self,
        py: Python<'_>,
        prompts: Vec<Bound<'_, PyAny>>,
        max_new_tokens: Option<&Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Vec<Row>> {
        let options = Options::read("_complete", COMPLETE, max_new_tokens, options)?;
        self.bdh.check_text().map_err(errors::generation)?;
        let prompts = prompts.iter().map(|ids| input::ids(&self.bdh, ids)).collect::<PyResult<Vec<_>>>()?;
        let job = self.job(&options, true)?;
        let bdh = self.bdh.get()?;
        let mut rows = Vec::new();
        let finished = detached(py, |signals| {
            job.run_each(bdh, &prompts, signals, |failed| {
                let Failed { prompt, index, error } = failed;
                let error = Some(error.to_string());
                rows.push((prompt, index, String::new(), 0, String::new(), None, None, error));
                ControlFlow::Continue(())
            })
        })?;
        rows.extend(finished.into_iter().map(|finished| finished.row(&self.bdh, &prompts)));
        rows.sort_by_key(|row| (row.0, row.1));
        Ok(rows)
    }

    /// Continues a text and hands it out as it comes, the prompt first; joined, the pieces are what generate_text
    /// returns. The device works on while a piece is dealt with. Beam search has one piece, at its end.
    #[pyo3(signature = (prompt, max_new_tokens=None, **options))]
    fn generate_stream(
        &self,
        py: Python<'_>,
        prompt: &str,
        max_new_tokens: Option<&Bound<'_, PyAny>>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<TextStream> {
        let options = Options::read("generate_stream", ONE, max_new_tokens, options)?;
        let (settings, forgetting) = (options.settings(&self.bdh)?, options.forgetting(&self.bdh)?);
        self.bdh.get()?.check_text().map_err(errors::generation)?;
        let source = if settings.uses_beams() {
            let tokens = input::encode(&self.bdh, prompt)?;
            let job = Job { settings, sequences: 1, forgetting, seeds: None };
            let shown = if options.echo { prompt.to_owned() } else { String::new() };
            Source::Searched(Box::new(Search { bdh: self.bdh.clone(), prompt: tokens, job, shown }))
        } else {
            let pieces = detached(py, |_| {
                let stream = self.bdh.generate_stream_with(prompt, &settings.options, forgetting, options.echo);
                stream.map_err(errors::generation)
            })?;
            Source::Drawn(pieces)
        };
        Ok(TextStream::new(source))
    }

    /// The logits after each token, a NumPy array [T, V] of float32. Takes a text or token ids; context,
    /// forget_tau and window as for generating.
    #[pyo3(signature = (tokens, **options))]
    fn logits<'py>(
        &self,
        py: Python<'py>,
        tokens: &Bound<'py, PyAny>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        // Says so in Python's words where NumPy is missing.
        py.import("numpy")?;
        let forgetting = Options::read_context("logits", options)?.forgetting(&self.bdh)?;
        let tokens = input::text_or_ids(&self.bdh, tokens)?;
        let bdh = self.bdh.get()?;
        let rows =
            detached(py, |signals| bdh.logits(&tokens, forgetting, |_| signals.flow()).map_err(errors::generation))?;
        // The array takes the memory over; nothing is copied.
        PyArray1::from_vec(py, rows).reshape([tokens.len(), self.bdh.model().config.vocab_size])
    }

    /// How likely the model finds a text or token ids, at least two; context, forget_tau and
    /// window as for generating.
    #[pyo3(signature = (tokens, **options))]
    fn score(&self, py: Python<'_>, tokens: &Bound<'_, PyAny>, options: Option<&Bound<'_, PyDict>>) -> PyResult<Score> {
        let forgetting = Options::read_context("score", options)?.forgetting(&self.bdh)?;
        let tokens = input::text_or_ids(&self.bdh, tokens)?;
        let bdh = self.bdh.get()?;
        let score =
            detached(py, |signals| bdh.score(&tokens, forgetting, |_| signals.flow()).map_err(errors::generation))?;
        Ok(Score::new(score, &self.bdh))
    }

    /// Reads a text or token ids as one context and keeps its neurons: which fire at each token, in
    /// each layer, as the device computes them. context, forget_tau and window as for generating. On a
    /// graphics card the model must be loaded with watchable=True. Every layer waits for the host,
    /// so this is slower than generating. Memory: 8 bytes for each neuron that fires and each gate
    /// that is open, and as much again once their arrays are used.
    #[pyo3(signature = (tokens, **options))]
    fn trace(&self, py: Python<'_>, tokens: &Bound<'_, PyAny>, options: Option<&Bound<'_, PyDict>>) -> PyResult<Trace> {
        let forgetting = Options::read_context("trace", options)?.forgetting(&self.bdh)?;
        let tokens = input::text_or_ids(&self.bdh, tokens)?;
        if tokens.is_empty() {
            return Err(PyValueError::new_err("there is nothing to trace: the text is empty"));
        }
        let bdh = self.bdh.get()?;
        let trace =
            detached(py, |signals| bdh.trace(&tokens, forgetting, |_| signals.flow()).map_err(errors::generation))?;
        Trace::new(py, &self.bdh, &self.host, trace, forgetting)
    }

    /// The same model with edited neurons, on a device of the same choice; this one stays as it is.
    /// ablate: names of neurons, "h.i", that never fire; clamp: activations of 0 or more by name. The
    /// edits hold in all layers and at all positions.
    #[pyo3(signature = (ablate=Vec::new(), clamp=BTreeMap::new()), text_signature = "($self, ablate=(), clamp={})")]
    fn edited(&self, py: Python<'_>, ablate: Vec<String>, clamp: BTreeMap<String, f32>) -> PyResult<Self> {
        let name = |name: &String| name.parse().map_err(|error: NeuronError| PyValueError::new_err(error.to_string()));
        let ablated = ablate.iter().map(|neuron| Ok(NeuronEdit::Ablate(name(neuron)?)));
        let clamped = clamp.iter().map(|(neuron, value)| Ok(NeuronEdit::Clamp(name(neuron)?, *value)));
        let edits = ablated.chain(clamped).collect::<PyResult<Vec<NeuronEdit>>>()?;
        let bdh = self.bdh.get()?;
        let edited = detached(py, |_| bdh.edited(&edits).map_err(errors::open))?;
        Ok(Self { bdh: Owned::new(edited), host: Arc::default() })
    }

    /// Starts a conversation; context, forget_tau and window as for generating.
    #[pyo3(signature = (**options))]
    fn session(&self, py: Python<'_>, options: Option<&Bound<'_, PyDict>>) -> PyResult<Session> {
        let forgetting = Options::read_context("session", options)?.forgetting(&self.bdh)?;
        let bdh = self.bdh.get()?;
        let session = detached(py, |_| bdh.session_with(forgetting).map_err(errors::generation))?;
        Ok(Session::new(&self.bdh, session))
    }

    /// Goes on with a conversation from a state file, as Session.save and bdh-gpu --save-state write it.
    fn load_session(&self, py: Python<'_>, path: PathBuf) -> PyResult<Session> {
        let bdh = self.bdh.get()?;
        let session = detached(py, |_| {
            let snapshot = Snapshot::load(bdh, &path).map_err(errors::state)?;
            let mut session = bdh.session_with(snapshot.forgetting()).map_err(errors::generation)?;
            session.restore(&snapshot).map_err(errors::generation)?;
            Ok(session)
        })?;
        Ok(Session::new(&self.bdh, session))
    }

    /// The model's chat template, and the texts of the tokens that begin and end a text.
    fn _chat(&self) -> (Option<String>, Option<String>, Option<String>) {
        self.bdh.model().chat()
    }

    /// The tokens that an empty prompt stands for.
    fn _default_prompt(&self) -> PyResult<Vec<u32>> {
        self.bdh.default_prompt().map_err(errors::generation)
    }

    /// Token ids of a text.
    fn encode(&self, text: &str) -> PyResult<Vec<u32>> {
        input::encode(&self.bdh, text)
    }

    /// The text of token ids.
    fn decode(&self, tokens: &Bound<'_, PyAny>) -> PyResult<String> {
        self.bdh.check_text().map_err(errors::generation)?;
        Ok(self.bdh.decode(&input::ids(&self.bdh, tokens)?))
    }

    /// The model's name.
    #[getter]
    fn name(&self) -> &str {
        &self.bdh.model().name
    }

    /// The device that runs it.
    #[getter]
    fn device(&self) -> String {
        self.bdh.device().to_string()
    }

    /// How the device holds the sequences' states: "f32", "i16" or "i8".
    #[getter]
    fn state_dtype(&self) -> String {
        self.bdh.backend().state_type().to_string()
    }

    /// How the device holds the weights: "f32", "f16" or "int8".
    #[getter]
    fn weights(&self) -> String {
        self.bdh.backend().weight_type().to_string()
    }

    /// What is worth knowing about how the model was loaded, a line each.
    #[getter]
    fn notes(&self) -> Vec<String> {
        self.bdh.model().notes.clone()
    }

    /// Sizes and special tokens.
    #[getter]
    fn config<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let config = &self.bdh.model().config;
        let dict = PyDict::new(py);
        dict.set_item("n_layer", config.n_layer)?;
        dict.set_item("n_embd", config.n_embd)?;
        dict.set_item("n_head", config.n_head)?;
        dict.set_item("neurons_per_head", config.neurons_per_head)?;
        dict.set_item("vocab_size", config.vocab_size)?;
        dict.set_item("parameters", config.parameters())?;
        dict.set_item("trained_context", config.trained_context)?;
        dict.set_item("bos_token_id", config.bos_token_id)?;
        dict.set_item("eos_token_ids", &config.eos_token_ids)?;
        Ok(dict)
    }

    fn __repr__(&self) -> String {
        format!("<bdh_gpu.BDH {} ({}) on {}>", self.name(), self.weights(), self.device())
    }
}
