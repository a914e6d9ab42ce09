//! Twin of `shaders/prefill/gate.wgsl` and `shaders/prefill/decode.wgsl`: attention output to gated
//! neurons to decoder output, for a block of neurons and all tokens of a chunk.

use crate::backend::cpu::simd::{Isa, Kernel, LANES, register_tiles};
use crate::backend::cpu::weights::Weight;

/// Tokens in a bit mask; their rows of y stay in the first-level cache.
const TOKENS: usize = 32;

/// Scratch memory of [`Project`].
#[derive(Default)]
pub struct Scratch {
    /// Gates, `[T][block]`.
    gates: Vec<f32>,
    /// Bit masks of active tokens, or of open gates.
    masks: Vec<u32>,
}

impl Scratch {
    /// A token's gates of the last block, times the decoder's scales: `[block]`.
    pub fn gates_of(&self, token: usize, block: usize) -> &[f32] {
        &self.gates[token * block..][..block]
    }
}

/// update[t] ← update[t] + Σ_i g_i · decoder_i over a block, for all tokens t of a chunk, with
/// z_i = relu(y[t] · encoder_v_i) and g_i = u_i · z_i.
///
/// A row of encoder_v serves all tokens with u_i > 0 while it is in registers.
pub struct Project<'a, E> {
    /// Activations, `[T][stride]`; the first `block` numbers of each row.
    pub u: &'a [f32],
    /// Length of a row of `u`.
    pub stride: usize,
    /// Attention output of the head after its layer norm, `[T][row]`.
    pub y: &'a [f32],
    /// Length of a row.
    pub row: usize,
    /// The block's rows of encoder_v, `[block][row]`.
    pub encoder_v: &'a [E],
    /// The block's rows of the decoder, `[block][row]`.
    pub decoder: &'a [E],
    /// The block's scales of both, `[block]` each; none without scales.
    pub scales: [&'a [f32]; 2],
    /// Decoder output of a unit's blocks, `[T][row]`; the kernel adds this block's share.
    pub update: &'a mut [f32],
    /// Scratch.
    pub scratch: &'a mut Scratch,
}

impl<E: Weight> Kernel for Project<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (row, block) = (self.row, self.encoder_v.len() / self.row);
        let tokens = self.y.len() / row;
        let Scratch { gates, masks } = self.scratch;
        gates.clear();
        gates.resize(tokens * block, 0.0);
        let (y, _) = self.y.as_chunks::<LANES>();
        let lines_per_row = row / LANES;
        let (values, _) = self.encoder_v.as_chunks::<LANES>();
        let [scales, decoder_scales] = self.scales;
        let mut products = RowProducts { lanes: [[0.0; LANES]; TOKENS], sums: [0.0; TOKENS] };
        for first in (0..tokens).step_by(TOKENS) {
            let count = TOKENS.min(tokens - first);
            let y = &y[first * lines_per_row..][..count * lines_per_row];
            let u = &self.u[first * self.stride..];
            token_masks(u, self.stride, count, block, masks);
            for (i, (value, &mask)) in values.chunks_exact(lines_per_row).zip(masks.iter()).enumerate() {
                products.multiply(isa, value, y, mask);
                let scale = if E::SCALED { scales[i] } else { 1.0 };
                let mut tokens = mask;
                for z in products.sums {
                    if tokens == 0 {
                        break;
                    }
                    let t = tokens.trailing_zeros() as usize;
                    tokens &= tokens - 1;
                    gates[(first + t) * block + i] = u[t * self.stride + i] * if z < 0.0 { 0.0 } else { z * scale };
                }
            }
        }
        let (decoder, _) = self.decoder.as_chunks::<LANES>();
        for (gates, update) in gates.chunks_exact_mut(block).zip(self.update.chunks_exact_mut(row)) {
            if E::SCALED {
                gates.iter_mut().zip(decoder_scales).for_each(|(gate, scale)| *gate *= scale);
            }
            masks.clear();
            for gates in gates.chunks(32) {
                masks.push(nonzero(isa, gates));
            }
            masked_sum(isa, masks, gates, decoder, update);
        }
    }
}

/// Products of one neuron's row with the tokens of a bit mask, in their order.
struct RowProducts {
    /// Partial sums, for rows longer than a register tile.
    lanes: [[f32; LANES]; TOKENS],
    /// y · row.
    sums: [f32; TOKENS],
}

impl RowProducts {
    /// Computes `sums` for the tokens in the mask `tokens`; `y` is `[T][row]`.
    #[inline(always)]
    fn multiply<I: Isa, E: Weight>(&mut self, isa: I, row: &[[E; LANES]], y: &[[f32; LANES]], tokens: u32) {
        register_tiles!(row.len(), I::ACCUMULATORS, |at, V| self.columns::<I, E, V>(isa, row, y, at, tokens));
    }

    /// [`RowProducts::multiply`] for the `V` vectors of columns from `at` on.
    #[inline(always)]
    fn columns<I: Isa, E: Weight, const V: usize>(
        &mut self,
        isa: I,
        row: &[[E; LANES]],
        y: &[[f32; LANES]],
        at: usize,
        mut tokens: u32,
    ) {
        let mut weights = [isa.splat(0.0); V];
        for v in 0..V {
            weights[v] = E::load(isa, &row[at + v]);
        }
        let last = at + V == row.len();
        for (lanes, total) in self.lanes.iter_mut().zip(&mut self.sums) {
            if tokens == 0 {
                break;
            }
            let token = tokens.trailing_zeros() as usize;
            tokens &= tokens - 1;
            let y = y[token * row.len() + at..].first_chunk::<V>().expect("a row");
            // Independent sums hide the latency of a multiply-add.
            let mut parts = [isa.splat(0.0); 4];
            for v in 0..V {
                parts[v % 4] = isa.mul_add(weights[v], isa.load(&y[v]), parts[v % 4]);
            }
            let sum = isa.add(isa.add(parts[0], parts[1]), isa.add(parts[2], parts[3]));
            let sum = if at > 0 { isa.add(isa.load(lanes), sum) } else { sum };
            if last {
                *total = isa.sum(sum);
            } else {
                isa.store(sum, lanes);
            }
        }
    }
}

/// Bit mask of the numbers that are not zero, of at most 32; whole vectors.
#[inline(always)]
fn nonzero<I: Isa>(isa: I, values: &[f32]) -> u32 {
    let (vectors, _) = values.as_chunks::<LANES>();
    let mut mask = 0;
    for (k, v) in vectors.iter().enumerate() {
        mask |= isa.nonzero(isa.load(v)) << (k * LANES);
    }
    mask
}

/// masks[i] ← bit mask of the tokens in which neuron i of a block is active, of `count` ≤ 32
/// tokens; `u` is `[count][stride]`.
#[inline(always)]
fn token_masks(u: &[f32], stride: usize, count: usize, block: usize, masks: &mut Vec<u32>) {
    masks.clear();
    masks.resize(block, 0);
    for t in 0..count {
        for (mask, &u) in masks.iter_mut().zip(&u[t * stride..][..block]) {
            *mask |= u32::from(u != 0.0) << t;
        }
    }
}

/// out ← out + Σ weight · row over the rows set in `masks`, 32 rows to a mask.
#[inline(always)]
fn masked_sum<I: Isa, E: Weight>(isa: I, masks: &[u32], weights: &[f32], lines: &[[E; LANES]], out: &mut [f32]) {
    let (out, _) = out.as_chunks_mut::<LANES>();
    let row = out.len();
    register_tiles!(row, I::ACCUMULATORS, |at, V| {
        masked_columns::<I, E, V>(isa, masks, weights, lines, row, at, &mut out[at..at + V])
    });
}

/// [`masked_sum`] for the `V` vectors of columns from `at` on, whose sums stay in registers.
#[inline(always)]
fn masked_columns<I: Isa, E: Weight, const V: usize>(
    isa: I,
    masks: &[u32],
    weights: &[f32],
    lines: &[[E; LANES]],
    row: usize,
    at: usize,
    out: &mut [[f32; LANES]],
) {
    let mut sums = [isa.splat(0.0); V];
    for (sum, out) in sums.iter_mut().zip(out.iter()) {
        *sum = isa.load(out);
    }
    for (word, &mask) in masks.iter().enumerate() {
        let mut mask = mask;
        while mask != 0 {
            let index = 32 * word + mask.trailing_zeros() as usize;
            mask &= mask - 1;
            let columns = lines[index * row + at..].first_chunk::<V>().expect("a row");
            let weight = isa.splat(weights[index]);
            for v in 0..V {
                sums[v] = isa.mul_add(weight, E::load(isa, &columns[v]), sums[v]);
            }
        }
    }
    for (sum, out) in sums.into_iter().zip(out) {
        isa.store(sum, out);
    }
}
