//! Twin of `shaders/shared/rotary.wgsl`: rotary phases, and the rotation of neuron pairs.

use super::simd::{Isa, Kernel};
use crate::model::rotary;

/// Cosines and sines of one position for a range of neurons.
pub struct Phases<'a> {
    /// Fixed-point frequencies of the neurons, in turns per position.
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

/// q ← rotary(u), pair by pair; all slices have the same length.
#[inline(always)]
pub fn rotate(u: &[f32], cosines: &[f32], sines: &[f32], q: &mut [f32]) {
    let (u, _) = u.as_chunks::<2>();
    let (cosines, _) = cosines.as_chunks::<2>();
    let (sines, _) = sines.as_chunks::<2>();
    let (q, _) = q.as_chunks_mut::<2>();
    for (((u, c), s), q) in u.iter().zip(cosines).zip(sines).zip(q.iter_mut()) {
        *q = [u[0] * c[0] - u[1] * s[0], u[1] * c[1] + u[0] * s[1]];
    }
}
