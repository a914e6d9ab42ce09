//! What can go wrong while generating.

use super::beam::BeamError;
use crate::backend::BackendError;
use crate::model::{EditError, ModelError};
use crate::options::OutOfRange;
use crate::sampling::SamplingError;
use crate::tokenizer::EncodeError;

/// Why there is no model to generate with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The model cannot be loaded.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The device cannot be opened, or cannot hold the model.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Neurons cannot be edited as asked.
    #[error(transparent)]
    Edit(#[from] EditError),
}

/// A word that names no device, or no type of weights.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct ChoiceError(pub(super) &'static str);

/// Why a generation or a score failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerationError {
    /// The device failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// An option is out of its range.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    /// A sampling option is out of its range.
    #[error(transparent)]
    Options(#[from] SamplingError),
    /// A beam option is out of its range.
    #[error(transparent)]
    Beams(#[from] BeamError),
    /// A state that fades where nothing may be forgotten: a row that has grown rounds what is added
    /// to it to nothing.
    #[error(
        "a state of type i8 loses what it should remember unless older tokens fade; choose another type, or a context"
    )]
    FadingState,
    /// The logits of a step allow no draw.
    #[error("at position {position}: {}", .source.as_ref().map_or("the device reported no valid status".to_string(), ToString::to_string))]
    Sampling {
        /// Position of the token whose logits they are.
        position: u64,
        /// Index of the sequence.
        sequence: usize,
        /// What is wrong with them.
        source: Option<SamplingError>,
    },
    /// A token id is not in the vocabulary.
    #[error("token {token} (number {index}, counted from 0) is not in the model's vocabulary of {vocab}; ids run from 0 to {}", vocab - 1)]
    TokenOutOfRange {
        /// Index in the list of tokens.
        index: usize,
        /// The id.
        token: u32,
        /// V.
        vocab: usize,
    },
    /// A text has no tokens.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// There is nothing to continue.
    #[error("the prompt is empty and the model names no bos_token_id to start from; give a prompt")]
    EmptyPrompt,
    /// Scoring needs something to predict.
    #[error("scoring needs at least 2 tokens, got {0}: the first has no prediction")]
    TooShort(usize),
    /// A text is shorter than one of the pieces that it is to be read in.
    #[error("the text has {tokens} tokens, fewer than a piece of {length}; give a longer text or shorter pieces")]
    ShortText {
        /// Tokens of the text.
        tokens: usize,
        /// Tokens of a piece.
        length: usize,
    },
    /// Not every prompt of a batch has a seed.
    #[error("there are {seeds} seeds for {prompts} prompts; give one for each prompt, or none")]
    Seeds {
        /// How many seeds there are.
        seeds: usize,
        /// How many prompts there are.
        prompts: usize,
    },
    /// A stop text without text.
    #[error("a stop text must not be empty")]
    EmptyStop,
    /// A value of the model's own options that cannot be used, and no other was given.
    #[error("{problem}; give another {key}")]
    ModelOption {
        /// The file, the key, its value, and what was expected.
        problem: String,
        /// The option.
        key: &'static str,
    },
    /// An option of drawing beside beams.
    #[error("{option} has no effect in beam search, which draws nothing; leave out {option} or num_beams")]
    DrawingInBeamSearch {
        /// The option.
        option: &'static str,
    },
    /// An option of beam search without beams.
    #[error("length_penalty and early_stopping are for beam search; give num_beams, above 1, too")]
    NoBeams,
    /// A time constant where nothing is forgotten.
    #[error("forget_tau means nothing with a full context; give a number of tokens as context, or leave it out")]
    ForgetTauOfFull,
    /// A time constant without a position from which it counts.
    #[error("forget_tau needs a context: the model does not say what context it was trained with")]
    ForgetTauAlone,
    /// A sliding window beside fading.
    #[error("window excludes context and forget_tau: tokens either leave a window or fade")]
    WindowAndContext,
    /// A sliding window over a state of codes: what leaves would not cancel what has entered.
    #[error("a sliding window needs a state in f32")]
    RoundedWindow,
    /// A sliding window in beam search.
    #[error("beam search has no sliding window; give a context instead of window, or leave out num_beams")]
    WindowInBeamSearch,
    /// A conversation that has begun with a sliding window, or without.
    #[error("a conversation keeps its sliding window, or has none; start a new one")]
    WindowChange,
    /// A token of a sliding window is to be forgotten before it leaves.
    #[error("no token can be forgotten in a sliding window")]
    ForgetInWindow,
    /// A snapshot was taken of another model.
    #[error("the snapshot is of a model of other sizes")]
    ForeignSnapshot,
    /// A token is to be forgotten that the state does not hold.
    #[error("no token at position {position} can be forgotten: the state holds {tokens} tokens, from position 0")]
    NotInState {
        /// The position asked for.
        position: u32,
        /// Tokens in the state.
        tokens: u64,
    },
    /// A conversation has used up every position.
    #[error("the conversation is at its last position (4294967295); start a new one")]
    PositionsExhausted,
}

impl GenerationError {
    /// Whether it is what was asked for that is wrong, rather than the device or the model.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Backend(BackendError::NoSlidingWindow { .. }) => true,
            Self::Backend(_) | Self::Sampling { .. } | Self::ForeignSnapshot | Self::PositionsExhausted => false,
            Self::OutOfRange(_)
            | Self::Options(_)
            | Self::Beams(_)
            | Self::TokenOutOfRange { .. }
            | Self::Encode(_)
            | Self::EmptyPrompt
            | Self::TooShort(_)
            | Self::ShortText { .. }
            | Self::Seeds { .. }
            | Self::EmptyStop
            | Self::ModelOption { .. }
            | Self::DrawingInBeamSearch { .. }
            | Self::NoBeams
            | Self::FadingState
            | Self::WindowAndContext
            | Self::RoundedWindow
            | Self::WindowInBeamSearch
            | Self::WindowChange
            | Self::ForgetInWindow
            | Self::NotInState { .. }
            | Self::ForgetTauOfFull
            | Self::ForgetTauAlone => true,
        }
    }
}
