//! Twin of `shaders/decode/attend.wgsl`: attention of a block of neurons to the state and the
//! window.

use super::settle::settle_pair;
use crate::backend::cpu::rows::{CACHE_LINE, Weighted, scale_weights, weighted_sum};
use crate::backend::cpu::simd::{Isa, Kernel, LANES, Reuse};
use crate::backend::cpu::state::{RowsOf, StateNumber};
use crate::backend::memory::WINDOW;

/// One layer's memory of a block of neurons and one sequence.
pub struct BlockMemory<'a, T> {
    /// Rows of the state, `[block][row]`.
    pub state: RowsOf<'a, T>,
    /// The window's rotated activations, `[block][WINDOW]`.
    pub rotated: &'a mut [f32],
    /// The window's residuals, `[WINDOW][row]`.
    pub recent: &'a [f32],
}

/// Settles the block's pairs that are due at this position, computes y from the state's rows of the
/// active pairs and from the window, and puts the token's q into the window (see
/// [`crate::backend::memory`]):
///
/// y ← read_scale (q · ρ + Σ_w (q · q_w) x_w).
pub struct Attend<'a, T> {
    /// q of the active pairs, from [`Rotate`](super::encode::Rotate); scaled like the rows
    /// afterwards.
    pub list: &'a mut [Weighted],
    /// Position of the token.
    pub position: u32,
    /// Forgetting: factor on y.
    pub read_scale: f32,
    /// The block's memory.
    pub memory: BlockMemory<'a, T>,
    /// Whether to prefetch the window and the state's rows.
    pub prefetch: bool,
    /// Attention output of this block, `[row]`.
    pub y: &'a mut [f32],
    /// Scratch, `[2][row]`.
    pub scratch: &'a mut [f32],
}

impl<T: StateNumber> Kernel for Attend<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let row = self.y.len();
        let BlockMemory { mut state, rotated, recent } = self.memory;
        let window_slot = self.position as usize % WINDOW;
        if self.prefetch {
            // These lines arrive while the pairs below settle.
            self.list.iter().for_each(|item| isa.prefetch(&rotated[item.row as usize * WINDOW], Reuse::Late));
        }
        for pair in (window_slot..rotated.len() / (2 * WINDOW)).step_by(WINDOW) {
            if self.prefetch
                && let Some(next) = state.numbers.get((pair + WINDOW) * 2 * row..)
            {
                let lines = next.iter().take(2 * row).step_by(CACHE_LINE / size_of::<T>());
                lines.for_each(|line| isa.prefetch(line, Reuse::Late));
            }
            settle_pair(isa, pair, &mut state, rotated, recent, self.scratch);
        }

        let (window, _) = rotated.as_chunks_mut::<WINDOW>();
        let (pairs, _) = self.list.as_chunks::<2>();
        let mut scores = [isa.splat(0.0); 2];
        for pair in pairs {
            for (score, item) in scores.iter_mut().zip(pair) {
                let entries = &mut window[item.row as usize];
                *score = isa.mul_add(isa.splat(item.weight), isa.load(entries), *score);
                entries[window_slot] = item.weight;
            }
        }

        if T::SCALED {
            scale_weights(self.list, state.scales);
        }
        let (lines, _) = state.numbers.as_chunks::<LANES>();
        self.y.fill(0.0);
        weighted_sum(isa, self.list, lines, self.prefetch, self.y);

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

const _: () = assert!(WINDOW == LANES, "a window's scores are one vector");
