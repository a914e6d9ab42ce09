//! Tokens leave a sliding window.

use super::attend::BlockMemory;
use super::settle::settle_pair;
use crate::backend::cpu::rows::Weighted;
use crate::backend::cpu::simd::{Isa, Kernel, LANES};
use crate::backend::memory::WINDOW;

/// Subtracts what a token must not see any more from its attention, settles the pairs that are due at
/// this position, and lets another token leave. Runs after [`Attend`](super::attend::Attend).
///
/// y ← y − Σ_w (q · q_w) x_w over the tokens that left last.
pub struct Leave<'a> {
    /// q of the active pairs.
    pub list: &'a [Weighted],
    /// q of the active pairs of the token that leaves; empty if none does.
    pub leaving: &'a [Weighted],
    /// Position of the token.
    pub position: u32,
    /// The block's memory, with the window of the tokens that left last and their residuals, negated.
    pub memory: BlockMemory<'a, f32>,
    /// Attention output of this block, `[row]`.
    pub y: &'a mut [f32],
    /// Scratch, `[2][row]`.
    pub scratch: &'a mut [f32],
}

impl Kernel for Leave<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let row = self.y.len();
        let BlockMemory { mut state, rotated, recent } = self.memory;
        let (window, _) = rotated.as_chunks_mut::<WINDOW>();
        let mut scores = isa.splat(0.0);
        for item in self.list {
            scores = isa.mul_add(isa.splat(item.weight), isa.load(&window[item.row as usize]), scores);
        }
        let mut weights = [0.0; WINDOW];
        isa.store(scores, &mut weights);
        let (y, _) = self.y.as_chunks_mut::<LANES>();
        for (&weight, x) in weights.iter().zip(recent.chunks_exact(row)) {
            let (x, _) = x.as_chunks::<LANES>();
            for (y, x) in y.iter_mut().zip(x) {
                isa.store(isa.mul_add(isa.splat(weight), isa.load(x), isa.load(y)), y);
            }
        }
        // Entries of this position's index are settled by now: those of this residue here, the others
        // at the positions before.
        let window_slot = self.position as usize % WINDOW;
        for pair in (window_slot..rotated.len() / (2 * WINDOW)).step_by(WINDOW) {
            settle_pair(isa, pair, &mut state, rotated, recent, self.scratch);
        }
        let (window, _) = rotated.as_chunks_mut::<WINDOW>();
        for item in self.leaving {
            window[item.row as usize][window_slot] = item.weight;
        }
    }
}
