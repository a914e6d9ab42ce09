//! Numbers at the edge: weights a thousand times too large or too small, logits that are none, weights beyond f16.

mod common;
#[path = "common/gpu.rs"]
mod gpu;

use bdh_gpu::backend::cpu::CpuBackend;
use bdh_gpu::backend::gpu::GpuOptions;
use bdh_gpu::backend::{Backend, BackendError, Chunk, ChunkToken, WeightType};
use bdh_gpu::generation::{Bdh, DeviceChoice, GenerationError, GenerationOptions, WeightChoice};
use bdh_gpu::model::forgetting::Forgetting;
use bdh_gpu::model::{Model, Tensor, Weights};
use common::{Golden, assert_close, model, naive};
use std::ops::ControlFlow;

const NMSE: f64 = 1e-8;
const MAX_ABS: f64 = 1e-3;

type Part = (&'static str, fn(&mut Weights) -> &mut Tensor);

const PARTS: [Part; 5] = [
    ("embed", |w| &mut w.embed),
    ("encoder", |w| &mut w.encoder),
    ("encoder_v", |w| &mut w.encoder_v),
    ("decoder", |w| &mut w.decoder),
    ("lm_head", |w| &mut w.lm_head),
];

fn scale(tensor: &mut Tensor, factor: f32) {
    let values = tensor.to_vec().into_iter().map(|value| value * factor).collect();
    *tensor = Tensor::from_f32(tensor.shape(), values);
}

/// A model with each of its tensors scaled, and with all of them.
fn scaled(folder: &str, factor: f32) -> Vec<(String, Model)> {
    let one = PARTS.map(|(name, part)| {
        let mut model = model(folder);
        scale(part(&mut model.weights), factor);
        (format!("{folder}: {name} times {factor}"), model)
    });
    let mut all = model(folder);
    PARTS.iter().for_each(|(_, part)| scale(part(&mut all.weights), factor));
    one.into_iter().chain([(format!("{folder}: all times {factor}"), all)]).collect()
}

/// Logits after every token, read as one chunk, `[T, V]`.
fn logits(backend: &dyn Backend, tokens: &[u32]) -> Vec<f32> {
    let chunk = |&token: &u32| ChunkToken { token, read_scale: 1.0, write_scale: 1.0 };
    let tokens: Vec<ChunkToken> = tokens.iter().map(chunk).collect();
    assert!(tokens.len() <= backend.chunk_tokens());
    let chunk = Chunk { tokens, logits: true, ..Chunk::default() };
    backend.create_slots(1).unwrap().prefill(0, &chunk).unwrap()
}

fn check_scaled(open: impl Fn(&Model) -> Box<dyn Backend>) {
    let tokens = &Golden::read("odd-shapes", "golden.safetensors").tokens("tokens")[..16];
    for factor in [1e3, 1e-3] {
        for (what, model) in scaled("odd-shapes", factor) {
            let expected = naive::logits(&model, tokens, 0, Forgetting::Full);
            assert_close(&what, &logits(&*open(&model), tokens), &expected, NMSE, MAX_ABS);
        }
    }
}

#[test]
fn scaled_weights_match_the_definition_on_the_cpu() {
    check_scaled(|model| Box::new(CpuBackend::new(model, WeightType::F32, Some(1)).unwrap()));
}

#[test]
fn scaled_weights_match_the_definition_on_the_gpu() {
    check_scaled(|model| Box::new(gpu::backend(model, WeightType::F32, GpuOptions::default())));
}

/// Weights that are finite, and sums that are not: token 7's embedding overflows in its layer norm.
fn overflowing() -> Model {
    let mut model = model("odd-shapes");
    let width = model.config.n_embd;
    let mut embed = model.weights.embed.to_vec();
    embed[7 * width..8 * width].fill(3e38);
    model.weights.embed = Tensor::from_f32(model.weights.embed.shape(), embed);
    model
}

fn check_position(device: &DeviceChoice) {
    let bdh = Bdh::new(overflowing(), device, WeightChoice::F32).unwrap();
    // Short enough to be read one by one, and long enough for chunks.
    for length in [3, 30] {
        let mut session = bdh.session_with(Forgetting::Full).unwrap();
        let prompt = [vec![5; length], vec![7]].concat();
        session.feed(&prompt).unwrap();
        let options = GenerationOptions { max_new_tokens: 5, seed: Some(1), ..GenerationOptions::default() };
        let error = session.generate(&options).unwrap_err();
        let message = error.to_string();
        assert!(matches!(error, GenerationError::Sampling { .. }), "{error:?}");
        assert!(message.starts_with(&format!("at position {length}: ")) && message.contains("NaN"), "{message}");
        let score = bdh.score(&[&prompt[..], &[5]].concat(), Forgetting::Full, |_| ControlFlow::Continue(()));
        let message = score.unwrap_err().to_string();
        assert!(message.contains(&format!("position {length}")), "{message}");
    }
}

#[test]
fn logits_that_are_no_numbers_are_reported_with_their_position_on_the_cpu() {
    check_position(&DeviceChoice::Cpu);
}

#[test]
fn logits_that_are_no_numbers_are_reported_with_their_position_on_the_gpu() {
    check_position(&gpu::device());
}

#[test]
fn weights_beyond_f16_are_named_or_kept_in_f32() {
    let mut model = model("odd-shapes");
    let mut values = model.weights.decoder.to_vec();
    let width = model.config.n_embd;
    values[5 * width + 3] = -70_000.0;
    model.weights.decoder = Tensor::from_f32(model.weights.decoder.shape(), values);
    for device in [DeviceChoice::Cpu, gpu::device()] {
        let bdh = Bdh::new(model.clone(), &device, WeightChoice::Auto).unwrap();
        assert_eq!(bdh.backend().weight_type(), WeightType::F32);
        let error = Bdh::new(model.clone(), &device, WeightChoice::F16).err().expect("a weight too large");
        assert!(matches!(error, BackendError::Overflow { tensor: "decoder", .. }), "{error:?}");
        let message = "tensor \"decoder\" holds -70000 at index [5, 3], more than f16 can (65504)";
        assert_eq!(error.to_string(), message);
    }
}
