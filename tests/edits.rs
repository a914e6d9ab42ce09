//! Ablated and clamped neurons: the definition with those activations replaced, on every device, in
//! steps, chunks and beams, with weights of every type.

mod common;
#[path = "common/gpu.rs"]
mod gpu;

use bdh_gpu::Forgetting;
use bdh_gpu::backend::beams::{BeamFold, BeamRead, BeamStep, PathEntry};
use bdh_gpu::backend::cpu::CpuBackend;
use bdh_gpu::backend::gpu::{GpuOptions, Rewrite};
use bdh_gpu::backend::watch::TokenNeurons;
use bdh_gpu::backend::{Backend, Chunk, ChunkToken, Input, Output, Plan, SlotStep, Slots, WeightType};
use bdh_gpu::generation::{Bdh, DeviceChoice, Snapshot, StateError, WeightChoice};
use bdh_gpu::model::{EditError, Model, ModelError, NeuronEdit, NeuronError, NeuronName, SaveOptions, SyntheticSpec};
use bdh_gpu::sampling::{SamplerParams, SamplingOptions};
use bdh_gpu::verify::{self, CaseReport, Suite, clamped_suites};
use common::{assert_close, naive};
use std::collections::{BTreeMap, BTreeSet};

const VOCAB: usize = 61;
/// Sums of 40 products of numbers of size one, in f32.
const SMALL: f64 = 1e-4;
const NMSE: f64 = 1e-8;
const MAX_ABS: f64 = 1e-3;

/// Three layers; heads of 60 neurons, which no block divides.
fn model(weights: WeightType) -> Model {
    let mut model = Model::synthetic(&SyntheticSpec {
        n_layer: 3,
        n_embd: 40,
        n_head: 2,
        neurons_per_head: 60,
        vocab_size: VOCAB,
        density: 0.3,
        seed: 5,
    });
    // The engine's numbers are those of the model then, and the definition reads them too.
    model.weights = match weights {
        WeightType::F32 => model.weights,
        WeightType::F16 => model.weights.to_f16(),
        WeightType::I8 => model.weights.to_int8(),
    };
    model
}

fn neuron(name: &str) -> NeuronName {
    name.parse().unwrap()
}

/// Both neurons of a pair, one of a pair, the first and the last of all; a clamp to zero.
fn edits() -> Vec<NeuronEdit> {
    let ablated = ["0.0", "0.17", "1.30", "1.31"].map(|name| NeuronEdit::Ablate(neuron(name)));
    let clamped = [("0.1", 0.75), ("0.40", 1.5), ("1.5", 0.0), ("1.12", 0.1), ("1.13", 2.3), ("1.59", 1.0)];
    ablated.into_iter().chain(clamped.map(|(name, value)| NeuronEdit::Clamp(neuron(name), value))).collect()
}

/// The edits' activations by number, for the definition.
fn values(model: &Model, edits: &[NeuronEdit]) -> BTreeMap<usize, f32> {
    edits.iter().map(|edit| (edit.neuron().number(&model.config).unwrap() as usize, edit.value())).collect()
}

fn tokens(count: usize) -> Vec<u32> {
    (0..count as u32).map(|t| (7 * t + t * t) % VOCAB as u32).collect()
}

/// Every kind of device with a model, and a name for it.
fn devices(model: &Model, weights: WeightType) -> Vec<(String, Box<dyn Backend>)> {
    let mut all: Vec<(String, Box<dyn Backend>)> = vec![
        (format!("CPU {weights}, 1 thread"), Box::new(CpuBackend::new(model, weights, Some(1)).unwrap())),
        (format!("CPU {weights}, 2 threads"), Box::new(CpuBackend::new(model, weights, Some(2)).unwrap())),
    ];
    // The second has segments of two blocks.
    for (hardware_layout, max_binding) in [(false, None), (true, Some(20_000))] {
        let options = GpuOptions { watchable: true, hardware_layout, max_binding, ..GpuOptions::default() };
        let device = gpu::backend(model, weights, options);
        assert!(device.chunk_tokens() >= 16, "{} tokens in a chunk", device.chunk_tokens());
        all.push((format!("GPU {weights}, hardware {hardware_layout}"), Box::new(device)));
    }
    all
}

/// Steps that read `tokens` from `position` on, in slot 1 of 2.
fn plan(position: usize, tokens: &[u32]) -> Plan {
    let step = |(t, &token): (usize, &u32)| {
        let (input, position) = (Input::Token(token), (position + t) as u32);
        vec![SlotStep::IDLE, SlotStep { input, output: Output::Logits, position, ..SlotStep::IDLE }]
    };
    Plan { steps: tokens.iter().enumerate().map(step).collect(), trace_logits: true }
}

fn chunk(position: usize, tokens: &[u32]) -> Chunk {
    let tokens = tokens.iter().map(|&token| ChunkToken { token, read_scale: 1.0, write_scale: 1.0 }).collect();
    Chunk { position: position as u32, rescale: None, tokens, logits: true }
}

/// Logits of tokens that are read in chunks and steps in turn.
fn read(slots: &mut dyn Slots, mut tokens: &[u32]) -> Vec<f32> {
    let (mut position, mut logits) = (0, Vec::new());
    for (turn, length) in [9, 1, 16, 5, 31].into_iter().cycle().enumerate() {
        let (now, rest) = tokens.split_at(length.min(tokens.len()));
        if now.is_empty() {
            break;
        }
        match turn % 2 {
            0 => logits.extend(slots.prefill(1, &chunk(position, now)).unwrap()),
            _ => logits.extend(slots.run(&plan(position, now)).unwrap().logits.into_iter().flatten().flatten()),
        }
        (position, tokens) = (position + now.len(), rest);
    }
    logits
}

/// A token's neurons: those of the definition, edited ones exactly.
fn assert_defined(what: &str, got: &TokenNeurons, pass: &naive::Pass, token: usize, values: &BTreeMap<usize, f32>) {
    for (layer, fired) in got.iter().enumerate() {
        let mut u = vec![0.0; 120];
        fired.neurons.iter().zip(&fired.u).for_each(|(&neuron, &value)| u[neuron as usize] = value);
        for (neuron, &u) in u.iter().enumerate() {
            let at = format!("{what}, token {token}, layer {layer}, neuron {neuron}");
            let expected = pass.neurons[0][layer][token][neuron];
            assert!((f64::from(u) - expected).abs() < SMALL, "{at}: {u} instead of {expected}");
            if let Some(value) = values.get(&neuron) {
                assert_eq!(u.to_bits(), value.to_bits(), "{at}");
            }
        }
    }
}

#[test]
fn an_edited_model_is_the_definition_with_those_activations_replaced() {
    let tokens = tokens(45);
    for weights in [WeightType::F32, WeightType::F16, WeightType::I8] {
        let plain = model(weights);
        let values = values(&plain, &edits());
        let edit = |number: usize, u: f64| values.get(&number).map_or(u, |&value| f64::from(value));
        let pass = naive::pass_edited(&plain, &tokens, 0, Forgetting::Full, &edit);
        let before = naive::logits(&plain, &tokens, 0, Forgetting::Full);
        assert!(common::distance(&pass.logits.iter().map(|&x| x as f32).collect::<Vec<_>>(), &before).nmse > 1e-3);
        let mut edited = plain;
        edited.edit(&edits()).unwrap();
        for (what, device) in devices(&edited, weights) {
            let slots = || device.create_slots(2).unwrap();
            assert_close(&what, &read(&mut *slots(), &tokens), &pass.logits, NMSE, MAX_ABS);
            let (output, steps) = slots().run_watched(&plan(0, &tokens)).unwrap();
            let logits = output.logits.into_iter().flatten().flatten().collect::<Vec<_>>();
            assert_close(&format!("{what}, steps"), &logits, &pass.logits, NMSE, MAX_ABS);
            let (logits, chunk) = slots().prefill_watched(1, &chunk(0, &tokens[..20])).unwrap();
            assert_close(&format!("{what}, a chunk"), &logits, &pass.logits[..20 * VOCAB], NMSE, MAX_ABS);
            for (token, step) in steps.iter().enumerate() {
                assert_defined(&format!("{what}, steps"), &step[1], &pass, token, &values);
            }
            for (token, neurons) in chunk.iter().enumerate() {
                assert_defined(&format!("{what}, a chunk"), neurons, &pass, token, &values);
            }
        }
    }
}

#[test]
fn beams_of_an_edited_model_have_the_definitions_scores() {
    let tokens = tokens(20);
    for weights in [WeightType::F32, WeightType::I8] {
        let plain = model(weights);
        let values = values(&plain, &edits());
        let edit = |number: usize, u: f64| values.get(&number).map_or(u, |&value| f64::from(value));
        let logits = naive::pass_edited(&plain, &tokens, 0, Forgetting::Full, &edit).logits;
        let mut edited = plain;
        edited.edit(&edits()).unwrap();
        for (what, device) in devices(&edited, weights) {
            let mut beams = device.create_beams(2).unwrap();
            beams.start(&SamplerParams::new(&SamplingOptions::default(), 0, 0), &[0; VOCAB]).unwrap();
            let mut folded = 0;
            for (t, (&token, logits)) in tokens.iter().zip(logits.chunks_exact(VOCAB)).enumerate() {
                // Half-way, what has been read enters the base state.
                if t == 10 {
                    let fold = |node| BeamFold { node, write_scale: 1.0, rescale: None };
                    beams.fold(&(0..t).map(fold).collect::<Vec<_>>()).unwrap();
                    folded = t;
                }
                let path = (folded..t).map(|node| PathEntry { node, weight: 1.0 }).collect();
                let selection = beams.step(&BeamStep {
                    position: t as u32,
                    read_scale: 1.0,
                    reads: vec![BeamRead { token, node: t, path }],
                    scores: vec![0.0, -1e9],
                    parents: None,
                    generated: 0,
                    candidates: VOCAB,
                });
                let mut scores = vec![f32::NAN; VOCAB];
                for candidate in selection.unwrap().candidates.iter().filter(|candidate| candidate.beam == 0) {
                    scores[candidate.token as usize] = candidate.score;
                }
                let sum = logits.iter().map(|logit| logit.exp()).sum::<f64>().ln();
                let expected: Vec<f64> = logits.iter().map(|logit| logit - sum).collect();
                assert_close(&format!("{what}, token {t}"), &scores, &expected, NMSE, MAX_ABS);
            }
        }
    }
}

type Check = fn(&Suite, &dyn verify::Open, &mut dyn FnMut(CaseReport)) -> Result<(), verify::VerifyError>;

/// The kernels that make neurons fire, on every `step`th shape with edited ones.
fn check_kernels(options: &GpuOptions, first: usize, step: usize) -> Vec<CaseReport> {
    let suites: Vec<Suite> = clamped_suites().into_iter().skip(first).step_by(step).collect();
    let open = gpu::opener(options.clone());
    let checks: [Check; 3] = [verify::check_kernels, verify::check_beam_kernels, verify::check_prefill_kernels];
    let mut rows = Vec::new();
    for (check, suite) in checks.iter().flat_map(|check| suites.iter().map(move |suite| (check, suite))) {
        check(suite, &open, &mut |row| rows.push(row)).expect("the device answers");
    }
    rows
}

/// Kernels that add biases, and that use what these kernels of the same row leave.
const CLAMPING: [&str; 7] =
    ["beam/embed", "beam/encode", "embed", "encode", "encode_finished", "prefill/encode", "prefill/rotate"];

#[test]
fn kernels_with_clamped_neurons_agree_with_their_twins_in_every_layout() {
    let layouts = [
        GpuOptions::default(),
        GpuOptions { checked: true, ..GpuOptions::default() },
        GpuOptions { hardware_layout: true, ..GpuOptions::default() },
        GpuOptions { workgroup: Some(16), ..GpuOptions::default() },
        // Segments of one or two blocks.
        GpuOptions { hardware_layout: true, max_binding: Some(320_000), ..GpuOptions::default() },
    ];
    for (turn, options) in layouts.into_iter().enumerate() {
        let rows = check_kernels(&options, turn % 2, 2);
        let failed: Vec<&CaseReport> = rows.iter().filter(|row| !row.passed).collect();
        assert!(failed.is_empty(), "{options:?}: {failed:#?}");
        let kernels: BTreeSet<&str> = rows.iter().map(|row| row.kernel.as_str()).collect();
        assert_eq!(kernels, BTreeSet::from(CLAMPING));
    }
}

/// Biases that are those of the neighbours, or of the tile before, do not pass.
#[test]
fn wrong_biases_are_noticed() {
    fn swapped(_: &str, text: String) -> String {
        text.replace("- BIAS_VECTORS + column));", "- BIAS_VECTORS + column)).yxzw;")
    }
    fn earlier(_: &str, text: String) -> String {
        text.replace("(tile + 1u) * TILE_VECTORS - BIAS_VECTORS", "(tile + 1u) * TILE_VECTORS - 2u * BIAS_VECTORS")
    }
    let rewrites: [Rewrite; 2] = [swapped, earlier];
    for (rewrite, hardware_layout) in rewrites.into_iter().zip([false, true]) {
        let options = GpuOptions { rewrite: Some(rewrite), hardware_layout, ..GpuOptions::default() };
        let passed: Vec<CaseReport> = check_kernels(&options, 1, 3).into_iter().filter(|row| row.passed).collect();
        assert!(passed.is_empty(), "{passed:#?}");
    }
}

/// Only clamped neurons need kernels of their own, and only where neurons fire.
#[test]
fn kernels_are_compiled_for_biases_only_where_neurons_are_clamped() {
    let texts = |edits: &[NeuronEdit]| {
        let mut model = model(WeightType::F32);
        model.edit(edits).unwrap();
        gpu::backend(&model, WeightType::F32, GpuOptions::default()).shader_texts(1)
    };
    let [plain, ablated, clamped] = [&[], &edits()[..4], &edits()[..]].map(texts);
    assert_eq!(plain, ablated);
    assert!(plain.iter().all(|(_, text)| !text.contains("bias.wgsl")));
    let other = plain.iter().zip(&clamped).filter(|(plain, clamped)| plain != clamped);
    let expected =
        ["decode/embed", "decode/encode", "decode/encode_finished", "beam/embed", "beam/encode", "prefill/encode"];
    assert_eq!(other.map(|((name, _), _)| *name).collect::<Vec<_>>(), expected);
}

#[test]
fn neurons_have_one_name_each() {
    let config = model(WeightType::F32).config;
    for number in [0, 1, 59, 60, 119] {
        let name = NeuronName::of_number(number, &config);
        assert_eq!(name, neuron(&name.to_string()));
        assert_eq!(name.number(&config), Ok(number));
    }
    assert_eq!(neuron("1.40"), NeuronName { head: 1, index: 40 });
    assert_eq!(format!("{:>6}", neuron("1.40")), "  1.40");
    for other in ["", ".", "1", "1.", ".4", "01.4", "1.04", "+1.4", "-1.4", "1.4.0", " 1.4", "1,4", "1.4294967296"] {
        let error = other.parse::<NeuronName>().unwrap_err();
        assert_eq!(error, NeuronError::Form { found: other.to_string() });
        let text = format!("{other:?} is no neuron, expected its head and its index there, as 3.1021");
        assert_eq!(error.to_string(), text);
    }
    for other in ["2.0", "0.60", "4294967295.4294967295"] {
        let error = neuron(other).number(&config).unwrap_err();
        assert_eq!(error.to_string(), format!("neuron {other} does not exist, expected 0.0 to 1.59"));
    }
}

#[test]
fn impossible_edits_change_nothing() {
    use NeuronEdit::{Ablate, Clamp};
    let mut model = model(WeightType::F32);
    let before = model.weights.encoder.to_vec();
    let own = neuron("0.3");
    for value in [-1.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let error = model.edit(&[Ablate(neuron("1.1")), Clamp(own, value)]).unwrap_err();
        assert!(matches!(error, EditError::Value { neuron, .. } if neuron == own), "{error}");
        let text = format!("neuron 0.3 cannot be clamped to {value}, expected a finite number of 0 or more");
        assert_eq!(error.to_string(), text);
    }
    let error = model.edit(&[Ablate(own), Ablate(neuron("0.60"))]).unwrap_err();
    assert!(matches!(error, EditError::Neuron(NeuronError::Outside { .. })), "{error}");
    let error = model.edit(&[Ablate(own), Clamp(own, 1.0)]).unwrap_err();
    assert_eq!(error.to_string(), "neuron 0.3 is edited twice, expected one edit per neuron");
    assert!(model.edits().is_empty());
    assert_eq!(model.weights.encoder.to_vec(), before);
    // Another time, the new value counts.
    model.edit(&[Clamp(own, 1.0)]).unwrap();
    model.edit(&[Clamp(own, -0.0), Clamp(neuron("0.4"), 2.0)]).unwrap();
    let edits: Vec<(String, u32)> =
        model.edits().iter().map(|(name, value)| (name.to_string(), value.to_bits())).collect();
    assert_eq!(edits, [("0.3".to_string(), 0), ("0.4".to_string(), 2f32.to_bits())]);
}

/// Ablated neurons are weights of zero, in files too; clamped ones have no place there.
#[test]
fn only_models_without_clamped_neurons_are_written_and_merged() {
    for weights in [WeightType::F32, WeightType::F16, WeightType::I8] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("edited");
        let mut model = model(weights);
        let dtype = model.weights_dtype();
        model.edit(&edits()[..4]).unwrap();
        assert_eq!(model.weights_dtype(), dtype);
        model.save(&path, &SaveOptions::default()).unwrap();
        let saved = Model::from_path(&path).unwrap();
        assert_eq!(saved.weights_dtype(), dtype);
        let encoder = saved.weights.encoder.to_vec();
        assert_eq!(encoder, model.weights.encoder.to_vec());
        // Columns 0.17 and 1.31.
        let columns = (0..40).flat_map(|d| [d * 60 + 17, (40 + d) * 60 + 31]);
        assert!(columns.into_iter().all(|at| encoder[at] == 0.0));
        model.merge(&saved).unwrap();

        model.edit(&edits()).unwrap();
        let other = folder.path().join("clamped");
        let error = model.save(&other, &SaveOptions::default()).unwrap_err();
        assert!(matches!(error, ModelError::Save { .. }), "{error}");
        assert!(error.to_string().contains("has 5 clamped neurons (first 0.1), expected weights alone"), "{error}");
        assert!(!other.exists());
        for error in [model.merge(&saved), saved.merge(&model)].map(Result::unwrap_err) {
            assert!(error.to_string().contains("clamped"), "{error}");
        }
    }
}

/// A state remembers what its neurons did, so that a file fits its own edits only.
#[test]
fn a_state_file_belongs_to_its_edits() {
    let folder = tempfile::tempdir().unwrap();
    let open = |edits: &[NeuronEdit]| {
        let mut model = model(WeightType::F32);
        model.edit(edits).unwrap();
        Bdh::new(model, &DeviceChoice::Cpu, WeightChoice::Auto).unwrap()
    };
    let own = neuron("0.1");
    let one = [NeuronEdit::Ablate(own), NeuronEdit::Clamp(own, 0.5), NeuronEdit::Clamp(own, 0.75)];
    let all = [&[], &one[..1], &one[1..2], &one[2..], &edits()[..1], &edits()[..5]].map(open);
    for (own, bdh) in all.iter().enumerate() {
        let mut session = bdh.session().unwrap();
        session.feed(&tokens(5)).unwrap();
        let snapshot = session.snapshot().unwrap();
        let path = folder.path().join(own.to_string());
        snapshot.save(bdh, &path).unwrap();
        for (index, bdh) in all.iter().enumerate() {
            match Snapshot::load(bdh, &path) {
                Ok(loaded) => assert!(index == own && loaded == snapshot, "{own} in {index}"),
                Err(error) => assert!(index != own && matches!(error, StateError::OtherModel { .. }), "{error}"),
            }
            // In memory a text may go on with other edits than it began with.
            bdh.session().unwrap().restore(&snapshot).unwrap();
        }
    }
}

/// The model keeps its edits where only the backend's copy of its weights stays, and where it is
/// rounded to 8 bits afterwards.
#[test]
fn edits_outlast_the_models_own_weights() {
    let tokens = tokens(30);
    let mut edited = model(WeightType::F32);
    edited.edit(&edits()).unwrap();
    let bdh = Bdh::new(edited.clone(), &DeviceChoice::Cpu, WeightChoice::Int8).unwrap();
    let mut codes = model(WeightType::I8);
    codes.edit(&edits()).unwrap();
    let logits = |model: &Model| {
        let device = CpuBackend::new(model, WeightType::I8, Some(1)).unwrap();
        read(&mut *device.create_slots(2).unwrap(), &tokens)
    };
    let expected = logits(&codes);
    assert_eq!(logits(&edited), expected);
    assert_eq!(logits(bdh.model()), expected);
    assert_eq!(bdh.model().edits(), edited.edits());
}
