//! What can go wrong while generating.

use super::beam::BeamError;
use crate::backend::BackendError;
use crate::model::ModelError;
use crate::sampling::SamplingError;
use crate::tokenizer::EncodeError;

/// Why there is no model to generate with.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The model cannot be loaded.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The device cannot be opened, or cannot hold the model.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// A word that names no device, or no type of weights.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct ChoiceError(pub(super) &'static str);

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
    /// An end-of-sequence token that the model does not have.
    #[error("--eos-token-id must be below the vocabulary size {vocab}, got {id}")]
    EosOutOfRange {
        /// The id.
        id: u32,
        /// V.
        vocab: usize,
    },
    /// A value of the model's own options that cannot be used, and no other was given.
    #[error("{problem}; give another {key}")]
    ModelOption {
        /// The file, the key, its value, and what was expected.
        problem: String,
        /// The option.
        key: &'static str,
    },
    /// An option of drawing beside beams.
    #[error("--{option} has no place in beam search, which draws nothing; leave out --{option} or --num-beams")]
    DrawingInBeamSearch {
        /// The option, as it is written on the command line.
        option: &'static str,
    },
    /// An option of beam search without beams.
    #[error("--length-penalty and --early-stopping are for beam search; give --num-beams N, above 1, too")]
    NoBeams,
    /// A time constant out of its range.
    #[error("--forget-tau must be finite and above 0, got {0}")]
    ForgetTau(f64),
    /// A time constant where nothing is forgotten.
    #[error("--forget-tau means nothing with --context full; give --context N or leave it out")]
    ForgetTauOfFull,
    /// A time constant without a position from which it counts.
    #[error("--forget-tau needs --context N: the model does not say what context it was trained with")]
    ForgetTauAlone,
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

impl GenerationError {
    /// Whether it is what was asked for that is wrong, rather than the device or the model.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Backend(_) | Self::Sampling { .. } | Self::ForeignSnapshot | Self::PositionsExhausted => false,
            Self::Options(_)
            | Self::Beams(_)
            | Self::TokenOutOfRange { .. }
            | Self::Encode(_)
            | Self::EmptyPrompt
            | Self::TooShort(_)
            | Self::EmptyStop
            | Self::EosOutOfRange { .. }
            | Self::ModelOption { .. }
            | Self::DrawingInBeamSearch { .. }
            | Self::NoBeams
            | Self::ForgetTau(_)
            | Self::ForgetTauOfFull
            | Self::ForgetTauAlone
            | Self::NoSequences => true,
        }
    }
}
