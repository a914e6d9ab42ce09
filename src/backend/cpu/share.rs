//! How threads divide a model: ranges of neuron blocks and of the LM head's tiles, and the parts of
//! every sequence's memory that belong to the blocks. A thread takes its own share first.

use super::pages::Pages;
use super::state::{StatePages, StateRows};
use super::weights::TILE;
use crate::backend::BackendError;
use crate::backend::memory::WINDOW;
use crate::backend::pack::Geometry;
use std::ops::Range;

/// A thread's share of the blocks and of the LM head's tiles.
#[derive(Clone, Debug)]
pub struct Share {
    /// The thread's blocks.
    pub blocks: Range<usize>,
    /// The thread's tiles of the LM head.
    pub lm_head_tiles: Range<usize>,
}

/// Divides blocks and tiles among threads as evenly as possible.
pub fn share_out(g: &Geometry, threads: usize) -> Vec<Share> {
    let part = |total: usize, i: usize| total * i / threads..total * (i + 1) / threads;
    let tiles = g.vocab.div_ceil(TILE);
    let share = |index| Share { blocks: part(g.blocks(), index), lm_head_tiles: part(tiles, index) };
    (0..threads).map(share).collect()
}

/// One layer's memory of one sequence, except for the window's residuals, which no block owns.
pub struct LayerMemory<S, R> {
    /// State, `[neurons][row]`.
    pub state: S,
    /// The window's rotated activations, `[neurons][WINDOW]`.
    pub rotated: R,
    /// Those of the tokens that left a sliding window last, `[neurons][WINDOW]`; empty without one.
    pub leaving: R,
}

/// A layer's whole memory of one sequence.
pub type LayerPages = LayerMemory<StatePages, Pages<f32>>;
/// Some blocks' part of it.
pub type LayerPart<'a> = LayerMemory<StateRows<'a>, &'a mut [f32]>;

impl LayerPages {
    /// Memory without a sliding window.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`] if there is no memory at all.
    pub fn new(state: StatePages, rotated: Pages<f32>) -> Result<Self, BackendError> {
        Ok(Self { state, rotated, leaving: Pages::zeroed(0, "a sliding window")? })
    }
}

/// A part of every memory: `[slots][layers]`.
pub type OwnMemory<'a> = Vec<Vec<LayerPart<'a>>>;

/// Splits every memory by numbers of blocks: `[shares][slots][layers]`.
pub fn split_memory<'a>(memory: &'a mut [Vec<LayerPages>], g: &Geometry, shares: &[usize]) -> Vec<OwnMemory<'a>> {
    let mut parts: Vec<OwnMemory> = shares.iter().map(|_| Vec::with_capacity(memory.len())).collect();
    for slot in memory {
        parts.iter_mut().zip(split_layers(slot, g, shares)).for_each(|(part, own)| part.push(own));
    }
    parts
}

/// Splits one sequence's memory by numbers of blocks: `[shares][layers]`.
pub fn split_layers<'a>(memory: &'a mut [LayerPages], g: &Geometry, shares: &[usize]) -> Vec<Vec<LayerPart<'a>>> {
    let mut parts: Vec<Vec<_>> = shares.iter().map(|_| Vec::with_capacity(memory.len())).collect();
    for layer in memory {
        let (mut state, mut rotated, mut leaving) =
            (layer.state.rows_mut(), &mut layer.rotated[..], &mut layer.leaving[..]);
        let slides = !leaving.is_empty();
        for (part, blocks) in parts.iter_mut().zip(shares) {
            part.push(LayerMemory {
                state: state.split_off(blocks * g.block, g.row),
                rotated: rotated.split_off_mut(..blocks * g.block * WINDOW).expect("a share of the blocks"),
                leaving: leaving
                    .split_off_mut(..if slides { blocks * g.block * WINDOW } else { 0 })
                    .expect("a share of the blocks"),
            });
        }
    }
    parts
}
