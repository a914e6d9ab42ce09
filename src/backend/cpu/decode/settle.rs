//! Twin of `shaders/decode/settle.wgsl`: the window enters the state.

use super::attend::BlockMemory;
use crate::backend::cpu::simd::{Isa, Kernel, LANES, register_tiles};
use crate::backend::cpu::state::{RowsOf, StateNumber};
use crate::backend::memory::WINDOW;

/// Settles all pairs of a block: the window enters the state and is empty afterwards.
pub struct Settle<'a, T> {
    /// The block's memory.
    pub memory: BlockMemory<'a, T>,
    /// Scratch, `[2][row]`.
    pub scratch: &'a mut [f32],
}

impl<T: StateNumber> Kernel for Settle<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let BlockMemory { mut state, rotated, recent } = self.memory;
        for pair in 0..rotated.len() / (2 * WINDOW) {
            settle_pair(isa, pair, &mut state, rotated, recent, self.scratch);
        }
    }
}

/// Settles a pair: ρ[i, :] ← ρ[i, :] + Σ_w q_w[i] x_w for both neurons, then q_w[i] ← 0. `rows` is
/// scratch, `[2][row]`.
#[inline(always)]
pub fn settle_pair<I: Isa, T: StateNumber>(
    isa: I,
    pair: usize,
    state: &mut RowsOf<'_, T>,
    rotated: &mut [f32],
    recent: &[f32],
    rows: &mut [f32],
) {
    let row = rows.len() / 2;
    let (window, _) = rotated[2 * pair * WINDOW..].as_chunks_mut::<WINDOW>();
    let [q0, q1] = window.first_chunk_mut::<2>().expect("a pair of neurons");
    let entered = [&*q0, &*q1].map(|q| q.iter().any(|&q| q != 0.0));
    if entered == [false; 2] {
        return;
    }
    if T::SCALED {
        let (first, second) = rows.split_at_mut(row);
        state.load_row(isa, 2 * pair, first);
        state.load_row(isa, 2 * pair + 1, second);
        add_window(isa, [q0, q1], [first, second], recent);
        // A row that the window leaves alone keeps its codes.
        if entered[0] {
            state.store_row(isa, 2 * pair, first);
        }
        if entered[1] {
            state.store_row(isa, 2 * pair + 1, second);
        }
    } else {
        let rows: &mut [f32] = bytemuck::cast_slice_mut(&mut state.numbers[2 * pair * row..][..2 * row]);
        add_window(isa, [q0, q1], rows.split_at_mut(row).into(), recent);
    }
    q0.fill(0.0);
    q1.fill(0.0);
}

/// Adds Σ_w q_w x_w to two rows.
#[inline(always)]
fn add_window<I: Isa>(isa: I, q: [&[f32; WINDOW]; 2], [first, second]: [&mut [f32]; 2], recent: &[f32]) {
    let vectors = first.len() / LANES;
    let (first, _) = first.as_chunks_mut::<LANES>();
    let (second, _) = second.as_chunks_mut::<LANES>();
    let (recent, _) = recent.as_chunks::<LANES>();
    register_tiles!(vectors, (I::ACCUMULATORS / 2).min(4), |at, V| {
        settle_columns::<I, V>(isa, q, &mut first[at..], &mut second[at..], &recent[at..], vectors)
    });
}

/// [`add_window`] for the first `V` vectors of columns; tokens of `recent` are `stride` vectors
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
