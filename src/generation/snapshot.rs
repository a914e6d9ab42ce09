//! A conversation as data: all that its continuation depends on.

use super::tally::Tally;
use super::{Bdh, StateError};
use crate::backend::{SavedMemory, StateType};
use crate::model::forgetting::{Clock, Forgetting};
use crate::model::{Config, Model, Tensor};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

/// A conversation's state at one moment, on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// How many tokens are in `memory`, and how they fade.
    pub(super) clock: Clock,
    /// Tokens after those, still to be read; at least one, unless the conversation is empty.
    pub(super) unread: Vec<u32>,
    /// Tokens that have occurred.
    pub(super) tally: Tally,
    /// The seed of the last generation.
    pub(super) seed: Option<u64>,
    /// What the device remembers. Shared: a copy of the snapshot takes no more memory.
    pub(super) memory: Arc<SavedMemory>,
}

impl Snapshot {
    /// Tokens read and generated so far.
    pub fn position(&self) -> u64 {
        self.clock.position() + self.unread.len() as u64
    }

    /// The last token, none in an empty conversation.
    pub fn last_token(&self) -> Option<u32> {
        self.unread.last().copied()
    }

    /// How much of the past counts.
    pub fn forgetting(&self) -> Forgetting {
        self.clock.forgetting()
    }

    /// The seed of the last generation.
    pub fn seed(&self) -> Option<u64> {
        self.seed
    }

    /// Numeric type of the state in it. A session with states of another type converts it.
    pub fn state_type(&self) -> StateType {
        self.memory.state_type
    }

    /// Bytes that it takes on the host.
    pub fn bytes(&self) -> u64 {
        4 * (self.memory.words.len() + self.memory.past.len() + self.tally.counts.len() + self.unread.len()) as u64
    }

    /// Whether it is of a model of these sizes.
    pub(super) fn fits(&self, config: &Config) -> bool {
        let words = SavedMemory::len(config, self.memory.state_type);
        let past = past_len(config, self.clock);
        self.memory.words.len() == words
            && self.memory.past.len() as u64 == past
            && self.tally.counts.len() == config.vocab_size
    }

    /// Writes the bytes of a state file (see `docs/state-files.md`).
    ///
    /// # Errors
    /// Those of `to`.
    pub fn write(&self, bdh: &Bdh, to: &mut impl Write) -> io::Result<()> {
        super::state_file::write(self, bdh, to)
    }

    /// Reads the bytes of a state file of this model. Errors call it `name`.
    ///
    /// # Errors
    /// As [`Snapshot::load`].
    pub fn read(bdh: &Bdh, bytes: &[u8], name: &Path) -> Result<Self, StateError> {
        super::state_file::read(bdh, &mut { bytes }, bytes.len() as u64, name)
    }

    /// Writes a state file (see `docs/state-files.md`). It takes its place when it is complete.
    ///
    /// # Errors
    /// [`StateError::Write`] where the file cannot be written.
    #[cfg(not(target_family = "wasm"))]
    pub fn save(&self, bdh: &Bdh, path: &Path) -> Result<(), StateError> {
        super::state_file::save(self, bdh, path)
    }

    /// Reads a state file of this model.
    ///
    /// # Errors
    /// [`StateError`] where it cannot be read, is damaged, or belongs to another model.
    pub fn load(bdh: &Bdh, path: &Path) -> Result<Self, StateError> {
        super::state_file::load(bdh, path)
    }
}

/// Words of a sliding window in a sequence's memory.
pub(super) fn past_len(config: &Config, clock: Clock) -> u64 {
    clock.forgetting().window().map_or(0, |window| SavedMemory::past_len(config, window, clock.position()))
}

/// What tells one model from another: a hash over its sizes and the values of its weights, whatever type they
/// are stored in. Edited neurons make another model: a state remembers what they did all along.
pub(super) fn fingerprint(model: &Model) -> [u8; 32] {
    const BLOCK: usize = 1 << 14;
    let mut hasher = blake3::Hasher::new();
    let Config { n_layer, n_embd, n_head, neurons_per_head, vocab_size, .. } = model.config;
    for size in [n_layer, n_embd, n_head, neurons_per_head, vocab_size] {
        hasher.update(&(size as u64).to_le_bytes());
    }
    let w = &model.weights;
    let mut numbers = vec![0.0; BLOCK];
    let mut bytes = Vec::with_capacity(4 * BLOCK);
    let mut update = |numbers: &[f32]| {
        bytes.clear();
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        hasher.update(&bytes);
    };
    let tensors: [&Tensor; 5] = [&w.embed, &w.encoder, &w.encoder_v, &w.decoder, &w.lm_head];
    for tensor in tensors {
        for start in (0..tensor.len()).step_by(BLOCK) {
            let block = &mut numbers[..BLOCK.min(tensor.len() - start)];
            tensor.read(start, block);
            update(block);
        }
    }
    update(&w.freqs);
    // Ablated neurons have weights of 0.
    for (neuron, value) in model.clamped() {
        update(&[f32::from_bits(neuron.head), f32::from_bits(neuron.index), value]);
    }
    hasher.finalize().into()
}
