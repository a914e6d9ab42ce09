//! Converts the inputs of single stages to the device's layout.

use super::activations::Activations;
use super::backend::GpuBackend;
use crate::backend::BackendError;
use maybe_async::maybe_async;

#[maybe_async]
impl GpuBackend {
    /// Copies `[S, D]` numbers to padded rows.
    pub(super) fn pad(&self, values: &[f32]) -> Vec<f32> {
        let g = &self.shared.layout.geometry;
        let mut padded = vec![0.0; values.len() / g.width * g.row];
        for (to, from) in padded.chunks_exact_mut(g.row).zip(values.chunks_exact(g.width)) {
            to[..g.width].copy_from_slice(from);
        }
        padded
    }

    /// Writes a residual stream and an update as if a layer had left them: the residual as the
    /// first layer of [`BOTH`](super::schedule::BOTH) leaves it, each slot's update as the share of
    /// a different block.
    pub(super) async fn write_residual(
        &self,
        activations: &Activations,
        residual: &[f32],
        update: &[f32],
    ) -> Result<(), BackendError> {
        let g = &self.shared.layout.geometry;
        let mut updates = vec![0f32; residual.len() / g.width * g.blocks() * g.row];
        for (slot, (x, m)) in residual.chunks_exact(g.width).zip(update.chunks_exact(g.width)).enumerate() {
            let at = (2 * slot * g.row * 4) as u64;
            self.shared.gpu.upload(&activations.residual, at, bytemuck::cast_slice(&self.pad(x))).await?;
            let block = slot * g.blocks() + slot % g.blocks();
            updates[block * g.row..][..g.width].copy_from_slice(m);
        }
        activations.updates.upload(&self.shared.gpu, 0, bytemuck::cast_slice(&updates)).await
    }

    /// Writes a residual stream as `finish` leaves it in front of the second layer of
    /// [`BOTH`](super::schedule::BOTH).
    pub(super) async fn write_finished(&self, activations: &Activations, residual: &[f32]) -> Result<(), BackendError> {
        let g = &self.shared.layout.geometry;
        for (slot, x) in residual.chunks_exact(g.width).enumerate() {
            let at = ((2 * slot + 1) * g.row * 4) as u64;
            self.shared.gpu.upload(&activations.residual, at, bytemuck::cast_slice(&self.pad(x))).await?;
        }
        Ok(())
    }

    /// Writes activations `[S, H, N]` and attention output `[S, H, D]`, the latter as the share of
    /// the `block`-th block of each head.
    pub(super) async fn write_activations(
        &self,
        to: &Activations,
        activations: &[f32],
        attention: &[f32],
        block: impl Fn(usize) -> usize,
    ) -> Result<(), BackendError> {
        let g = &self.shared.layout.geometry;
        let slots = attention.len() / (g.heads * g.width);
        let mut neurons = vec![0f32; slots * self.slot_neurons()];
        for slot in 0..slots {
            let (u, y) = neurons[slot * self.slot_neurons()..][..self.slot_neurons()].split_at_mut(g.all_neurons());
            let from = &activations[slot * g.heads * g.neurons..][..g.heads * g.neurons];
            for (head, from) in u.chunks_exact_mut(g.padded_neurons()).zip(from.chunks_exact(g.neurons)) {
                head[..g.neurons].copy_from_slice(from);
            }
            let from = &attention[slot * g.heads * g.width..][..g.heads * g.width];
            for (head, from) in y.chunks_exact_mut(g.blocks_per_head * g.row).zip(from.chunks_exact(g.width)) {
                head[block(slot) * g.row..][..g.width].copy_from_slice(from);
            }
        }
        to.neurons.upload(&self.shared.gpu, 0, bytemuck::cast_slice(&neurons)).await
    }

    /// Numbers per slot in the buffer of activations and partial attention outputs.
    pub(super) fn slot_neurons(&self) -> usize {
        (self.shared.layout.slot_neuron_bytes() / 4) as usize
    }
}
