//! Twin of `shaders/decode/project.wgsl`: attention output to gated neurons to decoder output, for
//! a block of neurons.

use crate::backend::cpu::rows::{RowList, scale_weights, weighted_sum};
use crate::backend::cpu::simd::{Isa, Kernel, LANES, Reuse};
use crate::backend::cpu::weights::Weight;

/// update ← Σ_i g_i · decoder_i over a block, with z_i = relu(y · encoder_v_i) and g_i = u_i · z_i.
///
/// Only rows of encoder_v with u > 0 and rows of the decoder with g > 0 are loaded.
pub struct Project<'a, E> {
    /// Activations u, `[block]`; holds the gates g afterwards.
    pub u: &'a mut [f32],
    /// Attention output of the head after its layer norm, `[row]`.
    pub y: &'a [f32],
    /// The block's rows of encoder_v, `[block][row]`.
    pub encoder_v: &'a [E],
    /// The block's rows of the decoder, `[block][row]`.
    pub decoder: &'a [E],
    /// The block's scales of both, `[block]` each; none without scales.
    pub scales: [&'a [f32]; 2],
    /// The block's share of the decoder output, `[row]`.
    pub update: &'a mut [f32],
    /// Whether to prefetch the weights' rows.
    pub prefetch: bool,
    /// Scratch.
    pub list: &'a mut RowList,
}

impl<E: Weight> Kernel for Project<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (list, u) = (self.list, self.u);
        let (vectors, _) = u.as_chunks::<LANES>();
        list.fill(isa, vectors.iter().map(|u| (*u, isa.nonzero(isa.load(u)))));
        let (decoder, _) = self.decoder.as_chunks::<LANES>();
        let [scales, decoder_scales] = self.scales;
        gate(isa, u, list, self.y, (self.encoder_v, scales), self.prefetch);
        if E::SCALED {
            scale_weights(list, decoder_scales);
        }
        if self.prefetch {
            list.iter()
                .take(E::AHEAD * isa.prefetch_distance())
                .for_each(|item| prefetch_row(isa, decoder, item.row, self.y.len() / LANES));
        }
        self.update.fill(0.0);
        weighted_sum(isa, list, decoder, self.prefetch, self.update);
    }
}

/// g ← u · relu(y · encoder_v) for the neurons in `list`, which comes with u as weights. Keeps the
/// neurons with g ≠ 0, with g as weights. `prefetch` prefetches rows of encoder_v.
#[inline(always)]
fn gate<I: Isa, E: Weight>(
    isa: I,
    gates: &mut [f32],
    list: &mut RowList,
    y: &[f32],
    (encoder_v, scales): (&[E], &[f32]),
    prefetch: bool,
) {
    let (y, _) = y.as_chunks::<LANES>();
    let (values, _) = encoder_v.as_chunks::<LANES>();
    let items = &mut list[..];
    let mut open = 0;
    for i in 0..items.len() {
        if prefetch && let Some(later) = items.get(i + E::AHEAD * isa.prefetch_distance()) {
            prefetch_row(isa, values, later.row, y.len());
        }
        let mut item = items[i];
        let z = dot(isa, &values[item.row as usize * y.len()..][..y.len()], y);
        let z = if E::SCALED { z * scales[item.row as usize] } else { z };
        item.weight *= if z < 0.0 { 0.0 } else { z };
        gates[item.row as usize] = item.weight;
        items[open] = item;
        open += usize::from(item.weight != 0.0);
    }
    list.truncate(open);
}

/// Prefetches a row of `length` vectors.
#[inline(always)]
fn prefetch_row<I: Isa, E: Weight>(isa: I, rows: &[[E; LANES]], row: u32, length: usize) {
    // Two vectors of halves share a cache line.
    let step = size_of::<[f32; LANES]>() / size_of::<[E; LANES]>();
    rows[row as usize * length..][..length].iter().step_by(step).for_each(|vector| isa.prefetch(vector, Reuse::Late));
}

/// Dot product of two rows.
#[inline(always)]
fn dot<I: Isa, E: Weight>(isa: I, values: &[[E; LANES]], y: &[[f32; LANES]]) -> f32 {
    // Independent sums hide the latency of a multiply-add.
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
