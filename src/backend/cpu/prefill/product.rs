//! Twin of `shaders/prefill/encode.wgsl` and of the product in `shaders/prefill/logits.wgsl`: dense
//! products over the tokens of a chunk.

use crate::backend::cpu::simd::{Isa, Kernel, LANES};
use crate::backend::cpu::weights::{TILE, Weight};

/// Arranges the residual stream for [`Product`]: the tokens of a register tile form a group,
/// `[groups][D][tokens of a group]`; the last group is padded with zeros.
pub struct GroupTokens<'a> {
    /// Residual stream, `[T][row]`.
    pub x: &'a [f32],
    /// Length of a row.
    pub row: usize,
    /// D.
    pub width: usize,
    /// The groups.
    pub to: &'a mut Vec<f32>,
}

impl Kernel for GroupTokens<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let [size, _] = I::TILE;
        let tokens = self.x.len() / self.row;
        self.to.clear();
        self.to.resize(tokens.next_multiple_of(size) * self.width, 0.0);
        for (group, x) in self.to.chunks_exact_mut(size * self.width).zip(self.x.chunks(size * self.row)) {
            for (s, x) in x.chunks_exact(self.row).enumerate() {
                group.iter_mut().skip(s).step_by(size).zip(x).for_each(|(to, &x)| *to = x);
            }
        }
    }
}

/// out[t] ← x[t] · tile + biases for all tokens t of a chunk.
pub struct Product<'a, E> {
    /// Weights, `[D][TILE]`.
    pub tile: &'a [E],
    /// The outputs' scales, `[TILE]`; none without scales.
    pub scales: &'a [f32],
    /// The outputs' biases, `[TILE]`; none without biases.
    pub biases: &'a [f32],
    /// Residual stream from [`GroupTokens`].
    pub x: &'a [f32],
    /// T.
    pub tokens: usize,
    /// `[T][stride]`; the first TILE numbers of each row are written.
    pub out: &'a mut [f32],
    /// Length of a row of `out`.
    pub stride: usize,
    /// Whether negative results become zero.
    pub relu: bool,
    /// Scratch.
    pub weights: &'a mut Vec<f32>,
}

impl<E: Weight> Kernel for Product<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        match I::TILE {
            [12, 2] => self.tiles::<I, 12, 2>(isa),
            [6, 1] => self.tiles::<I, 6, 1>(isa),
            [3, 1] => self.tiles::<I, 3, 1>(isa),
            other => unreachable!("there is no product with tiles of {other:?}"),
        }
    }
}

impl<E: Weight> Product<'_, E> {
    /// The product with register tiles of `S` tokens and `V` vectors of outputs.
    #[inline(always)]
    fn tiles<I: Isa, const S: usize, const V: usize>(self, isa: I) {
        let depth = self.tile.len() / TILE;
        let (tile, _) = self.tile.as_chunks::<TILE>();
        self.weights.resize(depth * V * LANES, 0.0);
        let (weights, _) = self.weights.as_chunks_mut::<LANES>();
        let (weights, _) = weights.as_chunks_mut::<V>();
        for first in (0..TILE / LANES).step_by(V) {
            // These columns of the tile, as f32, stay in the first-level cache for all tokens.
            for (to, from) in weights.iter_mut().zip(tile) {
                let (from, _) = from.as_chunks::<LANES>();
                for v in 0..V {
                    isa.store(E::load(isa, &from[first + v]), &mut to[v]);
                }
            }
            for (group, x) in self.x.chunks_exact(depth * S).enumerate() {
                let (x, _) = x.as_chunks::<S>();
                let mut sums = [[isa.splat(0.0); V]; S];
                for (x, weights) in x.iter().zip(weights.iter()) {
                    let mut columns = [isa.splat(0.0); V];
                    for v in 0..V {
                        columns[v] = isa.load(&weights[v]);
                    }
                    for s in 0..S {
                        let x = isa.splat(x[s]);
                        for v in 0..V {
                            sums[s][v] = isa.mul_add(columns[v], x, sums[s][v]);
                        }
                    }
                }
                let tokens = S.min(self.tokens - group * S);
                for (s, sums) in sums.iter().enumerate().take(tokens) {
                    let (out, _) = self.out[(group * S + s) * self.stride..].as_chunks_mut::<LANES>();
                    for (v, (out, &sum)) in out[first..first + V].iter_mut().zip(sums).enumerate() {
                        isa.store(sum, out);
                        if E::SCALED {
                            let scales = &self.scales[(first + v) * LANES..][..LANES];
                            out.iter_mut().zip(scales).for_each(|(x, scale)| *x *= scale);
                        }
                        if !self.biases.is_empty() {
                            let biases = &self.biases[(first + v) * LANES..][..LANES];
                            out.iter_mut().zip(biases).for_each(|(x, bias)| *x += bias);
                        }
                        if self.relu {
                            // A NaN stays a NaN, so it reaches the logits and is reported.
                            out.iter_mut().for_each(|x| *x = if *x < 0.0 { 0.0 } else { *x });
                        }
                    }
                }
            }
        }
    }
}
