//! Which sequence has which slot, and what it does next: one step is one burst of the device.

use super::cache::PrefixCache;
use super::job::{Event, Job};
use super::queue::Queue;
use super::sequence::{Phase, Sequence, scan};
use crate::backend::BackendError;
use crate::generation::batch::{Batch, Drawing, Progress, Trace, check_state};
use crate::generation::tally::mark_eos;
use crate::generation::{Bdh, FinishReason, GenerationError, Snapshot};
use crate::model::forgetting::Forgetting;
use crate::sampling::BiasRow;
use std::sync::Arc;
use std::time::Duration;

/// Time of a burst: what a new request waits for at least.
const BURST_TIME: Duration = Duration::from_millis(25);
/// The same while a request waits or is read.
const SHORT_BURST_TIME: Duration = Duration::from_millis(10);
/// Fewest tokens whose state is worth a copy.
const CACHED_TOKENS: usize = 32;
/// Fewest tokens that are read as a chunk: states are taken before fewer are left.
const LAST_STEPS: usize = 8;

/// The slots of a device, the sequences in them, and those that wait.
pub(super) struct Schedule {
    bdh: Bdh,
    forgetting: Forgetting,
    batch: Batch,
    slots: Vec<Option<Sequence>>,
    pub queue: Queue,
    pub cache: PrefixCache,
    /// Tokens of prompts that were looked for in the cache, and those that were found.
    pub cache_queries: u64,
    pub cache_hits: u64,
}

impl Schedule {
    /// Allocates `slots` sequences.
    pub fn new(bdh: Bdh, slots: usize, forgetting: Forgetting, cache: u64) -> Result<Self, GenerationError> {
        let batch = Self::batch(&bdh, slots, forgetting)?;
        Ok(Self {
            bdh,
            forgetting,
            batch,
            slots: (0..slots).map(|_| None).collect(),
            queue: Queue::default(),
            cache: PrefixCache::new(cache),
            cache_queries: 0,
            cache_hits: 0,
        })
    }

    fn batch(bdh: &Bdh, slots: usize, forgetting: Forgetting) -> Result<Batch, GenerationError> {
        let mut batch = Batch::new(bdh.backend(), &bdh.model().config, slots, forgetting)?;
        batch.limit_burst_time(BURST_TIME);
        Ok(batch)
    }

    /// Goes on with empty slots on another device. What was cached there is of no use here.
    pub fn move_to(&mut self, bdh: Bdh) -> Result<(), GenerationError> {
        self.batch = Self::batch(&bdh, self.slots.len(), self.forgetting)?;
        self.cache.clear();
        self.bdh = bdh;
        Ok(())
    }

    /// Sequences that have a slot.
    pub fn running(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Whether there is anything to do.
    pub fn is_idle(&self) -> bool {
        self.running() == 0 && self.queue.len() == 0
    }

    /// Ends every sequence that has a slot.
    pub fn fail_all(&mut self, error: &Arc<GenerationError>) {
        for sequence in self.slots.iter_mut().filter_map(Option::take) {
            fail(sequence, error.clone());
        }
    }

    /// Fills the slots and runs one burst.
    ///
    /// # Errors
    /// A device that fails. What fails for one sequence alone is told to that one.
    pub fn step(&mut self) -> Result<(), GenerationError> {
        self.drop_cancelled();
        self.admit()?;
        self.start_drawing()?;
        if self.running() == 0 {
            return Ok(());
        }
        let drawing = self.slots.iter().flatten().any(|sequence| sequence.phase == Phase::Drawing);
        let reading = self.slots.iter().flatten().any(|sequence| sequence.phase == Phase::Reading);
        self.batch.limit_readers(if drawing { 1 } else { usize::MAX });
        self.batch.limit_burst_time(if reading || self.queue.len() > 0 { SHORT_BURST_TIME } else { BURST_TIME });
        self.batch.watch(self.slots.iter().flatten().any(Sequence::is_watched));
        let progress = self.batch.advance()?;
        for (slot, progress) in progress.into_iter().enumerate() {
            self.take_in(slot, progress)?;
        }
        self.start_drawing()
    }

    /// Frees the slots of sequences that nobody waits for any more.
    fn drop_cancelled(&mut self) {
        self.queue.drop_cancelled();
        for slot in 0..self.slots.len() {
            let cancelled = self.slots[slot].as_ref().is_some_and(|sequence| sequence.cancel.is_cancelled());
            if cancelled {
                self.free(slot);
            }
        }
    }

    /// Empties a slot. The first sequence that follows it, if any, takes its place.
    fn free(&mut self, slot: usize) -> Option<Sequence> {
        let leaving = self.slots[slot].take();
        let follows = |sequence: &Option<Sequence>| {
            sequence.as_ref().is_some_and(|sequence| sequence.phase == Phase::Following(slot))
        };
        if let Some(heir) = self.slots.iter().position(follows) {
            let mut sequence = self.slots[heir].take().expect("it follows");
            sequence.phase = Phase::Reading;
            sequence.cached = leaving.as_ref().map_or(0, |leaving| leaving.cached);
            self.batch.trace(slot, sequence.trace());
            self.slots[slot] = Some(sequence);
        } else {
            self.batch.rest(slot);
            self.batch.trace(slot, Trace::None);
        }
        leaving
    }

    /// Gives free slots to the sequences that wait.
    fn admit(&mut self) -> Result<(), GenerationError> {
        while let Some(slot) = self.slots.iter().position(Option::is_none) {
            let Some(job) = self.queue.pop() else { break };
            let (scan, from, prompt) = (scan(&self.bdh, &job), job.from.clone(), self.prompt(&job));
            let (prompt, problem) = match prompt {
                Ok(prompt) => (prompt, None),
                Err(error) => (Vec::new(), Some(error)),
            };
            let mut sequence = Sequence::new(job, prompt.into(), scan, self.bdh.model().config.vocab_size);
            match problem.map_or_else(|| self.start(slot, &mut sequence, from.as_deref()), Err) {
                Ok(()) => {
                    let (tokens, cached) = (sequence.prompt.len(), sequence.cached);
                    sequence.tell(Event::Started { tokens, cached });
                    self.slots[slot] = Some(sequence);
                }
                Err(error) => self.refuse(slot, sequence, error)?,
            }
        }
        Ok(())
    }

    /// The tokens that a job has to read.
    fn prompt(&self, job: &Job) -> Result<Vec<u32>, GenerationError> {
        if job.prompt.is_empty() && job.from.as_ref().is_none_or(|from| from.position() == 0) {
            return self.bdh.default_prompt();
        }
        let vocab = self.bdh.model().config.vocab_size;
        match job.prompt.iter().position(|&token| token as usize >= vocab) {
            Some(index) => Err(GenerationError::TokenOutOfRange { index, token: job.prompt[index], vocab }),
            None => Ok(job.prompt.clone()),
        }
    }

    /// Tells a sequence, which has left its slot, why it cannot go on. An error of the device is
    /// everyone's: the sequence hears it with the others.
    fn refuse(&mut self, slot: usize, sequence: Sequence, error: GenerationError) -> Result<(), GenerationError> {
        let is_own = |error: &BackendError| matches!(error, BackendError::NotWatchable { .. });
        if matches!(&error, GenerationError::Backend(error) if !is_own(error)) {
            self.slots[slot] = Some(sequence);
            return Err(error);
        }
        self.batch.trace(slot, Trace::None);
        fail(sequence, Arc::new(error));
        Ok(())
    }

    /// Gives a sequence its past and what it has to read.
    fn start(&mut self, slot: usize, sequence: &mut Sequence, from: Option<&Snapshot>) -> Result<(), GenerationError> {
        if sequence.wants_neurons() && !self.bdh.backend().is_watchable() {
            return Err(BackendError::NotWatchable { device: self.bdh.device().name.clone() }.into());
        }
        sequence.biases = BiasRow::new(&sequence.options.logit_bias, self.bdh.model().config.vocab_size)?;
        let prompt = sequence.prompt.clone();
        if let Some(from) = from {
            if !from.fits(&self.bdh.model().config) {
                return Err(GenerationError::ForeignSnapshot);
            }
            check_state(self.bdh.backend().state_type(), from.forgetting())?;
            self.batch.restore(slot, from.clock, &from.unread, &from.memory)?;
            self.batch.trace(slot, sequence.trace());
            return self.batch.push(slot, &prompt);
        }
        if sequence.shares {
            let reads_it = |other: &Option<Sequence>| {
                other.as_ref().is_some_and(|other| {
                    other.phase == Phase::Reading && other.shares && other.prompt == sequence.prompt
                })
            };
            if let Some(leader) = self.slots.iter().position(reads_it) {
                sequence.phase = Phase::Following(leader);
                sequence.cached = prompt.len() - 1;
                self.cache_queries += prompt.len() as u64;
                self.cache_hits += sequence.cached as u64;
                return Ok(());
            }
            self.cache_queries += prompt.len() as u64;
            if let Some((tokens, clock, memory)) = self.cache.find(&prompt) {
                sequence.cached = tokens;
                self.cache_hits += tokens as u64;
                self.batch.restore(slot, clock, &prompt[tokens..], &memory)?;
                self.batch.trace(slot, sequence.trace());
                return Ok(());
            }
        }
        self.batch.clear(slot)?;
        self.batch.set_forgetting(slot, self.forgetting);
        self.batch.trace(slot, sequence.trace());
        self.batch.push(slot, &prompt)
    }

    /// Lets the sequences draw whose prompts have been read, and those that follow them.
    fn start_drawing(&mut self) -> Result<(), GenerationError> {
        for slot in 0..self.slots.len() {
            let is_reading = |sequence: &Sequence| sequence.phase == Phase::Reading;
            if !self.slots[slot].as_ref().is_some_and(is_reading) {
                continue;
            }
            self.keep_boundary(slot)?;
            let followers: Vec<usize> = (0..self.slots.len()).filter(|&other| self.follows(other, slot)).collect();
            // A short prompt that nobody shares is read and drawn from in one burst.
            let needs_end = |own: &Sequence| own.options.max_new_tokens == 0 || own.checkpoint_needed();
            let waits = !followers.is_empty()
                || self.is_worth_keeping(slot)
                || self.slots[slot].as_ref().is_some_and(needs_end);
            if self.batch.is_reading(slot) && waits {
                continue;
            }
            self.keep_end(slot)?;
            for follower in followers {
                self.batch.fork(slot, follower)?;
                if let Some(sequence) = &self.slots[follower] {
                    self.batch.trace(follower, sequence.trace());
                }
                self.draw(follower)?;
            }
            self.draw(slot)?;
        }
        Ok(())
    }

    fn follows(&self, slot: usize, leader: usize) -> bool {
        self.slots[slot].as_ref().is_some_and(|sequence| sequence.phase == Phase::Following(leader))
    }

    /// Whether the state at the end of a prompt is worth a copy.
    fn is_worth_keeping(&self, slot: usize) -> bool {
        let bytes = self.bdh.backend().state_type().state_bytes(&self.bdh.model().config);
        let long = |own: &Sequence| own.shares && own.prompt.len() > own.cached + CACHED_TOKENS;
        self.cache.holds(bytes) && self.slots[slot].as_ref().is_some_and(long)
    }

    /// Keeps the state at the last full chunk of a prompt: prompts that begin alike come by it.
    fn keep_boundary(&mut self, slot: usize) -> Result<(), GenerationError> {
        let read = self.batch.clock(slot).position() as usize;
        let left = self.batch.unread_len(slot);
        let is_last = left > LAST_STEPS && left <= self.bdh.backend().chunk_tokens() + LAST_STEPS;
        let Some(own) = self.slots[slot].as_ref().filter(|own| is_last && read > own.cached) else { return Ok(()) };
        let prompt = own.prompt.clone();
        if self.is_worth_keeping(slot) && !self.cache.contains(&prompt[..read], true) {
            let memory = self.batch.snapshot(slot)?;
            self.cache.insert(&prompt[..read], true, self.batch.clock(slot), memory);
        }
        Ok(())
    }

    /// Keeps the state at the end of a prompt.
    fn keep_end(&mut self, slot: usize) -> Result<(), GenerationError> {
        if self.batch.is_reading(slot) || !self.is_worth_keeping(slot) {
            return Ok(());
        }
        let Some(prompt) = self.slots[slot].as_ref().map(|own| own.prompt.clone()) else { return Ok(()) };
        let read = &prompt[..prompt.len() - 1];
        if !self.cache.contains(read, false) {
            let memory = self.batch.snapshot(slot)?;
            self.cache.insert(read, false, self.batch.clock(slot), memory);
        }
        Ok(())
    }

    /// Sets a sequence drawing.
    fn draw(&mut self, slot: usize) -> Result<(), GenerationError> {
        let Some(mut own) = self.slots[slot].take() else { return Ok(()) };
        if own.options.max_new_tokens == 0 {
            // The last token of the prompt stays unread, as in every conversation.
            self.slots[slot] = Some(own);
            return self.finish(slot, FinishReason::Length);
        }
        let params = own.tally.start(&own.options, own.seed);
        if own.checkpoint_needed() {
            match self.batch.snapshot(slot) {
                Ok(memory) => {
                    let (clock, unread) = (self.batch.clock(slot), self.batch.unread(slot));
                    own.checkpoint = Some(own.snapshot(clock, unread, Arc::new(memory)));
                }
                Err(error) => return self.refuse(slot, own, error),
            }
        }
        let counts = mark_eos(own.tally.counts.clone(), &own.options.eos_token_ids);
        let drawing = Drawing { params, counts: &counts, biases: &own.biases, drawn: own.tally.drawn };
        match self.batch.draw(slot, own.options.max_new_tokens, &drawing) {
            Ok(limit) => {
                // Its first token comes at once, and the next burst is not planned for fewer sequences.
                self.batch.hurry();
                (own.limit, own.phase) = (limit, Phase::Drawing);
                self.slots[slot] = Some(own);
                Ok(())
            }
            Err(error) => self.refuse(slot, own, error),
        }
    }

    /// Takes in what a burst did for a slot.
    fn take_in(&mut self, slot: usize, progress: Progress) -> Result<(), GenerationError> {
        let vocab = self.bdh.model().config.vocab_size;
        let Some(own) = &mut self.slots[slot] else { return Ok(()) };
        if let Err(error) = own.read(&progress.read_logits, vocab) {
            return self.fail_one(slot, error);
        }
        own.see(&progress.neurons);
        match own.phase {
            Phase::Reading | Phase::Following(_) => Ok(()),
            Phase::Replaying | Phase::Watching if self.batch.is_reading(slot) => Ok(()),
            Phase::Replaying => self.deliver(slot),
            Phase::Watching => self.part(slot),
            Phase::Drawing => {
                let stopped = own.draw(&progress.drawn, &progress.drawn_logits, vocab);
                if let Some(failure) = progress.failure {
                    own.release();
                    own.tell_rest();
                    return self.fail_one(slot, failure);
                }
                match (stopped, progress.ended) {
                    (true, _) => self.finish(slot, FinishReason::Stop),
                    (false, true) => self.finish(slot, FinishReason::Eos),
                    (false, false) if own.drawn >= own.limit => self.finish(slot, FinishReason::Length),
                    (false, false) => Ok(()),
                }
            }
        }
    }

    /// Ends a sequence that failed.
    fn fail_one(&mut self, slot: usize, error: GenerationError) -> Result<(), GenerationError> {
        match self.free(slot) {
            Some(sequence) => self.refuse(slot, sequence, error),
            None => Ok(()),
        }
    }

    /// Ends a sequence. If its state is wanted and has tokens that are not to stay, it goes back and
    /// reads the others again.
    fn finish(&mut self, slot: usize, finish_reason: FinishReason) -> Result<(), GenerationError> {
        self.batch.rest(slot);
        let Some(own) = &mut self.slots[slot] else { return Ok(()) };
        if finish_reason != FinishReason::Stop {
            own.release();
        }
        let ended = own.end(finish_reason);
        own.ended = Some(ended);
        if own.keep_state
            && !own.keeps_all()
            && let Some(checkpoint) = own.checkpoint.take()
        {
            own.tally = checkpoint.tally;
            own.tally.draw(&own.kept);
            own.phase = Phase::Replaying;
            let kept = own.kept.clone();
            self.batch.restore(slot, checkpoint.clock, &checkpoint.unread, &checkpoint.memory)?;
            self.batch.read_stepwise(slot);
            self.batch.push(slot, &kept)?;
            if self.batch.is_reading(slot) {
                return Ok(());
            }
        } else {
            own.tally.draw(&own.kept);
        }
        self.deliver(slot)
    }

    /// Takes the state of a sequence that has ended, if it is wanted, and hands out the end. A watched
    /// sequence reads its last token first, which is not in the state.
    fn deliver(&mut self, slot: usize) -> Result<(), GenerationError> {
        let keeps = self.slots[slot].as_ref().is_some_and(|own| own.keep_state);
        let memory = if keeps { Some(Arc::new(self.batch.snapshot(slot)?)) } else { None };
        let (clock, unread) = (self.batch.clock(slot), self.batch.unread(slot));
        let Some(own) = &mut self.slots[slot] else { return Ok(()) };
        let state = memory.map(|memory| own.snapshot(clock, unread, memory));
        if let Some(ended) = &mut own.ended {
            ended.state = state;
        }
        if own.awaits_neurons() && self.batch.read_last(slot) {
            own.phase = Phase::Watching;
            self.batch.trace(slot, Trace::None);
            return Ok(());
        }
        self.part(slot)
    }

    /// Hands out a sequence's end and frees its slot.
    fn part(&mut self, slot: usize) -> Result<(), GenerationError> {
        let Some(mut own) = self.free(slot) else { return Ok(()) };
        own.tell_rest();
        if let Some(ended) = own.ended.take() {
            own.tell(Event::Done(Ok(ended)));
        }
        Ok(())
    }
}

/// Tells a sequence that it failed.
fn fail(mut sequence: Sequence, error: Arc<GenerationError>) {
    sequence.tell(Event::Done(Err(error)));
}
