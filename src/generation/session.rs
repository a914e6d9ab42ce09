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

    /// Reads tokens; `progress` hears how many of them have been read so far.
    ///
    /// # Errors
    /// [`GenerationError`] for an id outside the vocabulary, a conversation that is full, or a device
    /// that fails.
    pub fn feed(&mut self, tokens: &[u32], mut progress: impl FnMut(usize)) -> Result<(), GenerationError> {
        self.batch.feed(0, tokens, false, |read, _| {
            progress(read);
            Ok(())
        })?;
        for &token in tokens {
            self.counts[token as usize] |= PROMPT_BIT;
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
        if !self.batch.has_pending(0) {
            let start = self.bdh.default_prompt()?;
            self.feed(&start, |_| {})?;
        }
        // Presence and frequency count what this generation draws; earlier turns are its prompt.
        for count in &mut self.counts {
            let occurred = *count & (PROMPT_BIT | COUNT_MASK) != 0;
            *count = if occurred { PROMPT_BIT } else { 0 };
        }
        let mut counts = self.counts.clone();
        for &id in &options.eos_token_ids {
            if let Some(count) = counts.get_mut(id as usize) {
                *count |= EOS_BIT;
            }
        }
        self.batch.set_sampler(0, &SamplerParams::new(&options.sampling, seed, 0), &counts, 0)?;
        let mut tokens = Vec::new();
        let mut finish_reason = FinishReason::Length;
        while tokens.len() < options.max_new_tokens {
            let burst = self.batch.decode(&[options.max_new_tokens - tokens.len()])?.remove(0);
            for &token in &burst.tokens {
                self.counts[token as usize] += 1;
            }
            tokens.extend_from_slice(&burst.tokens);
            let flow = each(&burst.tokens);
            if burst.ended {
                finish_reason = FinishReason::Eos;
                break;
            }
            if flow.is_break() {
                finish_reason = FinishReason::Stop;
                break;
            }
        }
        Ok(Generated { tokens, finish_reason, seed })
    }

    /// Logits after each of `tokens` but the last, which stays to be read: `each` receives the index of
    /// the token and its logits `[V]`.
    pub(super) fn trace(
        &mut self,
        tokens: &[u32],
        each: impl FnMut(usize, &[f32]) -> Result<(), GenerationError>,
    ) -> Result<(), GenerationError> {
        self.batch.feed(0, tokens, true, each)
    }
}
