//! Twin of `shaders/beam/encode.wgsl`: after [`activate`], rotates a block's activations for a
//! node.
//!
//! [`activate`]: crate::backend::cpu::decode::encode::activate

use crate::backend::cpu::rotary::rotate;
use crate::backend::cpu::simd::{Isa, Kernel};

/// q ← rotary(u) for every neuron of a block.
pub struct RotateAll<'a> {
    /// Activations, `[block]`.
    pub u: &'a [f32],
    /// Cosines, `[block]`.
    pub cosines: &'a [f32],
    /// Sines, `[block]`.
    pub sines: &'a [f32],
    /// Rotated activations, `[block]`.
    pub q: &'a mut [f32],
}

impl Kernel for RotateAll<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        rotate(self.u, self.cosines, self.sines, self.q);
    }
}
