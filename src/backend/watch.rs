//! Watched neurons, as a device computed them, token by token and layer by layer.

use super::pack::Geometry;

/// The neurons of one token in one layer that fired: those with u > 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fired {
    /// Index of each, h · N + i, ascending.
    pub neurons: Vec<u32>,
    /// Their activations u, all above 0.
    pub u: Vec<f32>,
    /// Their gates g = u · relu(y · encoder_v), at least 0.
    pub g: Vec<f32>,
}

impl Fired {
    /// The neurons that fired among `[blocks][block]` activations and gates, heads padded to whole
    /// blocks as a device keeps them.
    pub(crate) fn of_padded(geometry: &Geometry, u: &[f32], g: &[f32]) -> Self {
        let mut fired = Self::default();
        let per_head = geometry.padded_neurons();
        for (at, &u) in u.iter().enumerate().filter(|(_, u)| **u > 0.0) {
            let (head, neuron) = (at / per_head, at % per_head);
            fired.neurons.push((head * geometry.neurons + neuron) as u32);
            fired.u.push(u);
            fired.g.push(g[at]);
        }
        fired
    }

    /// How many fired.
    pub fn len(&self) -> usize {
        self.neurons.len()
    }

    /// Whether none did.
    pub fn is_empty(&self) -> bool {
        self.neurons.is_empty()
    }
}

/// Takes the decoder's scales out of gates that kernels have multiplied by them, as they do with
/// 8-bit weights; without scales nothing changes.
pub(crate) fn unscale(gates: &mut [f32], scales: &[f32]) {
    for (gate, scale) in gates.iter_mut().zip(scales).filter(|(gate, _)| **gate != 0.0) {
        *gate /= scale;
    }
}

/// The neurons of one token, `[layers]`.
pub type TokenNeurons = Vec<Fired>;
