//! The rows of weights that looking inside needs, on the host.

use crate::model::{Model, Tensor};

/// Weights in f32, laid out by neuron: some 3 · n · D numbers.
#[derive(Clone, Debug)]
pub struct HostWeights {
    /// Width D of the residual stream.
    pub width: usize,
    /// Heads H.
    pub heads: usize,
    /// Neurons per head N.
    pub neurons: usize,
    /// Layers L.
    pub layers: usize,
    /// Embedding, `[V, D]`, each row normalised as it enters the first layer.
    embed: Vec<f32>,
    /// `[H · N, D]`
    decoder: Vec<f32>,
    /// Columns of encoder_v as rows, `[H · N, D]`, each less its mean: the layer norm takes the
    /// mean out of what it reads.
    readers: Vec<f32>,
}

impl HostWeights {
    /// Takes them from a model.
    pub fn new(model: &Model) -> Self {
        let (config, weights) = (&model.config, &model.weights);
        let (heads, neurons, width) = (config.n_head, config.neurons_per_head, config.n_embd);
        let mut embed = weights.embed.to_vec();
        embed.chunks_exact_mut(width).for_each(normalise);
        let mut readers = columns(&weights.encoder_v, heads, width, neurons);
        for row in readers.chunks_exact_mut(width) {
            let mean = row.iter().sum::<f32>() / width as f32;
            row.iter_mut().for_each(|number| *number -= mean);
        }
        Self { width, heads, neurons, layers: config.n_layer, embed, decoder: weights.decoder.to_vec(), readers }
    }

    /// The residual stream of a token before the first layer, `[D]`.
    pub fn embedding(&self, token: u32) -> &[f32] {
        &self.embed[token as usize * self.width..][..self.width]
    }

    /// The row of the decoder that a neuron adds, `[D]`.
    pub fn decoder(&self, neuron: u32) -> &[f32] {
        &self.decoder[neuron as usize * self.width..][..self.width]
    }

    /// The row that a neuron's gate is read with, e_j of the contributions, `[D]`.
    pub fn reader(&self, neuron: u32) -> &[f32] {
        &self.readers[neuron as usize * self.width..][..self.width]
    }
}

/// `[H, D, N]` as `[H, N, D]`.
pub(super) fn columns(tensor: &Tensor, heads: usize, width: usize, neurons: usize) -> Vec<f32> {
    let mut rows = vec![0.0; heads * neurons * width];
    let mut line = vec![0.0; neurons];
    for head in 0..heads {
        for dimension in 0..width {
            tensor.read((head * width + dimension) * neurons, &mut line);
            for (neuron, number) in line.iter().enumerate() {
                rows[(head * neurons + neuron) * width + dimension] = *number;
            }
        }
    }
    rows
}

/// Mean, and square root of variance + 1e-5, as the layer norm has them.
pub(super) fn moments(numbers: &[f32]) -> [f32; 2] {
    let count = numbers.len() as f64;
    let mean = numbers.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
    let variance = numbers.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count;
    [mean as f32, (variance + 1e-5).sqrt() as f32]
}

/// The layer norm, in place.
pub(super) fn normalise(numbers: &mut [f32]) {
    let [mean, deviation] = moments(numbers);
    numbers.iter_mut().for_each(|x| *x = (*x - mean) / deviation);
}

/// Σ a · b.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0; LANES];
    let (a_lanes, b_lanes) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_lanes.remainder().iter().zip(b_lanes.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a_lanes.zip(b_lanes) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
    }
    rest + sums.iter().sum::<f32>()
}
