//! Watched neurons: those that the definition gives, and not one number of a run changes by being
//! watched.

mod common;
#[path = "common/gpu.rs"]
mod gpu;

use bdh_gpu::Forgetting;
use bdh_gpu::backend::cpu::CpuBackend;
use bdh_gpu::backend::gpu::GpuOptions;
use bdh_gpu::backend::watch::TokenNeurons;
use bdh_gpu::backend::{Backend, BackendError, Chunk, ChunkToken, Input, Output, Plan, SlotStep, Slots, WeightType};
use bdh_gpu::model::{Dtype, Model, SaveOptions, SyntheticSpec};
use bdh_gpu::sampling::{SamplerParams, SamplingOptions};
use common::naive;

/// Where an activation is smaller than this, rounding decides whether a neuron fires. Sums of 40
/// products of numbers of size one, in f32.
const SMALL: f64 = 1e-4;

/// Three layers; heads of 60 neurons, which no block divides.
fn model() -> Model {
    Model::synthetic(&SyntheticSpec {
        n_layer: 3,
        n_embd: 40,
        n_head: 2,
        neurons_per_head: 60,
        vocab_size: 61,
        density: 0.3,
        seed: 5,
    })
}

fn tokens(count: usize) -> Vec<u32> {
    (0..count as u32).map(|t| (7 * t + t * t) % 61).collect()
}

/// Every kind of device, and a name for it.
fn devices(weights: WeightType) -> Vec<(String, Box<dyn Backend>)> {
    let model = model();
    let mut all: Vec<(String, Box<dyn Backend>)> = vec![
        ("CPU, 1 thread".into(), Box::new(CpuBackend::new(&model, weights, Some(1)).unwrap())),
        ("CPU, 2 threads".into(), Box::new(CpuBackend::new(&model, weights, Some(2)).unwrap())),
    ];
    for hardware_layout in [false, true] {
        let options = GpuOptions { watchable: true, hardware_layout, ..GpuOptions::default() };
        all.push((format!("GPU, hardware {hardware_layout}"), Box::new(gpu::backend(&model, weights, options))));
    }
    all
}

/// Steps that read `tokens` in slot 1 of 2, and then draw.
fn plan(tokens: &[u32], drawn: usize) -> Plan {
    let step = |(position, input): (usize, Input)| {
        let output = if position + 1 < tokens.len() { Output::Logits } else { Output::Token };
        vec![SlotStep::IDLE, SlotStep { input, output, position: position as u32, ..SlotStep::IDLE }]
    };
    let inputs = tokens.iter().map(|&token| Input::Token(token)).chain(vec![Input::Previous; drawn]);
    Plan { steps: inputs.enumerate().map(step).collect(), trace_logits: true }
}

fn chunk(tokens: &[u32]) -> Chunk {
    let tokens = tokens.iter().map(|&token| ChunkToken { token, read_scale: 1.0, write_scale: 1.0 }).collect();
    Chunk { position: 0, rescale: None, tokens, logits: true }
}

fn slots(device: &dyn Backend) -> Box<dyn Slots> {
    let mut slots = device.create_slots(2).unwrap();
    let params = SamplerParams::new(&SamplingOptions::default(), 1, 0);
    slots.set_sampler(1, &params, &[0; 61], 0).unwrap();
    slots
}

/// A token's neurons against `[layers][H · N]` of the definition.
fn assert_defined(what: &str, got: &TokenNeurons, pass: &naive::Pass, token: usize, tolerance: f64) {
    assert_eq!(got.len(), pass.neurons[0].len(), "{what}");
    for (layer, fired) in got.iter().enumerate() {
        let (u, g) = (&pass.neurons[0][layer][token], &pass.neurons[1][layer][token]);
        let largest = g.iter().copied().fold(1.0, f64::max);
        assert!(fired.neurons.is_sorted_by(|a, b| a < b), "{what}: the order");
        let mut next = 0;
        for neuron in 0..u.len() {
            let here = fired.neurons.get(next).is_some_and(|&at| at as usize == neuron);
            let (own_u, own_g) = if here { (fired.u[next], fired.g[next]) } else { (0.0, 0.0) };
            next += usize::from(here);
            let at = format!("{what}, token {token}, layer {layer}, neuron {neuron}");
            assert!(here == (u[neuron] > 0.0) || u[neuron].abs() < tolerance, "{at}: {own_u}, not {}", u[neuron]);
            assert!((f64::from(own_u) - u[neuron]).abs() < tolerance, "{at}: u {own_u}, not {}", u[neuron]);
            assert!((f64::from(own_g) - g[neuron]).abs() < tolerance * largest, "{at}: g {own_g}, not {}", g[neuron]);
        }
        assert_eq!(next, fired.len(), "{what}: neurons that do not exist");
    }
}

#[test]
fn neurons_are_those_of_the_definition_and_nothing_else_changes() {
    let tokens = tokens(37);
    let pass = naive::pass(&model(), &tokens, 0, Forgetting::Full);
    assert!(pass.neurons[1].iter().flatten().flatten().filter(|g| **g > 0.0).count() > 100);
    for (what, device) in devices(WeightType::F32) {
        let plan = plan(&tokens, 5);
        let expected = slots(&*device).run(&plan).unwrap();
        let (got, neurons) = slots(&*device).run_watched(&plan).unwrap();
        assert_eq!((&got.tokens, &got.logits, &got.samplers), (&expected.tokens, &expected.logits, &expected.samplers));
        assert_eq!(neurons.len(), 42);
        for (token, step) in neurons.iter().enumerate() {
            assert!(step[0].is_empty() && step[1].len() == 3, "{what}: the slots");
            if token < tokens.len() {
                assert_defined(&format!("{what}, steps"), &step[1], &pass, token, SMALL);
            }
        }
        let chunk = chunk(&tokens);
        let expected = slots(&*device).prefill(1, &chunk).unwrap();
        let mut own = slots(&*device);
        let (got, neurons) = own.prefill_watched(1, &chunk).unwrap();
        assert_eq!((got, neurons.len()), (expected.clone(), 37), "{what}");
        assert_eq!(own.logits(1).unwrap(), expected[36 * 61..], "{what}");
        for (token, neurons) in neurons.iter().enumerate() {
            assert_defined(&format!("{what}, chunk"), neurons, &pass, token, SMALL);
        }
    }
}

/// With 8-bit weights the kernels' gates have the decoder's scales in them, and what is shown has not.
#[test]
fn gates_of_8_bit_weights_have_no_scales_in_them() {
    let tokens = tokens(20);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("codes");
    model().save(&path, &SaveOptions { dtype: Some(Dtype::I8), overwrite: false }).unwrap();
    let pass = naive::pass(&Model::from_path(&path).unwrap(), &tokens, 0, Forgetting::Full);
    for (what, device) in devices(WeightType::I8) {
        let (_, steps) = slots(&*device).run_watched(&plan(&tokens, 0)).unwrap();
        let (_, read) = slots(&*device).prefill_watched(1, &chunk(&tokens)).unwrap();
        for token in 0..tokens.len() {
            assert_defined(&format!("{what}, steps"), &steps[token][1], &pass, token, SMALL);
            assert_defined(&format!("{what}, chunk"), &read[token], &pass, token, SMALL);
        }
    }
}

#[test]
fn a_device_that_was_opened_without_cannot_be_watched() {
    let device = gpu::backend(&model(), WeightType::F32, GpuOptions::default());
    let error = slots(&device).run_watched(&plan(&tokens(3), 0)).unwrap_err();
    assert!(matches!(error, BackendError::NotWatchable { .. }), "{error}");
    let error = slots(&device).prefill_watched(1, &chunk(&tokens(20))).unwrap_err();
    assert!(matches!(error, BackendError::NotWatchable { .. }), "{error}");
}
