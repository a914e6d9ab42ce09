//! Twin of `shaders/beam/fold.wgsl`: folds nodes into the base state.

use super::nodes::Nodes;
use crate::backend::beams::BeamFold;
use crate::backend::cpu::decode::rescale::rescale;
use crate::backend::cpu::simd::{Isa, Kernel, LANES};
use crate::backend::cpu::state::{RowsOf, StateNumber};

/// state ← state + write_scale_a q_a ⊗ x_a over some nodes, in order, for the neurons of one block.
/// A row is rounded once for all of them.
pub struct Fold<'a, T> {
    /// The nodes.
    pub folds: &'a [BeamFold],
    /// x of the nodes times their write scale, `[folds][row]`.
    pub scaled_x: &'a [f32],
    /// q of the nodes, for the block's neurons.
    pub q: &'a Nodes,
    /// Layer.
    pub layer: usize,
    /// The neurons' rows of the state.
    pub state: RowsOf<'a, T>,
    /// Scratch, `[row]`.
    pub scratch: &'a mut [f32],
}

impl<T: StateNumber> Kernel for Fold<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self { folds, scaled_x, q, layer, mut state, scratch } = self;
        let row = scratch.len();
        for neuron in 0..state.numbers.len() / row {
            if folds.iter().all(|fold| q.get(fold.node, layer)[neuron] == 0.0) {
                folds.iter().filter_map(|fold| fold.rescale).for_each(|factor| state.rescale_row(neuron, row, factor));
                continue;
            }
            state.load_row(isa, neuron, scratch);
            for (fold, x) in folds.iter().zip(scaled_x.chunks_exact(row)) {
                if let Some(factor) = fold.rescale {
                    rescale(scratch, factor);
                }
                let q = q.get(fold.node, layer)[neuron];
                if q != 0.0 {
                    add_scaled(isa, q, x, scratch);
                }
            }
            state.store_row(isa, neuron, scratch);
        }
    }
}

/// to ← to + q x, with the same rounding as a decoded token.
#[inline(always)]
fn add_scaled<I: Isa>(isa: I, q: f32, x: &[f32], to: &mut [f32]) {
    let (x, _) = x.as_chunks::<LANES>();
    let (to, _) = to.as_chunks_mut::<LANES>();
    for (to, x) in to.iter_mut().zip(x) {
        isa.store(isa.mul_add(isa.splat(q), isa.load(x), isa.load(to)), to);
    }
}
