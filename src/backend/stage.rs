//! The decode kernels one at a time, independent of a device's layout.
//!
//! Both backends run a stage on the same numbers; [`crate::verify`] and the tests compare the
//! results. `S` is the number of sequences, and `L` = 1.

use super::memory::Memory;
use super::{BackendError, SlotStep};
use crate::sampling::{SamplerParams, SamplerState};
use maybe_async::maybe_async;

/// Input of the stages `embed`, `encode` and `encode_finished`.
#[derive(Clone, Debug)]
pub struct EncodeInput {
    /// The step of each sequence, `[S]`. An idle sequence keeps its memory, and its other outputs
    /// are zero. [`super::Input::Token`] starts at the first layer, from the token's embedding;
    /// [`super::Input::Previous`] continues from `residual` and `update`.
    pub steps: Vec<SlotStep>,
    /// Residual stream before the previous layer's update, `[S, D]`.
    pub residual: Vec<f32>,
    /// The previous layer's decoder output before its layer norm, `[S, D]`.
    pub update: Vec<f32>,
    /// Output of `finish` for them, `[S, D]`: the kernels of a batch start from it.
    pub finished: Option<Vec<f32>>,
    /// One layer's memory.
    pub memory: Memory,
}

/// Output of the stages `embed`, `encode` and `encode_finished`.
#[derive(Clone, Debug)]
pub struct EncodeOutput {
    /// Residual stream that enters the layer, `[S, D]`.
    pub residual: Vec<f32>,
    /// Activations u, `[S, H, N]`.
    pub activations: Vec<f32>,
    /// Attention output y before its layer norm, `[S, H, D]`.
    pub attention: Vec<f32>,
    /// Memory after the token.
    pub memory: Memory,
}

/// Input of the stages `project` and `project_collected`.
#[derive(Clone, Debug)]
pub struct ProjectInput {
    /// Activations u, `[S, H, N]`.
    pub activations: Vec<f32>,
    /// Attention output y before its layer norm, `[S, H, D]`.
    pub attention: Vec<f32>,
    /// Output of `collect` for it, `[S, H, D]`: the kernels of a batch start from it.
    pub collected: Option<Vec<f32>>,
}

/// Output of the stages `project` and `project_collected`.
#[derive(Clone, Debug)]
pub struct ProjectOutput {
    /// Decoder output before its layer norm, `[S, D]`.
    pub update: Vec<f32>,
    /// Gates g = u·z, `[S, H, N]`, from devices that store them.
    pub gates: Option<Vec<f32>>,
}

/// Input of the stage `logits`.
#[derive(Clone, Debug)]
pub struct LogitsInput {
    /// Residual stream before the last layer's update, `[S, D]`.
    pub residual: Vec<f32>,
    /// The last layer's decoder output before its layer norm, `[S, D]`.
    pub update: Vec<f32>,
}

/// Input of the stage `sample`.
#[derive(Clone, Debug)]
pub struct SampleInput {
    /// Logits, `[S, V]`.
    pub logits: Vec<f32>,
    /// Options, `[S]`.
    pub params: Vec<SamplerParams>,
    /// Token counts, `[S, V]`.
    pub counts: Vec<u32>,
    /// Biases, `[S, V]`, for options with [`FLAG_BIASES`](crate::sampling::FLAG_BIASES).
    pub biases: Vec<f32>,
    /// Tokens drawn so far, `[S]`.
    pub generated: Vec<u32>,
}

/// Output of the stage `sample`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleOutput {
    /// Sampler states, `[S]`.
    pub samplers: Vec<SamplerState>,
    /// Token counts afterwards, `[S, V]`.
    pub counts: Vec<u32>,
}

/// One kernel at a time over a model of one layer.
#[maybe_async(?Send)]
pub trait Stages {
    /// Embeds a token or finishes the previous layer, then encodes and attends, and updates the
    /// memory.
    async fn encode(&self, input: &EncodeInput) -> Result<EncodeOutput, BackendError>;
    /// Finishes the previous layer: residual stream and update `[S, D]` to residual stream.
    async fn finish(&self, residual: &[f32], update: &[f32]) -> Result<Vec<f32>, BackendError>;
    /// Normalizes every head's attention output, `[S, H, D]`.
    async fn collect(&self, attention: &[f32]) -> Result<Vec<f32>, BackendError>;
    /// Computes gates from the attention output, and the decoder output from the gates.
    async fn project(&self, input: &ProjectInput) -> Result<ProjectOutput, BackendError>;
    /// Finishes the last layer and multiplies by the LM head: `[S, V]`.
    async fn logits(&self, input: &LogitsInput) -> Result<Vec<f32>, BackendError>;
    /// Draws a token for every sequence.
    async fn sample(&self, input: &SampleInput) -> Result<SampleOutput, BackendError>;
    /// Multiplies a layer's state and the window's residuals by each sequence's factor `[S]`.
    async fn rescale(&self, memory: &Memory, factors: &[f32]) -> Result<Memory, BackendError>;
    /// Settles one of `sequences` sequences: its window enters its state, and its rotated
    /// activations become zero. Its residuals and the other sequences do not change.
    async fn settle(&self, memory: &Memory, sequence: usize, sequences: usize) -> Result<Memory, BackendError>;
}
