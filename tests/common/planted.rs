//! A random model with one neuron that fires on one byte, and on nothing else.

use bdh_gpu::model::{Model, SyntheticSpec, Tensor};

/// The byte.
pub const BYTE: u8 = b'q';
/// The neuron: head 1, index 13.
pub const NAME: &str = "1.13";

/// The residual stream has a direction of its own for the byte: its embedding points along it, all
/// others point slightly against it, nothing that layers add has a part in it, and the neuron reads
/// it alone.
pub fn model() -> Model {
    let spec = SyntheticSpec {
        n_layer: 2,
        n_embd: 32,
        n_head: 2,
        neurons_per_head: 48,
        vocab_size: 256,
        density: 0.3,
        seed: 3,
    };
    let mut model = Model::synthetic(&spec);
    let width = spec.n_embd;
    // Of mean 0, as the layer norm takes the mean out.
    let direction: Vec<f32> = (0..width).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 } / (width as f32).sqrt()).collect();
    let set = |rows: &mut [f32], part: &dyn Fn(usize) -> f32| {
        for (index, row) in rows.chunks_exact_mut(width).enumerate() {
            let own: f32 = row.iter().zip(&direction).map(|(x, d)| x * d).sum();
            row.iter_mut().zip(&direction).for_each(|(x, d)| *x += (part(index) - own) * d);
        }
    };
    let mut embed = model.weights.embed.to_vec();
    let scale = embed.iter().map(|x| x * x).sum::<f32>().sqrt() / 16.0;
    set(&mut embed, &|byte| if byte == usize::from(BYTE) { scale } else { -0.1 * scale });
    model.weights.embed = Tensor::from_f32(&[256, width], embed);
    let mut decoder = model.weights.decoder.to_vec();
    set(&mut decoder, &|_| 0.0);
    model.weights.decoder = Tensor::from_f32(&[96, width], decoder);
    let mut encoder = model.weights.encoder.to_vec();
    for (dimension, d) in direction.iter().enumerate() {
        encoder[(width + dimension) * 48 + 13] = *d;
    }
    model.weights.encoder = Tensor::from_f32(&[2, width, 48], encoder);
    model
}
