//! What a device must do, and the two that do it.
//!
//! A [`Backend`] holds a model's weights. It hands out [`Slots`]: a set of sequences that decode
//! together, each with its state ρ, its sampler and its logits resident on the device. A [`Plan`] says
//! what every slot does at every step; one call runs it without a round trip to the host.

pub mod beams;
pub mod cpu;
pub mod gpu;
pub mod memory;
pub mod pack;
pub mod prefill;
pub mod profile;
pub mod stage;

use crate::model::Weights;
#[cfg(doc)]
use crate::sampling::NO_TOKEN;
use crate::sampling::{SamplerParams, SamplerState};
pub use memory::snapshot_len;

/// What a step reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// Nothing: the slot rests and nothing of it changes.
    Idle,
    /// This token.
    Token(u32),
    /// The token that the slot's sampler drew last.
    Previous,
}

/// What a step leaves behind besides the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    /// Only the state moves on.
    State,
    /// The slot's logits are computed.
    Logits,
    /// The logits are computed and the next token is drawn from them.
    Token,
}

/// One slot's part of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlotStep {
    /// What is read.
    pub input: Input,
    /// What is left behind.
    pub output: Output,
    /// Position of the token in its sequence; a sequence's positions follow one another.
    pub position: u32,
    /// Forgetting: factor on q where the state is read.
    pub read_scale: f32,
    /// Forgetting: factor on q where the state is written.
    pub write_scale: f32,
    /// Forgetting: factor on the whole state before this token.
    pub rescale: Option<f32>,
}

impl SlotStep {
    /// A slot at rest.
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
    /// Forgetting: factor on q where the past is read.
    pub read_scale: f32,
    /// Forgetting: factor on q where the state is written.
    pub write_scale: f32,
}

/// Tokens of one sequence that are read together: a weight serves all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chunk {
    /// Position of the first token; the others follow.
    pub position: u32,
    /// Forgetting: factor on the whole state before the first token.
    pub rescale: Option<f32>,
    /// The tokens, at least one, at most [`Backend::chunk_tokens`].
    pub tokens: Vec<ChunkToken>,
    /// Return the logits after every token.
    pub logits: bool,
}

/// What to run: for every step in turn, every slot's part in it.
///
/// A slot whose sampler has stopped (see [`SamplerState::status`]) has no previous token: from then on its steps
/// that read [`Input::Previous`] rest.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// `[steps][slots]`.
    pub steps: Vec<Vec<SlotStep>>,
    /// Return the logits of every step that computes them.
    pub trace_logits: bool,
}

/// What a [`Plan`] produced.
#[derive(Clone, Debug, Default)]
pub struct RunOutput {
    /// The token each slot drew at each step, `[steps][slots]`; [`NO_TOKEN`] where none was drawn.
    pub tokens: Vec<Vec<u32>>,
    /// Where the plan asks for it: `[steps][slots]`, each V numbers, or empty where none were computed.
    pub logits: Vec<Vec<Vec<f32>>>,
    /// Each slot's sampler after the last step.
    pub control: Vec<SamplerState>,
}

/// Numeric type in which a device holds the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats; arithmetic stays in 32 bits.
    F16,
}

impl std::fmt::Display for WeightType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        })
    }
}

/// What kind of hardware a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// This program's own CPU backend.
    Cpu,
    /// A graphics processor.
    Gpu,
    /// A graphics driver that runs on the CPU, such as llvmpipe.
    SoftwareGpu,
}

/// Which device runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Name as the driver gives it, or the CPU's.
    pub name: String,
    /// API: "Vulkan", "Metal", "Dx12" or "CPU".
    pub api: String,
    /// Driver name and version, where there is one.
    pub driver: String,
    /// What it is.
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

/// Why a device could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// No adapter answers to the request.
    #[error("{0}")]
    NoAdapter(String),
    /// The model does not fit the adapter's limits.
    #[error(
        "{device}: the model needs {what}: {needed}, but the adapter allows {allowed}; use another adapter (`bdh-gpu devices` lists them) or --device cpu"
    )]
    Limit {
        /// The adapter.
        device: String,
        /// The quantity in question.
        what: &'static str,
        /// How much of it the model needs.
        needed: u64,
        /// How much of it there is.
        allowed: u64,
    },
    /// A weight is too large for f16.
    #[error("tensor {tensor:?} holds {value} at index {index:?}, more than f16 can (65504); use --weights f32 or auto")]
    Overflow {
        /// The tensor, by its official name.
        tensor: &'static str,
        /// Where in the tensor, one index per dimension.
        index: Vec<usize>,
        /// The weight.
        value: f32,
    },
    /// The device or the host ran out of memory.
    #[error(
        "{device}: out of memory while allocating {what}{}; free memory, use fewer sequences, or use --device cpu",
        if *.bytes > 0 { format!(" ({bytes} bytes)") } else { String::new() }
    )]
    OutOfMemory {
        /// The device.
        device: String,
        /// What was being allocated.
        what: &'static str,
        /// Its size, or 0 where that is not known.
        bytes: u64,
    },
    /// The adapter is there, but its driver does not open it.
    #[error(
        "{device}: the device cannot be opened ({message}); free its memory, update its driver, or use --device cpu"
    )]
    Open {
        /// The adapter.
        device: String,
        /// What the driver said.
        message: String,
    },
    /// The device was lost: unplugged, reset by its driver, suspended, or without an answer for long.
    #[error("{device}: the device was lost ({reason}); start again, or use --device cpu")]
    Lost {
        /// The device.
        device: String,
        /// What the driver said.
        reason: String,
    },
    /// The adapter cannot say how long a kernel took.
    #[error("{device}: cannot time its kernels: the adapter has no timestamp queries; leave out --profile")]
    NoTimestamps {
        /// The device.
        device: String,
    },
    /// The driver refused a command or a shader: a defect of the driver or of this program.
    #[error("{device}: {message}; `bdh-gpu verify` checks this device, --device cpu avoids it")]
    Driver {
        /// The device.
        device: String,
        /// What the driver said.
        message: String,
    },
}

impl BackendError {
    /// What went wrong, without the advice: for where it is taken already.
    pub fn cause(&self) -> String {
        let message = self.to_string();
        match self {
            Self::NoAdapter(_) => message,
            _ => message.rsplit_once("; ").map_or(message.clone(), |(cause, _)| cause.to_string()),
        }
    }
}

/// A model's weights on a device.
pub trait Backend: Send + Sync {
    /// Which device this is.
    fn device(&self) -> &DeviceInfo;
    /// How the weights are held.
    fn weight_type(&self) -> WeightType;
    /// Bytes of weights on the device.
    fn weight_bytes(&self) -> u64;
    /// The model's `weights`, which the backend was made of, read from where it holds them in the host's memory,
    /// as far as it holds them unchanged there: the rest still lies where it lay.
    fn host_weights(&self, weights: &Weights) -> Weights {
        weights.clone()
    }
    /// How many sequences of a batch decode together best, by the bytes of one sequence's state.
    fn preferred_slots(&self, state_bytes: u64) -> usize;
    /// Most tokens in a [`Chunk`], at least one.
    fn chunk_tokens(&self) -> usize;
    /// Allocates `count` empty sequences.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`] where their states do not fit.
    fn create_slots(&self, count: usize) -> Result<Box<dyn Slots>, BackendError>;
    /// Allocates an empty base state and `count` beams that share it.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`] or [`BackendError::Limit`] where they do not fit.
    fn create_beams(&self, count: usize) -> Result<Box<dyn beams::Beams>, BackendError>;
    /// The kernels one at a time, for verification.
    fn stages(&self) -> &dyn stage::Stages;
    /// The kernels of the beam search one at a time, for verification.
    fn beam_stages(&self) -> &dyn beams::BeamStages;
    /// The kernels that read a chunk one at a time, for verification.
    fn prefill_stages(&self) -> &dyn prefill::PrefillStages;
}

/// A set of sequences that decode together on one device.
///
/// Every method fails with [`BackendError`] where the device does; nothing is guaranteed of the slots
/// afterwards.
pub trait Slots: Send {
    /// How many sequences there are.
    fn count(&self) -> usize;
    /// Empties a slot's state.
    fn clear(&mut self, slot: usize) -> Result<(), BackendError>;
    /// Copies a slot's state, logits and sampler to another slot.
    fn copy(&mut self, from: usize, to: usize) -> Result<(), BackendError>;
    /// Gives a slot's sampler its options, its token counts (`[V]`, see [`crate::sampling`]) and the
    /// number of tokens it has drawn so far, and sets it going.
    fn set_sampler(
        &mut self,
        slot: usize,
        params: &SamplerParams,
        counts: &[u32],
        generated: u32,
    ) -> Result<(), BackendError>;
    /// Runs a plan to its end.
    fn run(&mut self, plan: &Plan) -> Result<RunOutput, BackendError>;
    /// Runs a plan as [`Slots::run`] does, but slower, and says where its time went. Fails with
    /// [`BackendError::NoTimestamps`] on adapters that cannot tell.
    fn profile(&mut self, plan: &Plan) -> Result<profile::Profile, BackendError>;
    /// Reads a chunk as [`Slots::prefill`] does, but slower, and says where its time went. Devices that cannot tell kernels
    /// apart report all of it as one part.
    fn profile_prefill(&mut self, slot: usize, chunk: &Chunk) -> Result<profile::Profile, BackendError> {
        let start = std::time::Instant::now();
        self.prefill(slot, chunk)?;
        Ok(profile::Profile::of_one_part("prefill", start.elapsed()))
    }
    /// Reads a chunk: y = tril(Q Qᵀ) X + Q ρ, then ρ ← ρ + Qᵀ X. The window enters the state first and is empty
    /// afterwards. Returns the logits `[T, V]` where they are asked for; the last ones
    /// become the slot's.
    fn prefill(&mut self, slot: usize, chunk: &Chunk) -> Result<Vec<f32>, BackendError>;
    /// The logits that a slot computed last, `[V]`.
    fn logits(&mut self, slot: usize) -> Result<Vec<f32>, BackendError>;
    /// A slot's state ρ' (see [`crate::model::forgetting`]) with the window's tokens in it, `[L, H, N, D]`.
    fn read_state(&mut self, slot: usize) -> Result<Vec<f32>, BackendError>;
    /// Replaces a slot's state by `[L, H, N, D]` numbers.
    fn write_state(&mut self, slot: usize, state: &[f32]) -> Result<(), BackendError>;
    /// Everything a slot's sequence remembers (see [`memory::snapshot_len`]), in an order that does not depend on
    /// the device. Restored on the same device, the sequence continues bit for bit.
    fn snapshot(&mut self, slot: usize) -> Result<Vec<f32>, BackendError>;
    /// Replaces what a slot's sequence remembers by a snapshot.
    fn restore(&mut self, slot: usize, memory: &[f32]) -> Result<(), BackendError>;
}
