//! From prompts to text: sessions, the token loop, stopping, scores. No GPU types here.

mod api;
pub(crate) mod batch;
pub mod beam;
mod beams;
mod chooser;
pub(crate) mod chunks;
#[cfg(not(target_family = "wasm"))]
pub mod engine;
mod error;
mod failover;
mod lineage;
mod logprobs;
mod options;
mod position;
mod requests;
mod run;
pub(crate) mod score;
mod session;
#[cfg(not(target_family = "wasm"))]
mod session_stream;
mod settings;
mod snapshot;
mod state_file;
mod stop;
#[cfg(not(target_family = "wasm"))]
mod stream;
mod tally;
mod watched;

pub use batch::{TokenTrace, check_state};
pub use beam::{BeamError, BeamOptions, Hypothesis};
pub use beams::BeamProgress;
pub use error::{ChoiceError, GenerationError, OpenError};
pub use failover::Failover;
pub use logprobs::TokenLogprobs;
use maybe_async::maybe_async;
pub use options::{FinishReason, Generated, GenerationOptions};
pub use position::{ByPosition, FIRST_RANGE, Mean, PositionLosses, PositionRange, piece_length, token_bytes};
#[cfg(feature = "server")]
pub(crate) use requests::random_seed;
pub use requests::{BatchEvent, BatchOptions, Completion};
pub use score::Score;
pub use session::{Session, State, Written};
#[cfg(not(target_family = "wasm"))]
pub use session_stream::SessionPieces;
pub use settings::{Context, Past, Settings};
pub use snapshot::Snapshot;
pub use state_file::StateError;
#[cfg(not(target_family = "wasm"))]
pub use stream::TextPieces;

use crate::backend::cpu::CpuBackend;
use crate::backend::gpu::{AdapterChoice, GpuBackend, GpuOptions};
use crate::backend::{Backend, BackendError, DeviceInfo, StateType, WeightType, pack};
use crate::model::forgetting::Forgetting;
use crate::model::{Dtype, Model, NeuronEdit};
pub use crate::options::Request;
use crate::tokenizer::TextStream;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Which device to run on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best hardware adapter, else the CPU backend.
    #[default]
    Auto,
    /// The best adapter, a software one if there is no other.
    Gpu,
    /// This program's own CPU backend.
    Cpu,
    /// An adapter by its number in `bdh-gpu devices`.
    Index(usize),
    /// The first adapter whose name contains this text, whatever the case.
    Name(String),
}

impl std::str::FromStr for DeviceChoice {
    type Err = ChoiceError;

    /// Reads `auto`, `gpu`, `cpu` (whatever the case), an index, or a part of an adapter's name.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "auto" => Ok(Self::Auto),
            "gpu" => Ok(Self::Gpu),
            "cpu" => Ok(Self::Cpu),
            blank if blank.trim().is_empty() => {
                Err(ChoiceError("auto, gpu, cpu, an index, or a part of an adapter's name"))
            }
            _ => Ok(text.parse().map_or_else(|_| Self::Name(text.to_string()), Self::Index)),
        }
    }
}

impl std::str::FromStr for StateType {
    type Err = ChoiceError;

    /// Reads `f32`, `i16` or `i8`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "f32" => Ok(Self::F32),
            "i16" => Ok(Self::I16),
            "i8" => Ok(Self::I8),
            _ => Err(ChoiceError("f32, i16 or i8")),
        }
    }
}

/// How to hold the weights on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightChoice {
    /// f16 where that changes no weight, else f32.
    #[default]
    Auto,
    /// 32 bits.
    F32,
    /// 16 bits; weights that need more are rounded.
    F16,
    /// 8 bits with a scale per neuron, but 16 in the embedding and the language model head.
    Int8,
}

impl std::str::FromStr for WeightChoice {
    type Err = ChoiceError;

    /// Reads `auto`, `f32`, `f16` or `int8`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "int8" => Ok(Self::Int8),
            _ => Err(ChoiceError("auto, f32, f16 or int8")),
        }
    }
}

impl WeightChoice {
    /// The type that a device holds a model's weights in.
    pub(crate) fn resolve(self, model: &Model) -> WeightType {
        let w = &model.weights;
        let exact =
            || [&w.encoder, &w.encoder_v, &w.decoder, &w.lm_head, &w.embed].iter().all(|t| t.fits_f16_exactly());
        match self {
            // Codes that the model came with.
            Self::Auto if w.encoder.dtype() == Dtype::I8 => WeightType::I8,
            Self::F32 => WeightType::F32,
            Self::F16 => WeightType::F16,
            Self::Int8 => WeightType::I8,
            Self::Auto if exact() => WeightType::F16,
            Self::Auto => WeightType::F32,
        }
    }
}

/// Where a model runs, and how its numbers are held there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceOptions {
    /// The device.
    pub device: DeviceChoice,
    /// The weights.
    pub weights: WeightChoice,
    /// The states of sequences; f32 is exact.
    pub state: StateType,
    /// Threads where the CPU runs; by default one per processor. A model has work for one thread
    /// per block of 64 to 512 neurons at most.
    pub threads: Option<usize>,
    /// Whether neurons may be watched ([`Session::watch`]): kernels then store what they otherwise
    /// keep to themselves.
    pub watchable: bool,
}

/// A model on a device, ready to generate.
#[derive(Clone)]
pub struct Bdh {
    model: Arc<Model>,
    backend: Arc<dyn Backend>,
    fingerprint: Arc<OnceLock<[u8; 32]>>,
    fallback: Option<Arc<BackendError>>,
    /// The CPU's copy of the weights, for conversations whose device has failed; made once.
    cpu: Arc<Mutex<Option<Arc<dyn Backend>>>>,
    /// How it was put on its device.
    options: DeviceOptions,
}

#[maybe_async]
impl Bdh {
    /// Puts a model on a device.
    ///
    /// # Errors
    /// [`BackendError`] where the device cannot be found, opened, or hold the model. With
    /// [`DeviceChoice::Auto`] that is no error: the CPU takes over, and [`Bdh::fallback`] says why.
    pub async fn new(model: Model, device: &DeviceChoice, weights: WeightChoice) -> Result<Self, BackendError> {
        let options = DeviceOptions { device: device.clone(), weights, ..DeviceOptions::default() };
        Self::with(model, &options).await
    }

    /// [`Bdh::new`] with more options.
    ///
    /// # Errors
    /// As [`Bdh::new`].
    pub async fn with(mut model: Model, options: &DeviceOptions) -> Result<Self, BackendError> {
        let DeviceOptions { device, weights, state, threads, watchable } = options;
        let fingerprint = OnceLock::new();
        if *weights == WeightChoice::Int8 && model.weights.encoder.dtype() != Dtype::I8 {
            // The codes alone stay in memory; states are those of the model as it was.
            pack::check_range(&model, WeightType::I8)?;
            let _ = fingerprint.set(snapshot::fingerprint(&model));
            let codes = model.weights.to_int8();
            pack::check_failure(model.weights.failure())?;
            model.weights = codes;
        }
        let gpu_options = GpuOptions { state: *state, watchable: *watchable, ..GpuOptions::default() };
        let adapter = match device {
            DeviceChoice::Auto => Some(AdapterChoice::Hardware),
            DeviceChoice::Gpu => Some(AdapterChoice::Any),
            DeviceChoice::Index(index) => Some(AdapterChoice::Index(*index)),
            DeviceChoice::Name(name) => Some(AdapterChoice::Name(name.clone())),
            DeviceChoice::Cpu => None,
        };
        let cpu = || -> Result<Arc<dyn Backend>, BackendError> {
            let weight_type = weights.resolve(&model);
            Ok(Arc::new(CpuBackend::new(&model, weight_type, *threads)?.with_state(*state)))
        };
        let mut fallback = None;
        let backend = match adapter {
            None => cpu()?,
            Some(choice) => match open_gpu(&model, *weights, &choice, gpu_options, *device == DeviceChoice::Auto).await
            {
                Ok(gpu) => gpu,
                Err(error) if *device != DeviceChoice::Auto => return Err(error),
                Err(BackendError::NoAdapter { .. }) => cpu()?,
                Err(error) => {
                    fallback = Some(Arc::new(error));
                    cpu()?
                }
            },
        };
        let options = options.clone();
        Ok(Self { fallback, options, fingerprint: Arc::new(fingerprint), ..Self::assemble(model, backend) })
    }

    /// The same model with edited neurons ([`Model::edit`]), on a device of the same choice. This one
    /// stays as it is.
    ///
    /// # Errors
    /// [`OpenError::Edit`] for an impossible edit; else as [`Bdh::new`].
    ///
    /// ```
    /// # #[cfg(feature = "embedded-model")] {
    /// use bdh_gpu::model::NeuronEdit;
    /// use bdh_gpu::{Bdh, Forgetting};
    ///
    /// let model = Bdh::embedded()?;
    /// let edited = model.edited(&[NeuronEdit::Ablate("3.194".parse()?)])?;
    /// let text = model.encode(b"What work's, my countrymen, in hand?")?;
    /// let [before, after] = [&model, &edited].map(|model| {
    ///     model.score(&text, Forgetting::Full, |_| std::ops::ControlFlow::Continue(()))
    /// });
    /// assert_ne!(before?, after?);
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn edited(&self, edits: &[NeuronEdit]) -> Result<Self, OpenError> {
        let mut model = Model::clone(&self.model);
        model.edit(edits)?;
        Ok(Self::with(model, &self.options).await?)
    }

    /// A model on a device that holds its weights already, one with options of its own for instance.
    pub fn on(model: Model, backend: impl Backend + 'static) -> Self {
        Self::assemble(model, Arc::new(backend))
    }

    /// Lets go of the model's own copy of the weights where the backend's can be read.
    fn assemble(mut model: Model, backend: Arc<dyn Backend>) -> Self {
        model.weights = backend.host_weights(&model.weights);
        let model = Arc::new(model);
        let options = DeviceOptions::default();
        Self { model, backend, fingerprint: Arc::default(), fallback: None, cpu: Arc::default(), options }
    }

    /// Why the CPU runs although there is a hardware adapter, where [`DeviceChoice::Auto`] came to that.
    pub fn fallback(&self) -> Option<&BackendError> {
        self.fallback.as_deref()
    }

    /// The same model on the CPU: where to go on when another device has failed.
    ///
    /// # Errors
    /// [`BackendError`] where the threads cannot be started.
    pub fn on_cpu(&self) -> Result<Self, BackendError> {
        let mut cpu = self.cpu.lock().unwrap_or_else(PoisonError::into_inner);
        let backend = match &*cpu {
            Some(backend) => backend.clone(),
            None => {
                let backend = CpuBackend::new(&self.model, self.backend.weight_type(), self.options.threads)?;
                cpu.insert(Arc::new(backend.with_state(self.backend.state_type()))).clone()
            }
        };
        Ok(Self { backend, fallback: None, ..self.clone() })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What tells the model from others; computed when first asked for.
    pub(crate) fn fingerprint(&self) -> &[u8; 32] {
        self.fingerprint.get_or_init(|| snapshot::fingerprint(&self.model))
    }

    /// The device that runs it.
    pub fn device(&self) -> &DeviceInfo {
        self.backend.device()
    }

    /// The device's view of the model.
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// The options that the model asks for: its generation_config.json over the built-in ones.
    pub fn options(&self) -> GenerationOptions {
        GenerationOptions::of_model(&self.model)
    }

    /// An empty conversation, which forgets as the model says ([`Forgetting::of_model`]).
    ///
    /// # Errors
    /// [`GenerationError::Backend`] where its state does not fit the device's memory.
    pub async fn session(&self) -> Result<Session, GenerationError> {
        self.session_with(Forgetting::of_model(&self.model.config)).await
    }

    /// An empty conversation, with a choice of how much of the past counts.
    ///
    /// # Errors
    /// As [`Bdh::session`]; [`GenerationError::FadingState`] for a state that the choice does not
    /// suit.
    pub async fn session_with(&self, forgetting: Forgetting) -> Result<Session, GenerationError> {
        Session::new(self.clone(), forgetting).await
    }

    /// Token ids of a text, which is UTF-8 unless the tokens are bytes.
    ///
    /// # Errors
    /// [`GenerationError::Encode`] for a text that the model has no tokens for.
    pub fn encode(&self, text: &[u8]) -> Result<Vec<u32>, GenerationError> {
        Ok(self.model.tokenizer.encode(text)?)
    }

    /// The text of a sequence of tokens; empty where the model has no tokenizer (see [`Bdh::check_text`]).
    pub fn decode(&self, tokens: &[u32]) -> String {
        self.model.tokenizer.decode(tokens)
    }

    /// Checks that the model works with text, and not with token ids alone.
    ///
    /// # Errors
    /// [`GenerationError::Encode`] where it has no tokenizer.
    pub fn check_text(&self) -> Result<(), GenerationError> {
        Ok(self.model.tokenizer.check()?)
    }

    /// Refuses stop texts where there are no texts to look for them in.
    fn check_stops(&self, stops: &[String]) -> Result<(), GenerationError> {
        if stops.is_empty() { Ok(()) } else { self.check_text() }
    }

    /// Starts to turn the tokens that follow a prompt into text: what they add to the prompt's text.
    pub fn continuation(&self, prompt: &[u32]) -> TextStream {
        let mut stream = self.text_stream();
        stream.skip(prompt);
        stream
    }

    /// Starts to turn tokens into text as they come.
    pub fn text_stream(&self) -> TextStream {
        self.model.tokenizer.stream()
    }

    /// The prompt that an empty prompt stands for: the model's bos token, or a newline.
    ///
    /// # Errors
    /// [`GenerationError::EmptyPrompt`] where the model has neither.
    pub fn default_prompt(&self) -> Result<Vec<u32>, GenerationError> {
        let config = &self.model.config;
        match config.bos_token_id {
            Some(bos) => Ok(vec![bos]),
            None => match self.encode(b"\n") {
                Ok(newline) if !newline.is_empty() => Ok(newline),
                _ => Err(GenerationError::EmptyPrompt),
            },
        }
    }
}

/// Puts a model on a graphics card; with `room`, only where a state fits beside it.
#[maybe_async]
async fn open_gpu(
    model: &Model,
    weights: WeightChoice,
    adapter: &AdapterChoice,
    options: GpuOptions,
    room: bool,
) -> Result<Arc<dyn Backend>, BackendError> {
    let gpu = GpuBackend::with_options(model, weights.resolve(model), adapter, options).await?;
    if room {
        gpu.create_slots(1).await?;
    }
    Ok(Arc::new(gpu))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_chosen_by_word_index_or_name() {
        let choice = |text: &str| text.parse::<DeviceChoice>();
        assert_eq!(choice("CPU"), Ok(DeviceChoice::Cpu));
        assert_eq!(choice("gpu"), Ok(DeviceChoice::Gpu));
        assert_eq!(choice("12"), Ok(DeviceChoice::Index(12)));
        assert_eq!(choice("GeForce"), Ok(DeviceChoice::Name("GeForce".into())));
        assert!(choice(" ").unwrap_err().to_string().starts_with("expected auto, gpu, cpu"));
    }

    #[test]
    fn weights_are_chosen_by_word() {
        assert_eq!("f16".parse(), Ok(WeightChoice::F16));
        let error = "f8".parse::<WeightChoice>().unwrap_err();
        assert_eq!(error.to_string(), "expected auto, f32, f16 or int8");
    }
}
