//! Twin of `shaders/decode/embed.wgsl`: embeds a token or finishes the previous layer.

use crate::backend::cpu::gather::accumulate;
use crate::backend::cpu::norm::layer_norm;
use crate::backend::cpu::simd::{Isa, Kernel, LANES};
use crate::backend::cpu::weights::Weight;

/// x ← LN(embedding).
pub struct Embed<'a, E> {
    /// Embedding of the token, `[row]`.
    pub embedding: &'a [E],
    /// D.
    pub width: usize,
    /// Residual stream, `[row]`.
    pub x: &'a mut [f32],
}

impl<E: Weight> Kernel for Embed<'_, E> {
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

/// x ← LN(x + LN(update)): finishes a layer.
pub struct Finish<'a> {
    /// Residual stream, `[row]`.
    pub x: &'a mut [f32],
    /// Decoder output of the layer, `[row]`; overwritten.
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
