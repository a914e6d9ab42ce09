//! A sample of the kernels against their twins, in both layouts, for a run under a validation layer:
//! `tests/drivers/validation.sh`.

#[path = "common/gpu.rs"]
mod gpu;

use bdh_gpu::backend::gpu::GpuOptions;
use bdh_gpu::verify::{self, CaseReport, Suite, VerifyError, beam_suites, prefill_suites, suites};

/// Checks a suite's kernels: one of `verify`'s functions.
type Check = fn(&Suite, &dyn verify::Open, &mut dyn FnMut(CaseReport)) -> Result<(), VerifyError>;

/// One suite in this many runs: instrumented kernels take seconds to compile.
const SAMPLED: usize = 8;

#[test]
#[ignore = "needs a validation layer: tests/drivers/validation.sh"]
fn a_sample_of_all_kernels_agrees_with_its_twins() {
    let phases: [(Vec<Suite>, Check); 3] = [
        (suites(), verify::check_kernels),
        (beam_suites(), verify::check_beam_kernels),
        (prefill_suites(), verify::check_prefill_kernels),
    ];
    let (mut rows, mut failed) = (0, Vec::new());
    for hardware_layout in [false, true] {
        let open = gpu::opener(GpuOptions { hardware_layout, ..GpuOptions::default() });
        let mut each = |row: CaseReport| {
            rows += 1;
            if !row.passed {
                failed.push(format!("{} {} {}", row.kernel, row.shape, row.detail));
            }
        };
        for (suites, check) in &phases {
            for suite in suites.iter().step_by(SAMPLED) {
                check(suite, &open, &mut each).expect("the device answers");
            }
        }
    }
    println!("{rows} rows, {} failed", failed.len());
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(rows > 20, "{rows} rows");
}
