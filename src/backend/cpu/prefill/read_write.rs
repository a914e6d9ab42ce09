//! Twin of `shaders/prefill/read.wgsl` and `shaders/prefill/write.wgsl`: a block of neurons reads
//! the state for all tokens of a chunk, and writes the tokens to it.

use super::layout::{Panel, padded_tokens, panels, transpose};
use super::scores::add_scores;
use crate::backend::cpu::rotary::rotate;
use crate::backend::cpu::rows::{RowList, Weighted};
use crate::backend::cpu::simd::{Isa, Kernel, LANES, Reuse};
use crate::backend::cpu::state::{RowsOf, StateNumber};

/// Neurons whose rows of the state stay in the second-level cache for all panels.
const NEURONS: usize = 128;

/// Scratch memory of [`Score`] and [`ReadWrite`].
#[derive(Default)]
pub struct Scratch {
    /// Rotated activations, `[T][block]`.
    q: Vec<f32>,
    /// The same, `[block][T padded]`.
    transposed: Vec<f32>,
    /// Active tokens of every pair, pair after pair: with q of the first neuron, and with q of the
    /// second.
    tokens: [RowList; 2],
    /// End of each pair's tokens in the lists.
    ends: Vec<usize>,
    /// Rows of the state as floats, `[NEURONS][row]`.
    rows: Vec<f32>,
}

/// Rotates a block's activations and multiplies them with each other, for all tokens of a chunk:
/// scores[t][s] += q[t] · q[s]. Leaves q in the scratch memory for [`ReadWrite`].
pub struct Score<'a> {
    /// Activations, `[T][stride]`; the first `block` numbers of each row.
    pub u: &'a [f32],
    /// Length of a row of `u`.
    pub stride: usize,
    /// Cosines and sines, `[T][phase_stride]`; the first `block` numbers of each row.
    pub phases: [&'a [f32]; 2],
    /// Length of a row of the phases.
    pub phase_stride: usize,
    /// Neurons of the block.
    pub block: usize,
    /// T.
    pub tokens: usize,
    /// q · q of all pairs of tokens, `[T][T padded]`; the kernel adds this block's share, complete
    /// for earlier tokens only.
    pub scores: &'a mut [f32],
    /// Scratch.
    pub scratch: &'a mut Scratch,
}

impl Kernel for Score<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (tokens, block) = (self.tokens, self.block);
        let padded = padded_tokens(tokens);
        let Scratch { q, transposed, .. } = self.scratch;
        q.resize(tokens * block, 0.0);
        transposed.resize(block * padded, 0.0);
        for t in 0..tokens {
            let u = &self.u[t * self.stride..][..block];
            let [cosines, sines] = self.phases.map(|table| &table[t * self.phase_stride..][..block]);
            rotate(u, cosines, sines, &mut q[t * block..][..block]);
        }
        transpose(isa, q, block, transposed, padded);
        add_scores(isa, q, transposed, block, padded, self.scores);
    }
}

/// Multiplies a block's rotated activations with the state, and then adds the chunk's tokens to it:
///
/// attention[t] += q[t] · ρ, ρ += Σ_t q[t] ⊗ scaled_x[t].
///
/// Each row of the state is loaded and stored once for all tokens.
pub struct ReadWrite<'a, T> {
    /// Residuals times their write scale, `[T][row]` in panels.
    pub scaled_x: &'a [f32],
    /// The block's rows of the state, `[block][row]`.
    pub state: RowsOf<'a, T>,
    /// Length of a row.
    pub row: usize,
    /// q · state of a unit's blocks, `[T][row]` in panels; the kernel adds this block's share.
    pub attention: &'a mut [f32],
    /// Scratch, with the q of [`Score`].
    pub scratch: &'a mut Scratch,
}

impl<T: StateNumber> Kernel for ReadWrite<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let (row, block) = (self.row, self.state.numbers.len() / self.row);
        let tokens = self.attention.len() / row;
        let padded = padded_tokens(tokens);
        let Scratch { transposed, tokens: lists, ends, rows, .. } = self.scratch;
        for first in (0..block).step_by(NEURONS) {
            let neurons = NEURONS.min(block - first);
            list_tokens(isa, &transposed[first * padded..][..neurons * padded], padded, lists, ends);
            let (state, later): (&mut [f32], &[f32]) = if T::SCALED {
                rows.resize(NEURONS * row, 0.0);
                load_rows(isa, &self.state, first, ends, &mut rows[..neurons * row]);
                (&mut rows[..neurons * row], &[])
            } else {
                let state: &mut [f32] = bytemuck::cast_slice_mut(&mut self.state.numbers[first * row..]);
                let (state, later) = state.split_at_mut(neurons * row);
                (state, later)
            };
            for Panel { at, vectors } in panels::<I>(row) {
                let range = at * LANES * tokens..(at + vectors) * LANES * tokens;
                let (x, attention) = (&self.scaled_x[range.clone()], &mut self.attention[range]);
                let mut start = 0;
                for (pair, &end) in ends.iter().enumerate() {
                    let lists = [0, 1].map(|k| &lists[k][start..end]);
                    start = end;
                    let rows = &mut state[2 * pair * row..][..2 * row];
                    // Rows of the next neurons, to prefetch.
                    let later = later.get(2 * pair * row..).unwrap_or_default();
                    match vectors {
                        4 => read_write_pair::<I, 4>(isa, lists, x, attention, rows, later, at),
                        _ => read_write_pair::<I, 1>(isa, lists, x, attention, rows, later, at),
                    }
                }
            }
            if T::SCALED {
                store_rows(isa, &mut self.state, first, lists, ends, &rows[..neurons * row]);
            }
        }
    }
}

/// Reads the rows of all pairs that are active in some token, as floats.
#[inline(always)]
fn load_rows<I: Isa, T: StateNumber>(isa: I, state: &RowsOf<'_, T>, first: usize, ends: &[usize], rows: &mut [f32]) {
    let (mut start, row) = (0, rows.len() / (2 * ends.len()));
    for (pair, (&end, rows)) in ends.iter().zip(rows.chunks_exact_mut(2 * row)).enumerate() {
        if end > start {
            for (k, to) in rows.chunks_exact_mut(row).enumerate() {
                state.load_row(isa, first + 2 * pair + k, to);
            }
        }
        start = end;
    }
}

/// The inverse of [`load_rows`]. Rows that no token enters keep their codes.
#[inline(always)]
fn store_rows<I: Isa, T: StateNumber>(
    isa: I,
    state: &mut RowsOf<'_, T>,
    first: usize,
    lists: &[RowList; 2],
    ends: &[usize],
    rows: &[f32],
) {
    let (mut start, row) = (0, rows.len() / (2 * ends.len()));
    for (pair, (&end, rows)) in ends.iter().zip(rows.chunks_exact(2 * row)).enumerate() {
        for (k, (from, list)) in rows.chunks_exact(row).zip(lists).enumerate() {
            if list[start..end].iter().any(|token| token.weight != 0.0) {
                state.store_row(isa, first + 2 * pair + k, from);
            }
        }
        start = end;
    }
}

/// Lists the tokens in which each pair of neurons is active, with their q. `transposed` is
/// `[neurons][padded]`.
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

/// Runs a pair's active tokens through both rows of the state, for the `V` vectors of columns from
/// `at` on: attention[t] += q[t][0] ρ[0, :] + q[t][1] ρ[1, :], then
/// ρ[i, :] += Σ_t q[t][i] x[t]. The rows and their sums stay in registers.
///
/// `x` and `attention` are panels `[T][V]`. Prefetches the same columns of two rows of `later`.
#[inline(always)]
fn read_write_pair<I: Isa, const V: usize>(
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
