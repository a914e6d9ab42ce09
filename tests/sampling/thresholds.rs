//! Top-k, top-p, min-p and the penalties.

use crate::{DEFAULT, survivors};
use bdh_gpu::sampling::{
    BiasRow, EOS_BIT, PROMPT_BIT, Sampler, SamplerParams, SamplerState, SamplingOptions, Status, sample,
};

#[test]
fn top_p_and_min_p_keep_the_documented_tokens() {
    let logits: Vec<f32> = [0.1_f32, 0.2, 0.3, 0.4].map(f32::ln).to_vec();
    let top_p = |top_p| SamplingOptions { top_p, ..DEFAULT() };
    let min_p = |min_p| SamplingOptions { min_p, ..DEFAULT() };
    assert_eq!(survivors(&logits, top_p(0.41)), [2, 3]);
    assert_eq!(survivors(&logits, top_p(0.71)), [1, 2, 3]);
    assert_eq!(survivors(&logits, top_p(0.95)), [0, 1, 2, 3]);
    assert_eq!(survivors(&logits, top_p(1e-30)), [3]);
    assert_eq!(survivors(&logits, min_p(0.26)), [1, 2, 3]);
    assert_eq!(survivors(&logits, min_p(0.51)), [2, 3]);
    assert_eq!(survivors(&logits, min_p(1.0)), [3]);
}

#[test]
fn top_k_keeps_all_that_tie_with_the_last() {
    let logits = [5.0, 4.0, 4.0, 4.0, 1.0];
    let top_k = |top_k| SamplingOptions { top_k, ..DEFAULT() };
    assert_eq!(survivors(&logits, top_k(1)), [0]);
    assert_eq!(survivors(&logits, top_k(2)), [0, 1, 2, 3]);
    assert_eq!(survivors(&logits, top_k(4)), [0, 1, 2, 3]);
    for k in [0, 5, 6, u32::MAX] {
        assert_eq!(survivors(&logits, top_k(k)), [0, 1, 2, 3, 4]);
    }
}

#[test]
fn top_p_keeps_all_that_tie_at_the_boundary() {
    let options = SamplingOptions { top_p: 0.3, ..DEFAULT() };
    assert_eq!(survivors(&[1.0; 6], options), [0, 1, 2, 3, 4, 5]);
    assert_eq!(survivors(&[0.0, 1.0, 1.0, 0.0], options), [1, 2]);
}

#[test]
fn top_p_counts_only_what_top_k_left() {
    let logits: Vec<f32> = [0.1_f32, 0.2, 0.3, 0.4].map(f32::ln).to_vec();
    // Of the two best, the first has 4/7 = 0.571.
    let both = |top_p| SamplingOptions { top_k: 2, top_p, ..DEFAULT() };
    assert_eq!(survivors(&logits, both(0.56)), [3]);
    assert_eq!(survivors(&logits, both(0.58)), [2, 3]);
}

#[test]
fn repetition_penalty_takes_each_id_once_from_prompt_and_text() {
    // [2, -2, 5, 0, 1] becomes [1, -4, 5, 0, 1]; ids 0, 1 and 3 have occurred.
    let logits = [2.0, -2.0, 5.0, 0.0, 1.0];
    let options = SamplingOptions { repetition_penalty: 2.0, ..DEFAULT() };
    let expected = [1.0, -4.0, 5.0, 0.0, 1.0];
    for counts in [[PROMPT_BIT, PROMPT_BIT, 0, PROMPT_BIT, 0], [PROMPT_BIT, PROMPT_BIT | 2, 0, 1, 0]] {
        assert_eq!(weights(&logits, &counts, &options), plain_weights(&expected));
    }
}

#[test]
fn frequency_and_presence_take_generated_tokens_only() {
    let logits = [3.0, 3.0, 3.0, 3.0];
    let options = SamplingOptions { frequency_penalty: 0.5, presence_penalty: 0.25, ..DEFAULT() };
    let counts = [0, PROMPT_BIT, 1, PROMPT_BIT | 3];
    let expected = [3.0, 3.0, 2.25, 1.25];
    assert_eq!(weights(&logits, &counts, &options), plain_weights(&expected));
}

#[test]
fn biases_are_added_after_the_penalties() {
    // Ids 0, 1 and 3 have occurred; id 4 is banned.
    let logits = [2.0, -2.0, 5.0, 0.0, 9.0];
    let options = SamplingOptions { repetition_penalty: 2.0, ..DEFAULT() };
    let biases = [(0, 3.5), (1, -1.0), (3, 2.0), (4, -100.0)];
    let biases = BiasRow::new(&biases.into(), logits.len()).unwrap();
    let mut sampler = Sampler::new();
    sampler.set_biases(biases.as_slice());
    let params = SamplerParams::new(&options, 0, 0).with_biases(&biases);
    let mut counts = [PROMPT_BIT, PROMPT_BIT | 2, 0, 1, 0];
    sampler.sample(&logits, &mut counts, &params, 0);
    let left: Vec<(u32, u32)> = sampler.survivors().collect();
    let expected = plain_weights(&[4.5, -5.0, 5.0, 2.0]);
    assert_eq!(left, [0, 1, 2, 3].map(|id| (id, expected[id as usize])));
}

/// Every token's weight; all must survive.
pub fn weights(logits: &[f32], counts: &[u32], options: &SamplingOptions) -> Vec<u32> {
    let mut sampler = Sampler::new();
    let params = SamplerParams::new(options, 0, 0);
    sampler.sample(logits, &mut counts.to_vec(), &params, 0);
    let weights: Vec<u32> = sampler.survivors().map(|(_, weight)| weight).collect();
    assert_eq!(weights.len(), logits.len());
    weights
}

fn plain_weights(logits: &[f32]) -> Vec<u32> {
    weights(logits, &vec![0; logits.len()], &DEFAULT())
}

#[test]
fn end_of_sequence_is_banned_until_min_new_tokens() {
    let options = SamplingOptions { do_sample: false, min_new_tokens: 2, ..DEFAULT() };
    let params = SamplerParams::new(&options, 0, 0);
    let mut counts = [0, EOS_BIT];
    let mut control = SamplerState::default();
    let mut chosen = Vec::new();
    while control.status() == Some(Status::Running) {
        let outcome = sample(&[0.0, 1.0], &mut counts, &params, control.generated);
        control.record(&outcome);
        chosen.push(outcome.token);
    }
    assert_eq!(chosen, [0, 0, 1]);
    assert_eq!(control.status(), Some(Status::Eos));
    assert_eq!((control.token, control.generated), (1, 3));
    assert_eq!(counts, [2, EOS_BIT | 1]);
    assert_eq!(control.check(), Ok(()));
}
