//! The buffers of a chunk.

use crate::backend::BackendError;
use crate::backend::gpu::activations::STORAGE;
use crate::backend::gpu::binding::Resource;
use crate::backend::gpu::groups::ALIGNMENT;
use crate::backend::gpu::prefill::shape::{PrefillParams, PrefillToken};
use crate::backend::gpu::shared::Shared;
use crate::backend::gpu::store::Store;
use crate::backend::gpu::texels::Use;
use wgpu::BufferUsages;

/// Buffers between prefill's kernels.
pub struct ChunkBuffers {
    /// [`PrefillParams`] of every segment, then of every segment of the LM head, each at a multiple
    /// of [`ALIGNMENT`].
    pub params: wgpu::Buffer,
    /// `[T]`
    pub tokens: wgpu::Buffer,
    /// x, then x times its write scale, each `[most T, row]`.
    pub residual: Store,
    /// Per segment `[T, block_count, block]`: u, then g.
    pub activations: Vec<wgpu::Buffer>,
    /// Per segment `[T, block_count, block]`: q.
    pub rotated: Vec<wgpu::Buffer>,
    /// The blocks' shares of the scores, `[T, blocks, most T]`.
    pub scores: wgpu::Buffer,
    /// The blocks' shares of y, `[T, blocks, row]`.
    pub attention_shares: wgpu::Buffer,
    /// y, `[heads, most T, row]`.
    pub attention: wgpu::Buffer,
    /// The parts' shares of the update, `[T, parts, row]`.
    pub updates: wgpu::Buffer,
    /// `[T, padded V]`
    pub logits: wgpu::Buffer,
}

impl ChunkBuffers {
    /// Allocates buffers for the longest chunk.
    pub fn new(shared: &Shared) -> Result<Self, BackendError> {
        let (gpu, layout) = (&shared.gpu, &shared.layout);
        let (g, chunk) = (&layout.geometry, &layout.chunk);
        let buffer = |what, numbers: usize| gpu.buffer(what, 4 * (numbers * chunk.tokens) as u64, STORAGE);
        let per_segment = |what| -> Result<Vec<wgpu::Buffer>, BackendError> {
            layout.segments.iter().map(|segment| buffer(what, segment.len() * g.block)).collect()
        };
        let residual_bytes = 4 * (2 * g.row * chunk.tokens) as u64;
        let entries = (layout.segments.len() + layout.lm_head_segments.len()) as u64;
        let uniform = BufferUsages::UNIFORM | BufferUsages::COPY_DST;
        Ok(Self {
            params: gpu.buffer("the chunk's parameters", entries * ALIGNMENT, uniform)?,
            tokens: buffer("a chunk's tokens", size_of::<PrefillToken>() / 4)?,
            residual: Store::new(gpu, "a chunk's residual stream", residual_bytes, Use::Floats, layout.images)?,
            activations: per_segment("a chunk's activations")?,
            rotated: per_segment("a chunk's rotated activations")?,
            scores: buffer("a chunk's scores", g.blocks() * chunk.tokens)?,
            attention_shares: buffer("a chunk's partial attention outputs", g.blocks() * g.row)?,
            attention: buffer("a chunk's attention outputs", g.heads * g.row)?,
            updates: buffer("a chunk's updates", chunk.all_parts() * g.row)?,
            logits: buffer("a chunk's logits", layout.padded_vocab())?,
        })
    }

    /// The parameters of a segment; those of the LM head's segments follow.
    pub fn params(&self, index: usize) -> Resource<'_> {
        Resource::Buffer(&self.params, index as u64 * ALIGNMENT, Some(size_of::<PrefillParams>() as u64))
    }
}
