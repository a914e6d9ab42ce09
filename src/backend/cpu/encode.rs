//! Twin of `shaders/encode.wgsl`: a block of neurons of one head fires, and meets its memory.

use super::dense::{Tile, tile_product};
use super::rows::{RowList, Weighted, weighted_sum};
use super::simd::{Isa, Kernel, LANES, Level, Reuse};
use super::weights::{Half, TILE};
use crate::backend::memory::WINDOW;
use crate::model::rotary;

/// u ← relu(x · encoder) for a block of neurons and several sequences.
///
/// `tiles` are the block's; `x` `[S][row]`; `u` `[S][stride]`, of which the block's numbers start at `offset`. Sequences
/// outside `active` are left alone.
#[expect(clippy::too_many_arguments, reason = "the kernel's bindings, one by one")]
pub fn activate<'a, E: Half>(
    level: Level,
    tiles: impl Iterator<Item = Tile<'a, E>>,
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

/// q ← rotary(u) for a block, and a list of the neurons of its active pairs.
pub struct Rotate<'a> {
    /// Activations, `[block]`.
    pub u: &'a [f32],
    /// Cosines, `[block]`.
    pub cosines: &'a [f32],
    /// Sines, `[block]`.
    pub sines: &'a [f32],
    /// The neurons of all pairs in which at least one is active, with their q.
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

/// The bits of both neurons of every pair in which at least one has its bit set.
#[inline(always)]
pub fn pairs(neurons: u32) -> u32 {
    let even = (neurons | neurons >> 1) & 0x5555_5555;
    even | even << 1
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

/// Lets a share of a block's window enter the state, reads the state's rows of the active pairs and what else is in
/// the window (y), and leaves the token's own q there (see [`crate::backend::memory`]).
pub struct Attend<'a> {
    /// What [`Rotate`] listed.
    pub list: &'a [Weighted],
    /// Position of the token.
    pub position: u32,
    /// Factor on q where the state is read.
    pub read_scale: f32,
    /// The past.
    pub memory: BlockMemory<'a>,
    /// Whether the window and the state's rows have to be asked for ahead of time.
    pub ahead: bool,
    /// Attention output of this block, `[row]`.
    pub y: &'a mut [f32],
}

impl Kernel for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let row = self.y.len();
        let BlockMemory { state, rotated, recent } = self.memory;
        let turn = self.position as usize % WINDOW;
        if self.ahead {
            // By the time that the pairs of this turn have settled, these lines are there.
            self.list.iter().for_each(|item| isa.prefetch(&rotated[item.row as usize * WINDOW], Reuse::Late));
        }
        for pair in (turn..rotated.len() / (2 * WINDOW)).step_by(WINDOW) {
            if self.ahead
                && let Some(next) = state.get((pair + WINDOW) * 2 * row..)
            {
                next.iter().take(2 * row).step_by(LANES).for_each(|line| isa.prefetch(line, Reuse::Late));
            }
            settle_pair(isa, pair, state, rotated, recent, row);
        }

        let (window, _) = rotated.as_chunks_mut::<WINDOW>();
        let (pairs, _) = self.list.as_chunks::<2>();
        let mut scores = [isa.splat(0.0); 2];
        for pair in pairs {
            for (score, item) in scores.iter_mut().zip(pair) {
                let entries = &mut window[item.row as usize];
                *score = isa.mul_add(isa.splat(item.weight), isa.load(entries), *score);
                entries[turn] = item.weight;
            }
        }

        let (lines, _) = state.as_chunks::<LANES>();
        self.y.fill(0.0);
        weighted_sum(isa, self.list, lines, self.ahead, self.y);

        let mut weights = [0.0; WINDOW];
        isa.store(isa.add(scores[0], scores[1]), &mut weights);
        let (y, _) = self.y.as_chunks_mut::<LANES>();
        for (&weight, x) in weights.iter().zip(recent.chunks_exact(row)) {
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
