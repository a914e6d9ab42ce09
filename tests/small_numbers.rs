//! States and weights in 16 or 8 bits: what they hold, and what they cost.
//!
//! Codes are compared as numbers: a code is off by half a step at most, and a step is a row's
//! largest magnitude / 127 (or 32767), rounded up by at most one sixteenth of an octave (1.0443).

mod common;
#[path = "common/gpu.rs"]
mod gpu;

use bdh_gpu::backend::cpu::CpuBackend;
use bdh_gpu::backend::gpu::GpuOptions;
use bdh_gpu::backend::memory::{Memory, WINDOW};
use bdh_gpu::backend::{Backend, Chunk, ChunkToken, Input, Output, Plan, SlotStep, StateType, WeightType};
use bdh_gpu::compare::{Comparison, compare};
use bdh_gpu::generation::{Bdh, BeamOptions, DeviceOptions, GenerationError, Session, Snapshot};
use bdh_gpu::model::forgetting::Forgetting;
use bdh_gpu::model::{Dtype, Model, SaveOptions, SyntheticSpec, Tensor};
use bdh_gpu::sampling::SamplingOptions;
use bdh_gpu::{DeviceChoice, GenerationOptions, WeightChoice};
use std::ops::ControlFlow;

const SMALL: [StateType; 2] = [StateType::I16, StateType::I8];
const FADING: Forgetting = Forgetting::After { context: 40, tau: 2.0 };

fn largest_code(state: StateType) -> f32 {
    if state == StateType::I8 { 127.0 } else { 32767.0 }
}

/// The CPU and the adapter under test.
fn devices() -> [DeviceChoice; 2] {
    [DeviceChoice::Cpu, gpu::device()]
}

fn bdh_on(device: &DeviceChoice, state: StateType, weights: WeightChoice) -> Bdh {
    let options = DeviceOptions { device: device.clone(), weights, state, threads: Some(2), watchable: false };
    Bdh::with(common::model("shakespeare"), &options).expect("the device holds it")
}

fn bdh(state: StateType, weights: WeightChoice) -> Bdh {
    bdh_on(&DeviceChoice::Cpu, state, weights)
}

/// A model on the CPU, and on the adapter in both layouts.
fn backends(model: &Model, state: StateType) -> Vec<(&'static str, Box<dyn Backend>)> {
    let cpu = CpuBackend::new(model, WeightType::F32, Some(1)).unwrap().with_state(state);
    let gpu = |hardware_layout| {
        let options = GpuOptions { state, hardware_layout, ..GpuOptions::default() };
        Box::new(gpu::backend(model, WeightType::F32, options))
    };
    vec![("CPU", Box::new(cpu)), ("GPU", gpu(false)), ("hardware", gpu(true))]
}

fn random(n_embd: usize, n_head: usize, neurons_per_head: usize) -> Model {
    let vocab_size = 61;
    let spec = SyntheticSpec { n_layer: 2, n_embd, n_head, neurons_per_head, vocab_size, density: 0.3, seed: 11 };
    Model::synthetic(&spec)
}

/// Numbers from -1 to 1 that follow no pattern.
fn noise(count: usize) -> Vec<f32> {
    let mut seed = 12345u32;
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

// ---- kernels ----

/// What enters a row is rounded to half a step of the row that results, over odd shapes, rows of
/// zeros, one huge number, and subnormals.
#[test]
fn settling_rounds_to_the_nearest_code() {
    for (width, heads, neurons) in [(1, 1, 2), (5, 3, 34), (72, 2, 300), (256, 1, 64)] {
        let model = random(width, heads, neurons);
        let rows = heads * neurons;
        let states = SMALL.into_iter().flat_map(|state| {
            backends(&model, state).into_iter().map(move |(device, backend)| (state, device, backend))
        });
        for (state, device, backend) in states {
            let mut memory = Memory::zeros(1, heads, neurons, width);
            memory.recent = noise(WINDOW * width);
            memory.rotated = noise(rows * WINDOW);
            // Exact codes before: what is there is not rounded twice.
            let step = 1.0 / largest_code(state);
            for (index, row) in memory.state.chunks_exact_mut(width).enumerate() {
                let codes = noise(width).into_iter().map(|x| (x * largest_code(state)).round());
                row.iter_mut().zip(codes).for_each(|(x, code)| *x = code * step);
                row[index % width] = 1.0;
                match index % 7 {
                    // Nothing enters.
                    3 => memory.rotated[index * WINDOW..][..WINDOW].fill(0.0),
                    4 => row.fill(0.0),
                    5 => row[0] = 1e20,
                    6 => row.fill(f32::MIN_POSITIVE / 2.0),
                    _ => {}
                }
            }
            let got = backend.stages().settle(&memory, 0, 1).unwrap();
            let exact = CpuBackend::new(&model, WeightType::F32, Some(1)).unwrap();
            // The exact kernel on what the codes hold.
            let held = backend.stages().rescale(&memory, &[1.0]).unwrap();
            let expected = exact.stages().settle(&held, 0, 1).unwrap();
            assert_eq!((&got.rotated, &got.recent), (&expected.rotated, &expected.recent));
            let mut worst = 0.0f32;
            let pairs = got.state.chunks_exact(width).zip(expected.state.chunks_exact(width));
            for (index, (got, expected)) in pairs.enumerate() {
                if index % 7 == 3 {
                    assert_eq!(got, &held.state[index * width..][..width], "a row that nothing enters keeps its codes");
                    continue;
                }
                let largest = expected.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
                let limit = 0.5001 * 1.0443 * largest / largest_code(state) + 1e-30;
                for (got, expected) in got.iter().zip(expected) {
                    assert!(
                        (got - expected).abs() <= limit,
                        "{device} {state} D{width} row {index}: {got}, not {expected}"
                    );
                    worst = worst.max((got - expected).abs() / limit);
                }
            }
            // Truncation would show as a whole step.
            assert!(width == 1 || worst > 0.5, "{device} {state} D{width}: {worst}");
        }
    }
}

/// The states after steps, a chunk and steps, and all logits.
fn run(backend: &CpuBackend) -> [Vec<f32>; 2] {
    let mut slots = backend.create_slots(1).unwrap();
    let step = |position: u32| {
        let (input, output) = (Input::Token((7 * position + 3) % 61), Output::Logits);
        let rescale = (position % 10 == 9).then_some(0.5);
        vec![SlotStep { input, output, position, read_scale: 0.9, write_scale: 1.1, rescale }]
    };
    let mut logits = Vec::new();
    for (first, last) in [(0, 40), (77, 100)] {
        let plan = Plan { steps: (first..last).map(step).collect(), trace_logits: true };
        logits.extend(slots.run(&plan).unwrap().logits.into_iter().flatten().flatten());
        if first == 0 {
            let token = |t: u32| ChunkToken { token: t * t % 61, read_scale: 0.9, write_scale: 1.1 };
            let chunk = Chunk { position: 40, rescale: Some(0.5), tokens: (0..37).map(token).collect(), logits: true };
            logits.extend(slots.prefill(0, &chunk).unwrap());
        }
    }
    [logits, slots.read_state(0).unwrap()]
}

/// A model with the weights that 8-bit codes stand for.
fn dequantised(model: &Model) -> Model {
    let mut model = model.clone();
    let config = &model.config;
    let (heads, width, neurons) = (config.n_head, config.n_embd, config.neurons_per_head);
    let round = |tensor: &Tensor, row_of: &dyn Fn(usize) -> usize, rows: usize| {
        let mut values = tensor.to_vec();
        let mut largest = vec![0.0f32; rows];
        for (index, value) in values.iter().enumerate() {
            largest[row_of(index)] = largest[row_of(index)].max(value.abs());
        }
        for (index, value) in values.iter_mut().enumerate() {
            let scale = largest[row_of(index)] / 127.0;
            *value = if scale == 0.0 { 0.0 } else { (*value * (1.0 / scale)).round_ties_even() * scale };
        }
        Tensor::from_f32(tensor.shape(), values)
    };
    let column = |index: usize| index / (width * neurons) * neurons + index % neurons;
    let weights = &mut model.weights;
    weights.encoder = round(&weights.encoder, &column, heads * neurons);
    weights.encoder_v = round(&weights.encoder_v, &column, heads * neurons);
    weights.decoder = round(&weights.decoder, &|index| index / width, heads * neurons);
    for table in [&mut weights.embed, &mut weights.lm_head] {
        let halves = table.to_vec().into_iter().map(|x| half::f16::from_f32(x).to_f32()).collect();
        *table = Tensor::from_f32(table.shape(), halves);
    }
    model
}

/// Codes are exact: the same model in f32 differs by the order of multiplications alone.
#[test]
fn eight_bit_weights_are_the_model_that_their_codes_stand_for() {
    for (width, heads, neurons) in [(5, 3, 34), (72, 2, 200), (256, 2, 130)] {
        let model = random(width, heads, neurons);
        let codes = CpuBackend::new(&model, WeightType::I8, Some(2)).unwrap();
        let floats = CpuBackend::new(&dequantised(&model), WeightType::F32, Some(2)).unwrap();
        assert!(codes.weight_bytes() < floats.weight_bytes() / 2);
        for (got, expected) in run(&codes).iter().zip(&run(&floats)) {
            let expected: Vec<f64> = expected.iter().map(|&x| x.into()).collect();
            let distance = common::distance(got, &expected);
            // f32's rounding over a few layers; a wrong scale would be some hundredth.
            assert!(distance.nmse < 1e-9, "D{width}: {distance:?}");
        }
    }
}

// ---- quality ----

/// A text of the model's own.
fn text() -> Vec<u32> {
    let options = GenerationOptions { max_new_tokens: 2999, seed: Some(8), ..GenerationOptions::default() };
    let exact = bdh(StateType::F32, WeightChoice::Auto);
    let mut session = exact.session_with(Forgetting::After { context: 256, tau: 128.0 }).unwrap();
    [vec![10], session.generate(&options).unwrap().tokens].concat()
}

fn compared(device: &DeviceChoice, state: StateType, weights: WeightChoice, forgetting: Forgetting) -> Comparison {
    let exact = bdh_on(device, StateType::F32, WeightChoice::Auto);
    let other = bdh_on(device, state, weights);
    let mut text = text();
    if *device != DeviceChoice::Cpu {
        // A software adapter is slow.
        text.truncate(1000);
    }
    compare(&exact, &other, &text, forgetting, 1000, |_| ControlFlow::Continue(())).unwrap()
}

/// Bounds as measured over 20,000 bytes of the model's own kind of text, where divergences are a
/// third of them.
#[test]
fn predictions_hardly_change() {
    let fading = Forgetting::After { context: 256, tau: 128.0 };
    let bounds = [
        (StateType::F32, WeightChoice::Auto, 0.0, 1.0),
        (StateType::I16, WeightChoice::Auto, 1e-8, 0.999),
        (StateType::I8, WeightChoice::Auto, 2e-4, 0.99),
        (StateType::I8, WeightChoice::Int8, 4e-4, 0.985),
    ];
    let (cpu, gpu) = (DeviceChoice::Cpu, gpu::device());
    let on_gpu = bounds.iter().skip(2).map(|bounds| (&gpu, bounds));
    for (device, &(state, weights, divergence, greedy)) in bounds.iter().map(|bounds| (&cpu, bounds)).chain(on_gpu) {
        let found = compared(device, state, weights, fading);
        let count = if *device == cpu { 3000 } else { 1000 };
        assert_eq!(found.predicted, count - 1);
        assert!(found.divergence <= divergence && found.same_greedy >= greedy, "{device:?} {state}: {found:?}");
        let [exact, bits] = found.bits();
        assert!((bits - exact).abs() < 0.005, "{state}: {exact} and {bits} bits");
        assert!(found.same_drawn > 0.95 && found.divergence_by_block.len() == count / 1000, "{found:?}");
        // Rounding toward zero, a lost scale or a state that fades would be far above.
        assert!(divergence == 0.0 || found.divergence > divergence / 1e3, "{state}: it is not exact: {found:?}");
        let fewer = found.other.bytes_per_token < found.exact.bytes_per_token;
        assert_eq!(fewer, (state, weights) != (StateType::F32, WeightChoice::Auto));
    }
    let full = compared(&DeviceChoice::Cpu, StateType::I16, WeightChoice::Auto, Forgetting::Full);
    assert!(full.divergence < 1e-5 && full.same_greedy > 0.999, "{full:?}");
}

#[test]
fn an_8_bit_state_needs_forgetting() {
    let bdh = bdh(StateType::I8, WeightChoice::Auto);
    let refused = |result: Result<(), GenerationError>| {
        assert!(matches!(result, Err(GenerationError::FadingState)), "{result:?}");
    };
    refused(bdh.session_with(Forgetting::Full).map(drop));
    refused(bdh.session_with(FADING).unwrap().set_forgetting(Forgetting::Full));
    let beam = BeamOptions { num_beams: 2, max_new_tokens: 4, ..BeamOptions::default() };
    refused(bdh.beam_search(&[75], &SamplingOptions::default(), &beam, Forgetting::Full).map(drop));
}

// ---- texts ----

fn session(bdh: &Bdh) -> Session {
    let mut session = bdh.session_with(FADING).unwrap();
    session.feed(&bdh.encode(b"KING:\nWhat news from the north, my lord?").unwrap()).unwrap();
    session
}

fn options(max_new_tokens: usize) -> GenerationOptions {
    GenerationOptions { max_new_tokens, seed: Some(3), ..GenerationOptions::default() }
}

#[test]
fn a_text_does_not_depend_on_its_company_or_its_bursts() {
    for (state, device) in SMALL.into_iter().flat_map(|state| devices().map(|device| (state, device))) {
        let bdh = bdh_on(&device, state, WeightChoice::Int8);
        let prompts = ["KING:\n", "To be or not to be, that is the question:\n", "A"];
        let alone: Vec<String> =
            prompts.iter().map(|prompt| bdh.generate_text(prompt, &options(60)).unwrap()).collect();
        assert_eq!(bdh.generate_batch(&prompts, &options(60)).unwrap(), alone, "{device:?} {state}");
        let mut short = session(&bdh);
        short.limit_burst(3);
        assert_eq!(short.generate(&options(80)).unwrap(), session(&bdh).generate(&options(80)).unwrap());
    }
}

#[test]
fn a_search_finds_what_it_finds_with_exact_numbers() {
    let beam = BeamOptions { num_beams: 3, num_return_sequences: 2, max_new_tokens: 40, ..BeamOptions::default() };
    for device in devices() {
        let search = |state| {
            let bdh = bdh_on(&device, state, WeightChoice::Auto);
            session(&bdh).beam_search(&SamplingOptions::default(), &beam).unwrap()
        };
        let exact = search(StateType::F32);
        let small = search(StateType::I16);
        assert_eq!(small[0].tokens, exact[0].tokens, "{device:?}");
        assert!((small[0].score - exact[0].score).abs() < 1e-4);
        let smaller = search(StateType::I8);
        assert!((smaller[0].score - exact[0].score).abs() < 0.05, "{} and {}", smaller[0].score, exact[0].score);
    }
}

#[test]
fn a_state_file_keeps_its_codes_and_loads_into_any_type() {
    let folder = tempfile::tempdir().unwrap();
    for from in [StateType::F32, StateType::I16, StateType::I8] {
        let bdh_from = bdh(from, WeightChoice::Auto);
        let mut first = session(&bdh_from);
        first.generate(&options(70)).unwrap();
        let path = folder.path().join("state");
        first.snapshot().unwrap().save(&bdh_from, &path).unwrap();
        let length = std::fs::metadata(&path).unwrap().len();
        // 8 MiB of floats, and what all types have beside them.
        assert!(from == StateType::F32 || length < 6 << 20, "{from}: {length} bytes");
        let next = |session: &mut Session| session.generate(&options(30)).unwrap().tokens;
        let expected = next(&mut session_of(&bdh_from, &path));
        assert_eq!(next(&mut first), expected, "{from}: bit for bit");
        for to in [StateType::F32, StateType::I16, StateType::I8] {
            let bdh_to = bdh(to, WeightChoice::Auto);
            let mut moved = session_of(&bdh_to, &path);
            let saved = moved.snapshot().unwrap();
            assert_eq!((saved.state_type(), saved.position()), (to, 40 + 70), "{from} to {to}");
            if from == to || (from, to) == (StateType::I16, StateType::F32) {
                assert_eq!(next(&mut moved)[..10], expected[..10], "{from} to {to}");
            }
        }
    }
}

/// A snapshot moves from one device to the other without a change, and the text goes on from it.
#[test]
fn a_state_moves_between_devices_as_it_is() {
    let [cpu, gpu] = devices();
    for state in SMALL {
        for (from, to) in [(&cpu, &gpu), (&gpu, &cpu)] {
            let mut first = session(&bdh_on(from, state, WeightChoice::Auto));
            first.generate(&options(70)).unwrap();
            let saved = first.snapshot().unwrap();
            let other = bdh_on(to, state, WeightChoice::Auto);
            let mut second = other.session_with(FADING).unwrap();
            second.restore(&saved).unwrap();
            assert!(second.snapshot().unwrap() == saved, "{from:?} to {to:?}, {state}");
            let next = |session: &mut Session| session.generate(&options(10)).unwrap().tokens;
            assert_eq!(next(&mut first), next(&mut second), "{from:?} to {to:?}, {state}");
        }
    }
}

/// A session that goes on from a file.
fn session_of(bdh: &Bdh, path: &std::path::Path) -> Session {
    let snapshot = Snapshot::load(bdh, path).unwrap();
    let mut session = bdh.session_with(FADING).unwrap();
    session.restore(&snapshot).unwrap();
    session
}

// ---- files ----

#[test]
fn a_converted_model_is_the_one_that_is_rounded_when_it_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["shakespeare", "odd-shapes"] {
        let path = folder.path().join(name);
        let model = common::model(name);
        model.save(&path, &SaveOptions { dtype: Some(Dtype::I8), overwrite: false }).unwrap();
        let weights = std::fs::metadata(path.join("model.safetensors")).unwrap().len();
        // Codes, a scale for every neuron of three matrices, halves, and the header.
        let config = &model.config;
        let (codes, tables) = (3 * config.neurons() * config.n_embd, 2 * config.vocab_size * config.n_embd);
        let expected = codes + 3 * 4 * config.neurons() + 2 * tables + 4 * config.neurons_per_head;
        assert!(weights < expected as u64 + 2000, "{name}: {weights} bytes, not {expected}");

        let open = |model: Model, weights| {
            let device = DeviceOptions { device: DeviceChoice::Cpu, weights, threads: Some(2), ..Default::default() };
            Bdh::with(model, &device).unwrap()
        };
        let rounded = open(model, WeightChoice::Int8);
        let stored = open(Model::from_path(&path).unwrap(), WeightChoice::Auto);
        assert_eq!(stored.backend().weight_type(), WeightType::I8);
        assert_eq!(stored.backend().weight_bytes(), rounded.backend().weight_bytes());
        let tokens: Vec<u32> = (0..40).map(|i| i * 7 % config_vocab(&stored)).collect();
        let logits = |bdh: &Bdh| bdh.logits(&tokens, FADING, |_| ControlFlow::Continue(())).unwrap();
        assert_eq!(logits(&stored), logits(&rounded), "{name}: bit for bit");
        // The same numbers, as floats.
        let floats = open(Model::from_path(&path).unwrap(), WeightChoice::F32);
        let expected: Vec<f64> = logits(&floats).into_iter().map(f64::from).collect();
        assert!(common::distance(&logits(&stored), &expected).nmse < 1e-9, "{name}");
        // Converted again, it stays what it is.
        let again = folder.path().join(format!("{name}-again"));
        stored.model().save(&again, &SaveOptions::default()).unwrap();
        let read = |path: &std::path::Path| std::fs::read(path.join("model.safetensors")).unwrap();
        assert!(read(&again) == read(&path), "{name}: the same file");
    }
}

fn config_vocab(bdh: &Bdh) -> u32 {
    bdh.model().config.vocab_size as u32
}

#[test]
fn codes_without_sound_scales_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model");
    common::model("odd-shapes").save(&path, &SaveOptions { dtype: Some(Dtype::I8), overwrite: false }).unwrap();
    let file = path.join("model.safetensors");
    let sound = std::fs::read(&file).unwrap();
    let header =
        String::from_utf8(sound[8..8 + u64::from_le_bytes(sound[..8].try_into().unwrap()) as usize].to_vec()).unwrap();
    let refused = |header: &str, expected: &str| {
        let mut bytes = sound.clone();
        bytes[8..8 + header.len()].copy_from_slice(header.as_bytes());
        std::fs::write(&file, &bytes).unwrap();
        let error = Model::from_path(&path).map(drop).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    };
    refused(&header.replace("encoder_v.scale", "encoder_v.stale"), "encoder_v");
    refused(&header.replace("decoder.scale", "encoder.extra"), "decoder");
    let mut bytes = sound.clone();
    // The last scale is a NaN; frequencies may follow.
    let at = header
        .find("decoder.scale")
        .map(|at| header[at..].find("data_offsets").map(|offsets| at + offsets))
        .unwrap()
        .unwrap();
    let offsets: Vec<usize> =
        header[at..].split(['[', ',', ']']).skip(1).take(2).map(|x| x.trim().parse().unwrap()).collect();
    bytes[8 + header.len() + offsets[0]..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&file, &bytes).unwrap();
    let error = Model::from_path(&path).map(drop).unwrap_err().to_string();
    assert!(error.contains("decoder"), "{error}");
}
