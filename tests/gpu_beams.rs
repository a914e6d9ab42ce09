//! The verification of the beam search's kernels, on more shapes and in more modes than `bdh-gpu verify`
//! takes; and canaries: a kernel broken on purpose must not pass.

#[path = "common/gpu.rs"]
mod gpu;

use bdh_gpu::backend::gpu::{GpuOptions, Phase, kernel_names};
use bdh_gpu::backend::{StateType, WeightType};
use bdh_gpu::verify::{self, CaseReport, Suite, beam_suites};

const fn shape(
    (width, heads, neurons, vocab): (usize, usize, usize, usize),
    weights: WeightType,
    beams: usize,
) -> Suite {
    Suite {
        width,
        heads,
        neurons,
        vocab,
        weights,
        state: StateType::F32,
        slots: beams,
        clamped: false,
        trained_freqs: false,
        each_density: false,
    }
}

const SHAPES: [Suite; 10] = [
    shape((24, 3, 40, 97), WeightType::F32, 3),
    shape((10, 1, 6, 1), WeightType::F32, 2),
    shape((10, 2, 6, 2), WeightType::F16, 5),
    shape((17, 2, 32, 32), WeightType::F16, 1),
    shape((33, 1, 66, 257), WeightType::F32, 4),
    shape((136, 1, 254, 300), WeightType::F32, 6),
    shape((128, 2, 514, 513), WeightType::F16, 8),
    shape((12, 2, 128, 5000), WeightType::F32, 2),
    shape((8, 1, 6, 65_536), WeightType::F16, 3),
    shape((40, 2, 66, 97), WeightType::I8, 3),
];

/// Every kernel in turn, on some shapes.
fn check(suites: &[Suite], options: GpuOptions) -> Vec<CaseReport> {
    let open = gpu::opener(options);
    let mut rows = Vec::new();
    for suite in suites {
        verify::check_beam_kernels(suite, &open, &mut |row| rows.push(row)).expect("the device answers");
    }
    rows
}

fn assert_passed(suites: &[Suite], options: GpuOptions) {
    let rows = check(suites, options.clone());
    let failed: Vec<&CaseReport> = rows.iter().filter(|row| !row.passed).collect();
    assert!(failed.is_empty(), "{options:?}: {} of {} rows failed: {failed:#?}", failed.len(), rows.len());
    for kernel in kernel_names(Phase::Beam) {
        let run = rows.iter().filter(|row| row.kernel == kernel).count();
        // On shapes with codes run only the kernels that read or write states.
        let uses_states = ["beam/attend", "beam/fold"].contains(&kernel);
        let expected = suites.iter().filter(|suite| uses_states || suite.state == StateType::F32).count();
        assert_eq!(run, expected, "rows of {kernel}");
    }
}

#[test]
fn every_kernel_agrees_with_its_twin() {
    assert_passed(&SHAPES, GpuOptions::default());
    assert_passed(&beam_suites(), GpuOptions::default());
}

#[test]
fn every_kernel_agrees_however_it_is_laid_out() {
    let options = [
        GpuOptions { checked: true, ..GpuOptions::default() },
        GpuOptions { hardware_layout: true, ..GpuOptions::default() },
        GpuOptions { workgroup: Some(16), ..GpuOptions::default() },
        GpuOptions { workgroup: Some(128), ..GpuOptions::default() },
        // Segments of one or two blocks.
        GpuOptions { max_binding: Some(320_000), ..GpuOptions::default() },
    ];
    let [first, _, _, _, odd, _, large, _, _, codes] = SHAPES;
    let shapes = [first, odd, large, codes];
    for options in options {
        assert_passed(&shapes, options);
    }
}

/// The rows of a broken kernel fail, and those of the others do not.
#[test]
fn a_broken_kernel_does_not_pass() {
    for kernel in kernel_names(Phase::Beam) {
        let options = GpuOptions { corrupt: Some(kernel.to_string()), ..GpuOptions::default() };
        // The two halves of a selection have one result.
        let selection = ["beam/select", "beam/merge"];
        let [floats, .., codes] = SHAPES;
        for row in check(&[floats, codes], options) {
            let broken =
                row.kernel == kernel || selection.contains(&kernel) && selection.contains(&row.kernel.as_str());
            assert_eq!(row.passed, !broken, "{kernel} is corrupt: {row:#?}");
        }
    }
}
