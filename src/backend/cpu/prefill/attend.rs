//! Twin of `shaders/prefill/attend.wgsl`: attention to the earlier tokens of the chunk.

use super::layout::padded_tokens;
use crate::backend::cpu::rows::{Weighted, weighted_sum};
use crate::backend::cpu::simd::{Isa, Kernel, LANES};

/// y[t] ← read_scale[t] (y[t] + Σ_{s<t} scores[t][s] scaled_x[s]) for all tokens t of a chunk.
pub struct Attend<'a> {
    /// q · q of all pairs of tokens, `[T][T padded]`.
    pub scores: &'a [f32],
    /// Residuals times their write scale, `[T][row]`.
    pub scaled_x: &'a [f32],
    /// Forgetting: factors on y, `[T]`.
    pub read_scales: &'a [f32],
    /// q · state on entry, attention output on return, `[T][row]`.
    pub y: &'a mut [f32],
    /// Scratch.
    pub list: &'a mut Vec<Weighted>,
}

impl Kernel for Attend<'_> {
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
