//! Kernels over the tokens of a chunk: every weight and every row of the state serves all of them.
//!
//! Their arithmetic is that of the kernels over one token, in another order.

use super::encode::Phases;
use super::rows::{RowList, Weighted, weighted_sum};
use super::simd::{Isa, Kernel, LANES, Reuse};
use super::weights::{Half, TILE};

/// Rows of the state, or of tokens, that stay in the first-level cache while all that need them pass by.
const ROWS: usize = 32;

/// The residual stream as [`ChunkProduct`] reads it: a group of tokens that stay in registers together lies together,
/// `[groups][D][tokens of a group]`, and what is missing in the last one is zero.
pub struct GroupTokens<'a> {
    /// `[T][row]`
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

/// out[t] ← x[t] · tile for every token of a chunk.
pub struct ChunkProduct<'a, E> {
    /// `[D][TILE]`
    pub tile: &'a [E],
    /// What [`GroupTokens`] made.
    pub x: &'a [f32],
    /// T.
    pub tokens: usize,
    /// `[T][stride]`, of which the first TILE numbers are written.
    pub out: &'a mut [f32],
    /// Length of a row of `out`.
    pub stride: usize,
    /// Whether negative results become zero.
    pub relu: bool,
    /// Scratch.
    pub weights: &'a mut Vec<f32>,
}

impl<E: Half> Kernel for ChunkProduct<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        match I::TILE {
            [12, 2] => self.tiles::<I, 12, 2>(isa),
            _ => self.tiles::<I, 6, 1>(isa),
        }
    }
}

impl<E: Half> ChunkProduct<'_, E> {
    /// `S` tokens and `V` vectors of outputs at a time.
    #[inline(always)]
    fn tiles<I: Isa, const S: usize, const V: usize>(self, isa: I) {
        let depth = self.tile.len() / TILE;
        let (tile, _) = self.tile.as_chunks::<TILE>();
        self.weights.resize(depth * V * LANES, 0.0);
        let (weights, _) = self.weights.as_chunks_mut::<LANES>();
        let (weights, _) = weights.as_chunks_mut::<V>();
        for first in (0..TILE / LANES).step_by(V) {
            // These columns of the tile, as f32, stay in the first-level cache while all tokens pass by.
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
                    for (out, &sum) in out[first..first + V].iter_mut().zip(sums) {
                        isa.store(sum, out);
                        if self.relu {
                            // A NaN stays a NaN, so that it reaches the logits and is reported.
                            out.iter_mut().for_each(|x| *x = if *x < 0.0 { 0.0 } else { *x });
                        }
                    }
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
    /// Tokens in which a pair is active with q of its first neuron, pair after pair, and with that of its second.
    tokens: [RowList; 2],
    /// Where each pair's tokens end.
    ends: Vec<usize>,
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
    /// Residuals times their write scale, `[T][row]` in panels.
    pub scaled_x: &'a [f32],
    /// The block's rows of the state, `[block][row]`.
    pub state: &'a mut [f32],
    /// Length of a row.
    pub row: usize,
    /// q · state of all blocks of a unit, `[T][row]` in panels; this block's share is added.
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
        let ChunkScratch { q, transposed, tokens: lists, ends } = self.scratch;
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
        transpose(isa, q, block, transposed, padded);
        add_scores(isa, q, transposed, block, padded, self.scores);

        for first in (0..block).step_by(NEURONS) {
            let neurons = NEURONS.min(block - first);
            list_tokens(isa, &transposed[first * padded..][..neurons * padded], padded, lists, ends);
            let (state, later) = self.state[first * row..].split_at_mut(neurons * row);
            for Panel { at, vectors } in panels::<I>(row) {
                let place = at * LANES * tokens..(at + vectors) * LANES * tokens;
                let (x, attention) = (&self.scaled_x[place.clone()], &mut self.attention[place]);
                let mut start = 0;
                for (pair, &end) in ends.iter().enumerate() {
                    let lists = [0, 1].map(|k| &lists[k][start..end]);
                    start = end;
                    let rows = &mut state[2 * pair * row..][..2 * row];
                    // Rows that come next.
                    let later = later.get(2 * pair * row..).unwrap_or_default();
                    match vectors {
                        4 => meet::<I, 4>(isa, lists, x, attention, rows, later, at),
                        _ => meet::<I, 1>(isa, lists, x, attention, rows, later, at),
                    }
                }
            }
        }
    }
}

/// Neurons whose rows of the state stay in a near cache while all panels pass by.
const NEURONS: usize = 128;

/// Columns of a matrix `[T][row]` in panels: those of a panel lie together, `[T][vectors]`, and panels follow one another. A
/// panel of all tokens fits the first-level cache, where columns of long rows would fall on the same few places.
#[derive(Clone, Copy)]
struct Panel {
    /// First vector of the columns.
    at: usize,
    /// Vectors of the columns.
    vectors: usize,
}

/// The panels of rows: what of two rows, of their sums, of x and of y stays in registers together.
#[inline(always)]
fn panels<I: Isa>(row: usize) -> impl Iterator<Item = Panel> {
    let row = row / LANES;
    let wide = if I::ACCUMULATORS == 16 { row / 4 } else { 0 };
    let wide_panels = (0..wide).map(|i| Panel { at: 4 * i, vectors: 4 });
    wide_panels.chain((4 * wide..row).map(|at| Panel { at, vectors: 1 }))
}

/// Copies between a matrix `[T][row]` and one in panels.
pub struct CopyPanels<'a> {
    /// The matrix to copy from.
    pub from: &'a [f32],
    /// The matrix to copy to.
    pub to: &'a mut [f32],
    /// Length of a row.
    pub row: usize,
    /// Whether `to` is the one in panels.
    pub into_panels: bool,
}

impl Kernel for CopyPanels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let tokens = self.from.len() / self.row;
        for Panel { at, vectors } in panels::<I>(self.row) {
            for t in 0..tokens {
                let width = vectors * LANES;
                let (plain, panel) = (t * self.row + at * LANES, at * LANES * tokens + t * width);
                let (from, to) = if self.into_panels { (plain, panel) } else { (panel, plain) };
                self.to[to..to + width].copy_from_slice(&self.from[from..from + width]);
            }
        }
    }
}

/// Lists, for each pair of neurons, in which tokens it is active, with its q. `transposed` is `[neurons][padded]`.
#[inline(always)]
fn list_tokens<I: Isa>(isa: I, transposed: &[f32], padded: usize, lists: &mut [RowList; 2], ends: &mut Vec<usize>) {
    ends.clear();
    for list in lists.iter_mut() {
        list.truncate(0);
    }
    for pair in transposed.chunks_exact(2 * padded) {
        let (first, second) = pair.split_at(padded);
        let (first, _) = first.as_chunks::<LANES>();
        let (second, _) = second.as_chunks::<LANES>();
        let [list, second_list] = &mut *lists;
        list.reserve(first.len());
        second_list.reserve(first.len());
        for (k, (q0, q1)) in first.iter().zip(second).enumerate() {
            let active = isa.nonzero(isa.load(q0)) | isa.nonzero(isa.load(q1));
            list.push(isa, q0, active, k * LANES);
            second_list.push(isa, q1, active, k * LANES);
        }
        ends.push(lists[0].len());
    }
}

/// Both rows of a pair meet the tokens in which it is active, in the `V` vectors of columns from `at` on:
/// attention[t] ← attention[t] + q[t][0] ρ[0, :] + q[t][1] ρ[1, :], then ρ[i, :] ← ρ[i, :] + Σ_t q[t][i] x[t].
///
/// `x` and `attention` are panels `[T][V]`. Asks for the same columns of the rows in `later`.
#[inline(always)]
fn meet<I: Isa, const V: usize>(
    isa: I,
    lists: [&[Weighted]; 2],
    x: &[f32],
    attention: &mut [f32],
    rows: &mut [f32],
    later: &[f32],
    at: usize,
) {
    let row = rows.len() / 2;
    for later in later.chunks_exact(row).take(2) {
        for line in later[at * LANES..][..V * LANES].iter().step_by(LANES) {
            isa.prefetch(line, Reuse::Soon);
        }
    }
    if lists[0].is_empty() {
        return;
    }
    let (x, _) = x.as_chunks::<LANES>();
    let (x, _) = x.as_chunks::<V>();
    let (attention, _) = attention.as_chunks_mut::<LANES>();
    let (attention, _) = attention.as_chunks_mut::<V>();
    let (first, second) = rows.split_at_mut(row);
    let (first, _) = first[at * LANES..].as_chunks_mut::<LANES>();
    let (second, _) = second[at * LANES..].as_chunks_mut::<LANES>();
    let first = first.first_chunk_mut::<V>().expect("columns of a row");
    let second = second.first_chunk_mut::<V>().expect("columns of a row");
    let mut before = [[isa.splat(0.0); V]; 2];
    for v in 0..V {
        before[0][v] = isa.load(&first[v]);
        before[1][v] = isa.load(&second[v]);
    }
    let mut after = before;
    for (q0, q1) in lists[0].iter().zip(lists[1]) {
        let token = q0.row as usize;
        let (x, y) = (&x[token], &mut attention[token]);
        let (q0, q1) = (isa.splat(q0.weight), isa.splat(q1.weight));
        for v in 0..V {
            let sum = isa.mul_add(q0, before[0][v], isa.load(&y[v]));
            isa.store(isa.mul_add(q1, before[1][v], sum), &mut y[v]);
            let x = isa.load(&x[v]);
            after[0][v] = isa.mul_add(q0, x, after[0][v]);
            after[1][v] = isa.mul_add(q1, x, after[1][v]);
        }
    }
    for v in 0..V {
        isa.store(after[0][v], &mut first[v]);
        isa.store(after[1][v], &mut second[v]);
    }
}

/// Rows `[R][block]` as columns `[block][padded]`; `block` and `padded` are whole vectors, and what has no row is zero.
#[inline(always)]
fn transpose<I: Isa>(isa: I, rows: &[f32], block: usize, columns: &mut [f32], padded: usize) {
    for first in (0..padded).step_by(LANES) {
        let rows = &rows[(first * block).min(rows.len())..];
        for at in (0..block).step_by(LANES) {
            let mut square = [[0; LANES]; LANES];
            for (row, to) in rows.chunks_exact(block).zip(&mut square) {
                *to = bytemuck::cast(*row[at..].first_chunk::<LANES>().expect("whole vectors"));
            }
            isa.transpose(&mut square);
            for (from, column) in square.iter().zip(columns[at * padded..].chunks_exact_mut(padded)) {
                column[first..first + LANES].copy_from_slice(&bytemuck::cast::<_, [f32; LANES]>(*from));
            }
        }
    }
}

/// Which of at most 32 numbers, whole vectors of them, are not zero, bit by bit.
#[inline(always)]
fn nonzero<I: Isa>(isa: I, values: &[f32]) -> u32 {
    let (vectors, _) = values.as_chunks::<LANES>();
    let mut mask = 0;
    for (k, v) in vectors.iter().enumerate() {
        mask |= isa.nonzero(isa.load(v)) << (k * LANES);
    }
    mask
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

/// Tokens whose scores stay in registers together.
const SCORED: usize = 6;

/// scores[t][s] ← scores[t][s] + Σ_i q[t][i] q[s][i], at least for s < t.
#[inline(always)]
fn add_scores<I: Isa>(isa: I, q: &[f32], transposed: &[f32], block: usize, padded: usize, scores: &mut [f32]) {
    let tokens = q.len() / block;
    let wide = I::ACCUMULATORS == 16;
    let mut token = 0;
    while token < tokens {
        let count = if token + SCORED <= tokens { SCORED } else { 1 };
        // Columns before the group's last token.
        let columns = (token + count).div_ceil(LANES);
        let mut first = 0;
        while first < columns {
            let vectors = match columns - first {
                4.. if wide => 4,
                2.. if wide => 2,
                _ => 1,
            };
            let at = first * LANES;
            match (count, vectors) {
                (SCORED, 4) => score_group::<I, SCORED, 4>(isa, q, transposed, block, padded, token, at, scores),
                (SCORED, 2) => score_group::<I, SCORED, 2>(isa, q, transposed, block, padded, token, at, scores),
                (SCORED, _) => score_group::<I, SCORED, 1>(isa, q, transposed, block, padded, token, at, scores),
                (_, 4) => score_group::<I, 1, 4>(isa, q, transposed, block, padded, token, at, scores),
                (_, 2) => score_group::<I, 1, 2>(isa, q, transposed, block, padded, token, at, scores),
                _ => score_group::<I, 1, 1>(isa, q, transposed, block, padded, token, at, scores),
            }
            first += vectors;
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
        let mut products = RowProducts { lanes: [[0.0; LANES]; ROWS], sums: [0.0; ROWS] };
        for first in (0..tokens).step_by(ROWS) {
            let count = ROWS.min(tokens - first);
            let y = &y[first * lines_per_row..][..count * lines_per_row];
            let u = &self.u[first * self.stride..];
            token_masks(u, self.stride, count, block, masks);
            for (i, (value, &mask)) in values.chunks_exact(lines_per_row).zip(masks.iter()).enumerate() {
                products.multiply(isa, value, y, mask);
                let mut tokens = mask;
                for z in products.sums {
                    if tokens == 0 {
                        break;
                    }
                    let t = tokens.trailing_zeros() as usize;
                    tokens &= tokens - 1;
                    gates[(first + t) * block + i] = u[t * self.stride + i] * if z < 0.0 { 0.0 } else { z };
                }
            }
        }
        let (decoder, _) = self.decoder.as_chunks::<LANES>();
        for (gates, update) in gates.chunks_exact(block).zip(self.update.chunks_exact_mut(row)) {
            masks.clear();
            for gates in gates.chunks(32) {
                masks.push(nonzero(isa, gates));
            }
            masked_sum(isa, masks, gates, decoder, update);
        }
    }
}

/// Products of one neuron's row and the tokens whose bit is set, one after the other.
struct RowProducts {
    /// Lanes, where a row has more columns than registers hold.
    lanes: [[f32; LANES]; ROWS],
    /// y · row.
    sums: [f32; ROWS],
}

impl RowProducts {
    #[inline(always)]
    fn multiply<I: Isa, E: Half>(&mut self, isa: I, row: &[[E; LANES]], y: &[[f32; LANES]], tokens: u32) {
        let mut at = 0;
        while at < row.len() {
            let count = (row.len() - at).min(I::ACCUMULATORS);
            let count = 1 << count.ilog2();
            match count {
                16 => self.columns::<I, E, 16>(isa, row, y, at, tokens),
                8 => self.columns::<I, E, 8>(isa, row, y, at, tokens),
                4 => self.columns::<I, E, 4>(isa, row, y, at, tokens),
                2 => self.columns::<I, E, 2>(isa, row, y, at, tokens),
                _ => self.columns::<I, E, 1>(isa, row, y, at, tokens),
            }
            at += count;
        }
    }

    /// The `V` vectors of columns from `at` on.
    #[inline(always)]
    fn columns<I: Isa, E: Half, const V: usize>(
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
            // Four chains hide the latency of a multiply-add.
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
