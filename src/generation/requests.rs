//! Many prompts at once: requests share the device's slots, and a slot that is done takes the next one.

use super::batch::{Batch, Drawing};
use super::stop::StopScan;
use super::tally::mark_eos;
use super::{Bdh, FinishReason, Generated, GenerationError, GenerationOptions};
use crate::model::forgetting::Forgetting;
use crate::options::OutOfRange;
use crate::sampling::{BiasRow, PROMPT_BIT, SamplerParams, sequence_seed};
use maybe_async::maybe_async;
use std::borrow::Cow;
use std::ops::ControlFlow;

/// How to generate for many prompts.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchOptions {
    /// Sequences for each prompt, at least 1.
    pub num_return_sequences: usize,
    /// Sequences that decode together at most; chosen by the size of a state when absent. Results do not
    /// depend on it.
    pub slots: Option<usize>,
    /// Tokens per submission at most. Results do not depend on it.
    pub burst: Option<usize>,
    /// How much of the past counts.
    pub forgetting: Forgetting,
    /// The seed of each prompt's first sequence, in place of [`GenerationOptions::seed`]: one per prompt, or
    /// empty. A prompt with a seed of its own gets the same texts in any batch. Beam search draws nothing.
    pub seeds: Vec<u64>,
}

impl BatchOptions {
    /// Refuses seeds that do not fit the prompts.
    pub(super) fn check_seeds(&self, prompts: usize) -> Result<(), GenerationError> {
        match self.seeds.len() {
            0 => Ok(()),
            seeds if seeds == prompts => Ok(()),
            seeds => Err(GenerationError::Seeds { seeds, prompts }),
        }
    }
}

/// A finished sequence of a batch.
#[derive(Debug)]
pub struct Completion {
    /// Index of its prompt.
    pub prompt: usize,
    /// Index among the prompt's sequences.
    pub index: usize,
    /// How many sequences the prompt gets. Beam search may find fewer than were asked for.
    pub of: usize,
    /// Its tokens and the seed that gives them alone, or what made it fail; the others go on.
    pub result: Result<Generated, GenerationError>,
}

/// What the caller of [`Bdh::run`] or [`Bdh::run_batch`] receives.
#[derive(Debug)]
pub enum BatchEvent {
    /// Something was done, over all sequences.
    Progress {
        /// Tokens of prompts that were read.
        read: usize,
        /// Tokens that were drawn.
        drawn: usize,
    },
    /// A sequence is finished. They finish in any order.
    Done(Completion),
}

/// One sequence of one prompt.
struct Running {
    prompt: usize,
    index: usize,
    /// How many tokens were drawn.
    drawn: usize,
    /// How many tokens are drawn at most.
    limit: usize,
    /// The seed of this sequence.
    seed: u64,
    scan: StopScan,
    /// The tokens that are certain to stay.
    tokens: Vec<u32>,
}

/// What a slot is doing.
enum Work {
    Free,
    /// Kept for a sequence of a prompt that another slot is still reading.
    Reserved,
    /// Reading a prompt for the slots listed, itself the first; the indices start at `first`.
    Reading {
        prompt: usize,
        first: usize,
        slots: Vec<usize>,
    },
    Drawing(Box<Running>),
}

#[maybe_async]
impl Bdh {
    /// Generates for many prompts (token ids), `num_return_sequences` each. A sequence's tokens depend on
    /// its prompt, its index and the options alone: not on its company, nor on the number of slots.
    ///
    /// Every result reports the seed that gives it alone. A prompt's first sequence has its seed of
    /// [`BatchOptions::seeds`], or else [`GenerationOptions::seed`]; without both, each prompt gets a random one.
    ///
    /// # Errors
    /// Options out of range and token ids outside the vocabulary, before any work starts; a device that
    /// fails. A single sequence's failure is reported in its [`Completion`].
    pub async fn run_batch(
        &self,
        prompts: &[Vec<u32>],
        options: &GenerationOptions,
        batch: &BatchOptions,
        each: impl FnMut(BatchEvent) -> ControlFlow<()>,
    ) -> Result<(), GenerationError> {
        options.validate()?;
        self.check_stops(&options.stop)?;
        if batch.num_return_sequences == 0 {
            return Err(OutOfRange::new("num_return_sequences", "at least 1", 0).into());
        }
        batch.check_seeds(prompts.len())?;
        let vocab = self.model().config.vocab_size;
        let outside = |tokens: &Vec<u32>| tokens.iter().position(|&token| token as usize >= vocab);
        if let Some((tokens, index)) = prompts.iter().find_map(|tokens| Some((tokens, outside(tokens)?))) {
            return Err(GenerationError::TokenOutOfRange { index, token: tokens[index], vocab });
        }
        if prompts.is_empty() {
            return Ok(());
        }
        Scheduler::new(self, prompts, options, batch).await?.run(each).await
    }

    /// How many sequences decode together by default: as many as there are, as far as the device gains
    /// from it.
    fn default_slots(&self, sequences: usize) -> usize {
        let state_bytes = self.backend().state_type().state_bytes(&self.model().config);
        sequences.min(self.backend().preferred_slots(state_bytes))
    }
}

struct Scheduler<'a> {
    bdh: &'a Bdh,
    prompts: &'a [Vec<u32>],
    options: &'a GenerationOptions,
    biases: BiasRow,
    sequences: usize,
    /// The seed of each prompt's first sequence.
    seeds: Vec<u64>,
    batch: Batch,
    work: Vec<Work>,
    /// The next prompt to start, and its first sequence that has no slot yet.
    next: (usize, usize),
}

#[maybe_async]
impl<'a> Scheduler<'a> {
    async fn new(
        bdh: &'a Bdh,
        prompts: &'a [Vec<u32>],
        options: &'a GenerationOptions,
        batch: &BatchOptions,
    ) -> Result<Self, GenerationError> {
        let total = prompts.len().saturating_mul(batch.num_return_sequences);
        let slots = batch.slots.unwrap_or_else(|| bdh.default_slots(total)).clamp(1, total);
        let mut device = Batch::new(bdh.backend(), &bdh.model().config, slots, batch.forgetting).await?;
        if let Some(burst) = batch.burst {
            device.limit_burst(burst);
        }
        Ok(Self {
            bdh,
            prompts,
            options,
            biases: BiasRow::new(&options.logit_bias, bdh.model().config.vocab_size)?,
            sequences: batch.num_return_sequences,
            seeds: match &batch.seeds[..] {
                [] => prompts.iter().map(|_| options.seed.unwrap_or_else(random_seed)).collect(),
                seeds => seeds.to_vec(),
            },
            batch: device,
            work: (0..slots).map(|_| Work::Free).collect(),
            next: (0, 0),
        })
    }

    async fn run(mut self, mut each: impl FnMut(BatchEvent) -> ControlFlow<()>) -> Result<(), GenerationError> {
        loop {
            self.admit().await?;
            if self.work.iter().all(|work| matches!(work, Work::Free)) {
                return Ok(());
            }
            let progress = self.batch.advance().await?;
            let drawn = progress.iter().map(|progress| progress.drawn.len()).sum();
            let read = progress.iter().zip(&self.work).map(|(progress, work)| match work {
                // The first token that is read was drawn in the burst before.
                Work::Drawing(running) if running.drawn > 0 => 0,
                _ => progress.read,
            });
            if each(BatchEvent::Progress { read: read.sum(), drawn }).is_break() {
                return Ok(());
            }
            for (slot, progress) in progress.into_iter().enumerate() {
                let Work::Drawing(running) = &mut self.work[slot] else { continue };
                running.drawn += progress.drawn.len();
                let stopped = running.scan.push(&progress.drawn, &mut running.tokens);
                let full = running.drawn >= running.limit;
                if !(stopped || full || progress.ended || progress.failure.is_some()) {
                    continue;
                }
                let finish_reason = match (stopped, progress.ended) {
                    (true, _) => FinishReason::Stop,
                    (false, true) => FinishReason::Eos,
                    (false, false) => FinishReason::Length,
                };
                if !stopped {
                    running.scan.finish(&mut running.tokens);
                }
                self.batch.rest(slot);
                let (tokens, tail) = (std::mem::take(&mut running.tokens), running.scan.take_tail());
                let result = match progress.failure {
                    Some(failure) => Err(failure),
                    None => Ok(Generated { tokens, tail, finish_reason, seed: Some(running.seed), score: None }),
                };
                let done = Completion { prompt: running.prompt, index: running.index, of: self.sequences, result };
                self.work[slot] = Work::Free;
                if each(BatchEvent::Done(done)).is_break() {
                    return Ok(());
                }
            }
            self.start_drawing().await?;
        }
    }

    /// Gives free slots to the sequences that wait, a prompt's together as far as slots go.
    async fn admit(&mut self) -> Result<(), GenerationError> {
        while self.next.0 < self.prompts.len() {
            let free: Vec<usize> = (0..self.work.len()).filter(|&slot| matches!(self.work[slot], Work::Free)).collect();
            let (prompt, first) = self.next;
            let waiting = self.sequences - first;
            // A prompt is read once for all its sequences where they fit the device at all.
            if free.is_empty() || free.len() < waiting.min(self.work.len()) {
                break;
            }
            let slots = free[..waiting.min(free.len())].to_vec();
            self.next = if slots.len() == waiting { (prompt + 1, 0) } else { (prompt, first + slots.len()) };
            let leader = slots[0];
            slots.iter().for_each(|&slot| self.work[slot] = Work::Reserved);
            self.batch.clear(leader).await?;
            self.batch.push(leader, &self.prompt(prompt)?)?;
            self.work[leader] = Work::Reading { prompt, first, slots };
        }
        self.start_drawing().await
    }

    /// A prompt's tokens, or what an empty prompt stands for.
    fn prompt(&self, index: usize) -> Result<Cow<'a, [u32]>, GenerationError> {
        Ok(match self.prompts[index].as_slice() {
            [] => Cow::Owned(self.bdh.default_prompt()?),
            tokens => Cow::Borrowed(tokens),
        })
    }

    /// Forks the prompts that have been read, and sets their sequences drawing. A sequence that is alone
    /// with its prompt draws as soon as it can.
    async fn start_drawing(&mut self) -> Result<(), GenerationError> {
        for leader in 0..self.work.len() {
            let Work::Reading { prompt, first, slots } = &self.work[leader] else { continue };
            if slots.len() > 1 && self.batch.is_reading(leader) {
                continue;
            }
            let (prompt, first, slots) = (*prompt, *first, slots.clone());
            let mut counts = vec![0; self.bdh.model().config.vocab_size];
            self.prompt(prompt)?.iter().for_each(|&token| counts[token as usize] |= PROMPT_BIT);
            let counts = mark_eos(counts, &self.options.eos_token_ids);
            for (offset, &slot) in slots.iter().enumerate() {
                if slot != leader {
                    self.batch.fork(leader, slot).await?;
                }
                let index = first + offset;
                let seed = sequence_seed(self.seeds[prompt], index as u32);
                let params = SamplerParams::new(&self.options.sampling, seed, 0);
                let drawing = Drawing { params, counts: &counts, biases: &self.biases, drawn: 0 };
                let limit = self.batch.draw(slot, self.options.max_new_tokens, &drawing).await?;
                let scan = StopScan::new(&self.options.stop, self.bdh.continuation(&self.prompts[prompt]));
                let running = Running { prompt, index, drawn: 0, limit, seed, scan, tokens: Vec::new() };
                self.work[slot] = Work::Drawing(Box::new(running));
            }
        }
        Ok(())
    }
}

/// A seed for a text that is given none: 32 bits are short to type, and exact in every JSON reader.
pub(crate) fn random_seed() -> u64 {
    rand::random::<u32>().into()
}
