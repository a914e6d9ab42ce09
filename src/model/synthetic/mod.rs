//! Random models of a chosen density, for measuring speed without trained weights.
//!
//! Plain random weights activate half of the neurons, and open the gates of half of those; trained ones far
//! fewer. Here every embedding and decoder row has a component along one fixed direction of zero mean, so that the
//! residual x keeps one too, whatever the token and the layer, and with it the attention output y, which is a sum
//! of residuals. Every column of the encoder and of encoder_v has a component along that direction as well, which
//! shifts x · encoder and y · encoder_v by as much as the wanted densities ask for (see `calibrate.rs`).

mod calibrate;

use calibrate::{Shifts, calibrate};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

use super::config::Config;
use super::error::ModelError;
use super::rotary::default_freqs;
use super::tensor::Tensor;
use super::{Model, Weights};

/// Share of an embedding row's length that lies along the shared direction; the rest is noise.
const EMBEDDING_SHARE: f64 = 0.75;
/// The same for what a layer adds to the residual.
const UPDATE_SHARE: f64 = 0.5;
/// Share of the active neurons whose gate opens (g > 0). Trained networks have 1 to 10 % open gates among all
/// neurons; the shipped one has an eighth of its active ones.
const GATE_SHARE: f64 = 0.25;

/// Sizes and density of a synthetic model. Sizes as in [`Config`].
#[derive(Clone, Debug, PartialEq)]
pub struct SyntheticSpec {
    /// Layers.
    pub n_layer: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Heads.
    pub n_head: usize,
    /// Neurons per head, an even number.
    pub neurons_per_head: usize,
    /// Tokens.
    pub vocab_size: usize,
    /// Share of neurons that a token activates (u > 0), from 0 to 1. The ends are exact, the rest is
    /// met to within about a hundredth, by small models less closely. A quarter of the active neurons' gates open.
    pub density: f64,
    /// Seed of the random numbers: the same specification gives the same model.
    pub seed: u64,
}

impl SyntheticSpec {
    /// Whether a model can be made of this.
    ///
    /// # Errors
    /// [`ModelError::InvalidValue`] for a size out of range or a density outside 0 to 1.
    pub fn check(&self) -> Result<(), ModelError> {
        if !(0.0..=1.0).contains(&self.density) {
            return Err(ModelError::InvalidValue {
                path: NAME.into(),
                key: "density",
                found: self.density.to_string(),
                expected: "a number from 0 to 1".to_owned(),
            });
        }
        self.config().check(NAME.as_ref(), None)
    }

    fn config(&self) -> Config {
        Config {
            n_layer: self.n_layer,
            n_embd: self.n_embd,
            n_head: self.n_head,
            neurons_per_head: self.neurons_per_head,
            vocab_size: self.vocab_size,
            trained_context: None,
            bos_token_id: None,
            eos_token_ids: Vec::new(),
            tied_embeddings: false,
        }
    }
}

const NAME: &str = "synthetic";

impl Model {
    /// Makes a random model of about the given density, with f32 weights. A forward pass through it
    /// stays in the range of a trained model's numbers.
    ///
    /// # Panics
    /// If [`SyntheticSpec::check`] refuses the specification.
    pub fn synthetic(spec: &SyntheticSpec) -> Self {
        if let Err(error) = spec.check() {
            panic!("{error}");
        }
        let config = spec.config();
        let Shifts { encoder, encoder_v } = calibrate(spec);
        let mut random = Normal::new(spec.seed);
        let &SyntheticSpec { n_embd, n_head, neurons_per_head, vocab_size, .. } = spec;
        let per_head = [n_head, n_embd, neurons_per_head];
        let weights = Weights {
            embed: Tensor::from_f32(&[vocab_size, n_embd], embedding(spec, &mut random)),
            encoder: Tensor::from_f32(&per_head, columns(spec, encoder, &mut random)),
            encoder_v: Tensor::from_f32(&per_head, columns(spec, encoder_v, &mut random)),
            decoder: Tensor::from_f32(&[n_head * neurons_per_head, n_embd], decoder(spec, &mut random)),
            lm_head: Tensor::from_f32(&[n_embd, vocab_size], head(spec, &mut random)),
            freqs: default_freqs(neurons_per_head),
        };
        match Self::from_parts(NAME, config, weights) {
            Ok(model) => model,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Rows of length √D, as a layer norm leaves them, `[V, D]`.
fn embedding(spec: &SyntheticSpec, random: &mut Normal) -> Vec<f32> {
    let length = (spec.n_embd as f64).sqrt();
    let shared = length * EMBEDDING_SHARE;
    let scale = (1.0 - EMBEDDING_SHARE.powi(2)).sqrt();
    rows_around_direction(spec.vocab_size, spec.n_embd, shared, scale, random)
}

/// Noise of variance 1/D, so that its product with a normalised vector has variance 1, plus `shift` times the
/// direction in every column, `[H, D, N]`.
fn columns(spec: &SyntheticSpec, shift: f64, random: &mut Normal) -> Vec<f32> {
    let scale = 1.0 / (spec.n_embd as f64).sqrt();
    let mut values = Vec::with_capacity(spec.n_head * spec.n_embd * spec.neurons_per_head);
    for _ in 0..spec.n_head {
        for d in 0..spec.n_embd {
            let shift = (shift * direction(d, spec.n_embd)) as f32;
            random.extend(&mut values, spec.neurons_per_head, scale as f32, shift);
        }
    }
    values
}

/// Rows whose sum over the open gates has about [`UPDATE_SHARE`] along the direction, `[H·N, D]`.
fn decoder(spec: &SyntheticSpec, random: &mut Normal) -> Vec<f32> {
    let neurons = spec.n_head * spec.neurons_per_head;
    // The open gates' shared components add up, their noise adds up as a random walk: (Σ g)² is about
    // 0.35 · count · Σ g² for products of two normal numbers above their upper quartile.
    let count = (spec.density * GATE_SHARE * neurons as f64).max(1.0);
    let scale = 1.0 / count.sqrt();
    let noise = scale * (spec.n_embd as f64).sqrt();
    let share = UPDATE_SHARE / (1.0 - UPDATE_SHARE.powi(2)).sqrt();
    let shared = share * noise / (0.35 * count).sqrt();
    rows_around_direction(neurons, spec.n_embd, shared, scale, random)
}

/// Noise of variance 1/D, `[D, V]`.
fn head(spec: &SyntheticSpec, random: &mut Normal) -> Vec<f32> {
    let mut values = Vec::with_capacity(spec.n_embd * spec.vocab_size);
    random.extend(&mut values, spec.n_embd * spec.vocab_size, 1.0 / (spec.n_embd as f32).sqrt(), 0.0);
    values
}

/// `count` rows of `width`: noise of deviation `scale` with no part along the direction, plus `shared`
/// along it.
fn rows_around_direction(count: usize, width: usize, shared: f64, scale: f64, random: &mut Normal) -> Vec<f32> {
    let direction: Vec<f32> = (0..width).map(|d| direction(d, width) as f32).collect();
    let mut values = Vec::with_capacity(count * width);
    random.extend(&mut values, count * width, scale as f32, 0.0);
    for row in values.chunks_exact_mut(width) {
        let along: f32 = row.iter().zip(&direction).map(|(value, direction)| value * direction).sum();
        for (value, direction) in row.iter_mut().zip(&direction) {
            *value += (shared as f32 - along) * direction;
        }
    }
    values
}

/// Element `d` of the shared direction: of unit length, its mean zero (alternating signs, and a zero at
/// the end of an odd width).
fn direction(d: usize, width: usize) -> f64 {
    let even = width / 2 * 2;
    if d >= even {
        return 0.0;
    }
    let sign = if d.is_multiple_of(2) { 1.0 } else { -1.0 };
    sign / (even as f64).sqrt()
}

/// Nearly normal random numbers, quickly.
struct Normal(Xoshiro256PlusPlus);

impl Normal {
    fn new(seed: u64) -> Self {
        Self(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    /// Appends `count` numbers of deviation `scale` around `mean`. Each is a sum of four uniform ones
    /// and at most 3.5 deviations from the mean.
    fn extend(&mut self, values: &mut Vec<f32>, count: usize, scale: f32, mean: f32) {
        // Four uniform numbers of 16 bits have a sum of mean 2 · 65535 and variance 65536² / 3.
        let unit = scale * 3f32.sqrt() / 65536.0;
        values.extend((0..count).map(|_| {
            let bits = self.0.next_u64();
            let pairs = (bits & 0x0000_ffff_0000_ffff) + (bits >> 16 & 0x0000_ffff_0000_ffff);
            let sum = (pairs as u32).wrapping_add((pairs >> 32) as u32);
            (sum as i32 - 2 * 65535) as f32 * unit + mean
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_has_mean_zero_and_unit_variance() {
        let mut values = Vec::new();
        Normal::new(1).extend(&mut values, 100_000, 1.0, 0.0);
        let mean = values.iter().sum::<f32>() / 1e5;
        let variance = values.iter().map(|v| v * v).sum::<f32>() / 1e5;
        assert!(mean.abs() < 0.015 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
        assert!(values.iter().all(|v| v.abs() <= 12f32.sqrt()));
    }

    #[test]
    fn the_direction_is_a_unit_vector_without_mean() {
        for width in [2, 7, 24, 256] {
            let elements: Vec<f64> = (0..width).map(|d| direction(d, width)).collect();
            assert!(elements.iter().sum::<f64>().abs() < 1e-12);
            assert!((elements.iter().map(|e| e * e).sum::<f64>() - 1.0).abs() < 1e-12);
        }
    }
}
