//! Kernels and whole steps, for comparing one build with another:
//!
//!     cargo bench --bench engine
//!     cargo bench --bench engine -- decode
//!
//! `bdh-gpu bench` measures what users get; these are the pieces. "gpu" is the best adapter there is; without one
//! its rows are empty.

use bdh_gpu::backend::stage::{LogitsInput, ProjectInput};
use bdh_gpu::backend::{Input, Output, Plan, SlotStep};
use bdh_gpu::generation::{Bdh, DeviceChoice, WeightChoice};
use bdh_gpu::model::{Model, SyntheticSpec, forgetting::Forgetting};
use bdh_gpu::sampling::{Sampler, SamplerParams, SamplingOptions};
use divan::Bencher;
use divan::counter::ItemsCount;
use std::sync::LazyLock;

fn main() {
    divan::main();
}

/// The models, and the devices to run them on.
const CASES: [(&str, &str); 4] = [("shipped", "cpu"), ("25M", "cpu"), ("shipped", "gpu"), ("25M", "gpu")];
/// Steps in a decoded burst.
const BURST: usize = 16;
/// Tokens of a prompt.
const PROMPT: usize = 256;

static SHIPPED: LazyLock<Model> = LazyLock::new(|| {
    Model::from_path(concat!(env!("CARGO_MANIFEST_DIR"), "/models/bdh-shakespeare")).expect("the shipped model")
});

/// The reference implementation's default size.
static LARGE: LazyLock<Model> = LazyLock::new(|| {
    Model::synthetic(&SyntheticSpec {
        n_layer: 6,
        n_embd: 256,
        n_head: 4,
        neurons_per_head: 8192,
        vocab_size: 256,
        density: 0.25,
        seed: 1,
    })
});

/// A model on a device, with 16-bit weights; nothing where there is no such device.
fn open((model, device): (&str, &str)) -> Option<Bdh> {
    let model = if model == "shipped" { &SHIPPED } else { &LARGE };
    let choice = if device == "cpu" { DeviceChoice::Cpu } else { DeviceChoice::Gpu };
    Bdh::new((**model).clone(), &choice, WeightChoice::F16).ok()
}

/// A burst of tokens, each drawn and read by the next step, of 1 or 4 sequences.
#[divan::bench(args = CASES, consts = [1, 4], sample_count = 10, sample_size = 1)]
fn decode<const SEQUENCES: usize>(bencher: Bencher, case: (&str, &str)) {
    let Some(bdh) = open(case) else { return };
    let mut slots = bdh.backend().create_slots(SEQUENCES).expect("memory for the states");
    let counts = vec![0; bdh.model().config.vocab_size];
    for slot in 0..SEQUENCES {
        let params = SamplerParams::new(&SamplingOptions { top_k: 50, ..Default::default() }, 1, slot as u32);
        slots.set_sampler(slot, &params, &counts, 0).expect("the device takes the options");
    }
    let mut position = 0;
    let mut plan = |input, steps: usize| {
        let step = |_| {
            position += 1;
            vec![SlotStep { input, output: Output::Token, position: position - 1, ..SlotStep::IDLE }; SEQUENCES]
        };
        Plan { steps: (0..steps).map(step).collect(), trace_logits: false }
    };
    slots.run(&plan(Input::Token(10), 1)).expect("the device runs");
    slots.run(&plan(Input::Previous, BURST)).expect("the device runs");
    bencher
        .counter(ItemsCount::new(BURST * SEQUENCES))
        .bench_local(|| slots.run(&plan(Input::Previous, BURST)).expect("the device runs"));
}

/// Reading a prompt into an empty state.
#[divan::bench(args = CASES, sample_count = 5, sample_size = 1)]
fn read_prompt(bencher: Bencher, case: (&str, &str)) {
    let Some(bdh) = open(case) else { return };
    let tokens: Vec<u32> = (0..=PROMPT).map(|index| (32 + index * 7 % 90) as u32).collect();
    bencher
        .counter(ItemsCount::new(PROMPT))
        .with_inputs(|| bdh.session_with(Forgetting::Full).expect("memory for a state"))
        .bench_local_values(|mut session| {
            session.feed(&tokens).expect("the device runs");
            session
        });
}

/// A quarter of the numbers positive, the others zero.
fn quarter(count: usize) -> Vec<f32> {
    (0..count).map(|index| if index * 2654435761 % 97 < 24 { 0.5 + (index % 7) as f32 } else { 0.0 }).collect()
}

/// Numbers around zero.
fn wave(count: usize) -> Vec<f32> {
    (0..count).map(|index| (index as f32 * 0.7).sin()).collect()
}

/// The gated product of one layer on one thread, a quarter of the neurons active.
#[divan::bench(args = ["shipped", "25M"])]
fn project(bencher: Bencher, model: &str) {
    let Some(bdh) = open((model, "cpu")) else { return };
    let config = &bdh.model().config;
    let (activations, attention) = (quarter(config.neurons()), wave(config.n_head * config.n_embd));
    let input = ProjectInput { activations, attention, collected: None };
    bencher.bench(|| bdh.backend().stages().project(&input));
}

/// The last layer norm and the head on one thread.
#[divan::bench(args = ["shipped", "25M"])]
fn logits(bencher: Bencher, model: &str) {
    let Some(bdh) = open((model, "cpu")) else { return };
    let width = bdh.model().config.n_embd;
    let input = LogitsInput { residual: wave(width), update: wave(width) };
    bencher.bench(|| bdh.backend().stages().logits(&input));
}

/// Drawing a token with top-k 50 and top-p 0.9.
#[divan::bench(args = [256, 32_000])]
fn sample(bencher: Bencher, vocab: usize) {
    let logits: Vec<f32> = wave(vocab).iter().map(|x| 8.0 * x).collect();
    let options = SamplingOptions { top_k: 50, top_p: 0.9, temperature: 0.8, ..Default::default() };
    let params = SamplerParams::new(&options, 1, 0);
    let mut counts = vec![0; vocab];
    let mut sampler = Sampler::new();
    let mut drawn = 0;
    bencher.bench_local(|| {
        drawn += 1;
        sampler.sample(&logits, &mut counts, &params, drawn)
    });
}
