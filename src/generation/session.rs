//! A conversation: one sequence's state, from its first token to its last.

use super::batch::{Batch, check_state};
use super::beam::BeamSearch;
use super::chooser::{Chooser, Process};
use super::failover::{self, Failover, History};
use super::snapshot::Snapshot;
use super::stop::StopScan;
use super::{
    Bdh, BeamOptions, BeamProgress, FinishReason, Generated, GenerationError, GenerationOptions, Hypothesis,
    SessionPieces, beams,
};
use crate::backend::{BackendError, DeviceInfo, DeviceKind};
use crate::model::forgetting::Forgetting;
use crate::sampling::{COUNT_MASK, EOS_BIT, PROMPT_BIT, SamplerParams, SamplingOptions};
use crate::tokenizer::TextStream;
use std::ops::ControlFlow;
use std::sync::Arc;

/// With stop texts, the state is kept every so many tokens: what lies between is read again after a stop.
const CHECKPOINT_TOKENS: usize = 512;

/// A conversation whose state stays on the device from turn to turn. If the device fails, it goes on on the CPU.
pub struct Session {
    bdh: Bdh,
    batch: Batch,
    /// Ids that have occurred, `[V]`: [`PROMPT_BIT`] for those read as a prompt, and the number of times
    /// generated.
    counts: Vec<u32>,
    /// Tokens drawn in the whole conversation: the step of the random numbers.
    drawn: u32,
    /// Tokens drawn since something was read.
    generated: u32,
    /// The seed of the last generation.
    seed: Option<u64>,
    /// The conversation's text so far, as far as the text that follows depends on it.
    text: TextStream,
    /// On a device that may fail: what to read again on the CPU.
    history: Option<History>,
    failover: Option<Failover>,
}

impl Session {
    pub(super) fn new(bdh: Bdh, forgetting: Forgetting) -> Result<Self, GenerationError> {
        let batch = Batch::new(bdh.backend(), &bdh.model().config, 1, forgetting)?;
        let counts = vec![0; bdh.model().config.vocab_size];
        let history = (bdh.device().kind != DeviceKind::Cpu).then(|| History::new(forgetting));
        let text = bdh.text_stream();
        Ok(Self { counts, batch, drawn: 0, generated: 0, seed: None, text, history, failover: None, bdh })
    }

    /// Tokens read and generated so far.
    pub fn position(&self) -> u64 {
        self.batch.position(0)
    }

    /// The seed of the last generation, in this session or in the one that its state comes from.
    pub fn seed(&self) -> Option<u64> {
        self.seed
    }

    /// How much of the past counts.
    pub fn forgetting(&self) -> Forgetting {
        self.batch.clock(0).forgetting()
    }

    /// The device that it runs on.
    pub fn device(&self) -> &DeviceInfo {
        self.bdh.device()
    }

    /// The conversation's move to the CPU, if its device has failed. Each move is returned once.
    pub fn take_failover(&mut self) -> Option<Failover> {
        self.failover.take()
    }

    /// Changes how much of the past counts, from the next token on. What has been forgotten stays so, and
    /// what has not keeps its weight of the moment.
    ///
    /// # Errors
    /// [`GenerationError::FadingState`] for a choice that the type of the state does not suit.
    pub fn set_forgetting(&mut self, forgetting: Forgetting) -> Result<(), GenerationError> {
        check_state(self.bdh.backend().state_type(), forgetting)?;
        self.batch.set_forgetting(0, forgetting);
        if let Some(history) = &mut self.history {
            history.change(forgetting);
        }
        Ok(())
    }

    /// Limits the number of tokens per submission to the device. Results do not depend on it.
    pub fn limit_burst(&mut self, tokens: usize) {
        self.batch.limit_burst(tokens);
    }

    /// Forgets the whole conversation.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn reset(&mut self) -> Result<(), GenerationError> {
        self.counts.fill(0);
        (self.drawn, self.generated, self.seed) = (0, 0, None);
        self.text = self.bdh.text_stream();
        self.history = self.history.take().map(|_| History::new(self.forgetting()));
        let cleared = self.batch.clear(0);
        self.survive(cleared)
    }

    /// Token ids of a text that the conversation goes on with: it is added exactly as it is, without a space that some
    /// tokenizers put before every text.
    ///
    /// # Errors
    /// As [`Bdh::encode`].
    pub fn encode(&self, text: &[u8]) -> Result<Vec<u32>, GenerationError> {
        Ok(self.bdh.model().tokenizer.encode_after(&self.text, text)?)
    }

    /// Turns the tokens that come next into text: what they add to the conversation's text. A character that the
    /// conversation ends in the midst of comes with its last token.
    pub fn text_stream(&self) -> TextStream {
        self.text.clone()
    }

    /// Everything that the conversation's continuation depends on. The state passes through the host.
    ///
    /// # Errors
    /// Where the device fails.
    pub fn snapshot(&mut self) -> Result<Snapshot, GenerationError> {
        let memory = match self.batch.snapshot(0) {
            // No memory for the copy: the conversation itself is still there.
            Err(error) if !matches!(error, GenerationError::Backend(BackendError::OutOfMemory { .. })) => {
                self.survive(Err(error))?;
                self.batch.snapshot(0)?
            }
            memory => memory?,
        };
        let snapshot = Snapshot {
            clock: self.batch.clock(0),
            unread: self.batch.unread(0),
            counts: self.counts.clone(),
            drawn: self.drawn,
            generated: self.generated,
            seed: self.seed,
            memory: Arc::new(memory),
        };
        self.history = self.history.take().map(|_| History::of(&snapshot));
        Ok(snapshot)
    }

    /// Replaces the conversation by the one of a snapshot of the same model. On the device that it was taken
    /// on, the conversation continues as it would have then, bit for bit.
    ///
    /// # Errors
    /// [`GenerationError::ForeignSnapshot`] for a model of other sizes; a device that fails.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<(), GenerationError> {
        if !snapshot.fits(&self.bdh.model().config) {
            return Err(GenerationError::ForeignSnapshot);
        }
        check_state(self.bdh.backend().state_type(), snapshot.forgetting())?;
        self.history = self.history.take().map(|_| History::of(snapshot));
        let restored = self.batch.restore(0, snapshot.clock, &snapshot.unread, &snapshot.memory);
        self.survive(restored)?;
        self.counts.clone_from(&snapshot.counts);
        (self.drawn, self.generated, self.seed) = (snapshot.drawn, snapshot.generated, snapshot.seed);
        self.text = self.bdh.text_stream();
        self.text.skip(&snapshot.unread);
        Ok(())
    }

    /// A second conversation with the same past.
    ///
    /// # Errors
    /// As [`Bdh::session`].
    pub fn fork(&mut self) -> Result<Self, GenerationError> {
        let snapshot = self.snapshot()?;
        let mut fork = self.bdh.session_with(self.forgetting())?;
        fork.restore(&snapshot)?;
        fork.text = self.text.clone();
        Ok(fork)
    }

    /// Reads tokens.
    ///
    /// # Errors
    /// [`GenerationError`] for an id outside the vocabulary, a conversation that is full, or a device
    /// that fails.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<(), GenerationError> {
        self.feed_with(tokens, |_| ControlFlow::Continue(()))
    }

    /// As [`Session::feed`]. `progress` receives how many of the tokens have been read so far, and may
    /// end the reading; the rest is read before what comes next.
    ///
    /// # Errors
    /// See there.
    pub fn feed_with(
        &mut self,
        tokens: &[u32],
        mut progress: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<(), GenerationError> {
        self.batch.push(0, tokens)?;
        for &token in tokens {
            self.counts[token as usize] |= PROMPT_BIT;
        }
        if !tokens.is_empty() {
            self.generated = 0;
        }
        self.text.skip(tokens);
        self.remember(tokens);
        let mut read = 0;
        while self.batch.is_reading(0) {
            match self.batch.advance() {
                Ok(mut progress) => read += progress.remove(0).read,
                Err(error) => {
                    self.survive(Err(error))?;
                    read = tokens.len();
                }
            }
            if progress(read).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Continues the conversation.
    ///
    /// An empty conversation starts from [`Bdh::default_prompt`]. A generation that follows another one
    /// directly goes on with it: penalties and `min_new_tokens` count its tokens too. The random numbers go on
    /// in any case, so that the same seed never repeats them within a conversation.
    ///
    /// # Errors
    /// As [`Session::feed`]; options out of range, before any work starts; and logits that allow no draw.
    pub fn generate(&mut self, options: &GenerationOptions) -> Result<Generated, GenerationError> {
        self.generate_with(options, |_| ControlFlow::Continue(()))
    }

    /// As [`Session::generate`]. `each` receives the new tokens in bursts, as the device delivers
    /// them, and may end the generation. Tokens that may be part of a stop text wait until that is known.
    ///
    /// # Errors
    /// See there. `each` has received every token that was drawn before.
    pub fn generate_with(
        &mut self,
        options: &GenerationOptions,
        each: impl FnMut(&[u32]) -> ControlFlow<()>,
    ) -> Result<Generated, GenerationError> {
        self.continue_text(options, None, each)
    }

    /// As [`Session::generate_with`], for callers who have a say in every token: `process` receives
    /// the tokens drawn so far in this generation and the logits `[V]` of the next one, and may
    /// change them. Minus infinity forbids a token; at least one must be left. Penalties,
    /// temperature and the rest follow. If it changes nothing, the text is the one of
    /// [`Session::generate_with`].
    ///
    /// The logits come to the host for every token, so the device works on one token at a time.
    ///
    /// # Errors
    /// As [`Session::generate_with`].
    ///
    /// ```
    /// # #[cfg(feature = "embedded-model")] {
    /// use bdh_gpu::Bdh;
    /// use std::ops::ControlFlow;
    ///
    /// let model = Bdh::embedded()?;
    /// let mut session = model.session()?;
    /// session.feed(&model.encode(b"In the year ")?)?;
    /// let digits = |_: &[u32], logits: &mut [f32]| {
    ///     for (byte, logit) in logits.iter_mut().enumerate() {
    ///         if !(byte as u8).is_ascii_digit() {
    ///             *logit = f32::NEG_INFINITY;
    ///         }
    ///     }
    /// };
    /// let options = bdh_gpu::GenerationOptions { max_new_tokens: 4, ..model.options() };
    /// let year = session.generate_processed(&options, digits, |_| ControlFlow::Continue(()))?;
    /// assert!(model.decode(&year.tokens).parse::<u32>().is_ok());
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn generate_processed(
        &mut self,
        options: &GenerationOptions,
        mut process: impl FnMut(&[u32], &mut [f32]),
        each: impl FnMut(&[u32]) -> ControlFlow<()>,
    ) -> Result<Generated, GenerationError> {
        self.continue_text(options, Some(&mut process), each)
    }

    /// Draws on the device, or on the host from logits that `process` has changed.
    fn continue_text(
        &mut self,
        options: &GenerationOptions,
        process: Option<&mut Process<'_>>,
        mut each: impl FnMut(&[u32]) -> ControlFlow<()>,
    ) -> Result<Generated, GenerationError> {
        options.validate()?;
        self.bdh.check_stops(&options.stop)?;
        let seed = options.seed.unwrap_or_else(rand::random);
        self.start()?;
        self.seed = Some(seed);
        if self.generated == 0 {
            // Presence and frequency count what this generation draws; earlier turns are its prompt.
            self.counts = self.occurred();
        }
        let mut params = SamplerParams::new(&options.sampling, seed, 0);
        params.min_new_tokens = params.min_new_tokens.saturating_add(self.drawn - self.generated);
        let before = self.text_stream();
        let mut scan = StopScan::new(&options.stop, before.clone());
        let mut checkpoint = if scan.is_active() { Some((self.snapshot()?, 0)) } else { None };
        let mut chooser = process.map(|process| Chooser::new(params, &self.counts, options, self.drawn, process));
        let limit = self.batch.room_for(0, options.max_new_tokens)?;
        self.batch.hurry();
        let mut tokens = Vec::new();
        let mut drawn = 0;
        let mut finish_reason = FinishReason::Length;
        while drawn < limit {
            let advanced = match &mut chooser {
                Some(chooser) => chooser.advance(&mut self.batch, 0),
                None => {
                    // At the start, and where another device goes on.
                    if !self.batch.is_drawing(0) {
                        let counts = mark_eos(self.counts.clone(), &options.eos_token_ids);
                        self.batch.draw(0, &params, &counts, limit - drawn, self.drawn)?;
                    }
                    self.batch.advance().map(|mut progress| progress.remove(0))
                }
            };
            let progress = match advanced {
                Ok(progress) => progress,
                Err(error) => match self.survive(Err(error)) {
                    Ok(()) => continue,
                    Err(error) => {
                        release(&mut scan, &mut tokens, &mut each);
                        self.text.skip(&tokens);
                        return Err(error);
                    }
                },
            };
            drawn += progress.drawn.len();
            self.count(&progress.drawn);
            self.remember(&progress.drawn);
            let known = tokens.len();
            let stopped = scan.push(&progress.drawn, &mut tokens);
            let flow = if tokens.len() > known { each(&tokens[known..]) } else { ControlFlow::Continue(()) };
            if let Some(failure) = progress.failure {
                release(&mut scan, &mut tokens, &mut each);
                self.text.skip(&tokens);
                return Err(failure);
            }
            if stopped {
                if let Some((snapshot, position)) = &checkpoint {
                    self.rewind(snapshot, &tokens[*position..])?;
                }
                self.batch.rest(0);
                self.text = before;
                self.text.skip(&tokens);
                let tail = scan.take_tail();
                let finish_reason = FinishReason::Stop;
                return Ok(Generated { tokens, tail, finish_reason, seed: Some(seed), score: None });
            }
            if progress.ended {
                finish_reason = FinishReason::Eos;
                break;
            }
            if flow.is_break() {
                finish_reason = FinishReason::Stop;
                break;
            }
            if let Some((_, position)) = checkpoint
                && tokens.len() == drawn
                && drawn - position >= CHECKPOINT_TOKENS
            {
                // Nothing is held back here.
                checkpoint = Some((self.snapshot()?, drawn));
            }
        }
        self.batch.rest(0);
        release(&mut scan, &mut tokens, &mut each);
        self.text.skip(&tokens);
        Ok(Generated { tokens, tail: String::new(), finish_reason, seed: Some(seed), score: None })
    }

    /// Continues the conversation as [`Session::generate`] does, piece by piece; [`SessionPieces::into_session`] gives it
    /// back. Errors come as the last piece, and leave a conversation as they do there.
    ///
    /// ```
    /// # use bdh_gpu::{Bdh, GenerationOptions};
    /// # let model = Bdh::embedded()?;
    /// let options = GenerationOptions { max_new_tokens: 1000, ..model.options() };
    /// let mut pieces = model.session()?.into_stream(options);
    /// while let Some(piece) = pieces.next().transpose()? {
    ///     print!("{piece}");
    ///     if piece.contains('.') {
    ///         break;
    ///     }
    /// }
    /// let session = pieces.into_session(); // goes on after the piece with the full stop
    /// # drop(session);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_stream(self, options: GenerationOptions) -> SessionPieces {
        SessionPieces::start(self, options)
    }

    /// As [`Bdh::check_text`].
    pub(super) fn check_text(&self) -> Result<(), GenerationError> {
        self.bdh.check_text()
    }

    /// Finds the likeliest continuations of the conversation, which itself stays as it is. Options and
    /// errors are those of [`Bdh::beam_search`].
    ///
    /// # Errors
    /// See there.
    pub fn beam_search(
        &mut self,
        sampling: &SamplingOptions,
        beam: &BeamOptions,
    ) -> Result<Vec<Hypothesis>, GenerationError> {
        self.beam_search_with(sampling, beam, |_| ControlFlow::Continue(()))
    }

    /// As [`Session::beam_search`], with progress as in [`Bdh::beam_search_with`].
    ///
    /// # Errors
    /// See there.
    pub fn beam_search_with(
        &mut self,
        sampling: &SamplingOptions,
        beam: &BeamOptions,
        mut progress: impl FnMut(BeamProgress) -> ControlFlow<()>,
    ) -> Result<Vec<Hypothesis>, GenerationError> {
        sampling.validate()?;
        let mut beam = beam.clone();
        beam.validate()?;
        self.bdh.check_stops(&beam.stop)?;
        self.start()?;
        beam.max_new_tokens = self.batch.room_for(0, beam.max_new_tokens)?;
        let search = BeamSearch::new(beam.clone())?.with_text(self.text_stream());
        if search.is_over() {
            return Ok(search.finish());
        }
        while self.batch.is_reading(0) {
            let advanced = self.batch.advance().map(drop);
            self.survive(advanced)?;
        }
        match self.run_beams(sampling, &beam, search.clone(), &mut progress) {
            Err(GenerationError::Backend(error)) if !matches!(error, BackendError::OutOfMemory { .. }) => {
                self.survive(Err(error.into()))?;
                self.run_beams(sampling, &beam, search, &mut progress)
            }
            found => found,
        }
    }

    /// A search from where the conversation is.
    fn run_beams(
        &mut self,
        sampling: &SamplingOptions,
        beam: &BeamOptions,
        search: BeamSearch,
        progress: &mut dyn FnMut(BeamProgress) -> ControlFlow<()>,
    ) -> Result<Vec<Hypothesis>, GenerationError> {
        let mut beams = self.bdh.backend().create_beams(beam.num_beams)?;
        beams.base()?.restore(0, &self.batch.snapshot(0)?)?;
        let counts = mark_eos(self.occurred(), &beam.eos_token_ids);
        beams.start(&SamplerParams::new(sampling, 0, 0), &counts)?;
        let unread = self.batch.unread(0);
        beams::run(&mut *beams, search, self.batch.clock(0), unread[unread.len() - 1], progress)
    }

    /// Gives an empty conversation its beginning.
    fn start(&mut self) -> Result<(), GenerationError> {
        if self.batch.is_empty(0) {
            let start = self.bdh.default_prompt()?;
            self.feed(&start)?;
            // The text begins after it.
            self.text = self.bdh.text_stream();
        }
        Ok(())
    }

    /// Counts of a generation that everything so far is the prompt of.
    fn occurred(&self) -> Vec<u32> {
        let occurred = |&count: &u32| if count & (PROMPT_BIT | COUNT_MASK) != 0 { PROMPT_BIT } else { 0 };
        self.counts.iter().map(occurred).collect()
    }

    /// Counts drawn tokens.
    fn count(&mut self, tokens: &[u32]) {
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

    /// Makes the conversation end with `tokens`, all that is to be kept after a snapshot of the same
    /// generation.
    fn rewind(&mut self, snapshot: &Snapshot, tokens: &[u32]) -> Result<(), GenerationError> {
        self.restore(snapshot)?;
        self.remember(tokens);
        self.count(tokens);
        let replayed = self.batch.replay(0, tokens);
        self.survive(replayed)
    }

    /// Notes tokens that the conversation now has.
    fn remember(&mut self, tokens: &[u32]) {
        if let Some(history) = &mut self.history {
            history.push(tokens);
        }
    }

    /// Goes on on the CPU if the device has failed: the conversation is read again from its last
    /// snapshot. The new state agrees with the old one to rounding; random numbers, penalties and
    /// forgetting go on.
    fn survive(&mut self, result: Result<(), GenerationError>) -> Result<(), GenerationError> {
        let error = match (result, &self.history) {
            (Err(GenerationError::Backend(error)), Some(_)) if failover::gives_up(&error) => error,
            (result, _) => return result,
        };
        let cpu = self.bdh.on_cpu()?;
        if let Some(history) = self.history.take() {
            self.batch = history.replay(&cpu)?;
        }
        self.failover = Some(Failover { error, device: cpu.device().clone() });
        self.bdh = cpu;
        Ok(())
    }

    /// The logits `[V]` of the token that comes next, as the model gives them: without penalties
    /// and temperature. The conversation stays as it is; an empty one gets its beginning as in
    /// [`Session::generate`].
    ///
    /// # Errors
    /// A device that fails; a conversation that is full.
    pub fn next_logits(&mut self) -> Result<Vec<f32>, GenerationError> {
        self.start()?;
        let (snapshot, text) = (self.snapshot()?, self.text.clone());
        let logits = match self.last_logits() {
            // Unless the conversation has gone to the CPU, this gives the error back.
            Err(error) => self.survive(Err(error)).and_then(|()| self.last_logits()),
            logits => logits,
        };
        self.restore(&snapshot)?;
        self.text = text;
        logits
    }

    /// The logits after the last token, which is read now.
    fn last_logits(&mut self) -> Result<Vec<f32>, GenerationError> {
        let mut last = Vec::new();
        // A token is read when there is one after it. The one added here is never read.
        self.trace(&[0], |_, logits| {
            last.clear();
            last.extend_from_slice(logits);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(last)
    }

    /// Reads tokens and hands out the logits `[V]` after each of them but the last, with its index, until
    /// `each` has enough.
    pub(super) fn trace(
        &mut self,
        tokens: &[u32],
        mut each: impl FnMut(usize, &[f32]) -> Result<ControlFlow<()>, GenerationError>,
    ) -> Result<(), GenerationError> {
        self.batch.push(0, tokens)?;
        let (mut index, mut flow) = (0, ControlFlow::Continue(()));
        while self.batch.is_reading(0) && flow.is_continue() {
            self.batch.advance_traced(0, |logits| {
                if flow.is_continue() {
                    flow = each(index, logits)?;
                    index += 1;
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// Hands out what was held back for a stop text: no more tokens will come.
fn release(scan: &mut StopScan, tokens: &mut Vec<u32>, each: &mut impl FnMut(&[u32]) -> ControlFlow<()>) {
    let known = tokens.len();
    scan.finish(tokens);
    if tokens.len() > known {
        let _ = each(&tokens[known..]);
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
