//! Draws against their probabilities.

use crate::DEFAULT;
use crate::reference::reference;
use crate::sampling_cases::Random;
use crate::statistics::{chi_square, critical};
use crate::weights::softmax;
use bdh_gpu::sampling::{PROMPT_BIT, Sampler, SamplerParams, SamplingOptions};

const DRAWS: u32 = 1_000_000;

/// Draws [`DRAWS`] tokens with the whole pipeline and tests them against the f64 reference.
fn test_distribution(vocab: usize, spread: f32, options: SamplingOptions, seed: u64) -> usize {
    let mut random = Random::new(seed);
    let logits: Vec<f32> = (0..vocab).map(|_| random.normal() * spread).collect();
    let history: Vec<u32> = (0..vocab).map(|_| random.pick(&[0, 0, PROMPT_BIT])).collect();
    let expected = reference(&logits, &history, &options);
    let left: f64 = (expected.iter().filter(|r| r.kept)).map(|r| r.probability).sum();
    let probabilities: Vec<f64> = expected.iter().map(|r| if r.kept { r.probability / left } else { 0.0 }).collect();

    let params = SamplerParams::new(&options, seed, 0);
    let mut sampler = Sampler::new();
    let mut counts = history.clone();
    let mut observed = vec![0; vocab];
    for step in 0..DRAWS {
        let token = sampler.sample(&logits, &mut counts, &params, step).token as usize;
        // Undone, so that every draw is from the same distribution.
        counts[token] = history[token];
        observed[token] += 1;
    }
    for (id, &count) in observed.iter().enumerate() {
        assert!(expected[id].kept || count == 0, "token {id} was cut");
    }
    let (statistic, freedom) = chi_square(&observed, &probabilities);
    assert!(statistic < critical(freedom), "V {vocab}: {statistic} with {freedom} degrees of freedom");
    freedom
}

#[test]
fn draws_of_8_tokens_follow_the_softmax() {
    assert_eq!(test_distribution(8, 1.0, DEFAULT(), 1), 7);
}

#[test]
fn draws_of_32_tokens_follow_the_penalised_softmax() {
    let options = SamplingOptions { temperature: 1.5, repetition_penalty: 1.3, ..DEFAULT() };
    assert_eq!(test_distribution(32, 1.0, options, 2), 31);
}

#[test]
fn draws_of_64_tokens_follow_the_cut_softmax() {
    let options = SamplingOptions { top_k: 40, top_p: 0.9, min_p: 0.02, ..DEFAULT() };
    assert!(test_distribution(64, 1.0, options, 3) > 10);
}

#[test]
fn draws_of_256_tokens_follow_the_softmax() {
    assert_eq!(test_distribution(256, 0.5, DEFAULT(), 4), 255);
}

/// Pairs of tokens against the product of their probabilities: 64 cells.
fn test_independence(pair_at: impl Fn(u32) -> [(u32, u32); 2]) {
    let logits = [0.0, 0.5, -0.5, 1.0, -1.0, 0.25, 0.75, -0.25];
    let mut sampler = Sampler::new();
    let mut counts = [0; 8];
    let mut observed = vec![0; 64];
    for i in 0..DRAWS / 2 {
        let [first, second] = pair_at(i).map(|(step, sequence)| {
            let params = SamplerParams::new(&DEFAULT(), 5, sequence);
            sampler.sample(&logits, &mut counts, &params, step).token as usize
        });
        observed[first * 8 + second] += 1;
    }
    let single = softmax(&logits, 1.0);
    let pairs: Vec<f64> = (0..64).map(|i| single[i / 8] * single[i % 8]).collect();
    let (statistic, freedom) = chi_square(&observed, &pairs);
    assert_eq!(freedom, 63);
    assert!(statistic < critical(63), "{statistic}");
}

#[test]
fn draws_of_neighbouring_steps_are_independent() {
    test_independence(|i| [(2 * i, 0), (2 * i + 1, 0)]);
}

#[test]
fn draws_of_neighbouring_sequences_are_independent() {
    test_independence(|i| [(i, 0), (i, 1)]);
}
