//! Readable twins of `shaders/prefill/*.wgsl`, each named like its shader. Sums run in the order of
//! their index, in f32. GPU kernels are verified against these; see [`super`] for the fast twins.

use crate::backend::cpu::decode::embed::{Embed, Finish};
use crate::backend::cpu::norm::LayerNorm;
use crate::backend::cpu::simd::Level;
use crate::backend::cpu::weights::{Matrix, TILE, Weight, Weights};
use crate::backend::pack::Geometry;
use crate::backend::prefill::{
    PrefillAttendInput, PrefillAttendOutput, PrefillProjectInput, PrefillResidual, PrefillResidualInput,
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

/// x ← LN(embedding), `[row]`.
fn embed<E: Weight>(weights: &Weights<E>, g: &Geometry, level: Level, token: u32) -> Vec<f32> {
    let mut x = vec![0.0; g.row];
    let embedding = &weights.embed[token as usize * g.row..][..g.row];
    level.run(Embed { embedding, width: g.width, x: &mut x });
    x
}

/// x ← LN(x + LN(update)), `[row]`.
fn finish(g: &Geometry, level: Level, residual: &[f32], update: &[f32]) -> Vec<f32> {
    let [mut x, mut padded] = [residual, update].map(|numbers| {
        let mut padded = vec![0.0; g.row];
        padded[..g.width].copy_from_slice(numbers);
        padded
    });
    level.run(Finish { x: &mut x, update: &mut padded, width: g.width });
    x
}

/// Runs [`embed`] or [`finish`] for every token; also returns x times its write scale.
pub fn residual<E: Weight>(
    weights: &Weights<E>,
    g: &Geometry,
    level: Level,
    input: &PrefillResidualInput,
) -> PrefillResidual {
    let mut output = PrefillResidual { residual: Vec::new(), scaled: Vec::new() };
    for (t, token) in input.tokens.iter().enumerate() {
        let columns = t * g.width..(t + 1) * g.width;
        let x = match &input.before {
            None => embed(weights, g, level, token.token),
            Some(before) => finish(g, level, &before.residual[columns.clone()], &before.update[columns]),
        };
        output.residual.extend_from_slice(&x[..g.width]);
        output.scaled.extend(x[..g.width].iter().map(|x| x * token.write_scale));
    }
    output
}

/// Column `column` of a matrix in tiles, `[D]`.
fn column<E: Weight>(tiles: &[E], g: &Geometry, column: usize) -> impl Iterator<Item = f32> {
    let tile = &tiles[column / TILE * g.width * TILE..][..g.width * TILE];
    tile.iter().skip(column % TILE).step_by(TILE).map(|weight| weight.to_f32())
}

/// u ← relu(x · encoder + bias), `[T, H, N]`.
pub fn encode<E: Weight>(weights: &Weights<E>, g: &Geometry, residual: &[f32]) -> Vec<f32> {
    let mut activations = Vec::with_capacity(residual.len() / g.width * g.heads * g.neurons);
    for x in residual.chunks_exact(g.width) {
        for head in 0..g.heads {
            let neurons = head * g.padded_neurons()..head * g.padded_neurons() + g.neurons;
            let product =
                |neuron| dot(column(&weights.encoder.numbers, g, neuron), x) * scale(&weights.encoder, neuron);
            // 0 without biases.
            let bias = |neuron| weights.biases(neuron..neuron + 1).first().copied().unwrap_or(0.0);
            activations.extend(neurons.map(|neuron| (product(neuron) + bias(neuron)).max(0.0)));
        }
    }
    activations
}

/// q ← rotary(u) at positions from `position` on, `[T, H, N]`.
pub fn rotate(turns: &[u64], neurons: usize, heads: usize, activations: &[f32], position: u32) -> Vec<f32> {
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

/// scores[t][s] ← q[t] · q[s] over one head's neurons, for the tokens s before t.
fn scores(q: &[&[f32]]) -> Vec<Vec<f32>> {
    let row = |t: usize| (0..t).map(|s| dot(q[t].iter().copied(), q[s])).collect();
    (0..q.len()).map(row).collect()
}

/// y ← q · state for a token and one head's rows of the state, `[row]`.
fn read(g: &Geometry, q: &[f32], state: &[f32]) -> Vec<f32> {
    let mut y = vec![0.0; g.row];
    for (&q, row) in q.iter().zip(state.chunks_exact(g.width)) {
        add_scaled(&mut y, q, row.iter().copied());
    }
    y
}

/// y ← LN(read_scale (y + Σ over the tokens before of score · scaled)), `[D]`.
fn attend(g: &Geometry, level: Level, mut y: Vec<f32>, scores: &[f32], scaled: &[f32], read_scale: f32) -> Vec<f32> {
    for (&score, scaled) in scores.iter().zip(scaled.chunks_exact(g.width)) {
        add_scaled(&mut y, score, scaled.iter().copied());
    }
    y.iter_mut().for_each(|y| *y *= read_scale);
    level.run(LayerNorm { v: &mut y, width: g.width });
    y.truncate(g.width);
    y
}

/// state ← state + q ⊗ scaled for a token, with its q of all heads, `[H, N]`.
fn write(g: &Geometry, q: &[f32], scaled: &[f32], state: &mut [f32]) {
    for (&q, row) in q.iter().zip(state.chunks_exact_mut(g.width)).filter(|(q, _)| **q != 0.0) {
        add_scaled(row, q, scaled.iter().copied());
    }
}

/// Runs [`scores`], [`read`] and [`attend`] for every token and head, and then [`write`].
pub fn attend_and_write(g: &Geometry, level: Level, input: &PrefillAttendInput) -> PrefillAttendOutput {
    let (heads, neurons, width) = (g.heads, g.neurons, g.width);
    let q = |t: usize, head: usize| &input.rotated[(t * heads + head) * neurons..][..neurons];
    let tokens = input.tokens.len();
    let scores: Vec<_> = (0..heads).map(|head| scores(&(0..tokens).map(|t| q(t, head)).collect::<Vec<_>>())).collect();
    let mut attention = Vec::with_capacity(tokens * heads * width);
    for (t, token) in input.tokens.iter().enumerate() {
        for (head, scores) in scores.iter().enumerate() {
            let y = read(g, q(t, head), &input.state[head * neurons * width..][..neurons * width]);
            attention.extend(attend(g, level, y, &scores[t], &input.scaled, token.read_scale));
        }
    }
    let mut state = input.state.clone();
    for (q, scaled) in input.rotated.chunks_exact(heads * neurons).zip(input.scaled.chunks_exact(width)) {
        write(g, q, scaled, &mut state);
    }
    PrefillAttendOutput { attention, state }
}

/// A neuron's scale; 1 without scales.
fn scale<E: Weight>(matrix: &Matrix<E>, neuron: usize) -> f32 {
    matrix.scales(neuron..neuron + 1).first().copied().unwrap_or(1.0)
}

/// A neuron's row of a matrix in rows, `[D]`, and its scale.
fn row<'a, E: Weight>(
    matrix: &'a Matrix<E>,
    g: &Geometry,
    head: usize,
    neuron: usize,
) -> (impl Iterator<Item = f32> + 'a, f32) {
    let neuron = head * g.padded_neurons() + neuron;
    let row = matrix.numbers[neuron * g.row..][..g.width].iter().map(|weight| weight.to_f32());
    (row, scale(matrix, neuron))
}

/// g ← u relu(y · encoder_v), `[T, H, N]`.
pub fn gate<E: Weight>(weights: &Weights<E>, g: &Geometry, input: &PrefillProjectInput) -> Vec<f32> {
    let mut gates = input.activations.clone();
    for (index, gates) in gates.chunks_exact_mut(g.neurons).enumerate() {
        let y = &input.attention[index * g.width..][..g.width];
        for (neuron, gate) in gates.iter_mut().enumerate().filter(|(_, gate)| **gate != 0.0) {
            let (row, scale) = row(&weights.encoder_v, g, index % g.heads, neuron);
            *gate *= dot(row, y).max(0.0) * scale;
        }
    }
    gates
}

/// update ← Σ g decoder, `[T, D]`.
pub fn decode<E: Weight>(weights: &Weights<E>, g: &Geometry, gates: &[f32]) -> Vec<f32> {
    let mut updates = vec![0.0; gates.len() / (g.heads * g.neurons) * g.width];
    for (update, gates) in updates.chunks_exact_mut(g.width).zip(gates.chunks_exact(g.heads * g.neurons)) {
        for (index, &gate) in gates.iter().enumerate().filter(|(_, gate)| **gate != 0.0) {
            let (row, scale) = row(&weights.decoder, g, index / g.neurons, index % g.neurons);
            add_scaled(update, gate * scale, row);
        }
    }
    updates
}

/// logits ← x · lm_head, `[T, V]`.
pub fn logits<E: Weight>(weights: &Weights<E>, g: &Geometry, residual: &[f32]) -> Vec<f32> {
    let tokens = residual.chunks_exact(g.width);
    tokens.flat_map(|x| (0..g.vocab).map(|token| dot(column(&weights.lm_head, g, token), x))).collect()
}
