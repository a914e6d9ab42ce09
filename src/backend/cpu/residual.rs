//! The residual stream: embedding, layer norms, and what a layer adds.

use super::simd::{Isa, Kernel, LANES};
use super::weights::Half;

/// Added to the variance in a layer norm.
const EPSILON: f32 = 1e-5;

/// LN(v) = (v − mean) / sqrt(var + 1e-5) over the first `width` numbers, in place; the padding is zeroed.
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

#[inline(always)]
fn layer_norm<I: Isa>(isa: I, v: &mut [f32], width: usize) {
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

/// x ← LN(embedding).
pub struct Embed<'a, E> {
    /// The token's row of the embedding, `[row]`.
    pub embedding: &'a [E],
    /// D.
    pub width: usize,
    /// Residual stream, `[row]`.
    pub x: &'a mut [f32],
}

impl<E: Half> Kernel for Embed<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (from, _) = self.embedding.as_chunks::<LANES>();
        let (to, _) = self.x.as_chunks_mut::<LANES>();
        for (to, from) in to.iter_mut().zip(from) {
            isa.store(E::load(isa, from), to);
        }
        layer_norm(isa, self.x, self.width);
    }
}

/// x ← LN(x + LN(update)): what a layer does last.
pub struct Finish<'a> {
    /// Residual stream, `[row]`.
    pub x: &'a mut [f32],
    /// The layer's decoder output, `[row]`; overwritten.
    pub update: &'a mut [f32],
    /// D.
    pub width: usize,
}

impl Kernel for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        layer_norm(isa, self.update, self.width);
        accumulate(isa, self.x, self.update);
        layer_norm(isa, self.x, self.width);
    }
}

/// to ← to + from.
pub struct Accumulate<'a> {
    /// `[row]`.
    pub to: &'a mut [f32],
    /// `[row]`.
    pub from: &'a [f32],
}

impl Kernel for Accumulate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        accumulate(isa, self.to, self.from);
    }
}

#[inline(always)]
fn accumulate<I: Isa>(isa: I, to: &mut [f32], from: &[f32]) {
    let (to, _) = to.as_chunks_mut::<LANES>();
    let (from, _) = from.as_chunks::<LANES>();
    for (to, from) in to.iter_mut().zip(from) {
        isa.store(isa.add(isa.load(to), isa.load(from)), to);
    }
}
