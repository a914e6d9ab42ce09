//! Twin of `shaders/decode/encode.wgsl`: activations of a block of neurons, and their rotation.

use crate::backend::cpu::dense::{Tile, tile_product};
use crate::backend::cpu::rows::RowList;
use crate::backend::cpu::simd::{Isa, Kernel, LANES, Level};
use crate::backend::cpu::weights::{TILE, Weight};

/// u ← relu(x · encoder + bias) for a block of neurons and the sequences in `active`.
///
/// `tiles` are the block's tiles of the encoder; `scales` and `biases` those of its neurons, if they
/// have any; `x` is `[S][row]`; `u` is `[S][stride]`, with the block at `offset`.
#[expect(clippy::too_many_arguments, reason = "the kernel's bindings, one by one")]
pub fn activate<'a, E: Weight>(
    level: Level,
    tiles: impl Iterator<Item = Tile<'a, E>>,
    [scales, biases]: [&[f32]; 2],
    x: &[f32],
    row: usize,
    active: &[usize],
    u: &mut [f32],
    stride: usize,
    offset: usize,
) {
    for (index, tile) in tiles.enumerate() {
        tile_product(level, tile, x, row, active, |slot, sums| {
            let to = &mut u[slot * stride + offset + index * TILE..][..TILE];
            for (to, &sum) in to.iter_mut().zip(sums) {
                // A NaN stays a NaN, so it reaches the logits and is reported.
                *to = if sum < 0.0 { 0.0 } else { sum };
            }
            if E::SCALED {
                to.iter_mut().zip(&scales[index * TILE..]).for_each(|(to, scale)| *to *= scale);
            }
            if !biases.is_empty() {
                let scales = if E::SCALED { &scales[index * TILE..] } else { &[] };
                add_biases(to, sums, scales, &biases[index * TILE..]);
            }
        });
    }
}

/// q ← rotary(u) for a block, as a list of the neurons in active pairs.
pub struct Rotate<'a> {
    /// Activations, `[block]`.
    pub u: &'a [f32],
    /// Cosines, `[block]`.
    pub cosines: &'a [f32],
    /// Sines, `[block]`.
    pub sines: &'a [f32],
    /// Both neurons of every pair with an active neuron, with their q.
    pub list: &'a mut RowList,
}

impl Kernel for Rotate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (u, _) = self.u.as_chunks::<LANES>();
        let (cosines, _) = self.cosines.as_chunks::<LANES>();
        let (sines, _) = self.sines.as_chunks::<LANES>();
        let vectors = u.iter().zip(cosines).zip(sines).map(|((u, c), s)| {
            let mut q = [0.0; LANES];
            for i in (0..LANES).step_by(2) {
                q[i] = u[i] * c[i] - u[i + 1] * s[i];
                q[i + 1] = u[i + 1] * c[i + 1] + u[i] * s[i + 1];
            }
            (q, pairs(isa.nonzero(isa.load(u))))
        });
        self.list.fill(isa, vectors);
    }
}

/// Sets both bits of every pair in which at least one bit is set.
#[inline(always)]
fn pairs(neurons: u32) -> u32 {
    let even = (neurons | neurons >> 1) & 0x5555_5555;
    even | even << 1
}

/// u ← relu(sum · scale + bias). Out of the way of models without clamped neurons.
#[cold]
#[inline(never)]
fn add_biases(to: &mut [f32], sums: &[f32], scales: &[f32], biases: &[f32]) {
    for (i, (to, &sum)) in to.iter_mut().zip(sums).enumerate() {
        let sum = scales.get(i).map_or(sum, |scale| sum * scale) + biases[i];
        *to = if sum < 0.0 { 0.0 } else { sum };
    }
}
