//! The kernels one at a time, in terms that do not depend on a device's layout.
//!
//! Both backends run a stage on the same numbers; [`crate::verify`] and the tests compare what comes
//! out. `S` is the number of sequences, `L` = 1.

use super::memory::Memory;
use super::{BackendError, SlotStep};
use crate::sampling::{SamplerParams, SamplerState};

/// Input of the stages `embed` and `encode`.
#[derive(Clone, Debug)]
pub struct EncodeInput {
    /// What each sequence does, `[S]`; of one at rest all outputs but the state are zero. A token input starts a layer stack (the residual is the token's
    /// embedding); [`super::Input::Previous`] continues one from `residual` and `update`.
    pub steps: Vec<SlotStep>,
    /// Residual stream before the previous layer's update, `[S, D]`.
    pub residual: Vec<f32>,
    /// The previous layer's decoder output before its layer norm, `[S, D]`.
    pub update: Vec<f32>,
    /// One layer's memory.
    pub memory: Memory,
}

/// Output of the stages `embed` and `encode`.
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

/// Input of the stage `project`.
#[derive(Clone, Debug)]
pub struct ProjectInput {
    /// Activations u, `[S, H, N]`.
    pub activations: Vec<f32>,
    /// Attention output y before its layer norm, `[S, H, D]`.
    pub attention: Vec<f32>,
}

/// Output of the stage `project`.
#[derive(Clone, Debug)]
pub struct ProjectOutput {
    /// Decoder output before its layer norm, `[S, D]`.
    pub update: Vec<f32>,
    /// Gates g = u·z, `[S, H, N]`, from devices that keep them.
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
    /// Options of each sequence, `[S]`.
    pub params: Vec<SamplerParams>,
    /// Token counts, `[S, V]`.
    pub counts: Vec<u32>,
    /// Tokens drawn so far, `[S]`.
    pub generated: Vec<u32>,
}

/// Output of the stage `sample`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleOutput {
    /// Each sampler's record, `[S]`.
    pub control: Vec<SamplerState>,
    /// Token counts afterwards, `[S, V]`.
    pub counts: Vec<u32>,
}

/// One kernel at a time over a model of one layer.
pub trait Stages {
    /// Finishes the previous layer (or embeds a token), encodes, rotates, reads and updates the state.
    fn encode(&self, input: &EncodeInput) -> Result<EncodeOutput, BackendError>;
    /// Attention output to gated neurons to decoder output.
    fn project(&self, input: &ProjectInput) -> Result<ProjectOutput, BackendError>;
    /// Finishes the last layer and multiplies by the head: `[S, V]`.
    fn logits(&self, input: &LogitsInput) -> Result<Vec<f32>, BackendError>;
    /// Draws a token for every sequence.
    fn sample(&self, input: &SampleInput) -> Result<SampleOutput, BackendError>;
    /// Multiplies a layer's state and the window's residuals by each sequence's factor `[S]`.
    fn rescale(&self, memory: &Memory, factors: &[f32]) -> Result<Memory, BackendError>;
    /// Brings the window of one of `sequences` sequences into its state; nothing else changes but that its rotated
    /// activations are zero.
    fn settle(&self, memory: &Memory, sequence: usize, sequences: usize) -> Result<Memory, BackendError>;
}
