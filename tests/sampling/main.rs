//! The sampling pipeline on the CPU: against published vectors, against transformers' own
//! processors, against a plain f64 reference, and against chance.

#[path = "../common/sampling_cases.rs"]
mod sampling_cases;
#[path = "../common/statistics.rs"]
mod statistics;

mod chance;
mod edges;
mod options;
mod random_numbers;
mod reference;
mod thresholds;
mod transformers;
mod weights;

use bdh_gpu::sampling::{SampleOutcome, Sampler, SamplerParams, SamplingOptions};

const DEFAULT: fn() -> SamplingOptions = SamplingOptions::default;

/// Draws once from a fresh sequence; returns the outcome and what could have been drawn.
fn draw(logits: &[f32], counts: &[u32], options: &SamplingOptions) -> (SampleOutcome, Vec<u32>) {
    options.validate().unwrap();
    let mut sampler = Sampler::new();
    let params = SamplerParams::new(options, 42, 0);
    let outcome = sampler.sample(logits, &mut counts.to_vec(), &params, 0);
    (outcome, sampler.survivors().map(|(id, _)| id).collect())
}

/// What survives of logits without any history.
fn survivors(logits: &[f32], options: SamplingOptions) -> Vec<u32> {
    draw(logits, &vec![0; logits.len()], &options).1
}

/// The token chosen from logits without any history.
fn token(logits: &[f32], options: SamplingOptions) -> u32 {
    draw(logits, &vec![0; logits.len()], &options).0.token
}
