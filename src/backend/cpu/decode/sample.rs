//! Twin of `shaders/decode/sample.wgsl`: a slot's sampler around [`crate::sampling::Sampler`].

use crate::sampling::{NO_TOKEN, Sampler, SamplerParams, SamplerState, Status};

/// A slot's sampler.
pub struct SlotSampler {
    /// Options.
    pub params: SamplerParams,
    /// Token counts, `[V]`.
    pub counts: Vec<u32>,
    /// Last token, number of tokens drawn, and status.
    pub state: SamplerState,
    /// Chooses the token, with the slot's biases.
    pub sampler: Sampler,
}

impl SlotSampler {
    /// A sampler that draws nothing until it gets options.
    pub fn new(vocab: usize) -> Self {
        Self {
            params: bytemuck::Zeroable::zeroed(),
            counts: vec![0; vocab],
            state: SamplerState::default(),
            sampler: Sampler::new(),
        }
    }

    /// Draws a token from logits `[V]` and records it.
    pub fn draw(&mut self, logits: &[f32]) {
        let outcome = self.sampler.sample(logits, &mut self.counts, &self.params, self.state.generated);
        self.state.record(&outcome);
    }

    /// The token of the last draw, or [`NO_TOKEN`] if that draw failed.
    pub fn drawn(&self) -> u32 {
        match self.state.status() {
            Some(Status::Running | Status::Eos) => self.state.token,
            _ => NO_TOKEN,
        }
    }
}

/// Whether a sampler still draws tokens.
pub fn running(state: &SamplerState) -> bool {
    state.status == Status::Running as u32
}
