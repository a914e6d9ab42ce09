//! How fast a model runs: what `bdh-gpu bench` measures.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `cases` | the tests, the tokens they read, one timed run |
//! | `measure` | the order of all runs, and the rows made of them |
//! | `predict`, `machine` | the time of a step on a graphics card that is not here |
//! | `profile` | where the time of decode, prefill or beam search goes |
//! | `traffic` | the bytes that a token has to move |
//! | `bandwidth` | the memory bandwidth of this machine's CPU |
//! | `statistics` | medians and deviations |
//! | `report` | the rows of the result |
//!
//! Everything runs through what generation itself uses, bursts and sampling included. A sequence starts at
//! its depth: some tokens are read untimed, so that state and window are filled as they are in the middle
//! of a text, and the first timed token has the position asked for. The tokens are the same in every repetition.

mod bandwidth;
mod cases;
mod machine;
mod measure;
mod predict;
mod profile;
mod report;
mod statistics;
mod traffic;

pub use bandwidth::{Bandwidth, bandwidth};
pub use machine::Machine;
pub use measure::{bytes_per_token, run};
pub use predict::{KernelPrediction, Prediction, predict, predict_at};
pub use profile::{DeviceProfile, Profiled, profile};
pub use report::{Report, Row, Speed};
pub use statistics::{deviation, median};
pub use traffic::{NumberTypes, Traffic, chunk_traffic, density, traffic};

use crate::backend::BackendError;
pub use crate::backend::profile::Density;
use crate::generation::GenerationError;
use crate::options::OutOfRange;

/// Number of positions there are.
pub const POSITIONS: u64 = 1 << 32;

/// What to measure.
#[derive(Clone, Debug, PartialEq)]
pub struct BenchOptions {
    /// Tokens of the prompt whose reading is timed; 0 leaves the test out.
    pub prompt_tokens: usize,
    /// Tokens to decode; 0 leaves the test out.
    pub new_tokens: usize,
    /// Numbers of sequences that run together, each at least 1.
    pub batches: Vec<usize>,
    /// Positions of the first timed token.
    pub depths: Vec<u32>,
    /// How often each test is repeated, at least once; an untimed run comes before.
    pub repetitions: usize,
}

impl Default for BenchOptions {
    fn default() -> Self {
        Self { prompt_tokens: 1024, new_tokens: 64, batches: vec![1], depths: vec![0], repetitions: 5 }
    }
}

impl BenchOptions {
    /// Checks every option's range.
    ///
    /// # Errors
    /// [`BenchError`] saying what is wrong.
    pub fn validate(&self) -> Result<(), BenchError> {
        let out_of_range = |option, range, value: &dyn std::fmt::Debug| {
            Err(BenchError::OutOfRange(OutOfRange::new(option, range, format!("{value:?}"))))
        };
        if self.prompt_tokens == 0 && self.new_tokens == 0 {
            return Err(BenchError::NothingToMeasure);
        }
        if self.repetitions == 0 {
            return out_of_range("repetitions", "at least 1", &self.repetitions);
        }
        if self.batches.is_empty() || self.batches.contains(&0) {
            return out_of_range("batches", "one or more numbers of sequences, each at least 1", &self.batches);
        }
        if self.depths.is_empty() {
            return out_of_range("depth", "one or more positions", &self.depths);
        }
        // The first timed token stands at the depth itself.
        let tokens = self.prompt_tokens.max(self.new_tokens) as u64;
        match self.depths.iter().max().filter(|&&depth| u64::from(depth).saturating_add(tokens) > POSITIONS) {
            Some(&depth) => Err(BenchError::TooDeep { depth, tokens }),
            None => Ok(()),
        }
    }
}

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// An option is out of its range.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    /// Neither a prompt nor new tokens are to be timed.
    #[error("there is nothing to measure: give prompt_tokens or new_tokens above 0")]
    NothingToMeasure,
    /// A sequence would run out of positions.
    #[error("depth {depth} leaves too few positions for {tokens} tokens: there are {POSITIONS}")]
    TooDeep {
        /// Position of the first timed token.
        depth: u32,
        /// Tokens to time from there.
        tokens: u64,
    },
    /// A device failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The model's numbers allow no draw, or the device failed.
    #[error(transparent)]
    Generation(#[from] GenerationError),
}
