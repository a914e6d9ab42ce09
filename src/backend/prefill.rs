//! The kernels that read a chunk of tokens one at a time; see [`super::stage`].
//!
//! `T` is the number of tokens of the chunk.

use super::{BackendError, ChunkToken};

/// Input of the stage `prefill_residual`.
#[derive(Clone, Debug)]
pub struct PrefillResidualInput {
    /// The tokens, `[T]`.
    pub tokens: Vec<ChunkToken>,
    /// What the layer before left; the first layer starts from the tokens' embeddings.
    pub before: Option<PrefillUpdate>,
}

/// What a layer leaves.
#[derive(Clone, Debug)]
pub struct PrefillUpdate {
    /// The residual stream that entered it, `[T, D]`.
    pub residual: Vec<f32>,
    /// Its decoder output before the layer norm, `[T, D]`.
    pub update: Vec<f32>,
}

/// Output of the stage `prefill_residual`.
#[derive(Clone, Debug)]
pub struct PrefillResidual {
    /// Residual stream x that enters the layer, `[T, D]`.
    pub residual: Vec<f32>,
    /// x times its write scale, `[T, D]`.
    pub scaled: Vec<f32>,
}

/// Output of the stage `prefill_encode`.
#[derive(Clone, Debug)]
pub struct PrefillEncodeOutput {
    /// Activations u, `[T, H, N]`.
    pub activations: Vec<f32>,
    /// Rotated activations q, `[T, H, N]`.
    pub rotated: Vec<f32>,
}

/// Input of the stage `prefill_attend`.
#[derive(Clone, Debug)]
pub struct PrefillAttendInput {
    /// The tokens, `[T]`; their ids do not count.
    pub tokens: Vec<ChunkToken>,
    /// Rotated activations q, `[T, H, N]`.
    pub rotated: Vec<f32>,
    /// Residual stream times its write scale, `[T, D]`.
    pub scaled: Vec<f32>,
    /// The layer's state, `[H, N, D]`.
    pub state: Vec<f32>,
}

/// Output of the stage `prefill_attend`.
#[derive(Clone, Debug)]
pub struct PrefillAttendOutput {
    /// Attention output y after its layer norm, `[T, H, D]`.
    pub attention: Vec<f32>,
    /// The state with the tokens in it, `[H, N, D]`.
    pub state: Vec<f32>,
}

/// Input of the stage `prefill_project`.
#[derive(Clone, Debug)]
pub struct PrefillProjectInput {
    /// Activations u, `[T, H, N]`.
    pub activations: Vec<f32>,
    /// Attention output y after its layer norm, `[T, H, D]`.
    pub attention: Vec<f32>,
}

/// Output of the stage `prefill_project`.
#[derive(Clone, Debug)]
pub struct PrefillProjectOutput {
    /// Gates g = u·z, `[T, H, N]`.
    pub gates: Vec<f32>,
    /// Decoder output before its layer norm, `[T, D]`.
    pub update: Vec<f32>,
}

/// The kernels of a chunk one at a time, over a model of one layer. No stage takes more than
/// [`super::Backend::chunk_tokens`] tokens.
pub trait PrefillStages {
    /// Embeds the tokens, or finishes the layer before.
    fn prefill_residual(&self, input: &PrefillResidualInput) -> Result<PrefillResidual, BackendError>;
    /// Residual stream `[T, D]` of tokens from `position` on to activations, and rotates these.
    fn prefill_encode(&self, residual: &[f32], position: u32) -> Result<PrefillEncodeOutput, BackendError>;
    /// Attention to the state and to the tokens before, which then enter the state.
    fn prefill_attend(&self, input: &PrefillAttendInput) -> Result<PrefillAttendOutput, BackendError>;
    /// Attention output to gated neurons to decoder output.
    fn prefill_project(&self, input: &PrefillProjectInput) -> Result<PrefillProjectOutput, BackendError>;
    /// Residual stream `[T, D]` to logits `[T, V]`.
    fn prefill_logits(&self, residual: &[f32]) -> Result<Vec<f32>, BackendError>;
}
