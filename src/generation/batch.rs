//! Sequences on a device and the bookkeeping beside them: positions, forgetting, pending tokens.

use super::GenerationError;
use crate::backend::{Backend, Input, Output, Plan, RunOutput, SlotStep, Slots};
use crate::model::Config;
use crate::model::forgetting::{Clock, Forgetting};
use crate::sampling::{NO_TOKEN, SamplerParams, Status};
use std::time::{Duration, Instant};

/// A submission should take no longer than this, so that text flows and no driver's watchdog fires.
const BURST_TIME: Duration = Duration::from_millis(50);
/// Most steps in one burst.
const LONGEST_BURST: usize = 64;

/// Several sequences that decode together.
pub(super) struct Batch {
    slots: Box<dyn Slots>,
    sequences: Vec<Sequence>,
    vocab: usize,
    burst: usize,
}

/// What the host knows of one sequence.
#[derive(Clone, Debug)]
struct Sequence {
    clock: Clock,
    /// The last token, not yet in the state: the next step reads it first.
    pending: Option<u32>,
}

/// What a burst produced for one sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Burst {
    /// New tokens in order.
    pub tokens: Vec<u32>,
    /// Whether the last of them ends the sequence.
    pub ended: bool,
}

impl Batch {
    /// Allocates `count` empty sequences.
    pub fn new(backend: &dyn Backend, config: &Config, count: usize, forgetting: Forgetting) -> Result<Self, GenerationError> {
        let sequence = Sequence { clock: Clock::new(forgetting), pending: None };
        Ok(Self {
            slots: backend.create_slots(count)?,
            sequences: vec![sequence; count],
            vocab: config.vocab_size,
            burst: 1,
        })
    }

    /// Number of tokens that a sequence has read, the pending one included.
    pub fn position(&self, slot: usize) -> u64 {
        let sequence = &self.sequences[slot];
        sequence.clock.position() + sequence.pending.is_some() as u64
    }

    /// Whether a sequence has a token to continue from.
    pub fn has_pending(&self, slot: usize) -> bool {
        self.sequences[slot].pending.is_some()
    }

    /// Reads tokens into one sequence; `progress` hears how many have been read so far.
    ///
    /// With `trace`, returns the logits after each token that entered the state, so that the i-th
    /// predicts the token after it; the last token stays pending.
    pub fn feed(
        &mut self,
        slot: usize,
        tokens: &[u32],
        trace: bool,
        mut each: impl FnMut(usize, &[f32]) -> Result<(), GenerationError>,
    ) -> Result<(), GenerationError> {
        self.check_tokens(tokens)?;
        self.check_room(slot, tokens.len() as u64)?;
        let Some((&last, first)) = tokens.split_last() else { return Ok(()) };
        let pending = self.sequences[slot].pending.replace(last);
        let inputs: Vec<u32> = pending.into_iter().chain(first.iter().copied()).collect();
        let output = if trace { Output::Logits } else { Output::State };
        let mut read = 0;
        while read < inputs.len() {
            let chunk = &inputs[read..(read + self.burst).min(inputs.len())];
            let mut plan = Plan { steps: Vec::with_capacity(chunk.len()), trace_logits: trace };
            for &token in chunk {
                let mut step = self.idle_step();
                step[slot] = self.step(slot, Input::Token(token), output);
                plan.steps.push(step);
            }
            let (start, count) = (Instant::now(), chunk.len());
            let run = self.slots.run(&plan)?;
            self.adapt(count, start.elapsed());
            for (index, logits) in run.logits.iter().enumerate() {
                each(read + index, &logits[slot])?;
            }
            read += count;
            if !trace {
                each(read, &[])?;
            }
        }
        Ok(())
    }

    /// Gives a sequence's sampler its options and counts.
    pub fn set_sampler(&mut self, slot: usize, params: &SamplerParams, counts: &[u32], generated: u32) -> Result<(), GenerationError> {
        Ok(self.slots.set_sampler(slot, params, counts, generated)?)
    }

    /// Draws up to `wanted[slot]` tokens for every sequence, in one burst of a length that suits the
    /// device. A sequence that wants none rests.
    pub fn decode(&mut self, wanted: &[usize]) -> Result<Vec<Burst>, GenerationError> {
        for (slot, &wanted) in wanted.iter().enumerate() {
            // The last token drawn stays pending, but must have a position of its own.
            self.check_room(slot, wanted.min(self.burst) as u64)?;
        }
        let length = wanted.iter().copied().max().unwrap_or(0).min(self.burst);
        let before: Vec<Sequence> = self.sequences.clone();
        let mut plan = Plan::default();
        for index in 0..length {
            let mut steps = self.idle_step();
            for (slot, step) in steps.iter_mut().enumerate().filter(|(slot, _)| index < wanted[*slot]) {
                let input = match self.sequences[slot].pending.take() {
                    Some(token) => Input::Token(token),
                    None => Input::Previous,
                };
                *step = self.step(slot, input, Output::Token);
            }
            plan.steps.push(steps);
        }
        let start = Instant::now();
        let run = self.slots.run(&plan)?;
        self.adapt(length, start.elapsed());
        (0..wanted.len()).map(|slot| self.collect(slot, &before[slot], &run)).collect()
    }

    /// Takes a sequence's tokens out of a run and sets its clock to what was really read.
    fn collect(&mut self, slot: usize, before: &Sequence, run: &RunOutput) -> Result<Burst, GenerationError> {
        let tokens: Vec<u32> = run.tokens.iter().map(|step| step[slot]).take_while(|&token| token != NO_TOKEN).collect();
        let control = &run.control[slot];
        let status = control.status().unwrap_or(Status::Nan);
        let mut clock = before.clock;
        for _ in 0..tokens.len() + status.is_failure() as usize {
            clock.tick();
        }
        if status.is_failure() {
            let source = status.check().err();
            return Err(GenerationError::Sampling { position: clock.position() - 1, sequence: slot, source });
        }
        let pending = tokens.last().copied().or(before.pending);
        self.sequences[slot] = Sequence { clock, pending };
        Ok(Burst { ended: status == Status::Eos && !tokens.is_empty(), tokens })
    }

    /// Chooses the next burst's length from the time that this one took.
    fn adapt(&mut self, steps: usize, time: Duration) {
        if steps == 0 {
            return;
        }
        let per_step = time.as_secs_f64() / steps as f64;
        let fitting = (BURST_TIME.as_secs_f64() / per_step.max(1e-9)) as usize;
        // At most double, so that one lucky measurement does not stall the stream.
        self.burst = fitting.clamp(1, LONGEST_BURST).min(2 * self.burst);
    }

    fn idle_step(&self) -> Vec<SlotStep> {
        vec![SlotStep::IDLE; self.sequences.len()]
    }

    fn step(&mut self, slot: usize, input: Input, output: Output) -> SlotStep {
        let tick = self.sequences[slot].clock.tick();
        SlotStep {
            input,
            output,
            position: tick.position,
            read_scale: tick.read_scale,
            write_scale: tick.write_scale,
            rescale: tick.rescale,
        }
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<(), GenerationError> {
        match tokens.iter().position(|&token| token as usize >= self.vocab) {
            Some(index) => {
                Err(GenerationError::TokenOutOfRange { index, token: tokens[index], vocab: self.vocab })
            }
            None => Ok(()),
        }
    }

    fn check_room(&self, slot: usize, tokens: u64) -> Result<(), GenerationError> {
        if tokens + self.sequences[slot].pending.is_some() as u64 > self.sequences[slot].clock.remaining() {
            return Err(GenerationError::PositionsExhausted);
        }
        Ok(())
    }
}
