//! Twins of `shaders/chunk_*.wgsl`: the kernels that read a chunk of tokens, written to be read. Sums are in the
//! order of their index, in f32.

use super::CpuBackend;
use super::residual::{Embed, Finish, LayerNorm};
use super::simd::Level;
use super::weights::{AnyWeights, Half, TILE, Weights};
use crate::backend::BackendError;
use crate::backend::pack::Geometry;
use crate::backend::prefill::{
    PrefillAttendInput, PrefillAttendOutput, PrefillEncodeOutput, PrefillProjectInput, PrefillProjectOutput,
    PrefillResidual, PrefillResidualInput, PrefillStages,
};
use crate::model::rotary;

/// Σ a_i b_i.
fn dot(a: impl IntoIterator<Item = f32>, b: &[f32]) -> f32 {
    a.into_iter().zip(b).fold(0.0, |sum, (a, b)| a.mul_add(*b, sum))
}

/// to ← to + scale · from.
fn add_scaled(to: &mut [f32], scale: f32, from: impl IntoIterator<Item = f32>) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = from.mul_add(scale, *to));
}

/// x ← LN(embedding), or LN(x + LN(update)); and x times its write scale.
fn finish<E: Half>(weights: &Weights<E>, g: &Geometry, level: Level, input: &PrefillResidualInput) -> PrefillResidual {
    let mut output = PrefillResidual { residual: Vec::new(), scaled: Vec::new() };
    for (t, token) in input.tokens.iter().enumerate() {
        let mut x = vec![0.0; g.row];
        match &input.before {
            None => {
                let embedding = &weights.embed[token.token as usize * g.row..][..g.row];
                level.run(Embed { embedding, width: g.width, x: &mut x });
            }
            Some(before) => {
                let mut update = vec![0.0; g.row];
                x[..g.width].copy_from_slice(&before.residual[t * g.width..][..g.width]);
                update[..g.width].copy_from_slice(&before.update[t * g.width..][..g.width]);
                level.run(Finish { x: &mut x, update: &mut update, width: g.width });
            }
        }
        output.residual.extend_from_slice(&x[..g.width]);
        output.scaled.extend(x[..g.width].iter().map(|x| x * token.write_scale));
    }
    output
}

/// Column `column` of a matrix in tiles, `[D]`; its group's columns start at `group`.
fn column<E: Half>(tiles: &[E], g: &Geometry, column: usize) -> impl Iterator<Item = f32> {
    let tile = &tiles[column / TILE * g.width * TILE..][..g.width * TILE];
    tile.iter().skip(column % TILE).step_by(TILE).map(|weight| weight.to_f32())
}

/// u ← relu(x · encoder), `[T, H, N]`.
fn encode<E: Half>(weights: &Weights<E>, g: &Geometry, residual: &[f32]) -> Vec<f32> {
    let mut activations = Vec::with_capacity(residual.len() / g.width * g.heads * g.neurons);
    for x in residual.chunks_exact(g.width) {
        for head in 0..g.heads {
            let neurons = head * g.padded_neurons()..head * g.padded_neurons() + g.neurons;
            activations.extend(neurons.map(|neuron| dot(column(&weights.encoder, g, neuron), x).max(0.0)));
        }
    }
    activations
}

/// q ← rotary(u) at positions from `position` on, `[T, H, N]`.
fn rotate(turns: &[u64], neurons: usize, heads: usize, activations: &[f32], position: u32) -> Vec<f32> {
    let mut rotated = activations.to_vec();
    for (index, q) in rotated.chunks_exact_mut(neurons).enumerate() {
        let position = position.wrapping_add((index / heads) as u32);
        for (pair, q) in q.chunks_exact_mut(2).enumerate() {
            let (first_cos, first_sin) = rotary::cos_sin(rotary::phase(turns[2 * pair], position));
            let (second_cos, second_sin) = rotary::cos_sin(rotary::phase(turns[2 * pair + 1], position));
            let [a, b] = [q[0], q[1]];
            (q[0], q[1]) = (a * first_cos - b * first_sin, b * second_cos + a * second_sin);
        }
    }
    rotated
}

/// y ← LN(read_scale (q · state + Σ over the tokens before of (q · q_s) scaled_s)), then state ← state + Σ q_s scaled_s.
fn attend(g: &Geometry, level: Level, input: &PrefillAttendInput) -> PrefillAttendOutput {
    let (heads, neurons, width) = (g.heads, g.neurons, g.width);
    let q = |t: usize, head: usize| &input.rotated[(t * heads + head) * neurons..][..neurons];
    let scaled = |t: usize| &input.scaled[t * width..][..width];
    let mut attention = Vec::with_capacity(input.tokens.len() * heads * width);
    for (t, token) in input.tokens.iter().enumerate() {
        for head in 0..heads {
            let mut y = vec![0.0; g.row];
            let rows = input.state[head * neurons * width..].chunks_exact(width);
            for (&q, row) in q(t, head).iter().zip(rows) {
                add_scaled(&mut y, q, row.iter().copied());
            }
            for s in 0..t {
                let score = dot(q(t, head).iter().copied(), q(s, head));
                add_scaled(&mut y, score, scaled(s).iter().copied());
            }
            y.iter_mut().for_each(|y| *y *= token.read_scale);
            level.run(LayerNorm { v: &mut y, width });
            attention.extend_from_slice(&y[..width]);
        }
    }
    let mut state = input.state.clone();
    for t in 0..input.tokens.len() {
        let all = (0..heads).flat_map(|head| q(t, head));
        for (&q, row) in all.zip(state.chunks_exact_mut(width)).filter(|(q, _)| **q != 0.0) {
            add_scaled(row, q, scaled(t).iter().copied());
        }
    }
    PrefillAttendOutput { attention, state }
}

/// A row of padded rows, `[D]`.
fn row<'a, E: Half>(rows: &'a [E], g: &Geometry, head: usize, neuron: usize) -> impl Iterator<Item = f32> + 'a {
    rows[(head * g.padded_neurons() + neuron) * g.row..][..g.width].iter().map(|weight| weight.to_f32())
}

/// g ← u relu(y · encoder_v) where u > 0, `[T, H, N]`.
fn gate<E: Half>(weights: &Weights<E>, g: &Geometry, input: &PrefillProjectInput) -> Vec<f32> {
    let mut gates = input.activations.clone();
    for (index, gates) in gates.chunks_exact_mut(g.neurons).enumerate() {
        let y = &input.attention[index * g.width..][..g.width];
        for (neuron, gate) in gates.iter_mut().enumerate().filter(|(_, gate)| **gate != 0.0) {
            *gate *= dot(row(&weights.encoder_v, g, index % g.heads, neuron), y).max(0.0);
        }
    }
    gates
}

/// update ← Σ g decoder, `[T, D]`.
fn decode<E: Half>(weights: &Weights<E>, g: &Geometry, gates: &[f32]) -> Vec<f32> {
    let mut updates = vec![0.0; gates.len() / (g.heads * g.neurons) * g.width];
    for (update, gates) in updates.chunks_exact_mut(g.width).zip(gates.chunks_exact(g.heads * g.neurons)) {
        for (index, &gate) in gates.iter().enumerate().filter(|(_, gate)| **gate != 0.0) {
            add_scaled(update, gate, row(&weights.decoder, g, index / g.neurons, index % g.neurons));
        }
    }
    updates
}

/// logits ← x · head, `[T, V]`.
fn logits<E: Half>(weights: &Weights<E>, g: &Geometry, residual: &[f32]) -> Vec<f32> {
    let tokens = residual.chunks_exact(g.width);
    tokens.flat_map(|x| (0..g.vocab).map(|token| dot(column(&weights.head, g, token), x))).collect()
}

/// Runs a function on the weights, of whichever type they are.
macro_rules! on_weights {
    ($backend:ident, $weights:ident => $result:expr) => {
        match &$backend.shared.model.weights {
            AnyWeights::F32($weights) => $result,
            AnyWeights::F16($weights) => $result,
        }
    };
}

impl PrefillStages for CpuBackend {
    fn prefill_residual(&self, input: &PrefillResidualInput) -> Result<PrefillResidual, BackendError> {
        let (g, level) = (&self.shared.model.geometry, self.shared.level);
        Ok(on_weights!(self, weights => finish(weights, g, level, input)))
    }

    fn prefill_encode(&self, residual: &[f32], position: u32) -> Result<PrefillEncodeOutput, BackendError> {
        let model = &self.shared.model;
        let g = &model.geometry;
        let activations = on_weights!(self, weights => encode(weights, g, residual));
        let rotated = rotate(&model.turns, g.neurons, g.heads, &activations, position);
        Ok(PrefillEncodeOutput { activations, rotated })
    }

    fn prefill_attend(&self, input: &PrefillAttendInput) -> Result<PrefillAttendOutput, BackendError> {
        Ok(attend(&self.shared.model.geometry, self.shared.level, input))
    }

    fn prefill_project(&self, input: &PrefillProjectInput) -> Result<PrefillProjectOutput, BackendError> {
        let g = &self.shared.model.geometry;
        let gates = on_weights!(self, weights => gate(weights, g, input));
        let update = on_weights!(self, weights => decode(weights, g, &gates));
        Ok(PrefillProjectOutput { gates, update })
    }

    fn prefill_logits(&self, residual: &[f32]) -> Result<Vec<f32>, BackendError> {
        let g = &self.shared.model.geometry;
        Ok(on_weights!(self, weights => logits(weights, g, residual)))
    }
}
