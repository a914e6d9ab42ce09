//! Twin of `shaders/beam/attend.wgsl`: attention of a block of neurons to the base state and a
//! path.

use super::nodes::Nodes;
use crate::backend::beams::PathEntry;
use crate::backend::cpu::rows::{RowList, scale_weights, weighted_sum};
use crate::backend::cpu::simd::{Isa, Kernel, LANES};
use crate::backend::cpu::weights::Vectors;

/// y ← read_scale q · state + Σ weight_a (q · q_a) x_a over a path, for the neurons of one block.
pub struct Attend<'a, T> {
    /// x of the nodes.
    pub x: &'a Nodes,
    /// q of the nodes, for the block's neurons.
    pub q: &'a Nodes,
    /// Layer.
    pub layer: usize,
    /// The node that attends.
    pub node: usize,
    /// The path that it attends to.
    pub path: &'a [PathEntry],
    /// The block's rows of the base state, `[block][row]`.
    pub state: &'a [T],
    /// The rows' scales, `[block]`; empty for floats.
    pub scales: &'a [f32],
    /// Forgetting: factor on q · state.
    pub read_scale: f32,
    /// Attention output of this block, `[row]`.
    pub y: &'a mut [f32],
    /// Scratch.
    pub list: &'a mut RowList,
}

impl<T: Vectors> Kernel for Attend<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (q, _) = self.q.get(self.node, self.layer).as_chunks::<LANES>();
        self.list.fill(isa, q.iter().map(|q| (*q, isa.nonzero(isa.load(q)))));
        if !self.scales.is_empty() {
            scale_weights(self.list, self.scales);
        }
        let (lines, _) = self.state.as_chunks::<LANES>();
        self.y.fill(0.0);
        weighted_sum(isa, self.list, lines, true, self.y);
        let (y, _) = self.y.as_chunks_mut::<LANES>();
        for y in y.iter_mut().flatten() {
            *y *= self.read_scale;
        }
        for entry in self.path {
            let (other, _) = self.q.get(entry.node, self.layer).as_chunks::<LANES>();
            let mut sums = [isa.splat(0.0); 2];
            for (i, (q, other)) in q.iter().zip(other).enumerate() {
                sums[i % 2] = isa.mul_add(isa.load(q), isa.load(other), sums[i % 2]);
            }
            let score = isa.splat(isa.sum(isa.add(sums[0], sums[1])) * entry.weight);
            let (x, _) = self.x.get(entry.node, self.layer).as_chunks::<LANES>();
            for (y, x) in y.iter_mut().zip(x) {
                isa.store(isa.mul_add(score, isa.load(x), isa.load(y)), y);
            }
        }
    }
}
