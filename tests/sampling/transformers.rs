//! Transformers' own processors.

use crate::reference::reference;
use crate::{DEFAULT, draw};
use bdh_gpu::sampling::{PROMPT_BIT, Sampler, SamplerParams, SamplingOptions};
use serde_json::Value;

/// A processor's boundary may fall between two f32 roundings of one number. A token may differ only
/// if it lies this close to one, relative to the threshold.
pub const BOUNDARY: f64 = 1e-5;

#[test]
fn survivors_and_probabilities_are_those_of_transformers() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/sampling/processors.json");
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(cases.len(), 60);

    let mut compared = 0;
    for (number, case) in cases.iter().enumerate() {
        let float = |name: &str, off: f64| case[name].as_f64().unwrap_or(off) as f32;
        let list = |name: &str| case[name].as_array().unwrap().iter();
        let logits: Vec<f32> = list("logits").map(|v| v.as_f64().unwrap() as f32).collect();
        let options = SamplingOptions {
            temperature: float("temperature", 1.0),
            top_k: case["top_k"].as_u64().unwrap_or(0) as u32,
            top_p: float("top_p", 1.0),
            min_p: float("min_p", 0.0),
            repetition_penalty: float("repetition_penalty", 1.0),
            ..DEFAULT()
        };
        options.validate().unwrap();
        // The context is prompt and text together; put every other id in the text.
        let mut counts = vec![0; logits.len()];
        for (i, id) in list("context").map(|v| v.as_u64().unwrap()).enumerate() {
            if let Some(count) = counts.get_mut(id as usize) {
                if i % 2 == 0 {
                    *count |= PROMPT_BIT;
                } else {
                    *count += 1;
                }
            }
        }

        let greedy = SamplingOptions { do_sample: false, ..options };
        let best = case["greedy"].as_u64().unwrap();
        assert_eq!(u64::from(draw(&logits, &counts, &greedy).0.token), best);

        let mut sampler = Sampler::new();
        let params = SamplerParams::new(&options, 42, 0);
        let outcome = sampler.sample(&logits, &mut counts.clone(), &params, 0);
        let ours: Vec<(u32, u32)> = sampler.survivors().collect();
        let theirs: Vec<u32> = list("keep").map(|v| v.as_u64().unwrap() as u32).collect();

        let reference = reference(&logits, &counts, &options);
        for id in 0..logits.len() as u32 {
            let we_keep = ours.iter().any(|&(our, _)| our == id);
            if we_keep != theirs.contains(&id) {
                let margin = reference[id as usize].margin;
                assert!(margin < BOUNDARY, "case {number}, token {id}: {margin:e}");
            }
        }
        if ours.iter().map(|&(id, _)| id).eq(theirs) {
            compared += 1;
            for (&(id, weight), probability) in ours.iter().zip(list("probs")) {
                let off = f64::from(weight) / outcome.mass as f64 - probability.as_f64().unwrap();
                assert!(off.abs() < 1e-6, "case {number}, token {id}: {off:e}");
            }
        }
    }
    assert!(compared >= 58, "only {compared} cases had equal survivors");
}
