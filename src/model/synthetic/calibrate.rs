//! How far to shift the columns of encoder and encoder_v for the wanted densities.
//!
//! For a normalised vector x with the component c along the shared direction, x · column is normal with variance 1
//! and mean shift · c, so that a share Φ(shift · c) of the columns fires. What c is depends on the layer, on the past, and
//! on what fires: so a *pilot*, a model of the same depth and width with one head and few neurons, reads some
//! tokens, the shifts are chosen for the components that it met, and that is repeated with the new shifts.

use super::{EMBEDDING_SHARE, GATE_SHARE, Normal, SyntheticSpec, columns, decoder, direction, embedding};
use crate::model::rotary::{self, Rotary, default_freqs};

/// How much of the direction is added to every column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shifts {
    /// Of the encoder.
    pub encoder: f64,
    /// Of encoder_v.
    pub encoder_v: f64,
}

/// Shift for densities 0 and 1. A column of noise is at most 3.5 long, so that it cannot outweigh the
/// shift on a residual with a tenth or more of its length along the direction.
const EXTREME: f64 = 40.0;
/// Tokens that the pilot reads.
const TOKENS: usize = 24;
/// Tokens before the components count: the first ones have too short a past to be typical.
const FIRST: usize = 8;
/// Runs of the pilot.
const ROUNDS: usize = 3;
/// Multiplications in a run of the pilot, about.
const WORK: usize = 1 << 27;

/// The shifts with which a model of this specification has its densities.
pub fn calibrate(spec: &SyntheticSpec) -> Shifts {
    let length = (spec.n_embd as f64).sqrt();
    let start = [EMBEDDING_SHARE * length];
    let encoder_v = shift_for(&start, GATE_SHARE);
    if spec.density <= 0.0 {
        return Shifts { encoder: -EXTREME, encoder_v };
    }
    if spec.density >= 1.0 {
        return Shifts { encoder: EXTREME, encoder_v };
    }
    let mut shifts = Shifts { encoder: shift_for(&start, spec.density), encoder_v };
    for _ in 0..ROUNDS {
        let (residual, attention) = Pilot::new(spec, shifts).run();
        shifts = Shifts { encoder: shift_for(&residual, spec.density), encoder_v: shift_for(&attention, GATE_SHARE) };
    }
    shifts
}

/// The shift with which a share `density` fires, on the average over vectors with these components.
fn shift_for(components: &[f64], density: f64) -> f64 {
    let (mut low, mut high) = (-EXTREME, EXTREME);
    for _ in 0..50 {
        let middle = (low + high) / 2.0;
        let fires: f64 = components.iter().map(|component| normal_cdf(middle * component)).sum();
        if fires < density * components.len() as f64 {
            low = middle;
        } else {
            high = middle;
        }
    }
    (low + high) / 2.0
}

/// The share of normal random numbers below `x`, within 1e-7 (Abramowitz and Stegun, 26.2.17).
fn normal_cdf(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.2316419 * x.abs());
    let tail = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
    let above = tail * (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
    if x < 0.0 { above } else { 1.0 - above }
}

/// A model with one head, read token by token.
struct Pilot {
    layers: usize,
    width: usize,
    /// `[V][D]`
    embedding: Vec<f32>,
    /// `[D][N]`
    encoder: Vec<f32>,
    /// `[D][N]`
    encoder_v: Vec<f32>,
    /// `[N][D]`
    decoder: Vec<f32>,
    rotary: Rotary,
    direction: Vec<f32>,
}

/// What a layer remembers: every token's q and x.
type Past = Vec<(Vec<f32>, Vec<f32>)>;

impl Pilot {
    fn new(spec: &SyntheticSpec, shifts: Shifts) -> Self {
        let neurons = (WORK / (2 * spec.n_layer * spec.n_embd * TOKENS)).clamp(1024, 4096) / 2 * 2;
        let neurons = neurons.min(spec.n_head * spec.neurons_per_head);
        let vocab_size = spec.vocab_size.min(TOKENS);
        let spec = SyntheticSpec { n_head: 1, neurons_per_head: neurons, vocab_size, ..spec.clone() };
        let mut random = Normal::new(spec.seed);
        Self {
            layers: spec.n_layer,
            width: spec.n_embd,
            embedding: embedding(&spec, &mut random),
            encoder: columns(&spec, shifts.encoder, &mut random),
            encoder_v: columns(&spec, shifts.encoder_v, &mut random),
            decoder: decoder(&spec, &mut random),
            rotary: Rotary::new(&default_freqs(neurons)),
            direction: (0..spec.n_embd).map(|d| direction(d, spec.n_embd) as f32).collect(),
        }
    }

    /// The components along the direction of the residuals and of the attention outputs, of all layers and tokens that count.
    fn run(&self) -> (Vec<f64>, Vec<f64>) {
        let (mut residual, mut attention) = (Vec::new(), Vec::new());
        let mut past: Vec<Past> = vec![Past::new(); self.layers];
        for (position, embedding) in self.embedding.chunks_exact(self.width).cycle().take(TOKENS).enumerate() {
            let mut x = embedding.to_vec();
            normalise(&mut x);
            for past in &mut past {
                let u = relu_product(&x, &self.encoder);
                let q = self.rotate(&u, position as u32);
                let mut y = vec![0.0; self.width];
                for (other, x) in past.iter() {
                    add_scaled(&mut y, dot(&q, other), x);
                }
                past.push((q, x.clone()));
                normalise(&mut y);
                if position >= FIRST {
                    residual.push(dot(&x, &self.direction) as f64);
                    attention.push(dot(&y, &self.direction) as f64);
                }
                let z = relu_product(&y, &self.encoder_v);
                let mut update = vec![0.0; self.width];
                for ((u, z), row) in u.iter().zip(&z).zip(self.decoder.chunks_exact(self.width)) {
                    if u * z > 0.0 {
                        add_scaled(&mut update, u * z, row);
                    }
                }
                normalise(&mut update);
                add_scaled(&mut x, 1.0, &update);
                normalise(&mut x);
            }
        }
        (residual, attention)
    }

    fn rotate(&self, u: &[f32], position: u32) -> Vec<f32> {
        let pairs = u.chunks_exact(2).enumerate();
        pairs
            .flat_map(|(i, u)| {
                let (cosine, sine) = rotary::cos_sin(self.rotary.phase(2 * i, position));
                [u[0] * cosine - u[1] * sine, u[1] * cosine + u[0] * sine]
            })
            .collect()
    }
}

/// relu(x · columns), where `columns` is `[D][N]`.
fn relu_product(x: &[f32], columns: &[f32]) -> Vec<f32> {
    let mut sums = vec![0.0; columns.len() / x.len()];
    for (&x, row) in x.iter().zip(columns.chunks_exact(sums.len())) {
        add_scaled(&mut sums, x, row);
    }
    sums.iter_mut().for_each(|sum| *sum = sum.max(0.0));
    sums
}

/// to ← to + scale · from.
fn add_scaled(to: &mut [f32], scale: f32, from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += scale * from);
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// v ← LN(v).
fn normalise(v: &mut [f32]) {
    let mean = v.iter().sum::<f32>() / v.len() as f32;
    let variance = v.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / v.len() as f32;
    v.iter_mut().for_each(|v| *v = (*v - mean) / (variance + 1e-5).sqrt());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_those_of_the_tables() {
        for (x, share) in [(0.0, 0.5), (-1.64485, 0.05), (-0.67449, 0.25), (1.95996, 0.975), (-4.75342, 1e-6)] {
            assert!((normal_cdf(x) - share).abs() < 1e-6, "{x}");
        }
    }

    #[test]
    fn a_shift_gives_its_density_on_the_average() {
        let components = [10.0, 12.0, 14.0];
        for density in [0.02, 0.25, 0.5, 0.9] {
            let shift = shift_for(&components, density);
            let share = components.map(|component| normal_cdf(shift * component)).iter().sum::<f64>() / 3.0;
            assert!((share - density).abs() < 1e-9, "{density}");
        }
    }
}
