//! Converts the inputs of single stages to the device's layout.

use super::activations::Activations;
use super::backend::GpuBackend;
use crate::backend::BackendError;

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
    pub(super) fn write_residual(
        &self,
        activations: &Activations,
        residual: &[f32],
        update: &[f32],
    ) -> Result<(), BackendError> {
        let g = &self.shared.layout.geometry;
        let mut updates = vec![0f32; residual.len() / g.width * g.blocks() * g.row];
        for (slot, (x, m)) in residual.chunks_exact(g.width).zip(update.chunks_exact(g.width)).enumerate() {
            let at = (2 * slot * g.row * 4) as u64;
            self.shared.gpu.upload(&activations.residual, at, bytemuck::cast_slice(&self.pad(x)))?;
            let block = slot * g.blocks() + slot % g.blocks();
            updates[block * g.row..][..g.width].copy_from_slice(m);
        }
        activations.updates.upload(&self.shared.gpu, 0, bytemuck::cast_slice(&updates))
    }

    /// Numbers per slot in the buffer of activations and partial attention outputs.
    pub(super) fn slot_neurons(&self) -> usize {
        (self.shared.layout.slot_neuron_bytes() / 4) as usize
    }
}
