//! Which tokens a conversation has had: what penalties and random numbers depend on.

use super::GenerationOptions;
use crate::sampling::{COUNT_MASK, EOS_BIT, PROMPT_BIT, SamplerParams};

/// Counts of a conversation's tokens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tally {
    /// Per token id, `[V]`: [`PROMPT_BIT`] if it was read as a prompt, and how often it was generated.
    pub counts: Vec<u32>,
    /// Tokens drawn in the whole conversation: the step of the random numbers.
    pub drawn: u32,
    /// Tokens drawn since something was read.
    pub generated: u32,
}

impl Tally {
    /// The tally of an empty conversation with a vocabulary of `vocab` tokens.
    pub fn new(vocab: usize) -> Self {
        Self { counts: vec![0; vocab], drawn: 0, generated: 0 }
    }

    /// Notes tokens that are read, all of them in the vocabulary.
    pub fn read(&mut self, tokens: &[u32]) {
        for &token in tokens {
            self.counts[token as usize] |= PROMPT_BIT;
        }
        if !tokens.is_empty() {
            self.generated = 0;
        }
    }

    /// Counts drawn tokens.
    pub fn draw(&mut self, tokens: &[u32]) {
        for &token in tokens {
            let count = &mut self.counts[token as usize];
            if *count & COUNT_MASK < COUNT_MASK {
                *count += 1;
            }
        }
        let count = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
        self.drawn = self.drawn.saturating_add(count);
        self.generated = self.generated.saturating_add(count);
    }

    /// Starts a generation, and returns the options of its sampler. Presence and frequency count
    /// what it draws; earlier turns are its prompt. A generation that follows another one directly
    /// goes on with it.
    pub fn start(&mut self, options: &GenerationOptions, seed: u64) -> SamplerParams {
        if self.generated == 0 {
            self.counts = self.occurred();
        }
        let mut params = SamplerParams::new(&options.sampling, seed, 0);
        params.min_new_tokens = params.min_new_tokens.saturating_add(self.drawn - self.generated);
        params
    }

    /// Counts of a generation that everything so far is the prompt of.
    pub fn occurred(&self) -> Vec<u32> {
        let occurred = |&count: &u32| if count & (PROMPT_BIT | COUNT_MASK) != 0 { PROMPT_BIT } else { 0 };
        self.counts.iter().map(occurred).collect()
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
