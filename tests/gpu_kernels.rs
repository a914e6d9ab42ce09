//! The verification on the adapter: it passes, and it notices what it is there to notice.

mod common;
#[path = "common/gpu.rs"]
mod gpu;

use bdh_gpu::backend::beams::{BeamRead, BeamStep};
use bdh_gpu::backend::gpu::{GpuOptions, Phase, Rewrite, kernel_names};
use bdh_gpu::backend::{Backend, BackendError, Input, Output, Plan, SlotStep, StateType, WeightType};
use bdh_gpu::generation::DeviceChoice;
use bdh_gpu::sampling::{SamplerParams, SamplingOptions};
use bdh_gpu::verify::{self, CaseReport, Suite, VerifyError, VerifyOptions, coded_suites, suites};
use std::collections::HashSet;
use std::ops::ControlFlow;

/// Runs every kernel on some shapes.
fn check_kernels(suites: &[Suite], options: GpuOptions) -> Vec<CaseReport> {
    let open = gpu::opener(options);
    let mut rows = Vec::new();
    for suite in suites {
        verify::check_kernels(suite, &open, &mut |row| rows.push(row)).expect("the device answers");
    }
    rows
}

fn line(row: &CaseReport) -> String {
    let CaseReport { kernel, shape, max_abs, max_rel, nmse, detail, .. } = row;
    format!("{kernel:11} {shape:46} max abs {max_abs:.1e} rel {max_rel:.1e} NMSE {nmse:.1e}  {detail}")
}

fn assert_passed(rows: &[CaseReport]) {
    rows.iter().for_each(|row| println!("{}", line(row)));
    let failed: Vec<String> = rows.iter().filter(|row| !row.passed).map(line).collect();
    assert!(failed.is_empty(), "{} of {} rows failed:\n{}", failed.len(), rows.len(), failed.join("\n"));
    for kernel in kernel_names(Phase::Decode) {
        assert!(rows.iter().any(|row| row.kernel == kernel), "{kernel} was not run");
    }
}

/// What `bdh-gpu verify` does, on every shape and with the shipped model.
#[test]
fn the_verification_passes() {
    let options = VerifyOptions {
        model: Some(common::model("shakespeare")),
        device: gpu::device(),
        corrupt: None,
        single_kernels: true,
        whole_model_tokens: 256,
        stride: 1,
    };
    let mut told = 0;
    let report = verify::run(&options, &mut |_| {
        told += 1;
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_passed(&report.cases);
    for kernel in [Phase::Beam, Phase::Prefill].map(kernel_names).concat() {
        assert!(report.cases.iter().any(|row| row.kernel == kernel), "{kernel} was not run");
    }
    assert!(report.passed());
    assert_eq!(told, report.cases.len(), "progress hears of every row");
    for run in ["prompt", "greedy", "chunks", "repeat", "sampled", "forgetting", "batch"] {
        let row = report.cases.iter().find(|row| row.kernel == run).unwrap_or_else(|| panic!("no {run}"));
        if ["greedy", "chunks", "sampled", "forgetting"].contains(&run) {
            assert!(row.detail.contains("all 256 tokens agree"), "{row:?}");
        }
    }
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["cases"].as_array().unwrap().len(), told);
    assert_eq!(json["cases"][0]["passed"], true);
}

#[test]
fn kernels_with_bounds_checks_agree_with_their_twins() {
    // Every third shape: what differs is the compiler's work, not the sizes.
    let suites: Vec<Suite> = suites().into_iter().step_by(3).collect();
    assert_passed(&check_kernels(&suites, GpuOptions { checked: true, ..GpuOptions::default() }));
}

/// What a graphics card runs – large workgroups, small blocks, rows shared by several invocations – has its
/// tests on a software adapter too.
#[test]
fn kernels_laid_out_for_hardware_agree_with_their_twins() {
    let suites: Vec<Suite> =
        suites().into_iter().skip(1).step_by(2).chain(coded_suites().into_iter().skip(1).step_by(2)).collect();
    let options = GpuOptions { hardware_layout: true, ..GpuOptions::default() };
    assert_passed(&check_kernels(&suites, options.clone()));
    // A batch runs other kernels than a single sequence, and its texts are the same.
    let model = common::model(SMALL);
    let device = gpu::backend(&model, WeightType::F32, options);
    verify::check_model(&model, &device, 32, &mut |row| assert!(row.passed, "{row:?}")).unwrap();
}

/// A software adapter's workgroups are one subgroup where it has subgroups of their size. Where it has others, or none,
/// they exchange through memory.
#[test]
fn kernels_whose_workgroups_are_not_one_subgroup_agree_with_their_twins() {
    let suites: Vec<Suite> = suites().into_iter().step_by(3).chain(coded_suites().into_iter().step_by(3)).collect();
    assert_passed(&check_kernels(&suites, GpuOptions { workgroup: Some(16), ..GpuOptions::default() }));
}

/// Whole models in 8 bits on both devices: what the codes stand for is the same, so the texts are.
#[test]
fn models_in_8_bits_agree_with_the_cpu() {
    let mut model = common::model("shakespeare");
    let halves = gpu::backend(&model, WeightType::F16, GpuOptions::default()).weight_bytes();
    model.weights = model.weights.to_int8();
    let whole = gpu::backend(&model, WeightType::I8, GpuOptions::default());
    assert!(10 * whole.weight_bytes() < 6 * halves, "{} and {halves} bytes", whole.weight_bytes());
    verify::check_model(&model, &whole, 256, &mut |row| {
        assert!(row.passed, "{row:?}");
        if ["greedy", "chunks", "sampled"].contains(&row.kernel.as_str()) {
            assert!(row.detail.contains("all 256 tokens agree"), "{row:?}");
        }
    })
    .unwrap();
    // Some blocks of neurons to a segment; and what graphics cards run, of a model that is rounded as it is packed.
    let options = GpuOptions { max_binding: Some(1 << 19), hardware_layout: true, ..GpuOptions::default() };
    let hardware = GpuOptions { hardware_layout: true, ..GpuOptions::default() };
    for (model, options) in [(&model, options), (&common::model(SMALL), hardware)] {
        let device = gpu::backend(model, WeightType::I8, options);
        verify::check_model(model, &device, 16, &mut |row| assert!(row.passed, "{row:?}")).unwrap();
    }
}

/// The rows of a broken kernel fail, and those of the others do not.
#[test]
fn a_corrupted_kernel_fails_alone() {
    let of_weights = |weights| {
        let fits = |suite: &Suite| suite.weights == weights && suite.slots == 1;
        suites().into_iter().find(fits).expect("a suite")
    };
    let exact = [WeightType::F16, WeightType::I8].map(of_weights);
    for suite in exact.into_iter().chain([0, 3].map(|index| coded_suites().remove(index))) {
        let suite = Suite { each_density: false, ..suite };
        let uses_states = ["settle", "rescale", "embed", "encode", "encode_finished"];
        let concerned = |kernel: &&str| suite.state == StateType::F32 || uses_states.contains(kernel);
        for kernel in kernel_names(Phase::Decode).into_iter().filter(concerned) {
            let options = GpuOptions { corrupt: Some(kernel.to_string()), ..GpuOptions::default() };
            for row in check_kernels(std::slice::from_ref(&suite), options) {
                assert_eq!(row.passed, row.kernel != kernel, "{kernel} is corrupt: {}", line(&row));
            }
        }
    }
}

/// Codes that are rounded towards zero, or whose scale is that of another row, do not pass.
#[test]
fn wrong_codes_are_noticed() {
    fn truncated(text: String) -> String {
        text.replace("return round(v * reciprocal);", "return trunc(v * reciprocal);")
    }
    fn unscaled(text: String) -> String {
        text.replace("for (var k = 0u; k < 15u; k++) {", "for (var k = 0u; k < 7u; k++) {")
    }
    let rewrites: [Rewrite; 2] = [|_, text| truncated(text), |_, text| unscaled(text)];
    for rewrite in rewrites {
        for (hardware_layout, suite) in [(false, coded_suites().remove(0)), (true, coded_suites().remove(4))] {
            let options = GpuOptions { rewrite: Some(rewrite), hardware_layout, ..GpuOptions::default() };
            let rows = check_kernels(std::slice::from_ref(&suite), options).into_iter();
            let kernels: HashSet<String> = rows.filter(|row| !row.passed).map(|row| row.kernel).collect();
            let rounding = ["settle", "embed", "encode", "encode_finished"];
            assert_eq!(kernels, HashSet::from(rounding.map(String::from)), "{suite}");
        }
    }
}

/// A broken kernel: its name, the tokens that its fault needs to show, and the checks of a whole model that pass all the
/// same.
type Broken = (&'static str, usize, &'static [&'static str]);

/// A model for whole runs in the hardware's layout, which software adapters run slowly.
const SMALL: &str = "micro";

/// The checks of a whole model that run one sequence.
const ALONE: &[&str] = &["prompt", "greedy", "chunks", "sampled", "repeat", "forgetting", "forgetting"];

/// Kernels whose fault hides from more checks than most.
const BROKEN: [Broken; 8] = [
    // It runs only between steps.
    ("settle", 16, &["prompt", "greedy", "chunks", "sampled", "repeat", "forgetting", "forgetting", "batch"]),
    // It runs only once something is forgotten: 200 tokens pass one renormalisation of the state.
    ("rescale", 200, &["prompt", "greedy", "chunks", "sampled", "repeat", "batch"]),
    // It runs only for prompts in chunks.
    ("prefill/write", 16, &["prompt", "greedy", "sampled", "repeat", "forgetting", "batch"]),
    // The logits are right, and the fault is the same every time.
    ("sample", 16, &["prompt", "repeat", "batch"]),
    // They run only in a batch on hardware.
    ("finish", 16, ALONE),
    ("encode_finished", 16, ALONE),
    ("collect", 16, ALONE),
    ("project_collected", 16, ALONE),
];

#[test]
fn a_corrupted_kernel_shows_in_the_whole_model() {
    let (model, small) = (common::model("shakespeare"), common::model(SMALL));
    let others = kernel_names(Phase::Decode).into_iter().filter(|name| BROKEN.iter().all(|(hard, ..)| hard != name));
    let others = others.map(|name| (name, 16, ["repeat", "batch"].as_slice()));
    for (kernel, tokens, may_pass) in BROKEN.into_iter().chain(others) {
        let hardware_layout = may_pass == ALONE;
        let (model, weights) = if hardware_layout { (&small, WeightType::F32) } else { (&model, WeightType::F16) };
        let options = GpuOptions { corrupt: Some(kernel.to_string()), hardware_layout, ..GpuOptions::default() };
        let device = gpu::backend(model, weights, options);
        let mut rows = Vec::new();
        verify::check_model(model, &device, tokens, &mut |row| rows.push(row)).unwrap();
        let passed: Vec<&str> = rows.iter().filter(|row| row.passed).map(|row| row.kernel.as_str()).collect();
        assert_eq!(passed, may_pass, "{kernel} is corrupt: {rows:#?}");
    }
}

#[test]
fn what_cannot_be_verified_is_an_error() {
    let run = |device, corrupt: Option<&str>| {
        let corrupt = corrupt.map(str::to_string);
        verify::run(&VerifyOptions { device, corrupt, ..VerifyOptions::default() }, &mut |_| ControlFlow::Continue(()))
            .unwrap_err()
    };
    let error = run(DeviceChoice::Cpu, None);
    assert!(matches!(error, VerifyError::CpuIsTheReference), "{error}");
    assert!(error.to_string().starts_with("the CPU backend is the reference"), "{error}");
    assert!(!error.to_string().contains('\n'), "{error}");
    let error = run(gpu::device(), Some("softmax"));
    let kernels = [Phase::Decode, Phase::Prefill, Phase::Beam].map(kernel_names).concat();
    let kernels = format!("kernels are {}", kernels.join(", "));
    assert!(error.to_string().ends_with(&kernels), "{error}");
    let error = run(DeviceChoice::Name("no such adapter".into()), None);
    assert!(error.to_string().contains("no such adapter"), "{error}");
}

/// A driver may return garbage. It must not reach the tables that token ids index.
#[test]
fn a_token_that_does_not_exist_is_an_error() {
    let rewrite: Rewrite = |_, text| {
        let drawn = text.replace("ring[slot] = drawn.token;", "ring[slot] = drawn.token + V;");
        drawn.replace("candidates[best.y].y, 0u)", "candidates[best.y].y + V, 0u)")
    };
    let options = GpuOptions { rewrite: Some(rewrite), ..GpuOptions::default() };
    let backend = gpu::backend(&common::model("micro"), WeightType::F32, options);
    let mut slots = backend.create_slots(1).unwrap();
    let params = SamplerParams::new(&SamplingOptions::default(), 1, 0);
    slots.set_sampler(0, &params, &[0; 256], 0).unwrap();
    let step = SlotStep { input: Input::Token(1), output: Output::Token, ..SlotStep::IDLE };
    let error = slots.run(&Plan { steps: vec![vec![step]], trace_logits: false }).unwrap_err();
    assert!(error.to_string().contains("it drew token "), "{error}");

    let mut beams = backend.create_beams(2).unwrap();
    beams.start(&params, &[0; 256]).unwrap();
    let read = BeamRead { token: 1, node: 0, path: Vec::new() };
    let step = BeamStep {
        position: 0,
        read_scale: 1.0,
        reads: vec![read],
        scores: vec![0.0, -1e9],
        parents: None,
        generated: 0,
        candidates: 2,
    };
    let error = beams.step(&step).unwrap_err();
    assert!(error.to_string().contains("it drew token "), "{error}");
}

/// As a page does it that is done with a model: the memory is free at once.
#[test]
fn a_closed_device_is_lost() {
    let model = common::model("micro");
    let backend = gpu::opener(GpuOptions::default())(&model, WeightType::F32, StateType::F32).unwrap();
    let mut slots = backend.create_slots(1).unwrap();
    backend.close();
    assert!(matches!(slots.clear(0), Err(BackendError::Lost { .. })));
    assert!(matches!(backend.create_slots(1).map(drop), Err(BackendError::Lost { .. })));
}
