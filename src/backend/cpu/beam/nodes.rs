//! Nodes of the beam search: tokens on the beams' paths.

/// Some numbers of every node in every layer: x, or q of one block's neurons.
#[derive(Default)]
pub struct Nodes {
    size: usize,
    layers: usize,
    /// Each `[layers][size]`.
    nodes: Vec<Vec<f32>>,
}

impl Nodes {
    /// No nodes, with `size` numbers per node and layer.
    pub fn new(layers: usize, size: usize) -> Self {
        Self { size, layers, nodes: Vec::new() }
    }

    /// Allocates nodes up to `node`.
    pub fn make_room(&mut self, node: usize) {
        while self.nodes.len() <= node {
            self.nodes.push(vec![0.0; self.layers * self.size]);
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        4 * (self.nodes.len() * self.layers * self.size) as u64
    }

    /// A node's numbers in a layer, `[size]`.
    pub fn get(&self, node: usize, layer: usize) -> &[f32] {
        &self.nodes[node][layer * self.size..][..self.size]
    }

    /// [`Nodes::get`], mutable.
    pub fn get_mut(&mut self, node: usize, layer: usize) -> &mut [f32] {
        &mut self.nodes[node][layer * self.size..][..self.size]
    }
}
