//! Nodes of the beam search: tokens on the beams' paths.

/// One thread's part of the nodes: in every layer, q of the thread's neurons, and x.
#[derive(Default)]
pub struct OwnNodes {
    neurons: usize,
    row: usize,
    layers: usize,
    /// Each `[layers][neurons + row]`.
    nodes: Vec<Vec<f32>>,
}

impl OwnNodes {
    /// No nodes, for a thread with `neurons` neurons.
    pub fn new(layers: usize, neurons: usize, row: usize) -> Self {
        Self { neurons, row, layers, nodes: Vec::new() }
    }

    /// Allocates nodes up to `node`.
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

    /// [`OwnNodes::get`], mutable.
    pub fn get_mut(&mut self, node: usize, layer: usize) -> (&mut [f32], &mut [f32]) {
        let part = &mut self.nodes[node][layer * (self.neurons + self.row)..][..self.neurons + self.row];
        part.split_at_mut(self.neurons)
    }
}
