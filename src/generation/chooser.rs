//! Tokens that the host draws, from logits that a caller has changed.

use super::GenerationError;
use super::batch::{Batch, Drawing, Progress};
use crate::sampling::{SampleOutcome, Sampler, SamplerParams};
use maybe_async::maybe_async;

/// A caller's say in the next token: it receives the tokens drawn so far and the logits `[V]`,
/// which it may change; minus infinity forbids a token.
pub type Process<'a> = dyn FnMut(&[u32], &mut [f32]) + 'a;

/// A sampler on the host. It draws what the device's would draw from the same logits.
pub(super) struct Chooser<'a> {
    sampler: Sampler,
    params: SamplerParams,
    /// Occurrences of every token, `[V]`; see [`Sampler::sample`].
    counts: Vec<u32>,
    /// Tokens drawn in the conversation before these.
    earlier: u32,
    drawn: Vec<u32>,
    process: &'a mut Process<'a>,
}

#[maybe_async]
impl<'a> Chooser<'a> {
    /// A chooser that draws as a device would.
    pub fn new(drawing: &Drawing, process: &'a mut Process<'a>) -> Self {
        let mut sampler = Sampler::new();
        sampler.set_biases(drawing.biases.as_slice());
        Self {
            sampler,
            params: drawing.params.with_biases(drawing.biases),
            counts: drawing.counts.to_vec(),
            earlier: drawing.drawn,
            drawn: Vec::new(),
            process,
        }
    }

    /// Reads what a sequence has to read, or draws its next token.
    pub async fn advance(&mut self, batch: &mut Batch, slot: usize) -> Result<Progress, GenerationError> {
        if batch.is_reading(slot) {
            return Ok(batch.advance().await?.remove(slot));
        }
        batch.draw_on_host(slot, |logits| self.draw(logits)).await
    }

    fn draw(&mut self, logits: &mut [f32]) -> SampleOutcome {
        (self.process)(&self.drawn, logits);
        let generated = self.earlier.saturating_add(u32::try_from(self.drawn.len()).unwrap_or(u32::MAX));
        let outcome = self.sampler.sample(logits, &mut self.counts, &self.params, generated);
        if !outcome.status.is_failure() {
            self.drawn.push(outcome.token);
        }
        outcome
    }
}
