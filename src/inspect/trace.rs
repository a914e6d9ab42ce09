//! The neurons of a text, as sparse rows.

use crate::backend::watch::{Fired, Firing, strongest};
use crate::generation::{Bdh, GenerationError, TokenTrace};
use crate::model::forgetting::Forgetting;
use crate::numpy::{self, Numbers};
use std::cmp::Ordering;
use std::io;
use std::ops::{ControlFlow, Range};
use std::path::Path;

/// A sparse matrix, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Csr {
    /// Beginnings of the rows in the other two, and the end of the last row: one more than rows.
    pub indptr: Vec<u64>,
    /// Columns, ascending in each row.
    pub indices: Vec<u32>,
    /// Their numbers, none of them 0.
    pub values: Vec<f32>,
}

impl Default for Csr {
    fn default() -> Self {
        Self { indptr: vec![0], indices: Vec::new(), values: Vec::new() }
    }
}

impl Csr {
    /// Appends a row of columns, ascending, and numbers.
    pub fn push(&mut self, row: impl IntoIterator<Item = (u32, f32)>) {
        for (index, value) in row {
            self.indices.push(index);
            self.values.push(value);
        }
        self.indptr.push(self.indices.len() as u64);
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.indptr.len() - 1
    }

    /// Columns and numbers of a row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> (&[u32], &[f32]) {
        let range: Range<usize> = self.indptr[row] as usize..self.indptr[row + 1] as usize;
        (&self.indices[range.clone()], &self.values[range])
    }
}

/// The neurons of a text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    /// Position of the first token.
    pub position: u32,
    /// The tokens, `[T]`.
    pub tokens: Vec<u32>,
    /// Layers L.
    pub layers: usize,
    /// Heads H.
    pub heads: usize,
    /// Neurons H · N; columns of `u` and `g`.
    pub neurons: usize,
    /// Activations, `[T · L, H · N]`: row t · L + l is token t in layer l.
    pub u: Csr,
    /// Gates above 0, in the same shape.
    pub g: Csr,
    /// How unexpected each token was: −log2 of its probability given those before it, in bits. Not
    /// a number for the first of a text.
    pub surprise: Vec<f32>,
}

impl Trace {
    /// An empty trace of a model.
    pub fn new(bdh: &Bdh) -> Self {
        let config = &bdh.model().config;
        Self { layers: config.n_layer, heads: config.n_head, neurons: config.neurons(), ..Self::default() }
    }

    /// Appends a token; `surprise` as in [`Trace::surprise`].
    pub fn push(&mut self, token: &TokenTrace, surprise: f32) {
        if self.tokens.is_empty() {
            self.position = token.position;
        }
        self.tokens.push(token.token);
        self.surprise.push(surprise);
        for fired in &token.neurons {
            self.u.push(fired.neurons.iter().copied().zip(fired.u.iter().copied()));
            let gates = fired.neurons.iter().copied().zip(fired.g.iter().copied());
            self.g.push(gates.filter(|(_, gate)| *gate > 0.0));
        }
    }

    /// The `count` neurons of a token in a layer with the largest gates, then activations.
    ///
    /// # Panics
    /// If there is no such token or layer.
    pub fn topk(&self, token: usize, layer: usize, count: usize) -> Vec<Firing> {
        strongest(&self.fired(token, layer), count)
    }

    /// The neurons of a token in a layer.
    ///
    /// # Panics
    /// If there is no such token or layer.
    pub fn fired(&self, token: usize, layer: usize) -> Fired {
        assert!(layer < self.layers, "layer {layer} of {}", self.layers);
        let row = token * self.layers + layer;
        let (neurons, u) = self.u.row(row);
        let mut g = vec![0.0; u.len()];
        let (open, gates) = self.g.row(row);
        let mut at = 0;
        for (neuron, gate) in open.iter().zip(gates) {
            at += neurons[at..].iter().take_while(|fired| *fired < neuron).count();
            g[at] = *gate;
        }
        Fired { neurons: neurons.to_vec(), u: u.to_vec(), g }
    }

    /// Writes a NumPy archive, which takes its place when it is complete. Keys: `version` (1),
    /// `tokens` `[T]`, `position`, `surprise` `[T]`, `shape` (T, L, H, N), and `u_indptr`,
    /// `u_indices`, `u_data`, `g_indptr`, `g_indices`, `g_data`: the arrays of [`Csr`], rows T · L,
    /// columns H · N.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write_npz(&self, path: &Path) -> io::Result<()> {
        let per_head = self.neurons / self.heads.max(1);
        let sizes = [self.tokens.len(), self.layers, self.heads, per_head].map(|size| size as u64);
        let mut arrays = vec![
            ("version", vec![], Numbers::U32(&[1])),
            ("tokens", vec![self.tokens.len()], Numbers::U32(&self.tokens)),
            ("position", vec![], Numbers::U32(std::slice::from_ref(&self.position))),
            ("surprise", vec![self.surprise.len()], Numbers::F32(&self.surprise)),
            ("shape", vec![sizes.len()], Numbers::U64(&sizes)),
        ];
        for (indptr, indices, data, csr) in
            [("u_indptr", "u_indices", "u_data", &self.u), ("g_indptr", "g_indices", "g_data", &self.g)]
        {
            arrays.push((indptr, vec![csr.indptr.len()], Numbers::U64(&csr.indptr)));
            arrays.push((indices, vec![csr.indices.len()], Numbers::U32(&csr.indices)));
            arrays.push((data, vec![csr.values.len()], Numbers::F32(&csr.values)));
        }
        numpy::write_npz(path, &arrays)
    }
}

impl Bdh {
    /// The neurons of a text, read as one context. Memory: 8 bytes for every neuron that fires and
    /// every gate that is open, some 400 kB per token of a model of 25 million parameters.
    ///
    /// # Errors
    /// As [`Bdh::watch_text`].
    pub fn trace(
        &self,
        tokens: &[u32],
        forgetting: Forgetting,
        mut progress: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Trace, GenerationError> {
        let mut trace = Trace::new(self);
        let mut expected = Expectation::default();
        self.watch_text(tokens, forgetting, |token, logits| {
            trace.push(&token, expected.surprise(token.token));
            expected = Expectation::of(logits);
            Ok::<_, GenerationError>(progress(trace.tokens.len()))
        })?;
        Ok(trace)
    }
}

/// The logits before a token.
#[derive(Clone, Debug, Default)]
pub struct Expectation {
    logits: Vec<f32>,
    highest: f64,
    /// ln Σ e^(logit − highest).
    sum: f64,
}

impl Expectation {
    /// The expectation after logits `[V]`.
    pub fn of(logits: &[f32]) -> Self {
        let [highest, sum] = crate::generation::score::log_sum(logits);
        Self { logits: logits.to_vec(), highest, sum }
    }

    /// −log2 of a token's probability; not a number where nothing came before it.
    pub fn surprise(&self, token: u32) -> f32 {
        match self.logits.get(token as usize) {
            Some(&logit) => (-(f64::from(logit) - self.highest - self.sum) / std::f64::consts::LN_2) as f32,
            None => f32::NAN,
        }
    }

    /// The `count` most likely tokens and their probabilities.
    pub fn most_likely(&self, count: usize) -> Vec<(u32, f32)> {
        let mut order: Vec<u32> = (0..self.logits.len() as u32).collect();
        let by_logit = |a: &u32, b: &u32| {
            let (a_logit, b_logit) = (self.logits[*a as usize], self.logits[*b as usize]);
            b_logit.partial_cmp(&a_logit).unwrap_or(Ordering::Equal).then(a.cmp(b))
        };
        if count < order.len() {
            order.select_nth_unstable_by(count, by_logit);
            order.truncate(count);
        }
        order.sort_unstable_by(by_logit);
        let probability = |token: u32| (f64::from(self.logits[token as usize]) - self.highest - self.sum).exp() as f32;
        order.into_iter().map(|token| (token, probability(token))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_give_back_their_neurons() {
        let fired = Fired { neurons: vec![1, 4, 6, 9], u: vec![9.0, 1.0, 2.0, 3.0], g: vec![0.0, 2.0, 0.0, 4.0] };
        let mut trace = Trace { layers: 2, neurons: 10, ..Trace::default() };
        let token = TokenTrace { position: 7, token: 3, neurons: vec![Fired::default(), fired.clone()] };
        trace.push(&token, 1.5);
        trace.push(&token, 2.5);
        assert_eq!((trace.position, trace.u.rows(), trace.g.values.len()), (7, 4, 4));
        assert_eq!((trace.fired(1, 1), trace.fired(1, 0)), (fired, Fired::default()));
        assert_eq!(trace.topk(0, 1, 1), [Firing { neuron: 9, u: 3.0, g: 4.0 }]);
    }

    #[test]
    fn the_likeliest_token_surprises_least() {
        let expectation = Expectation::of(&[0.0, 2.0, 1.0, 2.0]);
        let likely = expectation.most_likely(3);
        assert_eq!(likely.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [1, 3, 2]);
        let total: f32 = expectation.most_likely(9).iter().map(|(_, probability)| probability).sum();
        assert!((total - 1.0).abs() < 1e-6);
        assert!((expectation.surprise(1) + likely[0].1.log2()).abs() < 1e-6);
        assert!(Expectation::default().surprise(1).is_nan());
    }
}
