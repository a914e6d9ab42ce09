//! What can go wrong while generating.

use super::beam::BeamError;
use crate::backend::BackendError;
use crate::sampling::SamplingError;
use crate::tokenizer::EncodeError;

/// Why a generation or a score failed.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// The device failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A sampling option is out of its range.
    #[error(transparent)]
    Options(#[from] SamplingError),
    /// A beam option is out of its range.
    #[error(transparent)]
    Beams(#[from] BeamError),
    /// The logits of a step allow no draw.
    #[error("at position {position}: {}", .source.as_ref().map_or("the device reported no valid status; `bdh-gpu verify` checks it".to_string(), ToString::to_string))]
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
    /// A stop text without text.
    #[error("a stop text must not be empty")]
    EmptyStop,
    /// A batch without sequences.
    #[error("--num-return-sequences must be at least 1, got 0")]
    NoSequences,
    /// A snapshot was taken of another model.
    #[error("the snapshot is of a model of other sizes")]
    ForeignSnapshot,
    /// A conversation has used up every position.
    #[error("the conversation is at its last position (4294967295); start a new one")]
    PositionsExhausted,
}
