//! The definition in f64, token by token, with its state: for texts too long for [`super::naive`].

use super::naive::{norm, relu, rotate};
use bdh_gpu::model::Model;
use bdh_gpu::model::forgetting::Forgetting;
use std::collections::VecDeque;

/// A sequence in f64.
pub struct Recurrent {
    layers: usize,
    width: usize,
    heads: usize,
    neurons: usize,
    embed: Vec<f64>,
    encoder: Vec<f64>,
    encoder_v: Vec<f64>,
    decoder: Vec<f64>,
    head: Vec<f64>,
    freqs: Vec<f32>,
    forgetting: Forgetting,
    position: u64,
    /// What the next token sees of the past, `[L, H, N, D]`.
    state: Vec<f64>,
    /// q `[L, H, N]` and x `[L, D]` of every token in a sliding window, oldest first.
    window: VecDeque<[Vec<f64>; 2]>,
}

impl Recurrent {
    /// An empty sequence.
    pub fn new(model: &Model, forgetting: Forgetting) -> Self {
        let c = &model.config;
        let widen = |tensor: &bdh_gpu::model::Tensor| tensor.to_vec().into_iter().map(f64::from).collect::<Vec<f64>>();
        let w = &model.weights;
        Self {
            layers: c.n_layer,
            width: c.n_embd,
            heads: c.n_head,
            neurons: c.neurons_per_head,
            embed: widen(&w.embed),
            encoder: widen(&w.encoder),
            encoder_v: widen(&w.encoder_v),
            decoder: widen(&w.decoder),
            head: widen(&w.lm_head),
            freqs: w.freqs.clone(),
            forgetting,
            position: 0,
            state: vec![0.0; c.state_len()],
            window: VecDeque::new(),
        }
    }

    /// The state as the next token sees it, `[L, H, N, D]`.
    pub fn state(&self) -> &[f64] {
        &self.state
    }

    /// Reads a token and returns the logits after it, `[V]`.
    pub fn read(&mut self, token: u32) -> Vec<f64> {
        let (d, n) = (self.width, self.neurons);
        let mut x = norm(&self.embed[token as usize * d..][..d]);
        let mut written = [Vec::new(), Vec::new()];
        for layer in 0..self.layers {
            let mut update = vec![0.0; d];
            written[1].extend(&x);
            for head in 0..self.heads {
                let u = relu(product(&x, &self.encoder[head * d * n..][..d * n], n));
                let q = rotate(&u, &self.freqs, self.position);
                let state = &mut self.state[(layer * self.heads + head) * n * d..][..n * d];
                written[0].extend(&q);
                let mut y = vec![0.0; d];
                for (&q, row) in q.iter().zip(state.chunks_exact_mut(d)).filter(|(q, _)| **q != 0.0) {
                    for ((y, rho), x) in y.iter_mut().zip(row).zip(&x) {
                        *y += q * *rho;
                        *rho += q * x;
                    }
                }
                let z = relu(product(&norm(&y), &self.encoder_v[head * d * n..][..d * n], n));
                for (i, g) in u.iter().zip(z).map(|(u, z)| u * z).enumerate().filter(|(_, g)| *g != 0.0) {
                    let row = &self.decoder[(head * n + i) * d..][..d];
                    update.iter_mut().zip(row).for_each(|(to, w)| *to += g * w);
                }
            }
            let sum: Vec<f64> = x.iter().zip(norm(&update)).map(|(x, m)| x + m).collect();
            x = norm(&sum);
        }
        let here = self.position as u32;
        self.position += 1;
        if let Forgetting::After { context, tau } = self.forgetting
            && here >= context
        {
            let fading = (-1.0 / tau).exp();
            self.state.iter_mut().for_each(|rho| *rho *= fading);
        }
        if let Forgetting::Window { tokens } = self.forgetting {
            self.window.push_back(written);
            if self.window.len() > tokens as usize {
                self.leave();
            }
        }
        product(&x, &self.head, self.head.len() / d)
    }

    /// The oldest token leaves the window.
    fn leave(&mut self) {
        let Some([q, x]) = self.window.pop_front() else { return };
        let rows = self.heads * self.neurons;
        for (index, row) in self.state.chunks_exact_mut(self.width).enumerate().filter(|(index, _)| q[*index] != 0.0) {
            let x = &x[index / rows * self.width..][..self.width];
            row.iter_mut().zip(x).for_each(|(rho, x)| *rho -= q[index] * x);
        }
    }
}

/// v · matrix, the matrix `[len(v), columns]`.
fn product(v: &[f64], matrix: &[f64], columns: usize) -> Vec<f64> {
    let mut out = vec![0.0; columns];
    for (x, row) in v.iter().zip(matrix.chunks_exact(columns)).filter(|(x, _)| **x != 0.0) {
        out.iter_mut().zip(row).for_each(|(out, w)| *out += x * w);
    }
    out
}
