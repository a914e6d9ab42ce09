//! Direct effects: a neuron's row of the decoder through the language model head.
//!
//! The path from a gate to the logits also goes through two layer norms and the layers above. This
//! is the direct effect alone, with the norms' statistics frozen: mean taken out, scale left out.

use super::weights::dot;
use crate::model::Model;

/// The tokens that a neuron's direct effect raises and lowers most.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// The largest effects: token and logit per unit of gate, descending.
    pub plus: Vec<(u32, f32)>,
    /// The smallest ones, ascending.
    pub minus: Vec<(u32, f32)>,
}

/// The language model head by token, `[V, D]`, to compute effects with.
pub struct Readout {
    rows: Vec<f32>,
    width: usize,
}

impl Readout {
    /// Takes it from a model.
    pub fn new(model: &Model) -> Self {
        let (width, vocab) = (model.config.n_embd, model.config.vocab_size);
        let mut rows = vec![0.0; width * vocab];
        let mut line = vec![0.0; vocab];
        for dimension in 0..width {
            model.weights.lm_head.read(dimension * vocab, &mut line);
            line.iter().enumerate().for_each(|(token, number)| rows[token * width + dimension] = *number);
        }
        Self { rows, width }
    }

    /// The direct effect of a neuron's row of the decoder `[D]`: its `count` largest and smallest.
    pub fn effects(&self, decoder: &[f32], count: usize) -> Effects {
        let mean = decoder.iter().sum::<f32>() / self.width as f32;
        let centred: Vec<f32> = decoder.iter().map(|number| number - mean).collect();
        let logits = self.rows.chunks_exact(self.width).map(|row| dot(row, &centred));
        let mut all: Vec<(u32, f32)> = logits.enumerate().map(|(token, logit)| (token as u32, logit)).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let plus = all.iter().take(count).copied().collect();
        let minus = all.iter().rev().take(count).copied().collect();
        Effects { plus, minus }
    }
}
