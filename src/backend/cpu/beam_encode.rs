//! Twin of `shaders/beam_encode.wgsl`: a block of neurons fires (see [`super::encode::activate`]), and its
//! token becomes a node.

use super::simd::{Isa, Kernel};

/// q ← rotary(u) for every neuron of a block.
pub struct RotateAll<'a> {
    /// Activations, `[block]`.
    pub u: &'a [f32],
    /// Cosines, `[block]`.
    pub cosines: &'a [f32],
    /// Sines, `[block]`.
    pub sines: &'a [f32],
    /// Rotated activations, `[block]`.
    pub q: &'a mut [f32],
}

impl Kernel for RotateAll<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let (u, _) = self.u.as_chunks::<2>();
        let (cosines, _) = self.cosines.as_chunks::<2>();
        let (sines, _) = self.sines.as_chunks::<2>();
        let (q, _) = self.q.as_chunks_mut::<2>();
        for (((u, c), s), q) in u.iter().zip(cosines).zip(sines).zip(q) {
            *q = [u[0] * c[0] - u[1] * s[0], u[1] * c[1] + u[0] * s[1]];
        }
    }
}

/// What one thread keeps of the nodes: q of its own neurons, and x, in every layer.
#[derive(Default)]
pub struct OwnNodes {
    neurons: usize,
    row: usize,
    layers: usize,
    /// Each `[layers][neurons + row]`.
    nodes: Vec<Vec<f32>>,
}

impl OwnNodes {
    /// No nodes yet, for a thread with `neurons` neurons.
    pub fn new(layers: usize, neurons: usize, row: usize) -> Self {
        Self { neurons, row, layers, nodes: Vec::new() }
    }

    /// Makes room for a node.
    pub fn make_room(&mut self, node: usize) {
        while self.nodes.len() <= node {
            self.nodes.push(vec![0.0; self.layers * (self.neurons + self.row)]);
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        4 * (self.nodes.len() * self.layers * (self.neurons + self.row)) as u64
    }

    /// q `[neurons]` and x `[row]` of a node in a layer.
    pub fn get(&self, node: usize, layer: usize) -> (&[f32], &[f32]) {
        self.nodes[node][layer * (self.neurons + self.row)..][..self.neurons + self.row].split_at(self.neurons)
    }

    /// As [`OwnNodes::get`], to write.
    pub fn get_mut(&mut self, node: usize, layer: usize) -> (&mut [f32], &mut [f32]) {
        let part = &mut self.nodes[node][layer * (self.neurons + self.row)..][..self.neurons + self.row];
        part.split_at_mut(self.neurons)
    }
}
