//! An adapter with WebGPU's base limits and no optional feature is enough: 128 MiB in a binding, 8 storage buffers in a
//! kernel, 16 KiB of workgroup memory, 256 invocations.

mod common;
#[path = "common/gpu.rs"]
mod gpu;

use bdh_gpu::Forgetting;
use bdh_gpu::backend::gpu::GpuOptions;
use bdh_gpu::backend::{Backend, Chunk, ChunkToken, Input, Output, Plan, SlotStep, WeightType};
use bdh_gpu::verify::{self, CaseReport, beam_suites, prefill_suites, suites};
use common::{FOLDERS, Golden, assert_close, model};

/// As a graphics card would be used, and as the adapter under test is.
fn layouts() -> [GpuOptions; 2] {
    [true, false].map(|hardware_layout| GpuOptions { base_limits: true, hardware_layout, ..GpuOptions::default() })
}

#[test]
fn every_kernel_agrees_with_its_twin() {
    // Cards are checked more closely than software.
    for (options, every) in layouts().into_iter().zip([4, 8]) {
        let open = gpu::opener(options.clone());
        let mut rows: Vec<CaseReport> = Vec::new();
        let mut each = |row| rows.push(row);
        // What differs is what the adapter allows, not the sizes: some of them will do, the largest among them.
        for suite in suites().into_iter().rev().step_by(every) {
            verify::check_kernels(&suite, &open, &mut each).unwrap();
        }
        for suite in beam_suites().into_iter().rev().step_by(every) {
            verify::check_beam_kernels(&suite, &open, &mut each).unwrap();
        }
        for suite in prefill_suites().into_iter().rev().step_by(every) {
            verify::check_prefill_kernels(&suite, &open, &mut each).unwrap();
        }
        let failed: Vec<&CaseReport> = rows.iter().filter(|row| !row.passed).collect();
        assert!(failed.is_empty() && rows.len() > 30, "{options:?}, {} rows: {failed:#?}", rows.len());
    }
}

#[test]
fn logits_match_the_reference_token_by_token_and_in_chunks() {
    for (folder, options) in FOLDERS.into_iter().zip(layouts().into_iter().cycle()) {
        let golden = Golden::read(folder, "golden.safetensors");
        let (tokens, expected) = (golden.tokens("tokens"), golden.values("logits"));
        let backend = gpu::backend(&model(folder), WeightType::F32, options);
        let mut slots = backend.create_slots(1).unwrap();
        let at = |(position, &token): (usize, &u32)| {
            let (input, output, position) = (Input::Token(token), Output::Logits, position as u32);
            vec![SlotStep { input, output, position, ..SlotStep::IDLE }]
        };
        let plan = Plan { steps: tokens.iter().enumerate().map(at).collect(), trace_logits: true };
        let steps: Vec<f32> = slots.run(&plan).unwrap().logits.into_iter().flatten().flatten().collect();
        assert_close(folder, &steps, &expected, 1e-8, 1e-3);
        slots.clear(0).unwrap();
        let mut chunks = Vec::new();
        for (index, part) in tokens.chunks(backend.chunk_tokens()).enumerate() {
            let token = |&token| ChunkToken { token, read_scale: 1.0, write_scale: 1.0 };
            let position = (index * backend.chunk_tokens()) as u32;
            let chunk = Chunk { position, rescale: None, tokens: part.iter().map(token).collect(), logits: true };
            chunks.extend(slots.prefill(0, &chunk).unwrap());
        }
        assert_close(&format!("{folder} in chunks"), &chunks, &expected, 1e-8, 1e-3);
    }
}

#[test]
fn the_shipped_model_writes_what_the_cpu_writes() {
    let model = model("shakespeare");
    for options in layouts() {
        let device = gpu::backend(&model, WeightType::F16, options.clone());
        let mut rows = Vec::new();
        verify::check_model(&model, &device, 32, &mut |row| rows.push(row)).unwrap();
        assert!(rows.len() > 5 && rows.iter().all(|row| row.passed), "{options:?}: {rows:#?}");
    }
    let forgetting = Forgetting::of_model(&model.config);
    assert_ne!(forgetting, Forgetting::Full, "the kernel that forgets has run too");
}
