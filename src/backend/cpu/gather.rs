//! Twin of `shaders/shared/gather.wgsl`: adds partial sums.

use super::simd::{Isa, Kernel, LANES};

/// to ← to + from.
pub struct Accumulate<'a> {
    /// Sums, whole vectors.
    pub to: &'a mut [f32],
    /// Partial sums, as long as `to`.
    pub from: &'a [f32],
}

impl Kernel for Accumulate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        accumulate(isa, self.to, self.from);
    }
}

/// [`Accumulate`] inside another kernel.
#[inline(always)]
pub fn accumulate<I: Isa>(isa: I, to: &mut [f32], from: &[f32]) {
    let (to, _) = to.as_chunks_mut::<LANES>();
    let (from, _) = from.as_chunks::<LANES>();
    for (to, from) in to.iter_mut().zip(from) {
        isa.store(isa.add(isa.load(to), isa.load(from)), to);
    }
}
