//! Neurons that a thread has seen fire.

use crate::backend::pack::Geometry;
use crate::backend::watch::{Fired, TokenNeurons};
use std::collections::BTreeMap;

/// Numbers of one block that are not zero: index in the block, and number.
type Sparse = Vec<(usize, f32)>;

/// Activations and gates seen by a thread, by token, layer and block. In a run, every slot of every
/// step counts as a token.
#[derive(Debug, Default)]
pub struct Watch {
    activations: BTreeMap<[usize; 3], Sparse>,
    gates: BTreeMap<[usize; 3], Sparse>,
}

/// Kind of a block's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Activations u.
    Activations,
    /// Gates g.
    Gates,
}

impl Watch {
    /// Takes in a block's numbers of a token, `[block]`.
    pub fn see(&mut self, seen: Seen, token: usize, layer: usize, block: usize, numbers: &[f32]) {
        let sparse = numbers.iter().copied().enumerate().filter(|(_, number)| *number != 0.0).collect();
        let to = if seen == Seen::Activations { &mut self.activations } else { &mut self.gates };
        to.insert([token, layer, block], sparse);
    }

    /// The neurons of `tokens` tokens, from everything that the threads have seen; empty for tokens
    /// that none has seen.
    pub fn merge(all: Vec<Self>, geometry: &Geometry, tokens: usize) -> Vec<TokenNeurons> {
        let mut whole = Self::default();
        for watch in all {
            whole.activations.extend(watch.activations);
            whole.gates.extend(watch.gates);
        }
        let neurons_of = |token: usize| {
            let layers = 0..geometry.layers;
            let seen = layers.filter(|&layer| whole.activations.contains_key(&[token, layer, 0]));
            let row = |numbers: &BTreeMap<[usize; 3], Sparse>, layer: usize| {
                let mut row = vec![0.0; geometry.all_neurons()];
                for (&[.., block], sparse) in numbers.range([token, layer, 0]..[token, layer + 1, 0]) {
                    sparse.iter().for_each(|&(index, number)| row[block * geometry.block + index] = number);
                }
                row
            };
            seen.map(|layer| Fired::of_padded(geometry, &row(&whole.activations, layer), &row(&whole.gates, layer)))
                .collect()
        };
        (0..tokens).map(neurons_of).collect()
    }
}
