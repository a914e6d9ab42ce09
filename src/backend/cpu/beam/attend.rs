//! Twin of `shaders/beam/attend.wgsl`: attention of a block of neurons to the base state and a
//! path.

use super::nodes::OwnNodes;
use crate::backend::beams::PathEntry;
use crate::backend::cpu::rows::{RowList, weighted_sum};
use crate::backend::cpu::simd::{Isa, Kernel, LANES};

/// y ← read_scale q · state + Σ weight_a (q · q_a) x_a over a path, for the neurons of one block.
pub struct Attend<'a> {
    /// The thread's nodes.
    pub nodes: &'a OwnNodes,
    /// Layer.
    pub layer: usize,
    /// The node that attends.
    pub node: usize,
    /// The path that it attends to.
    pub path: &'a [PathEntry],
    /// Index of the block's first neuron among the thread's own.
    pub first: usize,
    /// The block's rows of the base state, `[block][row]`.
    pub state: &'a [f32],
    /// Forgetting: factor on q · state.
    pub read_scale: f32,
    /// Attention output of this block, `[row]`.
    pub y: &'a mut [f32],
    /// Scratch.
    pub list: &'a mut RowList,
}

impl Kernel for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let row = self.y.len();
        let block = self.state.len() / row;
        let (q, _) = self.nodes.get(self.node, self.layer);
        let q = &q[self.first..][..block];
        let (q, _) = q.as_chunks::<LANES>();
        self.list.fill(isa, q.iter().map(|q| (*q, isa.nonzero(isa.load(q)))));
        let (lines, _) = self.state.as_chunks::<LANES>();
        self.y.fill(0.0);
        weighted_sum(isa, self.list, lines, true, self.y);
        let (y, _) = self.y.as_chunks_mut::<LANES>();
        for y in y.iter_mut().flatten() {
            *y *= self.read_scale;
        }
        for entry in self.path {
            let (other, x) = self.nodes.get(entry.node, self.layer);
            let (other, _) = other[self.first..][..block].as_chunks::<LANES>();
            let mut sums = [isa.splat(0.0); 2];
            for (i, (q, other)) in q.iter().zip(other).enumerate() {
                sums[i % 2] = isa.mul_add(isa.load(q), isa.load(other), sums[i % 2]);
            }
            let score = isa.splat(isa.sum(isa.add(sums[0], sums[1])) * entry.weight);
            let (x, _) = x.as_chunks::<LANES>();
            for (y, x) in y.iter_mut().zip(x) {
                isa.store(isa.mul_add(score, isa.load(x), isa.load(y)), y);
            }
        }
    }
}
