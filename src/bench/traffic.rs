//! The bytes that a token has to move.
//!
//! # Decoding
//!
//! With n neurons (all heads), width D, vocabulary V, L layers, w bytes per weight, s per number of
//! the state and r per scale of a row, and W = [`WINDOW`] tokens in the window, a step of S
//! sequences reads and writes
//!
//! | what | bytes |
//! | --- | --- |
//! | encoder, once for all sequences | L · n·D·w |
//! | encoder_v where u > 0, decoder where g > 0 in any of the sequences | rows · D·w |
//! | embedding, head | S · D·w, V·D·w |
//! | state, both rows of an active pair | pairs · 2·(D·s + r) |
//! | state, both rows of a pair whose window enters it, read and written | settled · 2·2·(D·s + r) |
//! | window of an active pair: read, and this token's two entries written | pairs · 2·(W + 1)·4 |
//! | window of every W-th pair, looked at; cleared where it was not empty | L·S · n·4 + settled · 2·W·4 |
//! | the window's residuals: read, and this token's written | L·S · (W + 1)·D·4 |
//!
//! # Prompts
//!
//! A chunk of tokens of one sequence is read layer by layer; its window is empty.
//!
//! | what | bytes |
//! | --- | --- |
//! | encoder | L · n·D·w |
//! | encoder_v where u > 0, decoder where g > 0 for any of the chunk's tokens | rows · D·w |
//! | embedding | tokens · D·w |
//! | state, both rows of a pair that is active for any of the tokens, read and written | pairs · 2·2·(D·s + r) |
//!
//! This is what has to move, not what a device does: a GPU's kernels for chunks take every row.
//!
//! # Both
//!
//! Activations, partial sums and logits are left out: they are small and stay in caches. So is padding. The counts
//! come from running the tokens, see [`Activity`]. It makes no difference here whether a byte comes from
//! memory or from a cache.

use crate::backend::memory::WINDOW;
use crate::backend::profile::{Activity, Density};
use crate::backend::{Backend, StateType, WeightType};
use crate::model::Config;

/// Bytes per token of one sequence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Traffic {
    /// Weights, as the device holds them.
    pub weights: f64,
    /// State rows.
    pub state: f64,
    /// The window beside the state.
    pub window: f64,
}

impl Traffic {
    /// All bytes.
    pub fn total(&self) -> f64 {
        self.weights + self.state + self.window
    }
}

/// Types of the numbers on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumberTypes {
    /// Of the weights.
    pub weights: WeightType,
    /// Of the states.
    pub state: StateType,
}

impl NumberTypes {
    /// Those of a backend.
    pub fn of(backend: &dyn Backend) -> Self {
        Self { weights: backend.weight_type(), state: backend.state_type() }
    }

    /// Bytes of rows of the encoders and the decoder, and of the embedding and the head.
    fn weights_of(self, rows: u64, table_rows: u64, width: u64) -> u64 {
        let scale = if self.weights == WeightType::I8 { 4 } else { 0 };
        let table = table_rows * width * self.weights.table_bytes() as u64;
        rows * (width * self.weights.bytes() as u64 + scale) + table
    }

    /// Bytes of a row of the state and its scale.
    fn state_row(self, width: u64) -> u64 {
        width * self.state.bytes() as u64 + 4 * self.state.scales() as u64
    }
}

/// Bytes per decoded token for what some tokens touched.
pub fn traffic(config: &Config, types: NumberTypes, activity: &Activity) -> Traffic {
    let (neurons, width, layers) = (config.neurons() as u64, config.n_embd as u64, config.n_layer as u64);
    let window = WINDOW as u64;
    let rows = activity.steps * layers * neurons + activity.shared_neurons + activity.shared_gates;
    let table_rows = activity.tokens + activity.logits * config.vocab_size as u64;
    let state_rows = 2 * activity.pairs + 2 * 2 * activity.settled;
    let entries = 2 * activity.pairs * (window + 1)
        + activity.tokens * layers * neurons
        + 2 * activity.settled * window
        + activity.tokens * layers * (window + 1) * width;
    let per_token = |bytes: u64| bytes as f64 / activity.tokens.max(1) as f64;
    Traffic {
        weights: per_token(types.weights_of(rows, table_rows, width)),
        state: per_token(state_rows * types.state_row(width)),
        window: per_token(entries * 4),
    }
}

/// Bytes per token where the tokens of every sequence are one chunk.
pub fn chunk_traffic(config: &Config, types: NumberTypes, activity: &Activity) -> Traffic {
    let (neurons, width, layers) = (config.neurons() as u64, config.n_embd as u64, config.n_layer as u64);
    let chunks = activity.tokens / activity.steps.max(1);
    let rows = chunks * layers * neurons + activity.touched_neurons + activity.touched_gates;
    let state_rows = 2 * 2 * activity.touched_pairs;
    let per_token = |bytes: u64| bytes as f64 / activity.tokens.max(1) as f64;
    Traffic {
        weights: per_token(types.weights_of(rows, activity.tokens, width)),
        state: per_token(state_rows * types.state_row(width)),
        window: 0.0,
    }
}

/// Shares of the neurons and pairs that fire.
pub fn density(config: &Config, activity: &Activity) -> Density {
    let neurons = (activity.tokens * (config.n_layer * config.neurons()) as u64).max(1) as f64;
    Density {
        u: activity.neurons as f64 / neurons,
        pair: activity.pairs as f64 / (neurons / 2.0),
        g: activity.gates as f64 / neurons,
    }
}
