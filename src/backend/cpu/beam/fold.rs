//! Twin of `shaders/beam/fold.wgsl`: folds a node into the base state.

use crate::backend::cpu::simd::{Isa, Kernel, LANES};

/// state ← state + write_scale q ⊗ x, with the same rounding as a decoded token.
pub struct Fold<'a> {
    /// Rotated activations of some neurons.
    pub q: &'a [f32],
    /// Residual stream, `[row]`.
    pub x: &'a [f32],
    /// Forgetting: factor on x.
    pub write_scale: f32,
    /// The neurons' rows of the state.
    pub state: &'a mut [f32],
    /// Scratch, `[row]`.
    pub scaled_x: &'a mut [f32],
}

impl Kernel for Fold<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for (to, &x) in self.scaled_x.iter_mut().zip(self.x) {
            *to = x * self.write_scale;
        }
        let (x, _) = self.scaled_x.as_chunks::<LANES>();
        for (&q, row) in self.q.iter().zip(self.state.chunks_exact_mut(self.x.len())) {
            if q == 0.0 {
                continue;
            }
            let (row, _) = row.as_chunks_mut::<LANES>();
            for (row, x) in row.iter_mut().zip(x) {
                isa.store(isa.mul_add(isa.splat(q), isa.load(x), isa.load(row)), row);
            }
        }
    }
}
