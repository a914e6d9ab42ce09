//! Twin of `shaders/project.wgsl`: attention output through the gated neurons of a block, back to the
//! residual width.

use super::simd::{Isa, Kernel, LANES};
use super::weights::Half;

/// update ← Σ_i g_i · decoder_i over a block, with z_i = relu(y · encoder_v_i) and g_i = u_i · z_i.
///
/// Rows of encoder_v are read only where u > 0, rows of the decoder only where g > 0.
pub struct Project<'a, E> {
    /// Activations u, `[block]`; holds the gates g afterwards.
    pub u: &'a mut [f32],
    /// Attention output of the head after its layer norm, `[row]`.
    pub y: &'a [f32],
    /// The block's rows of encoder_v, `[block][row]`.
    pub encoder_v: &'a [E],
    /// The block's rows of the decoder, `[block][row]`.
    pub decoder: &'a [E],
    /// The block's share of the decoder output, `[row]`.
    pub update: &'a mut [f32],
}

impl<E: Half> Kernel for Project<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let row = self.y.len();
        self.update.fill(0.0);
        let (y, _) = self.y.as_chunks::<LANES>();
        let (update, _) = self.update.as_chunks_mut::<LANES>();
        let rows = self.encoder_v.chunks_exact(row).zip(self.decoder.chunks_exact(row));
        for (u, (value, decoder)) in self.u.iter_mut().zip(rows) {
            if *u == 0.0 {
                continue;
            }
            let (value, _) = value.as_chunks::<LANES>();
            let mut sums = [isa.splat(0.0); 2];
            for (i, (value, y)) in value.iter().zip(y).enumerate() {
                sums[i % 2] = isa.mul_add(E::load(isa, value), isa.load(y), sums[i % 2]);
            }
            let z = isa.sum(isa.add(sums[0], sums[1]));
            if z <= 0.0 {
                *u = 0.0;
                continue;
            }
            *u *= z;
            let g = isa.splat(*u);
            let (decoder, _) = decoder.as_chunks::<LANES>();
            for (update, decoder) in update.iter_mut().zip(decoder) {
                isa.store(isa.mul_add(g, E::load(isa, decoder), isa.load(update)), update);
            }
        }
    }
}
