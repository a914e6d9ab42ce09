//! The rows of the result.

use super::{Bandwidth, deviation, median};
use crate::backend::profile::Density;
use serde::Serialize;

/// Everything that was measured.
#[derive(Clone, Debug)]
pub struct Report {
    /// One row for each device, batch, depth and test, in the order in which they were asked for.
    pub rows: Vec<Row>,
    /// This machine's memory, where the CPU was measured.
    pub bandwidth: Option<Bandwidth>,
}

/// One test on one device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Name of the model.
    pub model: String,
    /// Its trained numbers.
    pub parameters: u64,
    /// Type of the weights on the device, "f32" or "f16".
    pub weights: String,
    /// Type of the states on the device, "f32", "i16" or "i8".
    pub state: String,
    /// Name of the device.
    pub device: String,
    /// "tg64" for decoding 64 tokens, "pp1024" for reading a prompt of 1,024, "ttft" for the time from that
    /// prompt to the first token.
    pub test: String,
    /// Sequences that ran together.
    pub batch: usize,
    /// Position of the first timed token.
    pub depth: u32,
    /// The result.
    #[serde(flatten)]
    pub speed: Speed,
    /// Standard deviation of the samples.
    pub stddev: f64,
    /// What every repetition gave, in order.
    pub samples: Vec<f64>,
    /// Bytes that a token has to move (see [`super::traffic`] and [`super::chunk_traffic`]); none for times.
    pub bytes_per_token: Option<f64>,
    /// These bytes at the measured rate, in 10⁹ bytes per second.
    pub gb_per_second: Option<f64>,
    /// What fired.
    pub density: Density,
    /// CPU only: the memory bandwidth over as many bytes as model, states and windows take, 10⁹ bytes per second.
    pub bandwidth_gb_per_second: Option<f64>,
    /// CPU only: `gb_per_second` as a share of that bandwidth.
    pub share_of_floor: Option<f64>,
}

/// The median of a row's samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Speed {
    /// Tokens of all sequences per second.
    TokensPerSecond(f64),
    /// Seconds until every sequence had its first token.
    Seconds(f64),
}

impl Row {
    /// Puts samples in, and what follows from them.
    pub(super) fn measured(mut self, samples: Vec<f64>) -> Self {
        let middle = median(&samples);
        self.stddev = deviation(&samples);
        self.samples = samples;
        match &mut self.speed {
            Speed::TokensPerSecond(rate) => {
                *rate = middle;
                self.gb_per_second = self.bytes_per_token.map(|bytes| bytes * middle / 1e9);
            }
            Speed::Seconds(seconds) => *seconds = middle,
        }
        let share = self.gb_per_second.zip(self.bandwidth_gb_per_second);
        self.share_of_floor = share.map(|(reached, possible)| reached / possible);
        self
    }
}
