//! The memory of a sequence, in an order independent of a device's layout.
//!
//! Updating the state for every token would load and store each of its rows. A device therefore
//! loads the state for every token but stores it rarely. The last [`WINDOW`] tokens form a *window*
//! beside the state: their rotated activations q by neuron and their residuals x by token. A token
//! attends to both:
//!
//! ```text
//! y = q · ρ + Σ_w (q · q_w) x_w
//! ```
//!
//! At position t the pairs p of each head with p mod WINDOW = t mod WINDOW *settle* before they are
//! read: the window enters the state, `ρ[i, :] += Σ_w q_w[i] x_w`, and then `q_w[i] = 0`. Every
//! token settles an equal share of the pairs, and each row is stored once in WINDOW tokens.

use super::StateType;
use super::codes::{self, Code};
use crate::model::Config;

/// Tokens in the window.
pub const WINDOW: usize = 16;

/// One layer's memory of S sequences.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// State ρ', `[S, H, N, D]`.
    pub state: Vec<f32>,
    /// Rotated activations q that have not settled, `[S, H, N, WINDOW]`. The token at position t is
    /// at index t mod WINDOW; settled entries are zero.
    pub rotated: Vec<f32>,
    /// Residuals x times their write scale, `[S, WINDOW, D]`.
    pub recent: Vec<f32>,
}

impl Memory {
    /// Empty memory of `sequences` sequences, for `heads` heads of `neurons` neurons and D =
    /// `width`.
    pub fn zeros(sequences: usize, heads: usize, neurons: usize, width: usize) -> Self {
        Self {
            state: vec![0.0; sequences * heads * neurons * width],
            rotated: vec![0.0; sequences * heads * neurons * WINDOW],
            recent: vec![0.0; sequences * WINDOW * width],
        }
    }

    /// The settled state Σ_t q_t ⊗ x_t, `[S, H, N, D]`.
    pub fn settled(&self, sequences: usize) -> Vec<f32> {
        let width = self.recent.len() / (sequences * WINDOW).max(1);
        let neurons = self.rotated.len() / (sequences * WINDOW).max(1);
        let mut settled = self.state.clone();
        for (index, (row, rotated)) in
            settled.chunks_exact_mut(width.max(1)).zip(self.rotated.chunks_exact(WINDOW)).enumerate()
        {
            let recent = &self.recent[index / neurons * WINDOW * width..][..WINDOW * width];
            for (&q, x) in rotated.iter().zip(recent.chunks_exact(width)).filter(|(q, _)| **q != 0.0) {
                row.iter_mut().zip(x).for_each(|(row, x)| *row += q * x);
            }
        }
        settled
    }
}

/// A sequence's memory as data, independent of a device.
///
/// Layer after layer: the rows of the state `[H, N, D]` in its type, padded to a whole word; their
/// scales `[H, N]`, if the type has them; the window's q `[H, N, WINDOW]` and x `[WINDOW, D]`.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedMemory {
    /// Type of the state.
    pub state_type: StateType,
    /// All of it but `past`, in little-endian words.
    pub words: Vec<u32>,
    /// For a sliding window, layer after layer: q of the [`WINDOW`] tokens that left it last
    /// `[H, N, WINDOW]`, their −x `[WINDOW, D]`, and x of the tokens in it `[tokens, D]`: that of the
    /// token at position t is at index t mod its length. Empty without one.
    pub past: Vec<u32>,
}

/// A layer of a [`SavedMemory`].
#[derive(Clone, Copy, Debug)]
pub struct SavedLayer<'a> {
    /// Rows of the state, `[H, N, D]`.
    pub state: SavedState<'a>,
    /// The window's q, `[H, N, WINDOW]`.
    pub rotated: &'a [f32],
    /// The window's x, `[WINDOW, D]`.
    pub recent: &'a [f32],
}

/// Rows of a state, with their scales.
#[derive(Clone, Copy, Debug)]
pub enum SavedState<'a> {
    /// Numbers.
    F32(&'a [f32]),
    /// Codes and scales.
    I16(&'a [i16], &'a [f32]),
    /// Codes and scales.
    I8(&'a [i8], &'a [f32]),
}

/// Rows of a state, with their scales, by value.
#[derive(Clone, Debug, PartialEq)]
pub enum OwnedState {
    /// Numbers.
    F32(Vec<f32>),
    /// Codes and scales.
    I16(Vec<i16>, Vec<f32>),
    /// Codes and scales.
    I8(Vec<i8>, Vec<f32>),
}

impl OwnedState {
    /// By reference.
    pub fn as_saved(&self) -> SavedState<'_> {
        match self {
            Self::F32(numbers) => SavedState::F32(numbers),
            Self::I16(numbers, scales) => SavedState::I16(numbers, scales),
            Self::I8(numbers, scales) => SavedState::I8(numbers, scales),
        }
    }
}

impl SavedState<'_> {
    /// The type of the numbers.
    pub fn state_type(self) -> StateType {
        match self {
            Self::F32(_) => StateType::F32,
            Self::I16(..) => StateType::I16,
            Self::I8(..) => StateType::I8,
        }
    }

    /// Numbers in all rows.
    fn len(self) -> usize {
        match self {
            Self::F32(numbers) => numbers.len(),
            Self::I16(numbers, _) => numbers.len(),
            Self::I8(numbers, _) => numbers.len(),
        }
    }

    /// The numbers of all rows, `width` each.
    pub fn numbers(self, width: usize) -> Vec<f32> {
        let mut numbers = vec![0.0; self.len()];
        let rows = numbers.chunks_exact_mut(width.max(1)).enumerate();
        rows.for_each(|(index, row)| self.read_row(index, row));
        numbers
    }

    /// The rows, of `width` numbers, rounded to another type.
    pub fn converted(self, state_type: StateType, width: usize) -> OwnedState {
        match state_type {
            StateType::F32 => OwnedState::F32(self.numbers(width)),
            StateType::I16 => {
                let (codes, scales) = self.encoded(width);
                OwnedState::I16(codes, scales)
            }
            StateType::I8 => {
                let (codes, scales) = self.encoded(width);
                OwnedState::I8(codes, scales)
            }
        }
    }

    /// Codes and scales of rows of `width` numbers.
    fn encoded<C: Code>(self, width: usize) -> (Vec<C>, Vec<f32>) {
        let mut codes = vec![C::zeroed(); self.len()];
        let mut numbers = vec![0.0; width];
        let rows = codes.chunks_exact_mut(width.max(1)).enumerate();
        let encode = |(index, row)| {
            self.read_row(index, &mut numbers);
            codes::encode(&numbers, row)
        };
        let scales = rows.map(encode).collect();
        (codes, scales)
    }

    /// The numbers of a row.
    pub fn read_row(self, index: usize, row: &mut [f32]) {
        let range = index * row.len()..(index + 1) * row.len();
        match self {
            Self::F32(numbers) => row.copy_from_slice(&numbers[range]),
            Self::I16(numbers, scales) => codes::decode(&numbers[range], scales[index], row),
            Self::I8(numbers, scales) => codes::decode(&numbers[range], scales[index], row),
        }
    }
}

impl SavedMemory {
    /// Words that the memory of one sequence takes.
    pub fn len(config: &Config, state_type: StateType) -> usize {
        config.n_layer * layer_words(state_type, config.neurons(), config.n_embd)
    }

    /// Words that a sliding window of `reach` tokens adds for a sequence of `position` tokens.
    pub fn past_len(config: &Config, reach: u32, position: u64) -> u64 {
        let (neurons, width) = (config.neurons() as u64, config.n_embd as u64);
        let window = WINDOW as u64;
        config.n_layer as u64 * (neurons * window + (window + position.min(reach.into())) * width)
    }

    /// No layers yet.
    pub fn empty(state_type: StateType) -> Self {
        Self { state_type, words: Vec::new(), past: Vec::new() }
    }

    /// Adds a layer's part of a sliding window: q and −x of the tokens that left it last, x of those in
    /// it; see [`SavedMemory::past`].
    pub fn push_past(&mut self, rotated: &[f32], rows: &[f32]) {
        self.past.extend(rotated.iter().chain(rows).map(|number| number.to_bits()));
    }

    /// The layers' parts of a sliding window: q of the tokens that left it last, and all x. Nothing
    /// without one.
    pub fn past_layers(&self, layers: usize, neurons: usize) -> impl Iterator<Item = (&[f32], &[f32])> {
        let size = (self.past.len() / layers.max(1)).max(1);
        self.past.chunks_exact(size).map(move |layer| bytemuck::cast_slice(layer).split_at(neurons * WINDOW))
    }

    /// Adds numbers of any type, padded to a whole word.
    pub fn push<T: bytemuck::Pod>(&mut self, numbers: &[T]) {
        let bytes: &[u8] = bytemuck::cast_slice(numbers);
        let (words, rest) = bytes.as_chunks::<4>();
        self.words.extend(words.iter().map(|word| u32::from_le_bytes(*word)));
        if !rest.is_empty() {
            let mut last = [0; 4];
            last[..rest.len()].copy_from_slice(rest);
            self.words.push(u32::from_le_bytes(last));
        }
    }

    /// Adds rows of a state, with their scales.
    pub fn push_state(&mut self, state: SavedState<'_>) {
        match state {
            SavedState::F32(numbers) => self.push(numbers),
            SavedState::I16(numbers, scales) => {
                self.push(numbers);
                self.push(scales);
            }
            SavedState::I8(numbers, scales) => {
                self.push(numbers);
                self.push(scales);
            }
        }
    }

    /// The layers, for `neurons` neurons in all heads and D = `width`.
    pub fn layers(&self, neurons: usize, width: usize) -> impl Iterator<Item = SavedLayer<'_>> {
        let state_words = (neurons * width * self.state_type.bytes()).div_ceil(4);
        self.words.chunks_exact(layer_words(self.state_type, neurons, width)).map(move |layer| {
            let (state, rest) = layer.split_at(state_words);
            let (scales, rest) = rest.split_at(neurons * self.state_type.scales());
            let (rotated, recent) = rest.split_at(neurons * WINDOW);
            let scales = bytemuck::cast_slice(scales);
            let numbers = neurons * width;
            let state = match self.state_type {
                StateType::F32 => SavedState::F32(bytemuck::cast_slice(state)),
                StateType::I16 => SavedState::I16(&bytemuck::cast_slice(state)[..numbers], scales),
                StateType::I8 => SavedState::I8(&bytemuck::cast_slice(state)[..numbers], scales),
            };
            SavedLayer { state, rotated: bytemuck::cast_slice(rotated), recent: bytemuck::cast_slice(recent) }
        })
    }
}

/// Words in one layer's memory of one sequence.
fn layer_words(state_type: StateType, neurons: usize, width: usize) -> usize {
    let state = (neurons * width * state_type.bytes()).div_ceil(4) + neurons * state_type.scales();
    state + neurons * WINDOW + WINDOW * width
}
