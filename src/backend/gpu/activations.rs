//! Buffers between the kernels of a step, for the slots of a set or the beams of a search.

use super::binding::Resource;
use super::device::Gpu;
use super::layout::Layout;
use super::steps::{self, Step};
use super::store::Store;
use super::texels::Use;
use crate::backend::BackendError;
use crate::sampling::SamplerState;
use maybe_async::maybe_async;
use wgpu::BufferUsages;

/// Usage of a buffer that kernels read and write.
pub(super) const STORAGE: BufferUsages =
    BufferUsages::STORAGE.union(BufferUsages::COPY_DST).union(BufferUsages::COPY_SRC);
/// Usage of a buffer that the host reads.
pub(super) const READBACK: BufferUsages = BufferUsages::MAP_READ.union(BufferUsages::COPY_DST);

/// Buffers between the kernels of a step.
pub(super) struct Activations {
    pub count: usize,
    /// Slots per workgroup of a dense product.
    pub slot_tile: usize,
    /// `[steps]`, each [`steps::stride`] bytes.
    pub steps: wgpu::Buffer,
    /// `[slots]`
    pub samplers: wgpu::Buffer,
    /// `[slots, 2, row]`: the layers write the two halves alternately.
    pub residual: wgpu::Buffer,
    /// Per slot: activations `[blocks, block]`, then partial attention outputs `[blocks, row]`.
    pub neurons: Store,
    /// `[slots, blocks, row]`
    pub updates: Store,
    /// `[slots, padded V]`
    pub logits: wgpu::Buffer,
}

#[maybe_async]
impl Activations {
    /// Buffers for `count` slots and a table of at most `most_steps` steps.
    pub fn new(gpu: &Gpu, layout: &Layout, count: usize, most_steps: usize) -> Result<Self, BackendError> {
        let slots = count as u64;
        let buffer = |what, bytes: u64| gpu.buffer(what, bytes, STORAGE);
        let floats = |what, bytes: u64| Store::new(gpu, what, bytes, Use::Floats, layout.images);
        Ok(Self {
            count,
            slot_tile: layout.slot_tile(count),
            steps: buffer("the step table", steps::stride(count) * most_steps as u64)?,
            samplers: buffer("the samplers", slots * size_of::<SamplerState>() as u64)?,
            residual: buffer("the residual stream", slots * layout.slot_residual_bytes())?,
            neurons: floats("the activations", slots * layout.slot_neuron_bytes())?,
            updates: floats("the layers' updates", slots * layout.slot_update_bytes())?,
            logits: buffer("the logits", slots * layout.padded_vocab() as u64 * 4)?,
        })
    }

    /// One step of the table: an entry for every slot.
    pub fn step(&self) -> Resource<'_> {
        Resource::entry(&self.steps, (self.count * size_of::<Step>()) as u64)
    }

    /// Workgroups of a dense product over `slots` slots.
    pub fn tiles(&self, slots: usize) -> u32 {
        slots.div_ceil(self.slot_tile) as u32
    }

    /// Uploads the step table of a submission.
    pub async fn write_steps(&self, gpu: &Gpu, steps: &[Vec<Step>]) -> Result<(), BackendError> {
        gpu.upload(&self.steps, 0, &steps::table(steps, self.count)).await
    }
}

/// Little-endian floats.
pub(super) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect()
}
