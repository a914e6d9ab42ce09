//! Twin of `shaders/shared/norm.wgsl`: layer norm.

use super::simd::{Isa, Kernel, LANES};

/// Added to the variance.
const EPSILON: f32 = 1e-5;

/// v ← LN(v) = (v − mean) / sqrt(var + 1e-5) over the first `width` numbers; zeroes the padding.
pub struct LayerNorm<'a> {
    /// `[row]`.
    pub v: &'a mut [f32],
    /// D.
    pub width: usize,
}

impl Kernel for LayerNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        layer_norm(isa, self.v, self.width);
    }
}

/// [`LayerNorm`] inside another kernel.
#[inline(always)]
pub fn layer_norm<I: Isa>(isa: I, v: &mut [f32], width: usize) {
    v[width..].fill(0.0);
    let (lines, _) = v.as_chunks_mut::<LANES>();
    let mut sum = isa.splat(0.0);
    for line in lines.iter() {
        sum = isa.add(sum, isa.load(line));
    }
    let mean = isa.sum(sum) / width as f32;
    for line in lines.iter_mut() {
        isa.store(isa.add(isa.load(line), isa.splat(-mean)), line);
    }
    v[width..].fill(0.0);
    let (lines, _) = v.as_chunks_mut::<LANES>();
    let mut squares = isa.splat(0.0);
    for line in lines.iter() {
        let centred = isa.load(line);
        squares = isa.mul_add(centred, centred, squares);
    }
    let scale = 1.0 / (isa.sum(squares) / width as f32 + EPSILON).sqrt();
    for line in lines.iter_mut() {
        isa.store(isa.mul_add(isa.load(line), isa.splat(scale), isa.splat(0.0)), line);
    }
}
