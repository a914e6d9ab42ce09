//! Text that comes while the device works on what follows.

use super::{Bdh, GenerationError, GenerationOptions};
use crate::model::forgetting::Forgetting;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

/// Pieces that may wait to be taken: the device works at most so many bursts ahead.
const AHEAD: usize = 4;

pub(super) type Piece = Result<String, GenerationError>;

/// The pieces of a text, as [`Bdh::generate_stream`] makes them. Dropped before the end, it stops the device and
/// waits until it has.
#[derive(Debug)]
pub struct TextPieces {
    /// Absent once the text is complete.
    worker: Option<Worker>,
}

#[derive(Debug)]
struct Worker {
    pieces: Receiver<Piece>,
    thread: JoinHandle<()>,
    /// Nobody waits for more.
    abandoned: Arc<AtomicBool>,
}

impl Bdh {
    /// Continues a prompt and hands out the text as it comes: the prompt first, then a piece for every burst of
    /// the device. The pieces joined are what [`Bdh::generate_text`] returns. While a piece is dealt with, the
    /// device works on the next ones; dropping the iterator stops it. After an error there is nothing more.
    ///
    /// # Errors
    /// As [`Bdh::generate_text`]: what is known before any work starts at once, the rest as the last item.
    ///
    /// ```
    /// # #[cfg(feature = "embedded-model")] {
    /// use bdh_gpu::{Bdh, GenerationOptions};
    ///
    /// let model = Bdh::embedded()?;
    /// let options = GenerationOptions { max_new_tokens: 20, ..Default::default() };
    /// for piece in model.generate_stream("To be or ", &options)? {
    ///     print!("{}", piece?);
    /// }
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn generate_stream(&self, prompt: &str, options: &GenerationOptions) -> Result<TextPieces, GenerationError> {
        self.generate_stream_with(prompt, options, Forgetting::of_model(&self.model().config), true)
    }

    /// As [`Bdh::generate_stream`], with a choice of how much of the past counts, and of whether the pieces begin
    /// with the prompt (`echo`).
    ///
    /// # Errors
    /// See there.
    pub fn generate_stream_with(
        &self,
        prompt: &str,
        options: &GenerationOptions,
        forgetting: Forgetting,
        echo: bool,
    ) -> Result<TextPieces, GenerationError> {
        options.validate()?;
        self.check_text()?;
        let shown = if echo { prompt.to_owned() } else { String::new() };
        let prompt = self.encode(prompt.as_bytes())?;
        if prompt.is_empty() && options.max_new_tokens > 0 {
            // An error now rather than in the stream.
            self.default_prompt()?;
        }
        Ok(TextPieces::start(self, prompt, options.clone(), forgetting, shown))
    }
}

impl TextPieces {
    /// Starts to generate; the options have been checked.
    pub(super) fn start(
        bdh: &Bdh,
        prompt: Vec<u32>,
        options: GenerationOptions,
        forgetting: Forgetting,
        shown: String,
    ) -> Self {
        let (sender, pieces) = sync_channel(AHEAD);
        let abandoned = Arc::new(AtomicBool::new(false));
        let writer = Writer { bdh: bdh.clone(), shown, sender, abandoned: Arc::clone(&abandoned) };
        let thread = std::thread::spawn(move || writer.write(&prompt, &options, forgetting));
        Self { worker: Some(Worker { pieces, thread, abandoned }) }
    }

    /// Waits for the next piece, but no longer than `time`: [`Poll::Pending`] where none has come by then.
    pub fn next_within(&mut self, time: Duration) -> Poll<Option<Piece>> {
        let Some(worker) = &self.worker else { return Poll::Ready(None) };
        match worker.pieces.recv_timeout(time) {
            Ok(piece) => Poll::Ready(Some(piece)),
            Err(RecvTimeoutError::Timeout) => Poll::Pending,
            Err(RecvTimeoutError::Disconnected) => {
                self.end();
                Poll::Ready(None)
            }
        }
    }

    /// Waits for the thread. If it panicked, so does this one.
    fn end(&mut self) {
        let Some(Worker { pieces, thread, abandoned }) = self.worker.take() else { return };
        abandoned.store(true, Relaxed);
        // A thread that waits to hand over a piece must find nobody there.
        drop(pieces);
        if let Err(panic) = thread.join()
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Iterator for TextPieces {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let piece = self.worker.as_ref()?.pieces.recv().ok();
        if piece.is_none() {
            self.end();
        }
        piece
    }
}

impl Drop for TextPieces {
    fn drop(&mut self) {
        self.end();
    }
}

/// The other side: the thread that generates.
struct Writer {
    bdh: Bdh,
    /// The first piece: the prompt, if it is wanted.
    shown: String,
    sender: SyncSender<Piece>,
    abandoned: Arc<AtomicBool>,
}

impl Writer {
    fn write(self, prompt: &[u32], options: &GenerationOptions, forgetting: Forgetting) {
        if let Err(error) = self.try_write(prompt, options, forgetting) {
            // Where nobody listens there is nobody to tell.
            let _ = self.sender.send(Err(error));
        }
    }

    fn try_write(
        &self,
        prompt: &[u32],
        options: &GenerationOptions,
        forgetting: Forgetting,
    ) -> Result<(), GenerationError> {
        let mut stream = self.bdh.continuation(prompt);
        stream.settle();
        let mut text = String::new();
        let mut push = |tokens: &[u32]| {
            tokens.iter().for_each(|&token| stream.push(token, &mut text));
            self.send(std::mem::take(&mut text))
        };
        if self.send(self.shown.clone()).is_break() || options.max_new_tokens == 0 {
            return Ok(());
        }
        let mut session = self.bdh.session_with(forgetting)?;
        session.feed_with(prompt, |_| self.flow())?;
        if self.flow().is_break() {
            return Ok(());
        }
        let generated = session.generate_with(options, &mut push);
        // What there is of the text comes out, also where it could not go on.
        stream.finish(&mut text);
        if let Ok(generated) = &generated {
            text.push_str(&generated.tail);
        }
        let _ = self.send(text);
        generated.map(drop)
    }

    /// Hands over a piece, unless there is none.
    fn send(&self, piece: String) -> ControlFlow<()> {
        if !piece.is_empty() && self.sender.send(Ok(piece)).is_err() {
            return ControlFlow::Break(());
        }
        self.flow()
    }

    fn flow(&self) -> ControlFlow<()> {
        if self.abandoned.load(Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
