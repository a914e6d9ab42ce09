//! Twin of `shaders/project.wgsl`: attention output through the gated neurons of a block, back to the
//! residual width.

use super::rows::{AHEAD, Weighted, drop_zeros, select, weighted_sum};
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
    /// Whether the weights have to be asked for ahead of time.
    pub ahead: bool,
    /// Scratch.
    pub list: &'a mut Vec<Weighted>,
}

impl<E: Half> Kernel for Project<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (list, u) = (self.list, self.u);
        let entry = |(i, &u): (usize, &f32)| ([Weighted { row: i as u32, weight: u }], u != 0.0);
        select(list, u.iter().enumerate().map(entry), Weighted::default());
        let (decoder, _) = self.decoder.as_chunks::<LANES>();
        gate(isa, list, self.y, self.encoder_v, if self.ahead { Some(decoder) } else { None });
        for item in list.iter() {
            u[item.row as usize] = item.weight;
        }
        drop_zeros(list);
        self.update.fill(0.0);
        weighted_sum(isa, list, decoder, false, self.update);
    }
}

/// g ← u · relu(y · encoder_v) for listed neurons, whose weight is u before and g after.
///
/// Where rows of the decoder are given, they and those of encoder_v are asked for ahead of time.
#[inline(always)]
pub fn gate<I: Isa, E: Half>(
    isa: I,
    list: &mut [Weighted],
    y: &[f32],
    encoder_v: &[E],
    decoder: Option<&[[E; LANES]]>,
) {
    let (y, _) = y.as_chunks::<LANES>();
    let (values, _) = encoder_v.as_chunks::<LANES>();
    let row = |index: u32| index as usize * y.len()..(index as usize + 1) * y.len();
    for i in 0..list.len() {
        if decoder.is_some()
            && let Some(later) = list.get(i + AHEAD)
        {
            // Two vectors of halves share a line.
            values[row(later.row)].iter().step_by(2).for_each(|line| isa.prefetch(line));
        }
        let item = &mut list[i];
        let z = dot(isa, &values[row(item.row)], y);
        item.weight *= if z < 0.0 { 0.0 } else { z };
        if let Some(decoder) = decoder.filter(|_| item.weight != 0.0) {
            decoder[row(item.row)].iter().step_by(2).for_each(|line| isa.prefetch(line));
        }
    }
}

/// Sum of the products of two rows.
#[inline(always)]
fn dot<I: Isa, E: Half>(isa: I, values: &[[E; LANES]], y: &[[f32; LANES]]) -> f32 {
    // Chains of sums, enough to hide the latency of a multiply-add.
    const CHAINS: usize = 4;
    let (values, last_values) = values.as_chunks::<CHAINS>();
    let (y, last_y) = y.as_chunks::<CHAINS>();
    let mut sums = [isa.splat(0.0); CHAINS];
    for (values, y) in values.iter().zip(y) {
        for k in 0..CHAINS {
            sums[k] = isa.mul_add(E::load(isa, &values[k]), isa.load(&y[k]), sums[k]);
        }
    }
    for (k, (value, y)) in last_values.iter().zip(last_y).enumerate() {
        sums[k] = isa.mul_add(E::load(isa, value), isa.load(y), sums[k]);
    }
    isa.sum(isa.add(isa.add(sums[0], sums[1]), isa.add(sums[2], sums[3])))
}
