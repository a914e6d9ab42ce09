//! A conversation: one sequence's state, from its first token to its last.

use super::batch::Batch;
use super::{Bdh, FinishReason, Generated, GenerationError, GenerationOptions};
use crate::model::forgetting::Forgetting;
use crate::sampling::{COUNT_MASK, EOS_BIT, PROMPT_BIT, SamplerParams};
use std::ops::ControlFlow;

/// A conversation whose state stays on the device from turn to turn.
pub struct Session {
    bdh: Bdh,
    batch: Batch,
    /// Ids that have occurred, `[V]`: [`PROMPT_BIT`] for those read as a prompt, and the number of times
    /// generated.
    counts: Vec<u32>,
}

impl Session {
    pub(super) fn new(bdh: Bdh, forgetting: Forgetting) -> Result<Self, GenerationError> {
        let batch = Batch::new(bdh.backend(), &bdh.model().config, 1, forgetting)?;
        Ok(Self { counts: vec![0; bdh.model().config.vocab_size], bdh, batch })
    }

    /// Tokens read and generated so far.
    pub fn position(&self) -> u64 {
        self.batch.position(0)
    }

    /// Limits the number of tokens per submission to the device. Results do not depend on it.
    pub fn limit_burst(&mut self, tokens: usize) {
        self.batch.limit_burst(tokens);
    }

    /// Reads tokens; `progress` hears how many of them have been read so far, and may end the reading.
    ///
    /// # Errors
    /// [`GenerationError`] for an id outside the vocabulary, a conversation that is full, or a device
    /// that fails.
    pub fn feed(
        &mut self,
        tokens: &[u32],
        mut progress: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<(), GenerationError> {
        self.batch.push(0, tokens)?;
        for &token in tokens {
            self.counts[token as usize] |= PROMPT_BIT;
        }
        let mut read = 0;
        while self.batch.is_reading(0) {
            read += self.batch.advance()?.remove(0).read;
            if progress(read).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Continues the conversation. `each` receives the new tokens in bursts, as the device delivers
    /// them, and may end the generation.
    ///
    /// An empty conversation starts from [`Bdh::default_prompt`].
    ///
    /// # Errors
    /// As [`Session::feed`]; options out of range, before any work starts; and logits that allow no draw.
    pub fn generate(
        &mut self,
        options: &GenerationOptions,
        mut each: impl FnMut(&[u32]) -> ControlFlow<()>,
    ) -> Result<Generated, GenerationError> {
        options.validate()?;
        let seed = options.seed.unwrap_or_else(rand::random);
        if self.batch.is_empty(0) {
            let start = self.bdh.default_prompt()?;
            self.feed(&start, |_| ControlFlow::Continue(()))?;
        }
        // Presence and frequency count what this generation draws; earlier turns are its prompt.
        for count in &mut self.counts {
            let occurred = *count & (PROMPT_BIT | COUNT_MASK) != 0;
            *count = if occurred { PROMPT_BIT } else { 0 };
        }
        let counts = mark_eos(self.counts.clone(), &options.eos_token_ids);
        let params = SamplerParams::new(&options.sampling, seed, 0);
        self.batch.draw(0, &params, &counts, options.max_new_tokens)?;
        let mut tokens = Vec::new();
        let mut finish_reason = FinishReason::Length;
        while tokens.len() < options.max_new_tokens {
            let progress = self.batch.advance()?.remove(0);
            for &token in &progress.drawn {
                self.counts[token as usize] += 1;
            }
            tokens.extend_from_slice(&progress.drawn);
            let flow = if progress.drawn.is_empty() { ControlFlow::Continue(()) } else { each(&progress.drawn) };
            if let Some(failure) = progress.failure {
                return Err(failure);
            }
            if progress.ended {
                finish_reason = FinishReason::Eos;
                break;
            }
            if flow.is_break() {
                finish_reason = FinishReason::Stop;
                break;
            }
        }
        self.batch.rest(0);
        Ok(Generated { tokens, finish_reason, seed })
    }

    /// Reads tokens and hands out the logits `[V]` after each of them but the last, with its index.
    pub(super) fn trace(
        &mut self,
        tokens: &[u32],
        mut each: impl FnMut(usize, &[f32]) -> Result<(), GenerationError>,
    ) -> Result<(), GenerationError> {
        self.batch.push(0, tokens)?;
        let mut index = 0;
        while self.batch.is_reading(0) {
            self.batch.advance_traced(0, |logits| {
                index += 1;
                each(index - 1, logits)
            })?;
        }
        Ok(())
    }
}

/// Marks the end-of-sequence ids in token counts.
pub(super) fn mark_eos(mut counts: Vec<u32>, eos_token_ids: &[u32]) -> Vec<u32> {
    for &id in eos_token_ids {
        if let Some(count) = counts.get_mut(id as usize) {
            *count |= EOS_BIT;
        }
    }
    counts
}
