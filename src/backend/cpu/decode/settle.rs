//! Twin of `shaders/decode/settle.wgsl`: the window enters the state.

use super::attend::BlockMemory;
use crate::backend::cpu::simd::{Isa, Kernel, LANES, register_tiles};
use crate::backend::memory::WINDOW;

/// Settles all pairs of a block: the window enters the state and is empty afterwards.
pub struct Settle<'a> {
    /// The block's memory.
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

/// Settles a pair: ρ[i, :] ← ρ[i, :] + Σ_w q_w[i] x_w for both neurons, then q_w[i] ← 0.
#[inline(always)]
pub fn settle_pair<I: Isa>(isa: I, pair: usize, state: &mut [f32], rotated: &mut [f32], recent: &[f32], row: usize) {
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
    register_tiles!(vectors, 4, |at, V| {
        settle_columns::<I, V>(isa, [q0, q1], &mut first[at..], &mut second[at..], &recent[at..], vectors)
    });
    q0.fill(0.0);
    q1.fill(0.0);
}

/// [`settle_pair`] for the first `V` vectors of columns; tokens of `recent` are `stride` vectors
/// apart.
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
