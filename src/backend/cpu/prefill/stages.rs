//! The prefill kernels one at a time, computed by [`reference`](super::reference).

use super::reference;
use crate::backend::BackendError;
use crate::backend::cpu::CpuBackend;
use crate::backend::cpu::weights::on_weights;
use crate::backend::prefill::{
    PrefillAttendInput, PrefillAttendOutput, PrefillEncodeOutput, PrefillProjectInput, PrefillProjectOutput,
    PrefillResidual, PrefillResidualInput, PrefillStages,
};
use maybe_async::maybe_async;

#[maybe_async(?Send)]
impl PrefillStages for CpuBackend {
    async fn prefill_residual(&self, input: &PrefillResidualInput) -> Result<PrefillResidual, BackendError> {
        let (g, level) = (&self.shared.model.geometry, self.shared.level);
        Ok(on_weights!(&self.shared.model.weights, weights => reference::residual(weights, g, level, input)))
    }

    async fn prefill_encode(&self, residual: &[f32], position: u32) -> Result<PrefillEncodeOutput, BackendError> {
        let model = &self.shared.model;
        let g = &model.geometry;
        let activations = on_weights!(&self.shared.model.weights, weights => reference::encode(weights, g, residual));
        let rotated = reference::rotate(&model.turns, g.neurons, g.heads, &activations, position);
        Ok(PrefillEncodeOutput { activations, rotated })
    }

    async fn prefill_attend(&self, input: &PrefillAttendInput) -> Result<PrefillAttendOutput, BackendError> {
        Ok(reference::attend_and_write(&self.shared.model.geometry, self.shared.level, input))
    }

    async fn prefill_project(&self, input: &PrefillProjectInput) -> Result<PrefillProjectOutput, BackendError> {
        let g = &self.shared.model.geometry;
        let gates = on_weights!(&self.shared.model.weights, weights => reference::gate(weights, g, input));
        let update = on_weights!(&self.shared.model.weights, weights => reference::decode(weights, g, &gates));
        Ok(PrefillProjectOutput { gates, update })
    }

    async fn prefill_logits(&self, residual: &[f32]) -> Result<Vec<f32>, BackendError> {
        let g = &self.shared.model.geometry;
        Ok(on_weights!(&self.shared.model.weights, weights => reference::logits(weights, g, residual)))
    }
}
