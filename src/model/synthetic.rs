//! Random models of a chosen density, for measuring speed without trained weights.
//!
//! Plain random weights activate half of the neurons; trained ones far fewer. Here every embedding and
//! decoder row has a component along one fixed direction of zero mean, so that the residual x keeps
//! one too, whatever the token and the layer. Every encoder column has a component along that
//! direction as well, which shifts x · encoder by just as much as the normal quantile of the wanted
//! density asks for.

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
/// The same for the residual as measured over layers and tokens, for which the shift is computed.
const RESIDUAL_SHARE: f64 = 0.75;

/// Shift for densities 0 and 1. A column of noise is at most 3.5 long, so that it cannot outweigh the
/// shift on a residual with a tenth or more of its length along the direction.
const EXTREME: f64 = 40.0;

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
    /// met to within a few hundredths.
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
        let mut random = Normal(Xoshiro256PlusPlus::seed_from_u64(spec.seed));
        let weights = Weights {
            embed: embedding(spec, &mut random),
            encoder: encoder(spec, &mut random),
            encoder_v: noise(&[spec.n_head, spec.n_embd, spec.neurons_per_head], spec.n_embd, &mut random),
            decoder: decoder(spec, &mut random),
            lm_head: noise(&[spec.n_embd, spec.vocab_size], spec.n_embd, &mut random),
            freqs: default_freqs(spec.neurons_per_head),
        };
        match Self::from_parts(NAME, config, weights) {
            Ok(model) => model,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Rows of length √D, as a layer norm leaves them, `[V, D]`.
fn embedding(spec: &SyntheticSpec, random: &mut Normal) -> Tensor {
    let length = (spec.n_embd as f64).sqrt();
    let shared = length * EMBEDDING_SHARE;
    let scale = (1.0 - EMBEDDING_SHARE.powi(2)).sqrt();
    let rows = rows_around_direction(spec.vocab_size, spec.n_embd, shared, scale, random);
    Tensor::from_f32(&[spec.vocab_size, spec.n_embd], rows)
}

/// Noise of variance 1/D, shifted, `[H, D, N]`.
fn encoder(spec: &SyntheticSpec, random: &mut Normal) -> Tensor {
    let width = spec.n_embd as f64;
    // x has length √D, so that x · noise has variance 1 and x · direction is the residual's share of √D.
    let shift = if spec.density <= 0.0 {
        -EXTREME
    } else if spec.density >= 1.0 {
        EXTREME
    } else {
        normal_quantile(spec.density) / (RESIDUAL_SHARE * width.sqrt())
    };
    let scale = 1.0 / width.sqrt();
    let mut values = Vec::with_capacity(spec.n_head * spec.n_embd * spec.neurons_per_head);
    for _ in 0..spec.n_head {
        for d in 0..spec.n_embd {
            let shift = (shift * direction(d, spec.n_embd)) as f32;
            random.extend(&mut values, spec.neurons_per_head, scale as f32, shift);
        }
    }
    Tensor::from_f32(&[spec.n_head, spec.n_embd, spec.neurons_per_head], values)
}

/// Rows whose sum over the active neurons has about [`UPDATE_SHARE`] along the direction, `[H·N, D]`.
fn decoder(spec: &SyntheticSpec, random: &mut Normal) -> Tensor {
    let neurons = spec.n_head * spec.neurons_per_head;
    // Half of the active neurons pass the gate. Their shared components add up, their noise adds up
    // as a random walk: (Σ g)² is about 0.4 · count · Σ g² for products of two half-normal numbers.
    let count = (spec.density * neurons as f64 / 2.0).max(1.0);
    let scale = 1.0 / count.sqrt();
    let noise = scale * (spec.n_embd as f64).sqrt();
    let share = UPDATE_SHARE / (1.0 - UPDATE_SHARE.powi(2)).sqrt();
    let shared = share * noise / (0.4 * count).sqrt();
    let rows = rows_around_direction(neurons, spec.n_embd, shared, scale, random);
    Tensor::from_f32(&[neurons, spec.n_embd], rows)
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

/// Noise of variance 1/`inputs`.
fn noise(shape: &[usize], inputs: usize, random: &mut Normal) -> Tensor {
    let len = shape.iter().product();
    let mut values = Vec::with_capacity(len);
    random.extend(&mut values, len, 1.0 / (inputs as f32).sqrt(), 0.0);
    Tensor::from_f32(shape, values)
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

/// The number below which a normal random number lies with probability `p`, 0 < p < 1, within 5e-4
/// (Abramowitz and Stegun, 26.2.23).
fn normal_quantile(p: f64) -> f64 {
    let t = (-2.0 * p.min(1.0 - p).ln()).sqrt();
    let above = t - (2.515517 + t * (0.802853 + t * 0.010328)) / (1.0 + t * (1.432788 + t * (0.189269 + t * 0.001308)));
    if p < 0.5 { -above } else { above }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (p, quantile) in [(0.5, 0.0), (0.05, -1.64485), (0.2, -0.84162), (0.975, 1.95996), (1e-6, -4.75342)] {
            assert!((normal_quantile(p) - quantile).abs() < 1e-3, "{p}");
        }
    }

    #[test]
    fn noise_has_mean_zero_and_unit_variance() {
        let mut values = Vec::new();
        Normal(Xoshiro256PlusPlus::seed_from_u64(1)).extend(&mut values, 100_000, 1.0, 0.0);
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
