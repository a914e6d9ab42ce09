//! Chosen neurons in full: every token at which they fire.

use super::arrays::{f16s, u32s};
use crate::generation::TokenTrace;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Firings that are listed, all together.
const LISTED: usize = 250_000;
/// Neurons that are listed.
const CHOSEN: usize = 512;

/// A firing: token, u, g.
type At = (u32, f32, f32);

/// Firings of the chosen neurons.
pub(super) struct Series {
    neurons: Vec<u32>,
    /// Row of each neuron in `firings`.
    rows: BTreeMap<u32, usize>,
    /// `[C · L]`
    firings: Vec<Vec<At>>,
    layers: usize,
    /// Tokens so far.
    tokens: u32,
}

impl Series {
    /// Chooses the neurons of the largest `weight`, as many as there is room for their `fired`
    /// firings. Both are `[H · N]`.
    pub fn choose(fired: &[usize], weight: &[f32], layers: usize) -> Self {
        let mut order: Vec<u32> = (0..weight.len() as u32).filter(|&neuron| weight[neuron as usize] > 0.0).collect();
        order.sort_by(|a, b| weight[*b as usize].total_cmp(&weight[*a as usize]).then(a.cmp(b)));
        let mut room = LISTED;
        let mut fits = |neuron: &u32| {
            let fits = fired[*neuron as usize] <= room;
            room -= if fits { fired[*neuron as usize] } else { 0 };
            fits
        };
        let mut neurons: Vec<u32> = order.into_iter().take(CHOSEN).filter(|neuron| fits(neuron)).collect();
        neurons.sort_unstable();
        let rows = neurons.iter().copied().enumerate().map(|(row, neuron)| (neuron, row)).collect();
        Self { rows, firings: vec![Vec::new(); neurons.len() * layers], neurons, layers, tokens: 0 }
    }

    /// The chosen neurons, ascending.
    pub fn neurons(&self) -> &[u32] {
        &self.neurons
    }

    /// Takes in the next token.
    pub fn push(&mut self, token: &TokenTrace) {
        for (layer, fired) in token.neurons.iter().enumerate() {
            for (at, neuron) in fired.neurons.iter().enumerate() {
                if let Some(row) = self.rows.get(neuron) {
                    self.firings[row * self.layers + layer].push((self.tokens, fired.u[at], fired.g[at]));
                }
            }
        }
        self.tokens += 1;
    }

    /// The page's form: rows of neuron and layer, one after another.
    pub fn json(&self) -> Value {
        let mut offsets = vec![0];
        for row in &self.firings {
            offsets.push(offsets[offsets.len() - 1] + row.len() as u32);
        }
        let all = || self.firings.iter().flatten();
        let count = all().count();
        json!({
            "neurons": u32s(&[self.neurons.len()], &self.neurons),
            "offsets": u32s(&[offsets.len()], &offsets),
            "tokens": u32s(&[count], &all().map(|at| at.0).collect::<Vec<_>>()),
            "u": f16s(&[count], &all().map(|at| at.1).collect::<Vec<_>>()),
            "g": f16s(&[count], &all().map(|at| at.2).collect::<Vec<_>>()),
        })
    }
}
