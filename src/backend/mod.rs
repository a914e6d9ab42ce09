//! The interface of a device, and its two implementations, [`cpu`] and [`gpu`].
//!
//! A [`Backend`] holds a model's weights. It creates [`Slots`]: a batch of sequences that decode
//! together, each with its state ρ, its sampler and its logits resident on the device. A [`Plan`]
//! lists the inputs and outputs of every slot at every step; one call runs it without a round trip
//! to the host.

pub mod beams;
pub mod codes;
pub mod cpu;
pub mod gpu;
pub mod memory;
pub mod pack;
pub mod prefill;
pub mod profile;
pub mod stage;
pub mod watch;

use crate::model::{ModelError, Weights};
#[cfg(doc)]
use crate::sampling::NO_TOKEN;
use crate::sampling::{SamplerParams, SamplerState};
use maybe_async::maybe_async;
pub use memory::SavedMemory;
use watch::TokenNeurons;

/// Input of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// None: the slot is idle and does not change.
    Idle,
    /// This token.
    Token(u32),
    /// The token that the slot's sampler drew last.
    Previous,
}

/// Output of a step besides the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    /// None: the step only updates the state.
    State,
    /// The slot's logits.
    Logits,
    /// The slot's logits, and a token drawn from them.
    Token,
}

/// One slot's part of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlotStep {
    /// Input.
    pub input: Input,
    /// Output.
    pub output: Output,
    /// Position of the token in its sequence; positions are consecutive.
    pub position: u32,
    /// Forgetting: factor on q when the token attends to the past.
    pub read_scale: f32,
    /// Forgetting: factor on x when the token enters the window or the state.
    pub write_scale: f32,
    /// Forgetting: factor on the whole state before this token.
    pub rescale: Option<f32>,
}

impl SlotStep {
    /// An idle slot.
    pub const IDLE: Self = Self {
        input: Input::Idle,
        output: Output::State,
        position: 0,
        read_scale: 1.0,
        write_scale: 1.0,
        rescale: None,
    };
}

/// A token of a [`Chunk`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChunkToken {
    /// Its id.
    pub token: u32,
    /// Forgetting: factor on q when the token attends to the past.
    pub read_scale: f32,
    /// Forgetting: factor on x when the token enters the window or the state.
    pub write_scale: f32,
}

/// Consecutive tokens of one sequence that prefill processes together; each weight is loaded once
/// for all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chunk {
    /// Position of the first token.
    pub position: u32,
    /// Forgetting: factor on the whole state before the first token.
    pub rescale: Option<f32>,
    /// The tokens, at least one, at most [`Backend::chunk_tokens`].
    pub tokens: Vec<ChunkToken>,
    /// Whether to return the logits after every token.
    pub logits: bool,
}

/// The steps to run.
///
/// A slot whose sampler has stopped (see [`SamplerState::status`]) has no previous token: its steps
/// with [`Input::Previous`] are idle from then on.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// `[steps][slots]`.
    pub steps: Vec<Vec<SlotStep>>,
    /// Whether to return the logits of every step that computes them.
    pub trace_logits: bool,
}

/// Results of a [`Plan`].
#[derive(Clone, Debug, Default)]
pub struct RunOutput {
    /// The token that each slot drew at each step, `[steps][slots]`, or [`NO_TOKEN`].
    pub tokens: Vec<Vec<u32>>,
    /// `[steps][slots]`, each `[V]`, or empty if the step computed no logits. Empty unless
    /// [`Plan::trace_logits`] is set.
    pub logits: Vec<Vec<Vec<f32>>>,
    /// Each slot's sampler after the last step.
    pub samplers: Vec<SamplerState>,
}

/// Numeric type of the weights on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats; arithmetic stays in 32 bits.
    F16,
    /// 8-bit integers with a scale per neuron in the encoders and the decoder, 16-bit floats in the
    /// embedding and the language model head.
    I8,
}

impl WeightType {
    /// Bytes of a weight in the encoders and the decoder.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::I8 => 1,
        }
    }

    /// Bytes of the scale that a neuron's weights have in each of these matrices.
    pub fn scale_bytes(self) -> usize {
        if self == Self::I8 { 4 } else { 0 }
    }

    /// Type of the embedding and the language model head.
    pub fn tables(self) -> Self {
        if self == Self::I8 { Self::F16 } else { self }
    }

    /// Bytes of a weight in the embedding and the language model head.
    pub fn table_bytes(self) -> usize {
        self.tables().bytes()
    }
}

impl std::fmt::Display for WeightType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::I8 => "int8",
        })
    }
}

/// Numeric type of the state on a device. The arithmetic is that of 32-bit floats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StateType {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit integers with a scale per row; see [`codes`].
    I16,
    /// 8-bit integers with a scale per row.
    I8,
}

impl std::fmt::Display for StateType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::I16 => "i16",
            Self::I8 => "i8",
        })
    }
}

/// Kind of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// The CPU backend.
    Cpu,
    /// A graphics processor.
    Gpu,
    /// A graphics driver that runs on the CPU, for example llvmpipe.
    SoftwareGpu,
}

/// Description of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Name from the driver, or "CPU" with threads and instruction set.
    pub name: String,
    /// API: "Vulkan", "Metal", "Dx12" or "CPU".
    pub api: String,
    /// Name and version of the driver; empty for the CPU.
    pub driver: String,
    /// Kind.
    pub kind: DeviceKind,
}

impl std::fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            DeviceKind::Cpu => write!(f, "{}", self.name),
            DeviceKind::Gpu => write!(f, "{} ({})", self.name, self.api),
            DeviceKind::SoftwareGpu => write!(f, "{} ({}, software)", self.name, self.api),
        }
    }
}

/// Failure of a device.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// No adapter matches the request.
    #[error("cannot find {wanted}: {}", no_adapter(adapters))]
    NoAdapter {
        /// The adapter that was asked for.
        wanted: String,
        /// The adapters of this machine: number and name.
        adapters: Vec<String>,
    },
    /// The model exceeds the adapter's limits.
    #[error("{device}: the model needs {what}: {needed}, but the adapter allows {allowed}")]
    Limit {
        /// The adapter.
        device: String,
        /// The limited quantity.
        what: &'static str,
        /// The amount that the model needs.
        needed: u64,
        /// The amount that the adapter allows.
        allowed: u64,
    },
    /// A weight exceeds the range of f16.
    #[error("tensor {tensor:?} holds {value} at index {index:?}, more than f16 can (65504)")]
    Overflow {
        /// The tensor, by its official name.
        tensor: &'static str,
        /// Its index in the tensor, one number per dimension.
        index: Vec<usize>,
        /// The weight.
        value: f32,
    },
    /// Weights of a model that is not in memory could not be read.
    #[error(transparent)]
    Weights(Box<ModelError>),
    /// The device or the host ran out of memory.
    #[error(
        "{device}: out of memory while allocating {what}{}",
        if *.bytes > 0 { format!(" ({bytes} bytes)") } else { String::new() }
    )]
    OutOfMemory {
        /// The device.
        device: String,
        /// Purpose of the allocation.
        what: &'static str,
        /// Size in bytes, or 0 if unknown.
        bytes: u64,
    },
    /// The driver failed to open the adapter.
    #[error("{device}: the device cannot be opened ({message})")]
    Open {
        /// The adapter.
        device: String,
        /// The driver's message.
        message: String,
    },
    /// The device was lost: it was unplugged, reset by its driver or suspended, or it did not
    /// respond.
    #[error("{device}: the device was lost ({reason})")]
    Lost {
        /// The device.
        device: String,
        /// The driver's message.
        reason: String,
    },
    /// The adapter has no timestamp queries.
    #[error("{device}: cannot time its kernels: the adapter has no timestamp queries")]
    NoTimestamps {
        /// The device.
        device: String,
    },
    /// Neurons are to be watched on a device that was opened without.
    #[error("{device}: neurons cannot be watched: the device was opened without that")]
    NotWatchable {
        /// The device.
        device: String,
    },
    /// A sliding window on a device that has none.
    #[error("{device}: a sliding window works on the CPU only")]
    NoSlidingWindow {
        /// The device.
        device: String,
    },
    /// The device returned what no computation can give. What it has returned before cannot be
    /// trusted either.
    #[error("{device}: {message}")]
    Garbage {
        /// The device.
        device: String,
        /// The value that it returned, and where.
        message: String,
    },
    /// The driver rejected a command or a shader: a defect of the driver or of this program.
    #[error("{device}: {message}")]
    Driver {
        /// The device.
        device: String,
        /// The driver's message.
        message: String,
    },
}

/// The adapters that exist, as [`BackendError::NoAdapter`] lists them.
fn no_adapter(adapters: &[String]) -> String {
    if adapters.is_empty() {
        "there is no Vulkan, Metal or DX12 adapter here; install a graphics driver (Debian: mesa-vulkan-drivers)".into()
    } else {
        format!("there is {}", adapters.join(", "))
    }
}

/// A model's weights on a device.
#[maybe_async(?Send)]
pub trait Backend: Send + Sync {
    /// Which device this is.
    fn device(&self) -> &DeviceInfo;
    /// Numeric type of the weights.
    fn weight_type(&self) -> WeightType;
    /// Numeric type of the states.
    fn state_type(&self) -> StateType;
    /// Bytes of weights on the device.
    fn weight_bytes(&self) -> u64;
    /// Returns the `weights` that the backend was created from. Tensors that the backend holds
    /// unchanged in host memory read that copy; the others keep their source.
    fn host_weights(&self, weights: &Weights) -> Weights {
        weights.clone()
    }
    /// Whether neurons can be watched: see [`Slots::run_watched`].
    fn is_watchable(&self) -> bool {
        true
    }
    /// Best batch size for states of `state_bytes` per sequence.
    fn preferred_slots(&self, state_bytes: u64) -> usize;
    /// Most tokens in a [`Chunk`], at least one.
    fn chunk_tokens(&self) -> usize;
    /// Allocates `count` empty sequences.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`] if their states do not fit.
    async fn create_slots(&self, count: usize) -> Result<Box<dyn Slots>, BackendError>;
    /// Allocates an empty base state and `count` beams that share it.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`] or [`BackendError::Limit`] if they do not fit.
    async fn create_beams(&self, count: usize) -> Result<Box<dyn beams::Beams>, BackendError>;
    /// Closes the device and frees its memory, at once. Later calls fail with
    /// [`BackendError::Lost`]. The CPU has nothing to close.
    fn close(&self) {}
    /// The decode kernels one at a time, for verification.
    fn stages(&self) -> &dyn stage::Stages;
    /// The beam search kernels one at a time, for verification.
    fn beam_stages(&self) -> &dyn beams::BeamStages;
    /// The prefill kernels one at a time, for verification.
    fn prefill_stages(&self) -> &dyn prefill::PrefillStages;
}

/// A set of sequences that decode together on one device.
///
/// Every method fails with [`BackendError`] if the device fails; the contents of the slots are
/// undefined afterwards.
#[maybe_async(?Send)]
pub trait Slots: Send {
    /// Number of sequences.
    fn count(&self) -> usize;
    /// Clears a slot's state and window.
    async fn clear(&mut self, slot: usize) -> Result<(), BackendError>;
    /// Clears a slot, and lets its tokens attend to no more than the `reach` tokens before them (a
    /// sliding window); `None` lets them attend to all. A reach needs states of floats, and chunks
    /// that end at position `reach` at the latest.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`] if the tokens' residuals do not fit, and
    /// [`BackendError::NoSlidingWindow`] for a device that cannot.
    async fn set_reach(&mut self, slot: usize, reach: Option<u32>) -> Result<(), BackendError>;
    /// Copies a slot's state, logits and sampler to another slot.
    async fn copy(&mut self, from: usize, to: usize) -> Result<(), BackendError>;
    /// Starts a slot's sampler with its options, its token counts (`[V]`, see [`crate::sampling`])
    /// and the number of tokens that it has drawn so far.
    async fn set_sampler(
        &mut self,
        slot: usize,
        params: &SamplerParams,
        counts: &[u32],
        generated: u32,
    ) -> Result<(), BackendError>;
    /// Takes over a slot's biases, `[V]` (see [`BiasRow`](crate::sampling::BiasRow)), for options
    /// with [`FLAG_BIASES`](crate::sampling::FLAG_BIASES).
    async fn set_biases(&mut self, slot: usize, biases: &[f32]) -> Result<(), BackendError>;
    /// Runs a plan.
    async fn run(&mut self, plan: &Plan) -> Result<RunOutput, BackendError>;
    /// Runs a plan like [`Slots::run`], but slower, and returns the neurons of every step and slot,
    /// `[steps][slots]`; nothing for idle slots. The results are the same to the last bit.
    ///
    /// # Errors
    /// [`BackendError::NotWatchable`] if the backend was opened without
    /// [`GpuOptions::watchable`](gpu::GpuOptions).
    async fn run_watched(&mut self, plan: &Plan) -> Result<(RunOutput, Vec<Vec<TokenNeurons>>), BackendError>;
    /// Processes a chunk like [`Slots::prefill`], but slower, and returns the neurons of its tokens
    /// too. The results are the same to the last bit.
    async fn prefill_watched(
        &mut self,
        slot: usize,
        chunk: &Chunk,
    ) -> Result<(Vec<f32>, Vec<TokenNeurons>), BackendError>;
    /// Runs a plan like [`Slots::run`], but slower, and measures its parts. Fails with
    /// [`BackendError::NoTimestamps`] on adapters without timestamp queries.
    async fn profile(&mut self, plan: &Plan) -> Result<profile::Profile, BackendError>;
    /// Processes a chunk like [`Slots::prefill`], but slower, and measures its parts. Devices that
    /// cannot time kernels report one part.
    async fn profile_prefill(&mut self, slot: usize, chunk: &Chunk) -> Result<profile::Profile, BackendError> {
        let start = web_time::Instant::now();
        self.prefill(slot, chunk).await?;
        Ok(profile::Profile::of_one_part("prefill", start.elapsed()))
    }
    /// Processes a chunk: settles the window, then y = tril(Q Qᵀ) X + Q ρ and ρ ← ρ + Qᵀ X. Returns
    /// the logits `[T, V]` if [`Chunk::logits`] is set; the last ones become the slot's logits.
    async fn prefill(&mut self, slot: usize, chunk: &Chunk) -> Result<Vec<f32>, BackendError>;
    /// A slot's latest logits, `[V]`.
    async fn logits(&mut self, slot: usize) -> Result<Vec<f32>, BackendError>;
    /// A slot's settled state ρ' (see [`crate::model::forgetting`]), `[L, H, N, D]`.
    async fn read_state(&mut self, slot: usize) -> Result<Vec<f32>, BackendError>;
    /// Replaces a slot's state by `[L, H, N, D]` numbers and clears its window.
    async fn write_state(&mut self, slot: usize, state: &[f32]) -> Result<(), BackendError>;
    /// A slot's memory of its sequence. On the same device, a restored sequence continues bit for
    /// bit.
    async fn snapshot(&mut self, slot: usize) -> Result<SavedMemory, BackendError>;
    /// Replaces a slot's memory by a snapshot; a state of another type is converted.
    async fn restore(&mut self, slot: usize, memory: &SavedMemory) -> Result<(), BackendError>;
}
