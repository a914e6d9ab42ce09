//! The prefill kernels one at a time; see [`super::stage`].
//!
//! `T` is the number of tokens of the chunk.

use super::{BackendError, ChunkToken};
use maybe_async::maybe_async;

/// Input of the stage `prefill_residual`.
#[derive(Clone, Debug)]
pub struct PrefillResidualInput {
    /// The tokens, `[T]`.
    pub tokens: Vec<ChunkToken>,
    /// Output of the previous layer; absent in the first layer, which embeds the tokens.
    pub before: Option<PrefillUpdate>,
}

/// Output of a layer.
#[derive(Clone, Debug)]
pub struct PrefillUpdate {
    /// Residual stream that entered the layer, `[T, D]`.
    pub residual: Vec<f32>,
    /// Decoder output before its layer norm, `[T, D]`.
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
    /// The tokens, `[T]`; their ids are ignored.
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
    /// State after the tokens, `[H, N, D]`.
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

/// The prefill kernels one at a time, over a model of one layer. A stage takes at most
/// [`super::Backend::chunk_tokens`] tokens.
#[maybe_async(?Send)]
pub trait PrefillStages {
    /// Embeds the tokens or finishes the previous layer.
    async fn prefill_residual(&self, input: &PrefillResidualInput) -> Result<PrefillResidual, BackendError>;
    /// Encodes the residual stream `[T, D]` of tokens from `position` on, and rotates the
    /// activations.
    async fn prefill_encode(&self, residual: &[f32], position: u32) -> Result<PrefillEncodeOutput, BackendError>;
    /// Attends to the state and to earlier tokens, then writes the tokens to the state.
    async fn prefill_attend(&self, input: &PrefillAttendInput) -> Result<PrefillAttendOutput, BackendError>;
    /// Computes gates from the attention output, and the decoder output from the gates.
    async fn prefill_project(&self, input: &PrefillProjectInput) -> Result<PrefillProjectOutput, BackendError>;
    /// Multiplies the residual stream `[T, D]` by the LM head: `[T, V]`.
    async fn prefill_logits(&self, residual: &[f32]) -> Result<Vec<f32>, BackendError>;
}
