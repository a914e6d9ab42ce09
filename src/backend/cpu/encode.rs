//! Twin of `shaders/encode.wgsl`: a block of neurons of one head fires, and meets its rows of the state.

use super::dense::tile_product;
use super::simd::{Isa, Kernel, LANES, Level};
use super::weights::{Half, TILE};
use crate::backend::memory::WINDOW;
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

/// A block of neurons of one sequence as it stands in memory.
pub struct BlockMemory<'a> {
    /// Rows of the state, `[block][row]`.
    pub state: &'a mut [f32],
    /// The window's rotated activations, `[block][WINDOW]`.
    pub rotated: &'a mut [f32],
    /// The window's residuals, `[WINDOW][row]`.
    pub recent: &'a [f32],
}

/// Rotates a block, lets a share of its window enter the state, reads the state's rows of its active pairs and
/// what else is in the window (y), and leaves its own rotated activations there (see [`crate::backend::memory`]).
pub struct Attend<'a> {
    /// Activations, `[block]`.
    pub u: &'a [f32],
    /// Cosines, `[block]`.
    pub cosines: &'a [f32],
    /// Sines, `[block]`.
    pub sines: &'a [f32],
    /// Position of the token.
    pub position: u32,
    /// Factor on q where the state is read.
    pub read_scale: f32,
    /// The past.
    pub memory: BlockMemory<'a>,
    /// Whether the state comes from memory rather than from a cache.
    pub streams: bool,
    /// Attention output of this block, `[row]`.
    pub y: &'a mut [f32],
    /// Scratch: the active pairs, capacity block / 2.
    pub pairs: &'a mut Vec<ActivePair>,
}

/// Pairs ahead of their use at which their rows are asked for.
const AHEAD: usize = 2;

impl Kernel for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let row = self.y.len();
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
        let BlockMemory { state, rotated, recent } = self.memory;
        let turn = self.position as usize % WINDOW;
        for pair in (turn..u.len()).step_by(WINDOW) {
            settle_pair(isa, pair, state, rotated, recent, row);
        }

        let (lines, _) = state.as_chunks::<LANES>();
        read_rows(isa, self.pairs, lines, self.streams, self.y);

        let (window, _) = rotated.as_chunks_mut::<WINDOW>();
        let mut scores = isa.splat(0.0);
        for pair in self.pairs.iter() {
            let [first, second] = pair_of(window, pair);
            let sum = isa.mul_add(isa.splat(pair.q[0]), isa.load(first), scores);
            scores = isa.mul_add(isa.splat(pair.q[1]), isa.load(second), sum);
            first[turn] = pair.q[0];
            second[turn] = pair.q[1];
        }
        let mut weights = [0.0; WINDOW];
        isa.store(scores, &mut weights);
        let (y, _) = self.y.as_chunks_mut::<LANES>();
        for (&weight, x) in weights.iter().zip(recent.chunks_exact(row)).filter(|(weight, _)| **weight != 0.0) {
            let (x, _) = x.as_chunks::<LANES>();
            for (y, x) in y.iter_mut().zip(x) {
                isa.store(isa.mul_add(isa.splat(weight), isa.load(x), isa.load(y)), y);
            }
        }
        for y in y.as_flattened_mut() {
            *y *= self.read_scale;
        }
    }
}

/// A pair's two entries of the window.
#[inline(always)]
fn pair_of<'a>(window: &'a mut [[f32; WINDOW]], pair: &ActivePair) -> &'a mut [[f32; WINDOW]; 2] {
    window[pair.first as usize..].first_chunk_mut().expect("two neurons")
}

/// y ← Σ q · state over the active pairs of a block.
///
/// `lines` are the block's rows of the state; they are asked for ahead of time where `streams` is set.
#[inline(always)]
pub fn read_rows<I: Isa>(isa: I, pairs: &[ActivePair], lines: &[[f32; LANES]], streams: bool, y: &mut [f32]) {
    let (y, _) = y.as_chunks_mut::<LANES>();
    let row = y.len();
    let mut at = 0;
    while at < row {
        let count = (row - at).min(I::ACCUMULATORS);
        let count = 1 << count.ilog2();
        let out = &mut y[at..at + count];
        match count {
            16 => read_columns::<I, 16>(isa, pairs, lines, row, at, streams, out),
            8 => read_columns::<I, 8>(isa, pairs, lines, row, at, streams, out),
            4 => read_columns::<I, 4>(isa, pairs, lines, row, at, streams, out),
            2 => read_columns::<I, 2>(isa, pairs, lines, row, at, streams, out),
            _ => read_columns::<I, 1>(isa, pairs, lines, row, at, streams, out),
        }
        at += count;
    }
}

/// [`read_rows`] for the `V` vectors of columns from `at` on, which stay in registers.
#[inline(always)]
fn read_columns<I: Isa, const V: usize>(
    isa: I,
    pairs: &[ActivePair],
    lines: &[[f32; LANES]],
    row: usize,
    at: usize,
    streams: bool,
    y: &mut [[f32; LANES]],
) {
    let columns = |neuron: usize| lines[neuron * row + at..].first_chunk::<V>().expect("a row of the state");
    let mut sums = [isa.splat(0.0); V];
    for (i, pair) in pairs.iter().enumerate() {
        let neuron = pair.first as usize;
        if streams && let Some(later) = pairs.get(i + AHEAD) {
            let later = later.first as usize;
            columns(later).iter().chain(columns(later + 1)).for_each(|line| isa.prefetch(line));
        }
        let (first, second) = (columns(neuron), columns(neuron + 1));
        let (q0, q1) = (isa.splat(pair.q[0]), isa.splat(pair.q[1]));
        for v in 0..V {
            sums[v] = isa.mul_add(q1, isa.load(&second[v]), isa.mul_add(q0, isa.load(&first[v]), sums[v]));
        }
    }
    for (sum, y) in sums.into_iter().zip(y) {
        isa.store(sum, y);
    }
}

/// A block's window enters its rows of the state and is empty afterwards.
pub struct Settle<'a> {
    /// The past.
    pub memory: BlockMemory<'a>,
    /// Length of a row.
    pub row: usize,
}

impl Kernel for Settle<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let BlockMemory { state, rotated, recent } = self.memory;
        for pair in 0..rotated.len() / (2 * WINDOW) {
            settle_pair(isa, pair, state, rotated, recent, self.row);
        }
    }
}

/// ρ[i, :] ← ρ[i, :] + Σ_w q_w[i] x_w for both neurons of a pair, whose window is empty afterwards.
#[inline(always)]
fn settle_pair<I: Isa>(isa: I, pair: usize, state: &mut [f32], rotated: &mut [f32], recent: &[f32], row: usize) {
    const V: usize = 4;
    let (window, _) = rotated[2 * pair * WINDOW..].as_chunks_mut::<WINDOW>();
    let [q0, q1] = window.first_chunk_mut::<2>().expect("a pair of neurons");
    if q0.iter().chain(q1.iter()).all(|&q| q == 0.0) {
        return;
    }
    let (first, second) = state[2 * pair * row..][..2 * row].split_at_mut(row);
    let (first, _) = first.as_chunks_mut::<LANES>();
    let (second, _) = second.as_chunks_mut::<LANES>();
    let (recent, _) = recent.as_chunks::<LANES>();
    let vectors = row / LANES;
    let mut at = 0;
    while at + V <= vectors {
        settle_columns::<I, V>(isa, [q0, q1], &mut first[at..], &mut second[at..], &recent[at..], vectors);
        at += V;
    }
    while at < vectors {
        settle_columns::<I, 1>(isa, [q0, q1], &mut first[at..], &mut second[at..], &recent[at..], vectors);
        at += 1;
    }
    q0.fill(0.0);
    q1.fill(0.0);
}

/// [`settle_pair`] for the first `V` vectors of columns; `recent` goes on by `stride` vectors per token.
#[inline(always)]
fn settle_columns<I: Isa, const V: usize>(
    isa: I,
    q: [&[f32; WINDOW]; 2],
    first: &mut [[f32; LANES]],
    second: &mut [[f32; LANES]],
    recent: &[[f32; LANES]],
    stride: usize,
) {
    let first = first.first_chunk_mut::<V>().expect("columns of a row");
    let second = second.first_chunk_mut::<V>().expect("columns of a row");
    let mut sums = [[isa.splat(0.0); V]; 2];
    for v in 0..V {
        sums[0][v] = isa.load(&first[v]);
        sums[1][v] = isa.load(&second[v]);
    }
    for w in 0..WINDOW {
        let x = recent[w * stride..].first_chunk::<V>().expect("a token of the window");
        let (q0, q1) = (isa.splat(q[0][w]), isa.splat(q[1][w]));
        for v in 0..V {
            let x = isa.load(&x[v]);
            sums[0][v] = isa.mul_add(q0, x, sums[0][v]);
            sums[1][v] = isa.mul_add(q1, x, sums[1][v]);
        }
    }
    for v in 0..V {
        isa.store(sums[0][v], &mut first[v]);
        isa.store(sums[1][v], &mut second[v]);
    }
}

const _: () = assert!(WINDOW == LANES, "a window's scores are one vector");
