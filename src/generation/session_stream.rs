//! A conversation's next text, piece by piece, each when it is asked for.

use super::stream::Piece;
use super::{GenerationOptions, Session};
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

/// The pieces of a conversation's next text, as [`Session::into_stream`] makes them. The device writes a piece when it is
/// asked for, so that the conversation never is where nobody has read it.
#[derive(Debug)]
pub struct SessionPieces {
    /// Asks for pieces; absent where no more are wanted.
    asks: Option<Sender<()>>,
    pieces: Receiver<Piece>,
    /// Whether a piece has been asked for that has not come.
    asked: bool,
    /// Holds the conversation; absent once that has been taken back.
    thread: Option<JoinHandle<Session>>,
}

impl Session {
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
}

impl SessionPieces {
    pub(super) fn start(session: Session, options: GenerationOptions) -> Self {
        let (asks, asked) = channel();
        let (sender, pieces) = channel();
        let thread = std::thread::spawn(move || continue_session(session, &options, &asked, &sender));
        Self { asks: Some(asks), pieces, asked: false, thread: Some(thread) }
    }

    /// Waits for the next piece, but no longer than `time`: [`Poll::Pending`] where none has come by then.
    pub fn next_within(&mut self, time: Duration) -> Poll<Option<Piece>> {
        self.ask();
        match self.pieces.recv_timeout(time) {
            Ok(piece) => Poll::Ready(Some(self.taken(piece))),
            Err(RecvTimeoutError::Timeout) => Poll::Pending,
            Err(RecvTimeoutError::Disconnected) => Poll::Ready(None),
        }
    }

    /// The conversation after the pieces that have been taken.
    ///
    /// # Panics
    /// Where the thread that wrote them has.
    pub fn into_session(mut self) -> Session {
        match self.stop().expect("taken back only here") {
            Ok(session) => session,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    fn ask(&mut self) {
        if let Some(asks) = self.asks.as_ref().filter(|_| !self.asked) {
            // At the end of the text nobody hears it.
            self.asked = asks.send(()).is_ok();
        }
    }

    fn taken(&mut self, piece: Piece) -> Piece {
        self.asked = false;
        piece
    }

    /// Ends the thread and waits for it.
    fn stop(&mut self) -> Option<std::thread::Result<Session>> {
        self.asks = None;
        self.thread.take().map(JoinHandle::join)
    }
}

impl Iterator for SessionPieces {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        self.ask();
        let piece = self.pieces.recv().ok()?;
        Some(self.taken(piece))
    }
}

impl Drop for SessionPieces {
    fn drop(&mut self) {
        // A panic of the thread has nobody to go to.
        let _ = self.stop();
    }
}

/// The other side: writes pieces as they are asked for, and gives the conversation back.
fn continue_session(
    mut session: Session,
    options: &GenerationOptions,
    asked: &Receiver<()>,
    pieces: &Sender<Piece>,
) -> Session {
    if asked.recv().is_err() {
        return session;
    }
    let mut stream = session.text_stream();
    let mut text = String::new();
    let generated = session.check_text().and_then(|()| {
        session.generate_with(options, |tokens| {
            tokens.iter().for_each(|&token| stream.push(token, &mut text));
            let wanted = if text.is_empty() {
                // What has come so far is no whole character: the piece is still asked for, or nothing is any more.
                asked.try_recv() != Err(TryRecvError::Disconnected)
            } else {
                pieces.send(Ok(std::mem::take(&mut text))).is_ok() && asked.recv().is_ok()
            };
            if wanted { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
    });
    // An incomplete character waits for what the conversation goes on with.
    if let Ok(generated) = &generated {
        text.push_str(&generated.tail);
    }
    // Where nobody listens there is nobody to tell.
    if !text.is_empty() {
        let _ = pieces.send(Ok(text));
    }
    if let Err(error) = generated {
        let _ = pieces.send(Err(error));
    }
    session
}
