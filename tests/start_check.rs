//! `--check`: a device whose kernels are right passes, and one with any of them broken does not.

#[path = "common/gpu.rs"]
mod gpu;

use bdh_gpu::backend::gpu::{GpuOptions, Phase, kernel_names};
use bdh_gpu::backend::{Backend, WeightType};
use bdh_gpu::generation::{Bdh, BeamOptions};
use bdh_gpu::model::{Model, SyntheticSpec};
use bdh_gpu::verify::{Start, StartError, check_start};
use bdh_gpu::{Forgetting, SamplingOptions};

fn shipped() -> Model {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models/bdh-shakespeare");
    Model::from_path(path).expect("the shipped model")
}

fn check(model: Model, options: GpuOptions, start: &Start) -> Result<(), StartError> {
    let backend = gpu::backend(&model, WeightType::F16, options);
    assert!(backend.chunk_tokens() > 8, "the prompt is read in chunks");
    let device = Bdh::on(model, backend);
    check_start(&device, &device.on_cpu()?, start)
}

fn beam() -> BeamOptions {
    BeamOptions { num_beams: 4, num_return_sequences: 4, max_new_tokens: 50, ..BeamOptions::default() }
}

#[test]
fn a_right_device_passes_however_the_text_goes_on() {
    let drawn = SamplingOptions { temperature: 0.8, top_k: 50, repetition_penalty: 1.2, ..SamplingOptions::default() };
    let greedy = SamplingOptions::greedy();
    let fading = Forgetting::After { context: 256, tau: 128.0 };
    for (sampling, forgetting, beam) in
        [(&drawn, Forgetting::Full, None), (&greedy, fading, None), (&greedy, fading, Some(beam()))]
    {
        for prompt in [&[][..], &[75, 73, 78, 71, 58], &[10; 1000]] {
            let start = Start { prompt, sampling, seed: 7, forgetting, beam: beam.clone() };
            check(shipped(), GpuOptions::default(), &start).unwrap();
        }
    }
}

#[test]
fn other_vocabularies_pass() {
    let sampling = SamplingOptions::default();
    for vocab_size in [1, 40, 1000] {
        let model = Model::synthetic(&SyntheticSpec {
            n_layer: 2,
            n_embd: 24,
            n_head: 3,
            neurons_per_head: 40,
            vocab_size,
            density: 0.3,
            seed: 1,
        });
        let start = Start { prompt: &[0], sampling: &sampling, seed: 1, forgetting: Forgetting::Full, beam: None };
        check(model, GpuOptions::default(), &start).unwrap();
    }
}

#[test]
fn any_broken_kernel_is_noticed() {
    // Penalties, so that the counts of a beam's tokens matter.
    let sampling = SamplingOptions { repetition_penalty: 1.3, ..SamplingOptions::default() };
    let forgetting = Forgetting::After { context: 256, tau: 128.0 };
    // Broken, the first takes the wrong one of two candidates that are equally good: no text shows that. The others run
    // only in batches on hardware, and the check runs one text or one search.
    const UNSEEN: [&str; 4] = ["beam/select", "encode_finished", "collect", "project_collected"];
    let names = |phase: Phase| kernel_names(phase).into_iter().map(move |kernel| (phase, kernel));
    let kernels = [Phase::Decode, Phase::Prefill, Phase::Beam].into_iter().flat_map(names);
    for (phase, kernel) in kernels.filter(|(_, kernel)| !UNSEEN.contains(kernel)) {
        let options = GpuOptions { corrupt: Some(kernel.to_string()), ..GpuOptions::default() };
        let beam = (phase == Phase::Beam || kernel == "finish").then(beam);
        let start = Start { prompt: &[75, 73, 78, 71, 58], sampling: &sampling, seed: 7, forgetting, beam };
        let error = check(shipped(), options, &start).expect_err(kernel);
        assert!(matches!(error, StartError::Differs { .. }), "{kernel}: {error}");
        let message = error.to_string();
        assert!(message.contains(" does not compute what the CPU does: ") && !message.contains('\n'), "{message}");
        println!("{kernel}: {message}");
    }
}
