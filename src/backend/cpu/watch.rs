//! The neurons that a thread has seen fire.

use crate::backend::pack::Geometry;
use crate::backend::watch::{Fired, TokenNeurons};
use std::collections::BTreeMap;

/// Numbers of one block that are not zero: its neuron and the number.
type Sparse = Vec<(u32, f32)>;

/// What a thread has seen, by token, layer and block. A token of a run is a step and a slot.
#[derive(Debug, Default)]
pub struct Watch {
    activations: BTreeMap<[usize; 3], Sparse>,
    gates: BTreeMap<[usize; 3], Sparse>,
}

/// What of a block has been computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Its activations u.
    Activations,
    /// Its gates g.
    Gates,
}

impl Watch {
    /// Takes in a block's numbers of a token, `[block]`.
    pub fn see(&mut self, seen: Seen, token: usize, layer: usize, block: usize, numbers: &[f32]) {
        let sparse = numbers.iter().enumerate().filter(|(_, number)| **number != 0.0);
        let sparse = sparse.map(|(neuron, &number)| (neuron as u32, number)).collect();
        let to = if seen == Seen::Activations { &mut self.activations } else { &mut self.gates };
        to.insert([token, layer, block], sparse);
    }

    /// The neurons of `tokens` tokens, from what all threads have seen; nothing of those that nobody
    /// saw.
    pub fn merge(all: Vec<Self>, geometry: &Geometry, tokens: usize) -> Vec<TokenNeurons> {
        let mut neurons = vec![TokenNeurons::new(); tokens];
        let (mut activations, mut gates) = (BTreeMap::new(), BTreeMap::new());
        for watch in all {
            activations.extend(watch.activations);
            gates.extend(watch.gates);
        }
        for (at @ [token, layer, block], activations) in activations {
            let own_gates: BTreeMap<u32, f32> = gates.remove(&at).unwrap_or_default().into_iter().collect();
            let head = block / geometry.blocks_per_head;
            let first = head * geometry.neurons + block % geometry.blocks_per_head * geometry.block;
            neurons[token].resize(geometry.layers, Fired::default());
            let fired = &mut neurons[token][layer];
            for (neuron, u) in activations {
                fired.neurons.push(first as u32 + neuron);
                fired.u.push(u);
                fired.g.push(own_gates.get(&neuron).copied().unwrap_or(0.0));
            }
        }
        neurons
    }
}
