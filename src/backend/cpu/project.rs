//! Twin of `shaders/project.wgsl`: attention output through the gated neurons of a block, back to the
//! residual width.

use super::rows::{RowList, weighted_sum};
use super::simd::{Isa, Kernel, LANES, Reuse};
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
    pub list: &'a mut RowList,
}

impl<E: Half> Kernel for Project<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (list, u) = (self.list, self.u);
        let (vectors, _) = u.as_chunks::<LANES>();
        list.fill(isa, vectors.iter().map(|u| (*u, isa.nonzero(isa.load(u)))));
        let (decoder, _) = self.decoder.as_chunks::<LANES>();
        gate(isa, u, list, self.y, self.encoder_v, self.ahead);
        if self.ahead {
            list.iter().take(isa.rows_ahead()).for_each(|item| ask(isa, decoder, item.row, self.y.len() / LANES));
        }
        self.update.fill(0.0);
        weighted_sum(isa, list, decoder, self.ahead, self.update);
    }
}

/// g ← u · relu(y · encoder_v) for listed neurons, of which those with g ≠ 0 stay listed; their weight is u before and g
/// after. Asks for rows of encoder_v ahead of time where `ahead` is set.
#[inline(always)]
fn gate<I: Isa, E: Half>(isa: I, gates: &mut [f32], list: &mut RowList, y: &[f32], encoder_v: &[E], ahead: bool) {
    let (y, _) = y.as_chunks::<LANES>();
    let (values, _) = encoder_v.as_chunks::<LANES>();
    let items = &mut list[..];
    let mut open = 0;
    for i in 0..items.len() {
        if ahead && let Some(later) = items.get(i + isa.rows_ahead()) {
            ask(isa, values, later.row, y.len());
        }
        let mut item = items[i];
        let z = dot(isa, &values[item.row as usize * y.len()..][..y.len()], y);
        item.weight *= if z < 0.0 { 0.0 } else { z };
        gates[item.row as usize] = item.weight;
        items[open] = item;
        open += usize::from(item.weight != 0.0);
    }
    list.truncate(open);
}

/// Asks for a row of `length` vectors.
#[inline(always)]
fn ask<I: Isa, E: Half>(isa: I, rows: &[[E; LANES]], row: u32, length: usize) {
    // Two vectors of halves share a line.
    let step = size_of::<[f32; LANES]>() / size_of::<[E; LANES]>();
    rows[row as usize * length..][..length].iter().step_by(step).for_each(|vector| isa.prefetch(vector, Reuse::Late));
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
