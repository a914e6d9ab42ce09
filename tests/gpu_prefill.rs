//! Chunks of tokens on the adapter: every kernel against its twin, and whole models against the reference
//! implementation's results and against the same tokens one by one. Tolerances as in `gpu_goldens.rs`.

mod common;
#[path = "common/gpu.rs"]
mod gpu;

use bdh_gpu::backend::gpu::{GpuBackend, GpuOptions, Phase, kernel_names};
use bdh_gpu::backend::{
    Backend, BackendError, Chunk, ChunkToken, Input, Output, Plan, SlotStep, Slots, StateType, WeightType,
};
use bdh_gpu::model::Model;
use bdh_gpu::model::forgetting::{Clock, Forgetting};
use bdh_gpu::verify::{self, CaseReport, Suite, prefill_suites};
use common::{FOLDERS, Golden, assert_close, model};

const NMSE: f64 = 1e-8;
const MAX_ABS: f64 = 1e-3;

// ---- kernels ----

fn check_kernels(suites: &[Suite], options: GpuOptions) -> Vec<CaseReport> {
    let open = gpu::opener(options);
    let mut rows = Vec::new();
    for suite in suites {
        verify::check_prefill_kernels(suite, &open, &mut |row| rows.push(row)).expect("the device answers");
    }
    rows
}

fn assert_passed(rows: &[CaseReport]) {
    for kernel in kernel_names(Phase::Prefill) {
        assert!(rows.iter().any(|row| row.kernel == kernel), "{kernel} was not run");
    }
    let failed: Vec<&CaseReport> = rows.iter().filter(|row| !row.passed).collect();
    assert!(failed.is_empty(), "{} of {} rows failed: {failed:#?}", failed.len(), rows.len());
}

#[test]
fn kernels_agree_with_their_twins() {
    assert_passed(&check_kernels(&prefill_suites(), GpuOptions::default()));
}

#[test]
fn kernels_with_bounds_checks_agree_with_their_twins() {
    let suites: Vec<Suite> = prefill_suites().into_iter().step_by(4).collect();
    assert_passed(&check_kernels(&suites, GpuOptions { checked: true, ..GpuOptions::default() }));
}

#[test]
fn kernels_laid_out_for_hardware_agree_with_their_twins() {
    let suites: Vec<Suite> = prefill_suites().into_iter().skip(1).step_by(3).collect();
    assert_passed(&check_kernels(&suites, GpuOptions { hardware_layout: true, ..GpuOptions::default() }));
}

/// The rows of a broken kernel fail, and those of other stages do not.
#[test]
fn a_corrupted_kernel_fails_alone() {
    let stages: [&[&str]; 9] = [
        &["prefill/embed"],
        &["prefill/finish"],
        &["prefill/encode"],
        &["prefill/rotate"],
        &["prefill/scores", "prefill/read", "prefill/attend"],
        &["prefill/write"],
        &["prefill/gate"],
        &["prefill/decode"],
        &["prefill/logits"],
    ];
    let suite_of = |weights| prefill_suites().into_iter().find(|suite| suite.weights == weights).expect("a suite");
    let kernels = || kernel_names(Phase::Prefill).into_iter();
    let coded = prefill_suites().into_iter().filter(|suite| suite.state != StateType::F32).take(2);
    let chosen: Vec<Suite> = [WeightType::F16, WeightType::I8].map(suite_of).into_iter().chain(coded).collect();
    let uses_states = ["prefill/read", "prefill/write"];
    for (suite, kernel) in chosen.iter().flat_map(|suite| kernels().map(move |kernel| (suite, kernel))) {
        if suite.state != StateType::F32 && !uses_states.contains(&kernel) {
            continue;
        }
        let own = stages.iter().find(|stage| stage.contains(&kernel)).expect("a stage");
        // What is made of a wrong result is wrong too.
        let then: &[&str] = match kernel {
            "prefill/encode" => &["prefill/rotate"],
            "prefill/gate" => &["prefill/decode"],
            _ => &[],
        };
        let options = GpuOptions { corrupt: Some(kernel.to_string()), ..GpuOptions::default() };
        for row in check_kernels(std::slice::from_ref(suite), options) {
            let fails = own.contains(&row.kernel.as_str()) || then.contains(&row.kernel.as_str());
            assert_eq!(row.passed, !fails, "{kernel} is corrupt: {row:?}");
        }
    }
}

// ---- whole models ----

/// Reads a sequence's first tokens; see [`read_on`].
fn read(slots: &mut dyn Slots, slot: usize, tokens: &[u32], parts: &[usize], forgetting: Forgetting) -> Vec<f32> {
    read_on(slots, slot, tokens, parts, &mut Clock::new(forgetting))
}

/// Reads a sequence's next tokens in parts of the lengths given, in turn; a part of one token is a step. Returns the
/// logits `[T, V]`.
fn read_on(slots: &mut dyn Slots, slot: usize, tokens: &[u32], parts: &[usize], clock: &mut Clock) -> Vec<f32> {
    let mut logits = Vec::new();
    let (mut rest, mut part) = (tokens, 0);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(parts[part % parts.len()].min(rest.len()));
        let mut next = now;
        while !next.is_empty() {
            let first = clock.tick();
            let token = |token, read_scale, write_scale| ChunkToken { token, read_scale, write_scale };
            let mut read = vec![token(next[0], first.read_scale, first.write_scale)];
            if now.len() == 1 {
                let mut steps = vec![SlotStep::IDLE; slots.count()];
                steps[slot] = SlotStep {
                    input: Input::Token(next[0]),
                    output: Output::Logits,
                    position: first.position,
                    read_scale: first.read_scale,
                    write_scale: first.write_scale,
                    rescale: first.rescale,
                };
                let run = slots.run(&Plan { steps: vec![steps], trace_logits: true }).unwrap();
                logits.extend_from_slice(&run.logits[0][slot]);
            } else {
                // A chunk ends before a token that rescales the state.
                for &id in &next[1..] {
                    let tick = { *clock }.tick();
                    if tick.rescale.is_some() {
                        break;
                    }
                    clock.tick();
                    read.push(token(id, tick.read_scale, tick.write_scale));
                }
                let chunk =
                    Chunk { position: first.position, rescale: first.rescale, tokens: read.clone(), logits: true };
                logits.extend(slots.prefill(slot, &chunk).unwrap());
            }
            next = &next[read.len()..];
        }
        rest = later;
        part += 1;
    }
    logits
}

/// [`read`] in the first slot of a new set; and the state afterwards.
fn read_new(backend: &dyn Backend, tokens: &[u32], parts: &[usize], forgetting: Forgetting) -> (Vec<f32>, Vec<f32>) {
    let mut slots = backend.create_slots(1).unwrap();
    let logits = read(&mut *slots, 0, tokens, parts, forgetting);
    (logits, slots.read_state(0).unwrap())
}

fn plain(model: &Model, weights: WeightType) -> GpuBackend {
    gpu::backend(model, weights, GpuOptions::default())
}

fn doubles(numbers: &[f32]) -> Vec<f64> {
    numbers.iter().map(|&x| x.into()).collect()
}

/// Whole chunks, uneven ones, and steps between them.
fn ways(backend: &dyn Backend) -> [Vec<usize>; 3] {
    [vec![backend.chunk_tokens()], vec![1, 7, 31, 2, 13], vec![5, 1, 1, 8]]
}

#[test]
fn logits_and_state_match_the_reference_however_the_tokens_come() {
    for folder in FOLDERS {
        let golden = Golden::read(folder, "golden.safetensors");
        let backend = plain(&model(folder), WeightType::F32);
        for parts in ways(&backend) {
            let (got, state) = read_new(&backend, &golden.tokens("tokens"), &parts, Forgetting::Full);
            assert_close(&format!("{folder} {parts:?}"), &got, &golden.values("logits"), NMSE, MAX_ABS);
            if common::has_state(folder) {
                let expected = golden.values("state");
                assert_close(&format!("{folder} {parts:?} state"), &state, &expected, NMSE, MAX_ABS);
            }
        }
    }
}

#[test]
fn the_shipped_model_matches_the_reference() {
    let golden = Golden::read("shakespeare", "golden.safetensors");
    let backend = plain(&model("shakespeare"), WeightType::F16);
    for parts in ways(&backend) {
        let (got, _) = read_new(&backend, &golden.tokens("tokens"), &parts, Forgetting::Full);
        let every_16: Vec<f32> = got.chunks_exact(256).step_by(16).flatten().copied().collect();
        assert_close(&format!("{parts:?}"), &every_16, &golden.values("logits_every_16"), NMSE, MAX_ABS);
    }
}

#[test]
fn forgetting_matches_its_definition() {
    for folder in ["micro", "odd-shapes", "deep"] {
        let expected = Golden::read(folder, "forgetting.safetensors");
        let context: u32 = expected.metadata("context").parse().unwrap();
        let tau: f64 = expected.metadata("tau").parse().unwrap();
        let tokens = Golden::read(folder, "golden.safetensors").tokens("tokens");
        let backend = plain(&model(folder), WeightType::F32);
        for parts in ways(&backend) {
            let (got, _) = read_new(&backend, &tokens, &parts, Forgetting::After { context, tau });
            assert_close(&format!("{folder} {parts:?}"), &got, &expected.values("logits"), NMSE, MAX_ABS);
        }
    }
}

#[test]
fn many_rescalings_match_the_naive_pass() {
    let model = model("odd-shapes");
    let backend = plain(&model, WeightType::F32);
    let tokens: Vec<u32> = (0..120u32).map(|i| i * 37 % 97).collect();
    let expected = common::naive::logits(&model, &tokens, 0, Forgetting::After { context: 7, tau: 0.9 });
    for parts in ways(&backend) {
        let (got, _) = read_new(&backend, &tokens, &parts, Forgetting::After { context: 7, tau: 0.9 });
        assert_close(&format!("{parts:?}"), &got, &expected, NMSE, MAX_ABS);
    }
}

#[test]
fn small_bindings_and_other_layouts_change_nothing_that_matters() {
    let tokens: Vec<u32> = "Now is the winter of our discontent, made glorious summer by this sun of York; and all \
        the clouds that lour'd upon our house in the deep bosom of the ocean buried."
        .bytes()
        .map(u32::from)
        .collect();
    let model = model("shakespeare");
    let forgetting = Forgetting::After { context: 10, tau: 20.0 };
    let (one_by_one, state) = read_new(&plain(&model, WeightType::F16), &tokens, &[1], forgetting);
    let limited = |max_binding: u64, hardware_layout: bool| {
        let options = GpuOptions { max_binding: Some(max_binding), hardware_layout, ..GpuOptions::default() };
        GpuBackend::with_options(&model, WeightType::F16, &gpu::adapter(), options)
    };
    let Err(BackendError::Limit { needed: block, .. }) = limited(1024, false) else { panic!("1 KiB suffices") };
    let whole = plain(&model, WeightType::F16);
    // One block of neurons to a binding, and three; then bindings with room for no tile of tokens, and for one.
    let split = [(block, false), (3 * block, false), (1 << 17, true), (1 << 19, true)]
        .map(|(max_binding, hardware_layout)| limited(max_binding, hardware_layout).unwrap());
    assert_eq!([whole.chunk_tokens(), split[2].chunk_tokens(), split[3].chunk_tokens()], [64, 1, 8]);
    let other = [
        GpuOptions { checked: true, ..GpuOptions::default() },
        GpuOptions { hardware_layout: true, ..GpuOptions::default() },
        GpuOptions { workgroup: Some(64), ..GpuOptions::default() },
    ];
    let other = other.map(|options| gpu::backend(&model, WeightType::F16, options));
    for backend in [whole].iter().chain(&split).chain(&other) {
        let parts = [backend.chunk_tokens()];
        let (got, got_state) = read_new(backend, &tokens, &parts, forgetting);
        assert_close(&format!("chunks of {parts:?}"), &got, &doubles(&one_by_one), NMSE, MAX_ABS);
        assert_close(&format!("chunks of {parts:?}: state"), &got_state, &doubles(&state), NMSE, MAX_ABS);
        let (again, _) = read_new(backend, &tokens, &parts, forgetting);
        assert_eq!(again, got, "the same chunks give the same bits");
    }
    // Slots of other pages.
    let mut slots = split[0].create_slots(2).unwrap();
    let parts = [split[0].chunk_tokens()];
    let alone = read_new(&split[0], &tokens, &parts, forgetting).0;
    for slot in [1, 0] {
        assert_eq!(read(&mut *slots, slot, &tokens, &parts, forgetting), alone, "slot {slot}");
        assert_eq!(slots.logits(slot).unwrap(), alone[alone.len() - 256..], "slot {slot}: its last logits");
    }
}

#[test]
fn a_snapshot_restored_into_another_slot_continues_bit_for_bit() {
    let model = model("odd-shapes");
    let tokens: Vec<u32> = (0..60u32).map(|i| (i * i + 3) % 97).collect();
    let bits = |numbers: &[f32]| numbers.iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
    for hardware_layout in [false, true] {
        let options = GpuOptions { hardware_layout, ..GpuOptions::default() };
        let backend = gpu::backend(&model, WeightType::F32, options);
        // After chunks the window is empty; after steps it is not.
        for (cut, first, then) in [(13, [8, 1], [1, 9]), (24, [1, 1], [5, 1]), (25, [25, 25], [7, 1])] {
            let mut slots = backend.create_slots(4).unwrap();
            let [clock, _] = [0, 1].map(|slot| {
                let mut clock = Clock::new(Forgetting::After { context: 7, tau: 0.9 });
                read_on(&mut *slots, slot, &tokens[..cut], &first, &mut clock);
                clock
            });
            let snapshot = slots.snapshot(0).unwrap();
            // What was in the slot before must not matter.
            for slot in [2, 3] {
                read(&mut *slots, slot, &tokens[5..16], &[1, 5], Forgetting::Full);
            }
            slots.restore(2, &snapshot).unwrap();
            slots.copy(0, 3).unwrap();
            assert!(slots.snapshot(2).unwrap() == snapshot, "{cut} tokens: the snapshots differ");
            // The slot that was never asked, the one that was, and those that were given the snapshot or a copy.
            let expected = bits(&read_on(&mut *slots, 1, &tokens[cut..], &then, &mut { clock }));
            let state = bits(&slots.read_state(1).unwrap());
            for slot in [0, 2, 3] {
                let got = read_on(&mut *slots, slot, &tokens[cut..], &then, &mut { clock });
                assert!(bits(&got) == expected, "slot {slot}, {cut} tokens: the logits differ");
                assert!(
                    bits(&slots.read_state(slot).unwrap()) == state,
                    "slot {slot}, {cut} tokens: the states differ"
                );
            }
        }
    }
}

#[test]
fn a_corrupted_kernel_shows_in_the_logits() {
    let golden = Golden::read("odd-shapes", "golden.safetensors");
    for kernel in kernel_names(Phase::Prefill) {
        let options = GpuOptions { corrupt: Some(kernel.to_string()), ..GpuOptions::default() };
        let backend = gpu::backend(&model("odd-shapes"), WeightType::F32, options);
        let forgetting = Forgetting::After { context: 3, tau: 9.0 };
        let (got, _) = read_new(&backend, &golden.tokens("tokens"), &[16], forgetting);
        let right = plain(&model("odd-shapes"), WeightType::F32);
        let (expected, _) = read_new(&right, &golden.tokens("tokens"), &[1], forgetting);
        let apart = got.iter().zip(&expected).any(|(got, expected)| (got - expected).abs() > MAX_ABS as f32);
        assert!(apart, "{kernel} is corrupt, and nobody notices");
    }
}
