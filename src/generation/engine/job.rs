//! A sequence that an engine generates, and what it says about it.

use super::watch::{Neurons, WatchedToken};
use crate::generation::{FinishReason, GenerationError, GenerationOptions, Snapshot, TokenLogprobs};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// One sequence to generate.
pub struct Job {
    /// Token ids; none in an empty conversation stand for
    /// [`Bdh::default_prompt`](crate::Bdh::default_prompt).
    pub prompt: Vec<u32>,
    /// The conversation that the prompt goes on with; a new one if absent.
    pub from: Option<Arc<Snapshot>>,
    /// How to generate. Without a seed, one is drawn.
    pub options: GenerationOptions,
    /// Log-probabilities that are wanted.
    pub logprobs: Option<Logprobs>,
    /// Neurons that are wanted.
    pub neurons: Option<Neurons>,
    /// Whether the conversation's state is wanted at the end.
    pub keep_state: bool,
    /// Stops the sequence, wherever it is.
    pub cancel: Cancel,
    /// Receives what happens, on the engine's thread: it must not wait. A break stops the sequence.
    pub events: Box<dyn FnMut(Event) -> ControlFlow<()> + Send>,
}

/// Log-probabilities of a sequence's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logprobs {
    /// Whether those of the prompt are wanted too, all but the first token's.
    pub prompt: bool,
    /// How many of the likeliest tokens are listed.
    pub top: usize,
}

/// Stops sequences. Clones stop the same ones.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Stops the sequences, within a burst.
    pub fn cancel(&self) {
        self.0.store(true, Relaxed);
    }

    /// Whether they are to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// An event of a sequence.
#[derive(Debug)]
pub enum Event {
    /// It has a slot.
    Started {
        /// Tokens of its prompt.
        tokens: usize,
        /// Tokens of its prompt that need not be read: a conversation that began alike is kept.
        cached: usize,
    },
    /// Tokens of its prompt have been read; their log-probabilities, if these are wanted. The first
    /// token has none.
    Read(Vec<TokenLogprobs>),
    /// Neurons, if these are wanted, of tokens of the prompt that have been read, or of the tokens of
    /// the next [`Event::Drawn`]. If the conversation is full, its last token has none.
    Watched(Vec<WatchedToken>),
    /// Tokens that are certain to stay, and their log-probabilities, if these are wanted.
    Drawn(Vec<u32>, Vec<TokenLogprobs>),
    /// There will be no more.
    Done(Result<Ended, Arc<GenerationError>>),
}

/// How a sequence ended.
#[derive(Debug)]
pub struct Ended {
    /// Why.
    pub finish_reason: FinishReason,
    /// The stop text that was found, by its index.
    pub stop: Option<usize>,
    /// Text before the stop text that belongs to none of the tokens.
    pub tail: String,
    /// Tokens that were drawn up to the end, those of the stop text included.
    pub drawn: usize,
    /// The conversation's state, if it is wanted.
    pub state: Option<Snapshot>,
}
