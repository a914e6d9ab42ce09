//! Twin of `shaders/encode.wgsl`: a block of neurons of one head fires, and meets its rows of the state.

use super::dense::tile_product;
use super::simd::{Isa, Kernel, LANES, Level};
use super::weights::{Half, TILE};
use crate::model::rotary;

/// u ← relu(x · encoder) for a block of neurons and several sequences.
///
/// `encoder` is the block's tiles `[block / TILE][D][TILE]`; `x` `[S][row]`; `u` `[S][stride]`, of which
/// the block's numbers start at `offset`. Sequences outside `active` are left alone.
#[expect(clippy::too_many_arguments, reason = "the kernel's bindings, one by one")]
pub fn activate<E: Half>(
    level: Level,
    encoder: &[E],
    width: usize,
    x: &[f32],
    row: usize,
    active: &[usize],
    u: &mut [f32],
    stride: usize,
    offset: usize,
) {
    for (index, tile) in encoder.chunks_exact(width * TILE).enumerate() {
        tile_product(level, tile, x, row, active, |slot, sums| {
            let to = &mut u[slot * stride + offset + index * TILE..][..TILE];
            for (to, &sum) in to.iter_mut().zip(sums) {
                // A NaN stays a NaN, so that it reaches the logits and is reported.
                *to = if sum < 0.0 { 0.0 } else { sum };
            }
        });
    }
}

/// Cosines and sines of a position for a range of neurons.
pub struct Phases<'a> {
    /// Fixed-point frequencies of the neurons.
    pub turns: &'a [u64],
    /// Position of the token.
    pub position: u32,
    /// As long as `turns`.
    pub cosines: &'a mut [f32],
    /// As long as `turns`.
    pub sines: &'a mut [f32],
}

impl Kernel for Phases<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        for ((&turns, c), s) in self.turns.iter().zip(self.cosines).zip(self.sines) {
            (*c, *s) = rotary::cos_sin(rotary::phase(turns, self.position));
        }
    }
}

/// A pair of neurons of which at least one is active, after rotation.
#[derive(Clone, Copy, Debug)]
pub struct ActivePair {
    /// Index of the first neuron within the block.
    pub first: u32,
    /// q of both.
    pub q: [f32; 2],
}

/// Rotates a block, gathers its active pairs, reads their rows of the state (y) and then updates them.
pub struct Attend<'a> {
    /// Activations, `[block]`.
    pub u: &'a [f32],
    /// Cosines, `[block]`.
    pub cosines: &'a [f32],
    /// Sines, `[block]`.
    pub sines: &'a [f32],
    /// Residual stream, `[row]`.
    pub x: &'a [f32],
    /// Factor on q where the state is read.
    pub read_scale: f32,
    /// Factor on q where the state is written.
    pub write_scale: f32,
    /// The block's rows of the state, `[block][row]`.
    pub state: &'a mut [f32],
    /// Attention output of this block, `[row]`.
    pub y: &'a mut [f32],
    /// Scratch: the active pairs, capacity block / 2.
    pub pairs: &'a mut Vec<ActivePair>,
    /// Scratch, `[row]`.
    pub scaled_x: &'a mut [f32],
}

impl Kernel for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let row = self.x.len();
        self.pairs.clear();
        let (u, _) = self.u.as_chunks::<2>();
        let (cosines, _) = self.cosines.as_chunks::<2>();
        let (sines, _) = self.sines.as_chunks::<2>();
        for (i, ((u, c), s)) in u.iter().zip(cosines).zip(sines).enumerate() {
            if u[0] != 0.0 || u[1] != 0.0 {
                let q = [u[0] * c[0] - u[1] * s[0], u[1] * c[1] + u[0] * s[1]];
                self.pairs.push(ActivePair { first: 2 * i as u32, q });
            }
        }
        for (to, &x) in self.scaled_x.iter_mut().zip(self.x) {
            *to = x * self.write_scale;
        }
        self.y.fill(0.0);
        let (y, _) = self.y.as_chunks_mut::<LANES>();
        let (x, _) = self.scaled_x.as_chunks::<LANES>();
        for pair in self.pairs.iter() {
            let rows = &mut self.state[pair.first as usize * row..][..2 * row];
            let (first, second) = rows.split_at_mut(row);
            let (first, _) = first.as_chunks_mut::<LANES>();
            let (second, _) = second.as_chunks_mut::<LANES>();
            let (q0, q1) = (isa.splat(pair.q[0]), isa.splat(pair.q[1]));
            for (((y, x), first), second) in y.iter_mut().zip(x).zip(first).zip(second) {
                let (r0, r1, x) = (isa.load(first), isa.load(second), isa.load(x));
                let sum = isa.mul_add(q1, r1, isa.mul_add(q0, r0, isa.load(y)));
                isa.store(sum, y);
                isa.store(isa.mul_add(q0, x, r0), first);
                isa.store(isa.mul_add(q1, x, r1), second);
            }
        }
        for y in self.y.iter_mut() {
            *y *= self.read_scale;
        }
    }
}
