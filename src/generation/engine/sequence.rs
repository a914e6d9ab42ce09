//! A sequence that has a slot.

use super::job::{Cancel, Ended, Event, Job, Logprobs};
use super::watch::Watch;
use crate::backend::SavedMemory;
use crate::generation::batch::{TokenTrace, Trace};
use crate::generation::requests::random_seed;
use crate::generation::stop::StopScan;
use crate::generation::tally::Tally;
use crate::generation::{Bdh, FinishReason, GenerationError, GenerationOptions, Snapshot, TokenLogprobs};
use crate::model::forgetting::Clock;
use crate::sampling::{BiasRow, SamplingError};
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

/// The phase of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its prompt is being read.
    Reading,
    /// The slot given here is reading the same prompt.
    Following(usize),
    /// Tokens are being drawn.
    Drawing,
    /// A stop text was found, and the state is made again without it.
    Replaying,
    /// It has ended, and its last token is read for its neurons.
    Watching,
}

/// A sequence that has a slot.
pub(super) struct Sequence {
    pub phase: Phase,
    /// The tokens to read.
    pub prompt: Arc<[u32]>,
    /// Whether the prompt is the beginning of the conversation, and read without a trace: others may
    /// share its state.
    pub shares: bool,
    /// Tokens of the prompt that were in the state at the start.
    pub cached: usize,
    pub options: GenerationOptions,
    /// Of its tokens, known from its start.
    pub biases: BiasRow,
    pub seed: u64,
    pub logprobs: Option<Logprobs>,
    pub keep_state: bool,
    pub tally: Tally,
    /// The conversation as it was before anything was drawn, if it may have to go back.
    pub checkpoint: Option<Snapshot>,
    /// Tokens that are drawn at most.
    pub limit: usize,
    pub cancel: Cancel,
    events: Box<dyn FnMut(Event) -> ControlFlow<()> + Send>,
    scan: StopScan,
    /// Tokens drawn.
    pub drawn: usize,
    /// Tokens that are certain to stay, and how many of them were told.
    pub kept: Vec<u32>,
    told: usize,
    /// Log-probabilities of the tokens that the scan holds back.
    held: VecDeque<TokenLogprobs>,
    /// Tokens of the prompt whose log-probabilities are known, or that have none.
    traced: usize,
    /// Its neurons, if they are wanted.
    watch: Option<Watch>,
    /// How it ended, while its state is made again or its last token is read.
    pub ended: Option<Ended>,
}

impl Sequence {
    /// A job that gets a slot, with the prompt it has or stands for.
    pub fn new(job: Job, prompt: Arc<[u32]>, scan: StopScan, vocab: usize) -> Self {
        let mut tally = job.from.as_ref().map_or_else(|| Tally::new(vocab), |from| from.tally.clone());
        tally.read(&prompt);
        // Nothing predicts the first token of all.
        let traced = usize::from(job.from.as_ref().is_none_or(|from| from.unread.is_empty()));
        let traces_prompt = job.logprobs.is_some_and(|logprobs| logprobs.prompt);
        let watches_prompt = job.neurons.as_ref().is_some_and(|neurons| neurons.prompt);
        let begin = job.from.as_ref().map_or(0, |from| from.position());
        Self {
            phase: Phase::Reading,
            shares: job.from.is_none() && !traces_prompt && !watches_prompt,
            watch: job.neurons.map(|wanted| Watch::new(wanted, begin, prompt.len())),
            prompt,
            cached: 0,
            seed: job.options.seed.unwrap_or_else(random_seed),
            options: job.options,
            biases: BiasRow::default(),
            logprobs: job.logprobs,
            keep_state: job.keep_state,
            tally,
            checkpoint: None,
            limit: 0,
            cancel: job.cancel,
            events: job.events,
            scan,
            drawn: 0,
            kept: Vec::new(),
            told: 0,
            held: VecDeque::new(),
            traced,
            ended: None,
        }
    }

    /// Which logits it needs.
    pub fn trace(&self) -> Trace {
        match self.logprobs {
            None => Trace::None,
            Some(logprobs) if logprobs.prompt => Trace::All,
            Some(_) => Trace::Drawn,
        }
    }

    /// Whether neurons are wanted at all.
    pub fn wants_neurons(&self) -> bool {
        self.watch.is_some()
    }

    /// Whether neurons of the tokens that it reads now are wanted.
    pub fn is_watched(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| match self.phase {
            Phase::Reading | Phase::Following(_) => watch.wanted.prompt,
            Phase::Drawing | Phase::Watching => true,
            Phase::Replaying => false,
        })
    }

    /// Whether its last token is still to be read for its neurons.
    pub fn awaits_neurons(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.awaits_last(self.kept.len()))
    }

    /// Whether its state at the start may be needed again: a stop text may cut off tokens that are in it.
    pub fn checkpoint_needed(&self) -> bool {
        self.keep_state && self.scan.is_active()
    }

    /// Says what happened. Whoever listens may have had enough.
    pub fn tell(&mut self, event: Event) {
        if (self.events)(event).is_break() {
            self.cancel.cancel();
        }
    }

    /// Takes in the logits `[_, V]` after tokens of the prompt.
    pub fn read(&mut self, logits: &[f32], vocab: usize) -> Result<(), GenerationError> {
        let Some(wanted) = self.logprobs.filter(|logprobs| logprobs.prompt && !logits.is_empty()) else {
            return Ok(());
        };
        let followers = self.prompt[self.traced..].iter();
        let rows = logits.chunks_exact(vocab).zip(followers);
        let read: Vec<TokenLogprobs> = rows.map(|(row, &token)| TokenLogprobs::of(row, token, wanted.top)).collect();
        if let Some(index) = read.iter().position(|token| token.logprob.is_nan()) {
            let position = (self.traced + index) as u64;
            return Err(GenerationError::Sampling { position, sequence: 0, source: Some(SamplingError::NanLogits) });
        }
        self.traced += read.len();
        self.tell(Event::Read(read));
        Ok(())
    }

    /// Takes in the neurons of tokens that have been read.
    pub fn see(&mut self, traces: &[TokenTrace]) {
        let Some(watch) = &mut self.watch else { return };
        let of_prompt = watch.see(traces);
        if !of_prompt.is_empty() {
            self.tell(Event::Watched(of_prompt));
        }
    }

    /// Takes in drawn tokens and the logits `[_, V]` that they were drawn from. Says whether a stop
    /// text was found.
    pub fn draw(&mut self, tokens: &[u32], logits: &[f32], vocab: usize) -> bool {
        self.drawn += tokens.len();
        if let Some(wanted) = self.logprobs {
            let rows = logits.chunks_exact(vocab).zip(tokens);
            self.held.extend(rows.map(|(row, &token)| TokenLogprobs::of(row, token, wanted.top)));
        }
        let stopped = self.scan.push(tokens, &mut self.kept);
        self.tell_kept(false);
        stopped
    }

    /// Hands out the tokens that the scan held back: no more will come.
    pub fn release(&mut self) {
        self.scan.finish(&mut self.kept);
        self.tell_kept(false);
    }

    /// Hands out the tokens whose neurons are not known: they never will be.
    pub fn tell_rest(&mut self) {
        self.tell_kept(true);
    }

    /// Hands out the tokens to stay whose neurons are known, if these are wanted, or `all`.
    fn tell_kept(&mut self, all: bool) {
        let known = self.watch.as_ref().filter(|_| !all).map_or(usize::MAX, |watch| self.told + watch.ready());
        let new = self.kept[self.told..self.kept.len().min(known)].to_vec();
        if new.is_empty() {
            return;
        }
        self.told += new.len();
        if let Some(watch) = &mut self.watch {
            let watched = watch.take(new.len());
            self.tell(Event::Watched(watched));
        }
        let count = new.len().min(self.held.len());
        let logprobs = self.held.drain(..count).collect();
        self.tell(Event::Drawn(new, logprobs));
    }

    /// Whether every token that was drawn is kept.
    pub fn keeps_all(&self) -> bool {
        self.kept.len() == self.drawn
    }

    /// How it ended, but for its state.
    pub fn end(&mut self, finish_reason: FinishReason) -> Ended {
        let (stop, tail) = (self.scan.found(), self.scan.take_tail());
        Ended { finish_reason, stop, tail, drawn: self.scan.taken(), state: None }
    }

    /// The conversation with what the device remembers of it.
    pub fn snapshot(&self, clock: Clock, unread: Vec<u32>, memory: Arc<SavedMemory>) -> Snapshot {
        Snapshot { clock, unread, tally: self.tally.clone(), seed: Some(self.seed), memory }
    }
}

/// The text that a job's tokens continue, as far as stop texts depend on it.
pub(super) fn scan(bdh: &Bdh, job: &Job) -> StopScan {
    let mut text = bdh.text_stream();
    if let Some(from) = &job.from {
        text.skip(&from.unread);
    }
    text.skip(&job.prompt);
    StopScan::new(&job.options.stop, text)
}
