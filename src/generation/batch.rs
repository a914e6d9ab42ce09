//! Sequences on a device and the bookkeeping beside them: what is still to be read, what is still to be
//! drawn, positions and forgetting.

use super::GenerationError;
use crate::backend::watch::TokenNeurons;
use crate::backend::{
    Backend, Chunk, ChunkToken, Input, Output, Plan, RunOutput, SavedMemory, SlotStep, Slots, StateType,
};
use crate::event_loop;
use crate::model::Config;
use crate::model::forgetting::{Clock, Forgetting, Tick};
use crate::sampling::{BiasRow, NO_TOKEN, SampleOutcome, SamplerParams, Status};
use maybe_async::maybe_async;
use std::collections::VecDeque;
use std::ops::DerefMut;
use std::time::Duration;
use web_time::Instant;

/// A submission should take no longer than this, so that text flows and no driver's watchdog fires.
const BURST_TIME: Duration = Duration::from_millis(50);
/// Most steps in one burst.
const LONGEST_BURST: usize = 64;
/// Logits that a burst returns to the host at most, in bytes.
const TRACED_BYTES: usize = 64 << 20;

/// Fewest tokens that are read as a chunk rather than one by one.
const SHORTEST_CHUNK: usize = 8;

/// Tokens in the first chunk of `unread` tokens, the last of which always stays for the step that draws; nothing where
/// they are read one by one.
pub(crate) fn first_chunk(unread: usize, chunk_tokens: usize) -> Option<usize> {
    (chunk_tokens >= SHORTEST_CHUNK && unread > SHORTEST_CHUNK).then(|| chunk_tokens.min(unread - 1))
}

/// Several sequences that read and write side by side on one device.
pub(crate) struct Batch<S = Box<dyn Slots>> {
    slots: S,
    sequences: Vec<Sequence>,
    forgetting: Forgetting,
    vocab: usize,
    /// Most tokens that the device reads at once.
    chunk_tokens: usize,
    /// Steps in the next burst.
    burst: usize,
    /// Steps in the longest burst.
    longest: usize,
    /// Time that a burst should take.
    burst_time: Duration,
    /// Sequences that prefill a chunk before a burst at most, and the slot whose turn is next.
    readers: usize,
    next_reader: usize,
    /// Whether the neurons of every token are wanted.
    watched: bool,
}

/// What the host knows of one sequence.
#[derive(Clone, Debug)]
struct Sequence {
    clock: Clock,
    /// Tokens that are not yet in the state. The last one stays here until something is drawn after it.
    unread: VecDeque<u32>,
    /// Tokens still to be drawn.
    wanted: usize,
    /// Whether tokens are read one at a time, as they are when they are drawn.
    stepwise: bool,
    /// Whose logits come to the host.
    trace: Trace,
}

/// Which logits of a sequence come to the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trace {
    /// None.
    #[default]
    None,
    /// Those that a token is drawn from.
    Drawn,
    /// Those after every token.
    All,
}

/// How a sequence draws.
pub(crate) struct Drawing<'a> {
    /// Its options.
    pub params: SamplerParams,
    /// Per token id, `[V]`: how often it has occurred, and whether it ends the sequence.
    pub counts: &'a [u32],
    /// Biases of its tokens.
    pub biases: &'a BiasRow,
    /// Tokens it has drawn: the step of the random numbers.
    pub drawn: u32,
}

/// What a burst did for one sequence.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Tokens that entered the state.
    pub read: usize,
    /// Tokens drawn, in order.
    pub drawn: Vec<u32>,
    /// Whether the last of them ends the sequence.
    pub ended: bool,
    /// What made the sequence fail, if it did; the others go on.
    pub failure: Option<GenerationError>,
    /// Logits `[_, V]` after the tokens that were read and not drawn from, with [`Trace::All`].
    pub read_logits: Vec<f32>,
    /// Logits `[_, V]` that the tokens were drawn from, unless [`Trace::None`].
    pub drawn_logits: Vec<f32>,
    /// The tokens that entered the state and their neurons, of a batch that is watched.
    pub neurons: Vec<TokenTrace>,
}

/// A token and the neurons that fired when it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenTrace {
    /// Its position in the sequence.
    pub position: u32,
    /// Its id.
    pub token: u32,
    /// Its neurons, layer by layer.
    pub neurons: TokenNeurons,
}

/// What a burst plans for one sequence.
#[derive(Clone, Copy, Debug, Default)]
struct Planned {
    reads: usize,
    draws: usize,
    /// Steps before the first draw.
    passes: usize,
}

/// Refuses a state that would not remember what `forgetting` says.
///
/// # Errors
/// [`GenerationError::FadingState`] for 8-bit states where nothing may be forgotten, and
/// [`GenerationError::RoundedWindow`] for sliding windows over states of codes: what leaves does not
/// cancel what has been rounded since it entered, and the difference would stay for ever.
pub fn check_state(state_type: StateType, forgetting: Forgetting) -> Result<(), GenerationError> {
    match (state_type, forgetting) {
        (StateType::I8, Forgetting::Full) => Err(GenerationError::FadingState),
        (StateType::I16 | StateType::I8, Forgetting::Window { .. }) => Err(GenerationError::RoundedWindow),
        _ => Ok(()),
    }
}

/// A slot's step.
pub(crate) fn step_at(tick: Tick, input: Input, output: Output) -> SlotStep {
    let Tick { position, read_scale, write_scale, rescale } = tick;
    SlotStep { input, output, position, read_scale, write_scale, rescale }
}

#[maybe_async]
impl Batch {
    /// Allocates `count` empty sequences.
    pub async fn new(
        backend: &dyn Backend,
        config: &Config,
        count: usize,
        forgetting: Forgetting,
    ) -> Result<Self, GenerationError> {
        check_state(backend.state_type(), forgetting)?;
        let mut slots = backend.create_slots(count).await?;
        for slot in 0..count {
            slots.set_reach(slot, forgetting.window()).await?;
        }
        Ok(Self::on(slots, backend.chunk_tokens(), config, count, forgetting))
    }
}

#[maybe_async]
impl<S: DerefMut<Target: Slots>> Batch<S> {
    /// As [`Batch::new`], on `count` empty slots that exist already and read `chunk_tokens` tokens at once.
    pub fn on(slots: S, chunk_tokens: usize, config: &Config, count: usize, forgetting: Forgetting) -> Self {
        let sequence = Sequence::new(Clock::new(forgetting));
        Self {
            slots,
            sequences: vec![sequence; count],
            forgetting,
            vocab: config.vocab_size,
            chunk_tokens,
            burst: 1,
            longest: LONGEST_BURST,
            burst_time: BURST_TIME,
            readers: usize::MAX,
            next_reader: 0,
            watched: false,
        }
    }

    /// A sequence's clock, which says how much of it is in the state.
    pub fn clock(&self, slot: usize) -> Clock {
        self.sequences[slot].clock
    }

    /// How many of `wanted` tokens a sequence has positions left for, once it has read everything; an error where there
    /// is none for the first.
    pub fn room_for(&self, slot: usize, wanted: usize) -> Result<usize, GenerationError> {
        let sequence = &self.sequences[slot];
        // The last token drawn needs no position: nothing follows it.
        let steps = sequence.clock.remaining().saturating_add(1).saturating_sub(sequence.unread.len() as u64);
        match usize::try_from(steps).unwrap_or(usize::MAX).min(wanted) {
            0 if wanted > 0 => Err(GenerationError::PositionsExhausted),
            room => Ok(room),
        }
    }

    /// Limits bursts to `steps`: results do not depend on it.
    pub fn limit_burst(&mut self, steps: usize) {
        self.longest = steps.clamp(1, LONGEST_BURST);
        self.burst = self.burst.min(self.longest);
    }

    /// Limits the time of a burst. Results do not depend on it.
    pub fn limit_burst_time(&mut self, time: Duration) {
        self.burst_time = time.min(BURST_TIME);
    }

    /// Limits how many sequences prefill a chunk before each burst: those that draw wait for no
    /// more. Results do not depend on it.
    pub fn limit_readers(&mut self, readers: usize) {
        self.readers = readers.max(1);
    }

    /// Makes every [`Progress`] bring the neurons of its tokens. Results do not depend on it.
    pub fn watch(&mut self, watched: bool) {
        if watched && !self.watched {
            // Watched steps take longer, and nobody knows yet how long.
            self.hurry();
        }
        self.watched = watched;
    }

    /// Makes a sequence read its last token too, as if another followed. Returns whether there is a
    /// position left for that.
    pub fn read_last(&mut self, slot: usize) -> bool {
        self.push(slot, &[0]).is_ok()
    }

    /// Chooses which logits of a sequence come to the host.
    pub fn trace(&mut self, slot: usize, trace: Trace) {
        self.sequences[slot].trace = trace;
    }

    /// Makes a sequence read its tokens one at a time, as they were read when they were drawn.
    pub fn read_stepwise(&mut self, slot: usize) {
        self.sequences[slot].stepwise = true;
    }

    /// Makes the next burst a single step, so that what it draws is seen at once.
    pub fn hurry(&mut self) {
        self.burst = 1;
    }

    /// Tokens of a sequence so far, those still to be read included.
    pub fn position(&self, slot: usize) -> u64 {
        let sequence = &self.sequences[slot];
        sequence.clock.position() + sequence.unread.len() as u64
    }

    /// Whether a sequence has nothing to continue from.
    pub fn is_empty(&self, slot: usize) -> bool {
        self.position(slot) == 0
    }

    /// Whether a sequence has more to read than the token that the next draw follows.
    pub fn is_reading(&self, slot: usize) -> bool {
        self.sequences[slot].unread.len() > 1
    }

    /// Whether a sequence has more to draw.
    pub fn is_drawing(&self, slot: usize) -> bool {
        self.sequences[slot].wanted > 0
    }

    /// What a sequence has still to read, the token that the next draw follows included.
    pub fn unread(&self, slot: usize) -> Vec<u32> {
        self.sequences[slot].unread.iter().copied().collect()
    }

    /// How many tokens that is.
    pub fn unread_len(&self, slot: usize) -> usize {
        self.sequences[slot].unread.len()
    }

    /// Everything the device remembers of a sequence: what was read before [`Batch::unread`].
    pub async fn snapshot(&mut self, slot: usize) -> Result<SavedMemory, GenerationError> {
        Ok(self.slots.snapshot(slot).await?)
    }

    /// The numbers of a sequence's state, as [`Slots::read_state`] gives them.
    pub async fn read_state(&mut self, slot: usize) -> Result<Vec<f32>, GenerationError> {
        Ok(self.slots.read_state(slot).await?)
    }

    /// Replaces the numbers of a sequence's state; its tokens and their time stay.
    pub async fn write_state(&mut self, slot: usize, numbers: &[f32]) -> Result<(), GenerationError> {
        Ok(self.slots.write_state(slot, numbers).await?)
    }

    /// Replaces a sequence by one that has `memory` behind it and `unread` before it.
    pub async fn restore(
        &mut self,
        slot: usize,
        clock: Clock,
        unread: &[u32],
        memory: &SavedMemory,
    ) -> Result<(), GenerationError> {
        self.forgetting = clock.forgetting();
        self.sequences[slot] = Sequence { unread: unread.iter().copied().collect(), ..Sequence::new(clock) };
        self.slots.set_reach(slot, self.forgetting.window()).await?;
        Ok(self.slots.restore(slot, memory).await?)
    }

    /// Changes how much of the past counts, for a sequence from its next token on; not to or from a
    /// sliding window.
    pub fn set_forgetting(&mut self, slot: usize, forgetting: Forgetting) {
        debug_assert_eq!(self.forgetting.window(), forgetting.window(), "a conversation keeps its sliding window");
        self.forgetting = forgetting;
        let clock = &mut self.sequences[slot].clock;
        *clock = clock.with_forgetting(forgetting);
    }

    /// Reads tokens as they were read when they were drawn: one at a time.
    pub async fn replay(&mut self, slot: usize, tokens: &[u32]) -> Result<(), GenerationError> {
        for token in tokens {
            self.push(slot, std::slice::from_ref(token))?;
            while self.is_reading(slot) {
                self.advance().await?;
            }
        }
        Ok(())
    }

    /// Empties a sequence.
    pub async fn clear(&mut self, slot: usize) -> Result<(), GenerationError> {
        self.clear_at(slot, 0).await
    }

    /// Empties a sequence, whose next token then has the given position.
    pub async fn clear_at(&mut self, slot: usize, position: u32) -> Result<(), GenerationError> {
        let clock = Clock::at(self.forgetting, position);
        self.sequences[slot] = Sequence::new(clock);
        Ok(self.slots.clear(slot).await?)
    }

    /// Makes sequence `to` a copy of sequence `from`.
    pub async fn fork(&mut self, from: usize, to: usize) -> Result<(), GenerationError> {
        self.sequences[to] = self.sequences[from].clone();
        Ok(self.slots.copy(from, to).await?)
    }

    /// Gives a sequence tokens to read in the bursts to come.
    pub fn push(&mut self, slot: usize, tokens: &[u32]) -> Result<(), GenerationError> {
        if let Some(index) = tokens.iter().position(|&token| token as usize >= self.vocab) {
            return Err(GenerationError::TokenOutOfRange { index, token: tokens[index], vocab: self.vocab });
        }
        let sequence = &mut self.sequences[slot];
        if (sequence.unread.len() + tokens.len()) as u64 > sequence.clock.remaining() {
            return Err(GenerationError::PositionsExhausted);
        }
        sequence.unread.extend(tokens);
        Ok(())
    }

    /// Makes a sequence draw `wanted` tokens in the bursts to come, or as many as it has positions for, once it has read
    /// everything. Returns how many it will draw.
    pub async fn draw(&mut self, slot: usize, wanted: usize, drawing: &Drawing<'_>) -> Result<usize, GenerationError> {
        let wanted = self.room_for(slot, wanted)?;
        self.sequences[slot].wanted = wanted;
        let params = drawing.params.with_biases(drawing.biases);
        if !drawing.biases.is_empty() {
            self.slots.set_biases(slot, drawing.biases.as_slice()).await?;
        }
        self.slots.set_sampler(slot, &params, drawing.counts, drawing.drawn).await?;
        Ok(wanted)
    }

    /// Stops a sequence from drawing.
    pub fn rest(&mut self, slot: usize) {
        self.sequences[slot].wanted = 0;
    }

    /// Runs one burst of a length that suits the device: every sequence reads and then draws as far as it
    /// gets. Nothing happens where nothing is to be done.
    ///
    /// # Errors
    /// Where the device fails; a sequence whose logits allow no draw fails alone, in its [`Progress`].
    pub async fn advance(&mut self) -> Result<Vec<Progress>, GenerationError> {
        let mut done: Vec<Progress> = self.sequences.iter().map(|_| Progress::default()).collect();
        for slot in self.readers() {
            if let Some(mut chunk) = self.next_chunk(slot) {
                chunk.logits = self.sequences[slot].trace == Trace::All;
                done[slot].read_logits = match self.watched {
                    false => self.slots.prefill(slot, &chunk).await?,
                    true => {
                        let (logits, neurons) = self.slots.prefill_watched(slot, &chunk).await?;
                        let tokens = chunk.tokens.iter().zip(chunk.position..);
                        let traces = tokens.zip(neurons).map(|((read, position), neurons)| TokenTrace {
                            position,
                            token: read.token,
                            neurons,
                        });
                        done[slot].neurons.extend(traces);
                        logits
                    }
                };
                done[slot].read = chunk.tokens.len();
            }
        }
        let before = self.sequences.clone();
        let (plan, planned) = self.plan();
        if plan.steps.is_empty() {
            event_loop::turn().await;
            return Ok(done);
        }
        let (run, mut neurons) = self.run(&plan).await?;
        for (slot, done) in done.iter_mut().enumerate() {
            let own = neurons.iter_mut().map(|step| std::mem::take(&mut step[slot])).collect();
            done.neurons.extend(traces(&plan, &run, slot, own));
            self.collect(slot, &before[slot], planned[slot], &run, done);
        }
        event_loop::turn().await;
        Ok(done)
    }

    /// The slots that prefill a chunk before the next burst.
    fn readers(&mut self) -> Vec<usize> {
        let count = self.sequences.len();
        let in_turn = (0..count).map(|offset| (self.next_reader + offset) % count);
        let chosen: Vec<usize> = in_turn.filter(|&slot| self.has_chunk(slot)).take(self.readers).collect();
        if let Some(last) = chosen.last() {
            self.next_reader = (last + 1) % count;
        }
        chosen
    }

    /// Reads a sequence's last token and lets the host draw the next one from its logits `[V]`.
    pub async fn draw_on_host(
        &mut self,
        slot: usize,
        draw: impl FnOnce(&mut [f32]) -> SampleOutcome,
    ) -> Result<Progress, GenerationError> {
        let mut progress = Progress::default();
        let sequence = &mut self.sequences[slot];
        let mut logits = match sequence.unread.pop_front() {
            // Its draw failed.
            None => self.slots.logits(slot).await?,
            Some(token) => {
                progress.read = 1;
                let mut steps = vec![SlotStep::IDLE; self.sequences.len()];
                steps[slot] = step_at(self.sequences[slot].clock.tick(), Input::Token(token), Output::Logits);
                let plan = Plan { steps: vec![steps], trace_logits: true };
                let (run, mut neurons) = self.run(&plan).await?;
                let own = neurons.iter_mut().map(|step| std::mem::take(&mut step[slot])).collect();
                progress.neurons = traces(&plan, &run, slot, own);
                run.logits.into_iter().flatten().nth(slot).unwrap_or_default()
            }
        };
        let outcome = draw(&mut logits);
        let sequence = &mut self.sequences[slot];
        if outcome.status.is_failure() {
            let (position, source) = (sequence.clock.position() - 1, outcome.status.check().err());
            progress.failure = Some(GenerationError::Sampling { position, sequence: slot, source });
        } else {
            sequence.unread.push_back(outcome.token);
            progress.drawn.push(outcome.token);
            progress.ended = outcome.status == Status::Eos;
        }
        Ok(progress)
    }

    /// As [`Batch::advance`] for a sequence that only reads, with the logits after every token that
    /// entered the state.
    pub async fn advance_traced(&mut self, slot: usize) -> Result<Progress, GenerationError> {
        self.trace(slot, Trace::All);
        let progress = self.advance().await;
        self.trace(slot, Trace::None);
        Ok(progress?.swap_remove(slot))
    }

    /// Whether a sequence has enough to read for a chunk.
    fn has_chunk(&self, slot: usize) -> bool {
        let sequence = &self.sequences[slot];
        !sequence.stepwise && first_chunk(sequence.unread.len(), self.chunk_tokens_of(slot)).is_some()
    }

    /// Most tokens in a sequence's next chunk: none leaves a sliding window in it.
    fn chunk_tokens_of(&self, slot: usize) -> usize {
        let clock = self.sequences[slot].clock;
        let room = clock.forgetting().window().map(|window| u64::from(window).saturating_sub(clock.position()));
        room.map_or(self.chunk_tokens, |room| self.chunk_tokens.min(usize::try_from(room).unwrap_or(usize::MAX)))
    }

    /// Takes the next chunk off what a sequence has to read. Where chunks begin and end depends on nothing but the
    /// sequence.
    fn next_chunk(&mut self, slot: usize) -> Option<Chunk> {
        if !self.has_chunk(slot) {
            return None;
        }
        let most = self.chunk_tokens_of(slot);
        let sequence = &mut self.sequences[slot];
        let mut chunk = Chunk { position: sequence.clock.position() as u32, ..Chunk::default() };
        while chunk.tokens.len() < most && sequence.unread.len() > 1 {
            let mut clock = sequence.clock;
            let tick = clock.tick();
            match tick.rescale {
                Some(factor) if chunk.tokens.is_empty() => chunk.rescale = Some(factor),
                // The next chunk starts with it.
                Some(_) => break,
                None => {}
            }
            sequence.clock = clock;
            let token = sequence.unread.pop_front().expect("more than one");
            chunk.tokens.push(ChunkToken { token, read_scale: tick.read_scale, write_scale: tick.write_scale });
        }
        Some(chunk)
    }

    /// Lays out a burst and takes what it reads off the sequences' lists.
    fn plan(&mut self) -> (Plan, Vec<Planned>) {
        let mut plan = Plan::default();
        let mut planned = vec![Planned::default(); self.sequences.len()];
        plan.trace_logits = self.sequences.iter().any(|sequence| sequence.trace > Trace::None);
        let most = if plan.trace_logits { TRACED_BYTES / (4 * self.vocab * self.sequences.len()) } else { usize::MAX };
        for _ in 0..self.burst.min(most.max(1)) {
            let mut steps = vec![SlotStep::IDLE; self.sequences.len()];
            for (slot, (planned, step)) in planned.iter_mut().zip(&mut steps).enumerate() {
                if self.has_chunk(slot) {
                    continue;
                }
                let sequence = &mut self.sequences[slot];
                let last = sequence.unread.len() <= 1;
                if last && sequence.wanted == 0 {
                    continue;
                }
                let input = match sequence.unread.pop_front() {
                    Some(token) => {
                        planned.reads += 1;
                        Input::Token(token)
                    }
                    None => Input::Previous,
                };
                let output = match sequence.trace {
                    _ if last => Output::Token,
                    Trace::All => Output::Logits,
                    Trace::None | Trace::Drawn => Output::State,
                };
                if last {
                    sequence.wanted -= 1;
                    planned.draws += 1;
                } else {
                    planned.passes += 1;
                }
                let tick = sequence.clock.tick();
                *step = step_at(tick, input, output);
            }
            if steps.iter().all(|step| step.input == Input::Idle) {
                break;
            }
            plan.steps.push(steps);
        }
        (plan, planned)
    }

    /// Runs a plan and chooses the next burst's length from the time that this one took.
    async fn run(&mut self, plan: &Plan) -> Result<(RunOutput, Vec<Vec<TokenNeurons>>), GenerationError> {
        let start = Instant::now();
        let run = match self.watched {
            false => (self.slots.run(plan).await?, Vec::new()),
            true => self.slots.run_watched(plan).await?,
        };
        if !plan.steps.is_empty() {
            let per_step = start.elapsed().as_secs_f64() / plan.steps.len() as f64;
            let fitting = (self.burst_time.as_secs_f64() / per_step.max(1e-9)) as usize;
            // At most double, so that one lucky measurement does not stall the stream.
            self.burst = fitting.clamp(1, self.longest).min(2 * self.burst);
        }
        Ok(run)
    }

    /// Takes a sequence's tokens out of a run and sets its clock to what was really read.
    fn collect(&mut self, slot: usize, before: &Sequence, planned: Planned, run: &RunOutput, progress: &mut Progress) {
        progress.read += planned.reads;
        let sequence = &mut self.sequences[slot];
        let rows = |steps: std::ops::Range<usize>| run.logits[steps].iter().flat_map(|step| &step[slot]).copied();
        if sequence.trace == Trace::All {
            progress.read_logits.extend(rows(0..planned.passes));
        }
        if planned.draws == 0 {
            return;
        }
        progress.drawn = run.tokens.iter().map(|step| step[slot]).filter(|&token| token != NO_TOKEN).collect();
        if sequence.trace > Trace::None {
            progress.drawn_logits = rows(planned.passes..planned.passes + progress.drawn.len()).collect();
        }
        let status = run.samplers[slot].status();
        let failed = status.is_none_or(Status::is_failure);
        // The first draw belongs to the last token read, every other one to the draw before it.
        let steps = planned.reads + progress.drawn.len() + failed as usize - 1;
        let mut clock = before.clock;
        for _ in 0..steps {
            clock.tick();
        }
        sequence.clock = clock;
        if let Some(&last) = progress.drawn.last() {
            sequence.unread = [last].into();
        }
        progress.ended = status == Some(Status::Eos);
        if progress.ended || failed {
            sequence.wanted = 0;
        }
        if failed {
            let source = status.and_then(|status| status.check().err());
            progress.failure =
                Some(GenerationError::Sampling { position: clock.position() - 1, sequence: slot, source });
        }
    }
}

/// The tokens of a slot that a plan has read, with their neurons, `[steps]`; those of steps that the
/// slot took no part in are empty.
fn traces(plan: &Plan, run: &RunOutput, slot: usize, neurons: Vec<TokenNeurons>) -> Vec<TokenTrace> {
    let trace = |(index, neurons): (usize, TokenNeurons)| {
        let step = plan.steps[index][slot];
        let token = match step.input {
            Input::Token(token) => token,
            _ => run.tokens[index.checked_sub(1)?][slot],
        };
        Some(TokenTrace { position: step.position, token, neurons })
    };
    neurons.into_iter().enumerate().filter(|(_, neurons)| !neurons.is_empty()).filter_map(trace).collect()
}

impl Sequence {
    /// An empty sequence.
    fn new(clock: Clock) -> Self {
        Self { clock, unread: VecDeque::new(), wanted: 0, stepwise: false, trace: Trace::None }
    }
}
