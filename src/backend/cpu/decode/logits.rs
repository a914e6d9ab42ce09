//! Twin of `shaders/decode/logits.wgsl`: the residual stream times the language model head.

use crate::backend::cpu::dense::{Tile, tile_product};
use crate::backend::cpu::lock;
use crate::backend::cpu::simd::Level;
use crate::backend::cpu::weights::{TILE, Weight};
use std::sync::Mutex;

/// logits[s] ← x · lm_head for the sequences s in `active` and some tiles of the vocabulary.
///
/// `tiles` are the tiles with their indices, `x` is `[S][row]`, and `logits` are `[S]`, each `[V]`.
pub fn logits<'a, E: Weight>(
    level: Level,
    tiles: impl Iterator<Item = (usize, Tile<'a, E>)>,
    x: &[f32],
    row: usize,
    active: &[usize],
    logits: &[Mutex<Vec<f32>>],
) {
    for (index, tile) in tiles {
        tile_product(level, tile, x, row, active, |slot, sums| {
            let mut logits = lock(&logits[slot]);
            let to = &mut logits[index * TILE..];
            let count = to.len().min(TILE);
            to[..count].copy_from_slice(&sums[..count]);
        });
    }
}
