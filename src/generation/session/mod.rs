//! A conversation: one sequence's state, from its first token to its last.

mod generate;
mod search;
mod state;

use maybe_async::maybe_async;
pub use state::{State, Written};

use super::batch::{Batch, Progress, TokenTrace, check_state};
use super::failover::{self, Failover, History};
use super::snapshot::Snapshot;
use super::tally::Tally;
use super::{Bdh, GenerationError};
use crate::backend::{BackendError, DeviceInfo, DeviceKind};
use crate::model::forgetting::Forgetting;
use crate::tokenizer::TextStream;
use std::ops::ControlFlow;
use std::sync::Arc;

/// A conversation whose state stays on the device from turn to turn. If the device fails, it goes on on the CPU.
pub struct Session {
    bdh: Bdh,
    batch: Batch,
    tally: Tally,
    /// The seed of the last generation.
    seed: Option<u64>,
    /// The conversation's text so far, as far as the text that follows depends on it.
    text: TextStream,
    /// On a device that may fail: what to read again on the CPU.
    history: Option<History>,
    failover: Option<Failover>,
    /// Receives the neurons of every token, if somebody watches.
    watcher: Option<Watcher>,
}

/// See [`Session::watch`].
type Watcher = Box<dyn FnMut(TokenTrace) + Send>;

#[maybe_async]
impl Session {
    pub(in crate::generation) async fn new(bdh: Bdh, forgetting: Forgetting) -> Result<Self, GenerationError> {
        let batch = Batch::new(bdh.backend(), &bdh.model().config, 1, forgetting).await?;
        let tally = Tally::new(bdh.model().config.vocab_size);
        // A page decides itself where to go on.
        let survives = bdh.device().kind != DeviceKind::Cpu && !cfg!(target_family = "wasm");
        let history = survives.then(|| History::new(forgetting));
        let text = bdh.text_stream();
        Ok(Self { tally, batch, seed: None, text, history, failover: None, watcher: None, bdh })
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
    /// [`GenerationError::FadingState`] for a choice that the type of the state does not suit, and
    /// [`GenerationError::WindowChange`] for a change to or from a sliding window.
    pub fn set_forgetting(&mut self, forgetting: Forgetting) -> Result<(), GenerationError> {
        check_state(self.bdh.backend().state_type(), forgetting)?;
        if self.forgetting().window() != forgetting.window() {
            return Err(GenerationError::WindowChange);
        }
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

    /// Hands every token that is read from now on to `watcher`, with the neurons that fired: those
    /// that the device has computed, not others computed again. Not one token of a text changes by
    /// being watched, but every layer waits for the host.
    ///
    /// The last token of a conversation is read when there is one after it. Tokens of a stop text,
    /// which the conversation goes back from, have been seen too.
    ///
    /// The model's device must be [`DeviceOptions::watchable`](crate::generation::DeviceOptions);
    /// on another graphics card whatever is read next fails with
    /// [`BackendError::NotWatchable`].
    ///
    /// ```
    /// # #[cfg(feature = "embedded-model")] {
    /// use bdh_gpu::Bdh;
    /// use std::sync::{Arc, Mutex};
    ///
    /// let model = Bdh::embedded()?;
    /// let mut session = model.session()?;
    /// let fired = Arc::new(Mutex::new(0));
    /// let count = fired.clone();
    /// session.watch(move |token| {
    ///     *count.lock().unwrap() += token.neurons.iter().map(|layer| layer.len()).sum::<usize>();
    /// });
    /// session.feed(&model.encode(b"To be or not to be")?)?;
    /// assert!(*fired.lock().unwrap() > 1000);
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn watch(&mut self, watcher: impl FnMut(TokenTrace) + Send + 'static) {
        self.watcher = Some(Box::new(watcher));
        self.batch.watch(true);
    }

    /// Ends [`Session::watch`].
    pub fn unwatch(&mut self) {
        self.watcher = None;
        self.batch.watch(false);
    }

    /// Runs a burst.
    async fn advance(&mut self) -> Result<Progress, GenerationError> {
        let mut progress = self.batch.advance().await?.remove(0);
        self.show(&mut progress);
        Ok(progress)
    }

    /// Hands neurons to whoever watches.
    fn show(&mut self, progress: &mut Progress) {
        if let Some(watcher) = &mut self.watcher {
            progress.neurons.drain(..).for_each(watcher);
        }
    }

    /// Forgets the whole conversation.
    ///
    /// # Errors
    /// Where the device fails.
    pub async fn reset(&mut self) -> Result<(), GenerationError> {
        self.tally = Tally::new(self.bdh.model().config.vocab_size);
        self.seed = None;
        self.text = self.bdh.text_stream();
        self.history = self.history.take().map(|_| History::new(self.forgetting()));
        let cleared = self.batch.clear(0).await;
        self.survive(cleared).await
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
    pub async fn snapshot(&mut self) -> Result<Snapshot, GenerationError> {
        let memory = match self.batch.snapshot(0).await {
            // No memory for the copy: the conversation itself is still there.
            Err(error) if !matches!(error, GenerationError::Backend(BackendError::OutOfMemory { .. })) => {
                self.survive(Err(error)).await?;
                self.batch.snapshot(0).await?
            }
            memory => memory?,
        };
        let snapshot = Snapshot {
            clock: self.batch.clock(0),
            unread: self.batch.unread(0),
            tally: self.tally.clone(),
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
    pub async fn restore(&mut self, snapshot: &Snapshot) -> Result<(), GenerationError> {
        if !snapshot.fits(&self.bdh.model().config) {
            return Err(GenerationError::ForeignSnapshot);
        }
        check_state(self.bdh.backend().state_type(), snapshot.forgetting())?;
        self.history = self.history.take().map(|_| History::of(snapshot));
        let restored = self.batch.restore(0, snapshot.clock, &snapshot.unread, &snapshot.memory).await;
        self.survive(restored).await?;
        self.tally.clone_from(&snapshot.tally);
        self.seed = snapshot.seed;
        self.text = self.bdh.text_stream();
        self.text.skip(&snapshot.unread);
        Ok(())
    }

    /// A second conversation with the same past.
    ///
    /// # Errors
    /// As [`Bdh::session`].
    pub async fn fork(&mut self) -> Result<Self, GenerationError> {
        let snapshot = self.snapshot().await?;
        let mut fork = self.bdh.session_with(self.forgetting()).await?;
        fork.restore(&snapshot).await?;
        fork.text = self.text.clone();
        Ok(fork)
    }

    /// Reads tokens.
    ///
    /// # Errors
    /// [`GenerationError`] for an id outside the vocabulary, a conversation that is full, or a device
    /// that fails.
    pub async fn feed(&mut self, tokens: &[u32]) -> Result<(), GenerationError> {
        self.feed_with(tokens, |_| ControlFlow::Continue(())).await
    }

    /// As [`Session::feed`]. `progress` receives how many of the tokens have been read so far, and may
    /// end the reading; the rest is read before what comes next.
    ///
    /// # Errors
    /// See there.
    pub async fn feed_with(
        &mut self,
        tokens: &[u32],
        mut progress: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<(), GenerationError> {
        self.batch.push(0, tokens)?;
        self.tally.read(tokens);
        self.text.skip(tokens);
        self.remember(tokens);
        let mut read = 0;
        while self.batch.is_reading(0) {
            match self.advance().await {
                Ok(progress) => read += progress.read,
                Err(error) => {
                    self.survive(Err(error)).await?;
                    read = tokens.len();
                }
            }
            if progress(read).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// As [`Bdh::check_text`].
    pub(in crate::generation) fn check_text(&self) -> Result<(), GenerationError> {
        self.bdh.check_text()
    }

    /// Gives an empty conversation its beginning.
    async fn start(&mut self) -> Result<(), GenerationError> {
        if self.batch.is_empty(0) {
            let start = self.bdh.default_prompt()?;
            self.feed(&start).await?;
            // The text begins after it.
            self.text = self.bdh.text_stream();
        }
        Ok(())
    }

    /// Makes the conversation end with `tokens`, all that is to be kept after a snapshot of the same
    /// generation.
    async fn rewind(&mut self, snapshot: &Snapshot, tokens: &[u32]) -> Result<(), GenerationError> {
        self.restore(snapshot).await?;
        self.remember(tokens);
        self.tally.draw(tokens);
        let replayed = self.batch.replay(0, tokens).await;
        self.survive(replayed).await
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
    async fn survive(&mut self, result: Result<(), GenerationError>) -> Result<(), GenerationError> {
        let error = match (result, &self.history) {
            (Err(GenerationError::Backend(error)), Some(_)) if failover::gives_up(&error) => error,
            (result, _) => return result,
        };
        let cpu = self.bdh.on_cpu()?;
        if let Some(history) = self.history.take() {
            self.batch = history.replay(&cpu).await?;
            self.batch.watch(self.watcher.is_some());
        }
        self.failover = Some(Failover { error, device: cpu.device().clone() });
        self.bdh = cpu;
        Ok(())
    }

    /// Reads tokens and hands out the logits `[V]` after each of them but the last, with its index, until
    /// `each` has enough.
    pub(crate) async fn trace(
        &mut self,
        tokens: &[u32],
        mut each: impl FnMut(usize, &[f32]) -> Result<ControlFlow<()>, GenerationError>,
    ) -> Result<(), GenerationError> {
        self.batch.push(0, tokens)?;
        let (mut index, mut flow) = (0, ControlFlow::Continue(()));
        while self.batch.is_reading(0) && flow.is_continue() {
            let mut progress = self.batch.advance_traced(0).await?;
            self.show(&mut progress);
            for logits in progress.read_logits.chunks_exact(self.bdh.model().config.vocab_size) {
                if flow.is_continue() {
                    flow = each(index, logits)?;
                    index += 1;
                }
            }
        }
        Ok(())
    }

    /// As [`Session::trace`], with the neurons of each token. Nobody else watches meanwhile.
    pub(crate) async fn trace_neurons<E: From<GenerationError>>(
        &mut self,
        tokens: &[u32],
        mut each: impl FnMut(TokenTrace, &[f32]) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        let vocab = self.bdh.model().config.vocab_size;
        self.batch.push(0, tokens)?;
        self.batch.watch(true);
        let mut read = Ok(ControlFlow::Continue(()));
        while self.batch.is_reading(0) && matches!(read, Ok(ControlFlow::Continue(()))) {
            read = match self.batch.advance_traced(0).await {
                Ok(Progress { neurons, read_logits, .. }) => {
                    let mut tokens = neurons.into_iter().zip(read_logits.chunks_exact(vocab));
                    tokens.try_fold(ControlFlow::Continue(()), |flow, (token, logits)| match flow {
                        ControlFlow::Continue(()) => each(token, logits),
                        over => Ok(over),
                    })
                }
                Err(error) => Err(error.into()),
            };
        }
        self.batch.watch(self.watcher.is_some());
        read.map(drop)
    }
}
