//! Kernels over the tokens of a chunk: every weight and every row of the state serves all of them.
//!
//! Their arithmetic is that of the kernels over one token, in another order.

use super::encode::{Phases, pairs};
use super::rows::{Weighted, weighted_sum};
use super::simd::{Isa, Kernel, LANES};
use super::weights::{Half, TILE};

/// Tokens of a dense product that share a pass over the weights.
const TOKENS: usize = 6;
/// Rows of the state, or of tokens, that stay in the first-level cache while all that need them pass by.
const ROWS: usize = 32;

/// out[t] ← x[t] · tile for every token of a chunk.
pub struct ChunkProduct<'a, E> {
    /// `[D][TILE]`
    pub tile: &'a [E],
    /// `[T][row]`
    pub x: &'a [f32],
    /// Length of a row of `x`.
    pub row: usize,
    /// `[T][stride]`, of which the first TILE numbers are written.
    pub out: &'a mut [f32],
    /// Length of a row of `out`.
    pub stride: usize,
    /// Whether negative results become zero.
    pub relu: bool,
}

impl<E: Half> Kernel for ChunkProduct<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let tokens = self.x.len() / self.row;
        for first in (0..TILE / LANES).step_by(I::TILE_VECTORS) {
            let mut token = 0;
            while token < tokens {
                match tokens - token {
                    TOKENS.. => self.tokens::<I, TOKENS>(isa, token, first),
                    4.. => self.tokens::<I, 4>(isa, token, first),
                    2.. => self.tokens::<I, 2>(isa, token, first),
                    _ => self.tokens::<I, 1>(isa, token, first),
                }
                token += match tokens - token {
                    TOKENS.. => TOKENS,
                    4.. => 4,
                    rest => rest.min(2),
                };
            }
        }
    }
}

impl<E: Half> ChunkProduct<'_, E> {
    /// `S` tokens from `token` on, and the vectors of the tile from `first` on.
    #[inline(always)]
    fn tokens<I: Isa, const S: usize>(&mut self, isa: I, token: usize, first: usize) {
        match I::TILE_VECTORS {
            4 => self.group::<I, S, 4>(isa, token, first),
            _ => self.group::<I, S, 1>(isa, token, first),
        }
    }

    #[inline(always)]
    fn group<I: Isa, const S: usize, const V: usize>(&mut self, isa: I, token: usize, first: usize) {
        let (lines, _) = self.tile.as_chunks::<LANES>();
        let width = self.tile.len() / TILE;
        let x: [&[f32]; S] = std::array::from_fn(|s| &self.x[(token + s) * self.row..][..width]);
        let mut sums = [[isa.splat(0.0); V]; S];
        for (d, line) in lines.chunks_exact(TILE / LANES).enumerate() {
            let line = line[first..].first_chunk::<V>().expect("vectors of a tile");
            let mut weights = [isa.splat(0.0); V];
            for v in 0..V {
                weights[v] = E::load(isa, &line[v]);
            }
            for s in 0..S {
                let x = isa.splat(x[s][d]);
                for v in 0..V {
                    sums[s][v] = isa.mul_add(weights[v], x, sums[s][v]);
                }
            }
        }
        for (s, sums) in sums.iter().enumerate() {
            let (out, _) = self.out[(token + s) * self.stride..].as_chunks_mut::<LANES>();
            for (v, &sum) in sums.iter().enumerate() {
                let out = &mut out[first + v];
                isa.store(sum, out);
                if self.relu {
                    // A NaN stays a NaN, so that it reaches the logits and is reported.
                    out.iter_mut().for_each(|x| *x = if *x < 0.0 { 0.0 } else { *x });
                }
            }
        }
    }
}

/// Scratch memory of [`ChunkAttend`].
#[derive(Default)]
pub struct ChunkScratch {
    /// `[T][block]`
    q: Vec<f32>,
    /// `[block][T padded]`
    transposed: Vec<f32>,
    masks: Vec<u32>,
}

/// A block of neurons meets the state and the chunk's own tokens, which then enter the state.
pub struct ChunkAttend<'a> {
    /// Activations, `[T][stride]`, of which the first `block` count.
    pub u: &'a [f32],
    /// Length of a row of `u`.
    pub stride: usize,
    /// Cosines and sines, `[T][phase_stride]`, of which the first `block` count.
    pub phases: [&'a [f32]; 2],
    /// Length of a row of the phases.
    pub phase_stride: usize,
    /// Residuals times their write scale, `[T][row]`.
    pub scaled_x: &'a [f32],
    /// The block's rows of the state, `[block][row]`.
    pub state: &'a mut [f32],
    /// Length of a row.
    pub row: usize,
    /// q · state of all blocks of a unit, `[T][row]`; this block's share is added.
    pub attention: &'a mut [f32],
    /// q · q of all pairs of tokens, `[T][T padded]`, added likewise; only those of earlier tokens are right.
    pub scores: &'a mut [f32],
    /// Scratch.
    pub scratch: &'a mut ChunkScratch,
}

/// The tokens of a chunk, padded to whole vectors.
pub fn padded_tokens(tokens: usize) -> usize {
    tokens.next_multiple_of(LANES)
}

impl Kernel for ChunkAttend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (row, block) = (self.row, self.state.len() / self.row);
        let tokens = self.attention.len() / row;
        let padded = padded_tokens(tokens);
        let ChunkScratch { q, transposed, masks } = self.scratch;
        q.resize(tokens * block, 0.0);
        transposed.resize(block * padded, 0.0);
        for t in 0..tokens {
            let (u, _) = self.u[t * self.stride..][..block].as_chunks::<2>();
            let [cosines, sines] = self.phases.map(|table| table[t * self.phase_stride..][..block].as_chunks::<2>().0);
            let (q, _) = q[t * block..][..block].as_chunks_mut::<2>();
            for (((u, c), s), q) in u.iter().zip(cosines).zip(sines).zip(q.iter_mut()) {
                *q = [u[0] * c[0] - u[1] * s[0], u[1] * c[1] + u[0] * s[1]];
            }
        }
        transpose(q, block, transposed, padded);

        let (lines, _) = self.state.as_chunks::<LANES>();
        let lines_per_row = row / LANES;
        for first in (0..block).step_by(ROWS) {
            let rows = ROWS.min(block - first);
            let lines = &lines[first * lines_per_row..][..rows * lines_per_row];
            for t in 0..tokens {
                let active = nonzero(isa, &self.u[t * self.stride + first..][..rows]);
                let q = &q[t * block + first..][..rows];
                masked_sum(isa, &[pairs(active)], q, lines, &mut self.attention[t * row..][..row]);
            }
        }

        add_scores(isa, q, transposed, block, padded, self.scores);

        let (x, _) = self.scaled_x.as_chunks::<LANES>();
        for first in (0..tokens).step_by(ROWS) {
            let count = ROWS.min(tokens - first);
            let x = &x[first * lines_per_row..][..count * lines_per_row];
            token_masks(&self.u[first * self.stride..], self.stride, count, block, masks);
            for (pair, masks) in masks.as_chunks::<2>().0.iter().enumerate() {
                let q = [0, 1].map(|k| &transposed[(2 * pair + k) * padded + first..][..count]);
                write_pair(isa, masks[0] | masks[1], q, x, &mut self.state[2 * pair * row..][..2 * row]);
            }
        }
    }
}

/// Rows `[R][block]` as columns `[block][padded]`; `block` and `padded` are whole vectors, and what has no row is zero.
#[inline(always)]
fn transpose(rows: &[f32], block: usize, columns: &mut [f32], padded: usize) {
    for first in (0..padded).step_by(LANES) {
        let rows = &rows[(first * block).min(rows.len())..];
        for at in (0..block).step_by(LANES) {
            let mut square = [[0.0; LANES]; LANES];
            for (row, to) in rows.chunks_exact(block).zip(&mut square) {
                to.copy_from_slice(&row[at..at + LANES]);
            }
            for (i, column) in columns[at * padded..].chunks_exact_mut(padded).take(LANES).enumerate() {
                column[first..first + LANES].copy_from_slice(&std::array::from_fn::<_, LANES, _>(|k| square[k][i]));
            }
        }
    }
}

/// Which of at most 32 numbers, whole vectors of them, are not zero, bit by bit.
#[inline(always)]
fn nonzero<I: Isa>(isa: I, values: &[f32]) -> u32 {
    let (vectors, _) = values.as_chunks::<LANES>();
    vectors.iter().enumerate().fold(0, |mask, (k, v)| mask | isa.nonzero(isa.load(v)) << (k * LANES))
}

/// masks[i] ← in which of `count` tokens, at most 32, neuron i of a block is active; `u` is `[count][stride]`.
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

/// out ← out + Σ weight · row over the rows whose bit is set; 32 rows to a mask.
#[inline(always)]
fn masked_sum<I: Isa, E: Half>(isa: I, masks: &[u32], weights: &[f32], lines: &[[E; LANES]], out: &mut [f32]) {
    let (out, _) = out.as_chunks_mut::<LANES>();
    let row = out.len();
    let mut at = 0;
    while at < row {
        let count = (row - at).min(I::ACCUMULATORS);
        let count = 1 << count.ilog2();
        let out = &mut out[at..at + count];
        match count {
            16 => masked_columns::<I, E, 16>(isa, masks, weights, lines, row, at, out),
            8 => masked_columns::<I, E, 8>(isa, masks, weights, lines, row, at, out),
            4 => masked_columns::<I, E, 4>(isa, masks, weights, lines, row, at, out),
            2 => masked_columns::<I, E, 2>(isa, masks, weights, lines, row, at, out),
            _ => masked_columns::<I, E, 1>(isa, masks, weights, lines, row, at, out),
        }
        at += count;
    }
}

/// [`masked_sum`] for the `V` vectors of columns from `at` on, which stay in registers.
#[inline(always)]
fn masked_columns<I: Isa, E: Half, const V: usize>(
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

/// ρ[i, :] ← ρ[i, :] + Σ_t q[t][i] x[t] for both rows of a pair, over the tokens in which it is active.
#[inline(always)]
fn write_pair<I: Isa>(isa: I, tokens: u32, q: [&[f32]; 2], x: &[[f32; LANES]], rows: &mut [f32]) {
    let (rows, _) = rows.as_chunks_mut::<LANES>();
    let row = rows.len() / 2;
    let mut at = 0;
    while at < row {
        let count = (row - at).min(I::ACCUMULATORS / 2);
        let count = 1 << count.ilog2();
        match count {
            8 => write_columns::<I, 8>(isa, tokens, q, x, rows, at),
            4 => write_columns::<I, 4>(isa, tokens, q, x, rows, at),
            2 => write_columns::<I, 2>(isa, tokens, q, x, rows, at),
            _ => write_columns::<I, 1>(isa, tokens, q, x, rows, at),
        }
        at += count;
    }
}

/// [`write_pair`] for the `V` vectors of columns from `at` on.
#[inline(always)]
fn write_columns<I: Isa, const V: usize>(
    isa: I,
    mut tokens: u32,
    q: [&[f32]; 2],
    x: &[[f32; LANES]],
    rows: &mut [[f32; LANES]],
    at: usize,
) {
    let row = rows.len() / 2;
    let mut sums = [[isa.splat(0.0); V]; 2];
    for (k, sums) in sums.iter_mut().enumerate() {
        for (v, sum) in sums.iter_mut().enumerate() {
            *sum = isa.load(&rows[k * row + at + v]);
        }
    }
    while tokens != 0 {
        let token = tokens.trailing_zeros() as usize;
        tokens &= tokens - 1;
        let x = x[token * row + at..].first_chunk::<V>().expect("a row");
        let (q0, q1) = (isa.splat(q[0][token]), isa.splat(q[1][token]));
        for v in 0..V {
            let x = isa.load(&x[v]);
            sums[0][v] = isa.mul_add(q0, x, sums[0][v]);
            sums[1][v] = isa.mul_add(q1, x, sums[1][v]);
        }
    }
    for (k, sums) in sums.into_iter().enumerate() {
        for (v, sum) in sums.into_iter().enumerate() {
            isa.store(sum, &mut rows[k * row + at + v]);
        }
    }
}

/// scores[t][s] ← scores[t][s] + Σ_i q[t][i] q[s][i], at least for s < t.
#[inline(always)]
fn add_scores<I: Isa>(isa: I, q: &[f32], transposed: &[f32], block: usize, padded: usize, scores: &mut [f32]) {
    let tokens = q.len() / block;
    let mut token = 0;
    while token < tokens {
        let count = if token + TOKENS <= tokens { TOKENS } else { 1 };
        // Columns before the group's last token.
        let mut first = 0;
        while first < token + count {
            let vectors = if I::TILE_VECTORS == 4 && first + 2 * LANES < token + count && first + 4 * LANES <= padded {
                4
            } else {
                1
            };
            match (count, vectors) {
                (TOKENS, 4) => score_group::<I, TOKENS, 4>(isa, q, transposed, block, padded, token, first, scores),
                (TOKENS, _) => score_group::<I, TOKENS, 1>(isa, q, transposed, block, padded, token, first, scores),
                (_, 4) => score_group::<I, 1, 4>(isa, q, transposed, block, padded, token, first, scores),
                _ => score_group::<I, 1, 1>(isa, q, transposed, block, padded, token, first, scores),
            }
            first += vectors * LANES;
        }
        token += count;
    }
}

#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "the corners of a register tile")]
fn score_group<I: Isa, const S: usize, const V: usize>(
    isa: I,
    q: &[f32],
    transposed: &[f32],
    block: usize,
    padded: usize,
    token: usize,
    first: usize,
    scores: &mut [f32],
) {
    let q: [&[f32]; S] = std::array::from_fn(|s| &q[(token + s) * block..][..block]);
    let mut sums = [[isa.splat(0.0); V]; S];
    for (i, line) in transposed.chunks_exact(padded).enumerate() {
        let (line, _) = line[first..].as_chunks::<LANES>();
        let line = line.first_chunk::<V>().expect("tokens are padded");
        for s in 0..S {
            let q = isa.splat(q[s][i]);
            for v in 0..V {
                sums[s][v] = isa.mul_add(q, isa.load(&line[v]), sums[s][v]);
            }
        }
    }
    for (s, sums) in sums.iter().enumerate() {
        let (out, _) = scores[(token + s) * padded + first..].as_chunks_mut::<LANES>();
        for (out, &sum) in out.iter_mut().zip(sums) {
            isa.store(isa.add(isa.load(out), sum), out);
        }
    }
}

/// y[t] ← read_scale[t] (y[t] + Σ_{s<t} scores[t][s] scaled_x[s]), for all tokens of a chunk.
pub struct ChunkRead<'a> {
    /// `[T][T padded]`
    pub scores: &'a [f32],
    /// `[T][row]`
    pub scaled_x: &'a [f32],
    /// `[T]`
    pub read_scales: &'a [f32],
    /// `[T][row]`
    pub y: &'a mut [f32],
    /// Scratch.
    pub list: &'a mut Vec<Weighted>,
}

impl Kernel for ChunkRead<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let tokens = self.read_scales.len();
        let row = self.y.len() / tokens;
        let (x, _) = self.scaled_x.as_chunks::<LANES>();
        let scores = self.scores.chunks_exact(padded_tokens(tokens));
        for (t, (y, scores)) in self.y.chunks_exact_mut(row).zip(scores).enumerate() {
            self.list.clear();
            self.list
                .extend(scores[..t].iter().enumerate().map(|(s, &score)| Weighted { row: s as u32, weight: score }));
            weighted_sum(isa, self.list, x, false, y);
            y.iter_mut().for_each(|y| *y *= self.read_scales[t]);
        }
    }
}

/// Scratch memory of [`ChunkProject`].
#[derive(Default)]
pub struct GateScratch {
    /// Gates, `[T][block]`.
    gates: Vec<f32>,
    masks: Vec<u32>,
}

/// [`super::project::Project`] for all tokens of a chunk.
pub struct ChunkProject<'a, E> {
    /// Activations, `[T][stride]`, of which the first `block` count.
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
    /// The decoder output of all blocks of a unit, `[T][row]`; this block's share is added.
    pub update: &'a mut [f32],
    /// Scratch.
    pub scratch: &'a mut GateScratch,
}

impl<E: Half> Kernel for ChunkProject<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (row, block) = (self.row, self.encoder_v.len() / self.row);
        let tokens = self.y.len() / row;
        let GateScratch { gates, masks } = self.scratch;
        gates.clear();
        gates.resize(tokens * block, 0.0);
        let (y, _) = self.y.as_chunks::<LANES>();
        let lines_per_row = row / LANES;
        let (values, _) = self.encoder_v.as_chunks::<LANES>();
        for first in (0..tokens).step_by(ROWS) {
            let count = ROWS.min(tokens - first);
            let y = &y[first * lines_per_row..][..count * lines_per_row];
            let u = &self.u[first * self.stride..];
            token_masks(u, self.stride, count, block, masks);
            for (i, (value, &mask)) in values.chunks_exact(lines_per_row).zip(masks.iter()).enumerate() {
                gate_tokens(isa, value, y, mask, |t, z| {
                    gates[(first + t) * block + i] = u[t * self.stride + i] * if z < 0.0 { 0.0 } else { z };
                });
            }
        }
        let (decoder, _) = self.decoder.as_chunks::<LANES>();
        for (gates, update) in gates.chunks_exact(block).zip(self.update.chunks_exact_mut(row)) {
            masks.clear();
            masks.extend(gates.chunks(32).map(|gates| nonzero(isa, gates)));
            masked_sum(isa, masks, gates, decoder, update);
        }
    }
}

/// Calls `each` with y · row of one neuron, for the tokens whose bit is set.
#[inline(always)]
fn gate_tokens<I: Isa, E: Half>(
    isa: I,
    value: &[[E; LANES]],
    y: &[[f32; LANES]],
    tokens: u32,
    mut each: impl FnMut(usize, f32),
) {
    let mut sums = [[0.0; LANES]; ROWS];
    let mut at = 0;
    while at < value.len() {
        let count = (value.len() - at).min(I::ACCUMULATORS);
        let count = 1 << count.ilog2();
        let last = at + count == value.len();
        let mut each = |t: usize, sum: I::V| {
            let sum = if at > 0 { isa.add(isa.load(&sums[t]), sum) } else { sum };
            if last {
                each(t, isa.sum(sum));
            } else {
                isa.store(sum, &mut sums[t]);
            }
        };
        match count {
            16 => product_columns::<I, E, 16>(isa, value, y, at, tokens, &mut each),
            8 => product_columns::<I, E, 8>(isa, value, y, at, tokens, &mut each),
            4 => product_columns::<I, E, 4>(isa, value, y, at, tokens, &mut each),
            2 => product_columns::<I, E, 2>(isa, value, y, at, tokens, &mut each),
            _ => product_columns::<I, E, 1>(isa, value, y, at, tokens, &mut each),
        }
        at += count;
    }
}

/// row · y over the `V` vectors of columns from `at` on, for each token whose bit is set.
#[inline(always)]
fn product_columns<I: Isa, E: Half, const V: usize>(
    isa: I,
    value: &[[E; LANES]],
    y: &[[f32; LANES]],
    at: usize,
    mut tokens: u32,
    each: &mut impl FnMut(usize, I::V),
) {
    let mut weights = [isa.splat(0.0); V];
    for v in 0..V {
        weights[v] = E::load(isa, &value[at + v]);
    }
    while tokens != 0 {
        let token = tokens.trailing_zeros() as usize;
        tokens &= tokens - 1;
        let y = y[token * value.len() + at..].first_chunk::<V>().expect("a row");
        // Four chains hide the latency of a multiply-add.
        let mut parts = [isa.splat(0.0); 4];
        for v in 0..V {
            parts[v % 4] = isa.mul_add(weights[v], isa.load(&y[v]), parts[v % 4]);
        }
        each(token, isa.add(isa.add(parts[0], parts[1]), isa.add(parts[2], parts[3])));
    }
}

/// Cosines and sines of the positions of a chunk for a range of neurons, `[T][neurons]` each.
pub struct ChunkPhases<'a> {
    /// Fixed-point frequencies of the neurons.
    pub turns: &'a [u64],
    /// Position of the first token.
    pub position: u32,
    /// Cosines and sines.
    pub tables: [&'a mut [f32]; 2],
}

impl Kernel for ChunkPhases<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let [cosines, sines] = self.tables;
        let neurons = self.turns.len();
        for (t, (cosines, sines)) in cosines.chunks_exact_mut(neurons).zip(sines.chunks_exact_mut(neurons)).enumerate()
        {
            Phases { turns: self.turns, position: self.position.wrapping_add(t as u32), cosines, sines }.run(isa);
        }
    }
}
