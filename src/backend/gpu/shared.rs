//! A model's data on a device, shared by all its sets of sequences.

use super::device::Gpu;
use super::kernel::Kernel;
use super::layout::Layout;
use super::pipeline::{Pipeline, Pipelines};
use super::weights::Weights;
use crate::backend::BackendError;
use maybe_async::maybe_async;
use std::sync::Arc;

/// A model on a device.
pub(super) struct Shared {
    pub gpu: Gpu,
    pub layout: Layout,
    pub weights: Weights,
    /// The decoder's scales `[blocks][block]`, where gates are watched that have been multiplied by
    /// them; otherwise empty.
    pub gate_scales: Vec<f32>,
    pub pipelines: Pipelines,
}

#[maybe_async]
impl Shared {
    /// Checks a token id that the device returned.
    ///
    /// # Errors
    /// [`BackendError::Garbage`] if the vocabulary has no such token.
    pub fn check_token(&self, token: u32) -> Result<(), BackendError> {
        let vocab = self.layout.geometry.vocab;
        if (token as usize) < vocab {
            return Ok(());
        }
        let message = format!("it drew token {token} from a vocabulary of {vocab}");
        Err(BackendError::Garbage { device: self.gpu.info.name.clone(), message })
    }

    /// A kernel, compiled on first use, for dense products that serve `slot_tile` slots.
    pub fn pipeline(&self, kernel: &'static Kernel, slot_tile: usize) -> Result<Arc<Pipeline>, BackendError> {
        self.pipelines.get(&self.gpu, &self.layout, kernel, slot_tile)
    }

    /// Runs commands that are not a step and waits for them.
    pub async fn execute(&self, record: impl FnOnce(&mut wgpu::CommandEncoder)) -> Result<(), BackendError> {
        let mut encoder = self.gpu.device.create_command_encoder(&Default::default());
        record(&mut encoder);
        self.gpu.wait(self.gpu.queue.submit([encoder.finish()])).await
    }
}
