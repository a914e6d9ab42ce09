//! The GPU backend against the reference implementation's results, and against the CPU backend on
//! whole texts.
//!
//! Tolerances: as for the CPU (see `cpu_goldens.rs`), with room for the freedom that WGSL leaves in the
//! order of sums, in fusing, and in division and square roots: NMSE 1e-8 and 1e-3 absolute.

mod common;
#[path = "common/gpu.rs"]
mod gpu;

use bdh_gpu::backend::cpu::CpuBackend;
use bdh_gpu::backend::gpu::{GpuBackend, GpuOptions};
use bdh_gpu::backend::{Backend, BackendError, Input, Output, Plan, SlotStep, WeightType};
use bdh_gpu::model::Model;
use bdh_gpu::model::forgetting::{Clock, Forgetting, Tick};
use bdh_gpu::sampling::{EOS_BIT, NO_TOKEN, SamplerParams, SamplingOptions, Status};
use common::{FOLDERS, Golden, assert_close, golden, model};
use std::sync::LazyLock;

const NMSE: f64 = 1e-8;
const MAX_ABS: f64 = 1e-3;

/// The shipped model on both devices, in the type that it is stored in.
struct Shipped {
    gpu: GpuBackend,
    cpu: CpuBackend,
}

/// The shipped model, made once for all tests.
fn shipped() -> &'static Shipped {
    static SHIPPED: LazyLock<Shipped> = LazyLock::new(|| {
        let model = model("shakespeare");
        Shipped {
            gpu: gpu::backend(&model, WeightType::F16, GpuOptions::default()),
            cpu: CpuBackend::new(&model, WeightType::F16, Some(1)).unwrap(),
        }
    });
    &SHIPPED
}

fn plain(model: &Model, weights: WeightType) -> GpuBackend {
    gpu::backend(model, weights, GpuOptions::default())
}

fn step(tick: Tick, input: Input, output: Output) -> SlotStep {
    SlotStep {
        input,
        output,
        position: tick.position,
        read_scale: tick.read_scale,
        write_scale: tick.write_scale,
        rescale: tick.rescale,
    }
}

/// Logits after every token, read one by one, `[T, V]`; and the state afterwards.
fn logits(backend: &dyn Backend, tokens: &[u32], forgetting: Forgetting) -> (Vec<f32>, Vec<f32>) {
    let mut slots = backend.create_slots(1).unwrap();
    let mut clock = Clock::new(forgetting);
    let steps = tokens.iter().map(|&token| vec![step(clock.tick(), Input::Token(token), Output::Logits)]);
    let run = slots.run(&Plan { steps: steps.collect(), trace_logits: true }).unwrap();
    assert_eq!(run.logits.len(), tokens.len());
    (run.logits.into_iter().flatten().flatten().collect(), slots.read_state(0).unwrap())
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

// ---- goldens ----

#[test]
fn logits_and_state_match_the_reference() {
    for folder in FOLDERS {
        let golden = Golden::read(folder, "golden.safetensors");
        let tokens = golden.tokens("tokens");
        let backend = plain(&model(folder), WeightType::F32);
        let (got, state) = logits(&backend, &tokens, Forgetting::Full);
        assert_close(folder, &got, &golden.values("logits"), NMSE, MAX_ABS);
        if common::has_state(folder) {
            assert_close(&format!("{folder} state"), &state, &golden.values("state"), NMSE, MAX_ABS);
        }
        // A state read back and written elsewhere continues as if nothing had happened.
        let mut slots = backend.create_slots(2).unwrap();
        slots.write_state(1, &state).unwrap();
        assert_eq!(bits(&slots.read_state(1).unwrap()), bits(&state), "{folder}: a state written and read");
        slots.copy(1, 0).unwrap();
        assert_eq!(bits(&slots.read_state(0).unwrap()), bits(&state), "{folder}: a state copied");
        slots.clear(1).unwrap();
        assert!(slots.read_state(1).unwrap().iter().all(|x| x.to_bits() == 0), "{folder}: a state cleared");
    }
}

#[test]
fn half_precision_weights_match_the_reference_where_the_checkpoint_is_f16() {
    let golden = Golden::read("st-f16", "golden.safetensors");
    let (got, _) = logits(&plain(&model("st-f16"), WeightType::F16), &golden.tokens("tokens"), Forgetting::Full);
    assert_close("st-f16", &got, &golden.values("logits"), NMSE, MAX_ABS);
}

#[test]
fn the_shipped_model_matches_the_reference() {
    let golden = Golden::read("shakespeare", "golden.safetensors");
    let (got, _) = logits(&shipped().gpu, &golden.tokens("tokens"), Forgetting::Full);
    // The reference keeps the logits of every 16th position.
    let every_16: Vec<f32> = got.chunks_exact(256).step_by(16).flatten().copied().collect();
    assert_close("shakespeare", &every_16, &golden.values("logits_every_16"), NMSE, MAX_ABS);
}

#[test]
fn forgetting_matches_its_definition_token_by_token() {
    for folder in ["micro", "odd-shapes", "deep"] {
        let expected = Golden::read(folder, "forgetting.safetensors");
        let context: u32 = expected.metadata("context").parse().unwrap();
        let tau: f64 = expected.metadata("tau").parse().unwrap();
        let tokens = Golden::read(folder, "golden.safetensors").tokens("tokens");
        let model = model(folder);
        let vocab = model.config.vocab_size;
        let backend = plain(&model, WeightType::F32);
        let (got, _) = logits(&backend, &tokens, Forgetting::After { context, tau });
        for (t, expected) in expected.values("logits").chunks_exact(vocab).enumerate() {
            assert_close(&format!("{folder} token {t}"), &got[t * vocab..][..vocab], expected, NMSE, MAX_ABS);
        }
        let (full, _) = logits(&backend, &tokens, Forgetting::Full);
        let exact = (context as usize + 1) * vocab;
        assert_eq!(bits(&got[..exact]), bits(&full[..exact]), "{folder}: bit for bit up to position {context}");
        assert_ne!(got[exact..], full[exact..], "{folder}: forgetting does something");
    }
}

#[test]
fn the_naive_forward_pass_agrees_at_any_position_and_over_many_rescalings() {
    let model = model("odd-shapes");
    let backend = plain(&model, WeightType::F32);
    let tokens = &Golden::read("odd-shapes", "golden.safetensors").tokens("tokens")[..20];
    for start in [1 << 24, 3_000_000_019, u32::MAX - 19] {
        let mut slots = backend.create_slots(1).unwrap();
        let at = |(t, &token): (usize, &u32)| {
            let position = start + t as u32;
            vec![SlotStep { input: Input::Token(token), output: Output::Logits, position, ..SlotStep::IDLE }]
        };
        let plan = Plan { steps: tokens.iter().enumerate().map(at).collect(), trace_logits: true };
        let got: Vec<f32> = slots.run(&plan).unwrap().logits.into_iter().flatten().flatten().collect();
        let expected = common::naive::logits(&model, tokens, start, Forgetting::Full);
        assert_close(&format!("from {start}"), &got, &expected, NMSE, MAX_ABS);
    }
    let tokens: Vec<u32> = (0..120u32).map(|i| i * 37 % 97).collect();
    let expected = common::naive::logits(&model, &tokens, 0, Forgetting::After { context: 7, tau: 0.9 });
    let (got, _) = logits(&backend, &tokens, Forgetting::After { context: 7, tau: 0.9 });
    assert_close("120 tokens with τ 0.9", &got, &expected, NMSE, MAX_ABS);
}

// ---- the adapter's limits must not show ----

#[test]
fn small_bindings_and_other_workgroups_change_nothing_that_matters() {
    let tokens: Vec<u32> = "Now is the winter of our discontent".bytes().map(u32::from).collect();
    let model = model("shakespeare");
    // What a block of neurons and its state needs at least.
    let limited = |max_binding: u64| {
        let options = GpuOptions { max_binding: Some(max_binding), ..GpuOptions::default() };
        GpuBackend::with_options(&model, WeightType::F16, &gpu::adapter(), options)
    };
    let Err(BackendError::Limit { needed: block, .. }) = limited(1024) else { panic!("1 KiB suffices") };
    let layer = (model.config.neurons() * model.config.n_embd * 4) as u64;
    assert!(3 * block <= layer, "a layer's state, {layer} bytes, does not split into blocks of {block}");
    let forgetting = Forgetting::After { context: 10, tau: 0.5 };
    let (whole, state) = logits(&shipped().gpu, &tokens, forgetting);
    // One block of neurons to a binding, and three.
    for max_binding in [block, 3 * block] {
        let split = limited(max_binding).unwrap();
        let (got, split_state) = logits(&split, &tokens, forgetting);
        assert_eq!(bits(&got), bits(&whole), "bindings of {max_binding} bytes");
        assert_eq!(bits(&split_state), bits(&state), "bindings of {max_binding} bytes");
        // Several sequences then need several pages.
        assert_eq!(together(&split, &[&tokens, &tokens[5..]])[0], bits(&whole));
    }
    // Another team size adds in another order.
    let options = GpuOptions { workgroup: Some(64), checked: true, ..GpuOptions::default() };
    let (got, _) = logits(&gpu::backend(&model, WeightType::F16, options), &tokens, forgetting);
    let expected: Vec<f64> = whole.iter().map(|&x| x.into()).collect();
    assert_close("workgroups of 64", &got, &expected, NMSE, MAX_ABS);
}

/// Bits of the logits of sequences that run together with the forgetting of the test above.
fn together(backend: &dyn Backend, sequences: &[&[u32]]) -> Vec<Vec<u32>> {
    let forgetting = Forgetting::After { context: 10, tau: 0.5 };
    let mut clocks = vec![Clock::new(forgetting); sequences.len()];
    let mut slots = backend.create_slots(sequences.len()).unwrap();
    let longest = sequences.iter().map(|tokens| tokens.len()).max().unwrap();
    let at = |t: usize| {
        let slot = |(clock, tokens): (&mut Clock, &&[u32])| match tokens.get(t) {
            Some(&token) => step(clock.tick(), Input::Token(token), Output::Logits),
            None => SlotStep::IDLE,
        };
        clocks.iter_mut().zip(sequences).map(slot).collect()
    };
    let run = slots.run(&Plan { steps: (0..longest).map(at).collect(), trace_logits: true }).unwrap();
    let mut logits = vec![Vec::new(); sequences.len()];
    for step in run.logits {
        logits.iter_mut().zip(step).for_each(|(to, from)| to.extend(bits(&from)));
    }
    logits
}

#[test]
fn several_sequences_together_equal_each_alone() {
    let backend = plain(&model("odd-shapes"), WeightType::F32);
    let tokens: Vec<u32> = (0..40u32).map(|i| (i * i + 3) % 97).collect();
    // Other lengths: sequences rest when they have ended.
    let sequences = [&tokens[..], &tokens[7..20], &tokens[20..], &tokens[3..4], &tokens[..29]];
    let crowd = together(&backend, &sequences);
    for (tokens, got) in sequences.iter().zip(&crowd) {
        assert_eq!(got.len(), 97 * tokens.len());
        assert_eq!(got, &together(&backend, &[tokens])[0], "{} tokens", tokens.len());
    }
}

// ---- texts ----

/// A text to write.
struct Text<'a> {
    prompt: &'a [u32],
    params: SamplerParams,
    tokens: usize,
}

/// Writes texts side by side, the prompts read first, one by one; `burst` tokens per call.
fn write(backend: &dyn Backend, texts: &[Text], forgetting: Forgetting, burst: usize) -> Vec<Vec<u32>> {
    let mut slots = backend.create_slots(texts.len()).unwrap();
    let mut clocks = vec![Clock::new(forgetting); texts.len()];
    for (slot, text) in texts.iter().enumerate() {
        slots.set_sampler(slot, &text.params, &[0; 256], 0).unwrap();
        let (_, first) = text.prompt.split_last().unwrap();
        for chunk in first.chunks(64) {
            let at = |&token: &u32| {
                let mut steps = vec![SlotStep::IDLE; texts.len()];
                steps[slot] = step(clocks[slot].tick(), Input::Token(token), Output::State);
                steps
            };
            slots.run(&Plan { steps: chunk.iter().map(at).collect(), trace_logits: false }).unwrap();
        }
    }
    let longest = texts.iter().map(|text| text.tokens).max().unwrap();
    let mut written = vec![Vec::new(); texts.len()];
    let mut next = 0;
    while next < longest {
        let end = (next + burst).min(longest);
        let at = |index: usize| {
            let slot = |(clock, text): (&mut Clock, &Text)| {
                let input = if index == 0 { Input::Token(*text.prompt.last().unwrap()) } else { Input::Previous };
                if index < text.tokens { step(clock.tick(), input, Output::Token) } else { SlotStep::IDLE }
            };
            clocks.iter_mut().zip(texts).map(slot).collect()
        };
        let run = slots.run(&Plan { steps: (next..end).map(at).collect(), trace_logits: false }).unwrap();
        for tokens in run.tokens {
            for (to, token) in written.iter_mut().zip(tokens) {
                to.extend((token != NO_TOKEN).then_some(token));
            }
        }
        next = end;
    }
    written
}

fn ids(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

fn greedy() -> SamplerParams {
    SamplerParams::new(&SamplingOptions::greedy(), 0, 0)
}

/// As a user sees it.
fn shown(tokens: &[u32]) -> String {
    let bytes: Vec<u8> = tokens.iter().map(|&t| t as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The logits that a device gives for a token after a text, one sequence, no forgetting up to 256.
fn margin(tokens: &[u32]) -> String {
    let last = |backend: &dyn Backend| {
        let (all, _) = logits(backend, tokens, Forgetting::of_model(&model("shakespeare").config));
        all[all.len() - 256..].to_vec()
    };
    let (cpu, gpu) = (last(&shipped().cpu), last(&shipped().gpu));
    let mut sorted = cpu.clone();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let apart = cpu.iter().zip(&gpu).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    format!("best logit {:e} above the second, logits differ by up to {apart:e}", sorted[0] - sorted[1])
}

#[test]
fn greedy_texts_are_those_of_the_reference_on_both_devices() {
    let text = std::fs::read_to_string(golden("shakespeare").join("greedy.json")).unwrap();
    let cases: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    assert!(!cases.is_empty());
    for case in cases {
        let prompt = ids(case["prompt"].as_str().unwrap());
        let expected: Vec<u32> =
            case["tokens"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        let text = Text { prompt: &prompt, params: greedy(), tokens: expected.len() };
        for (name, backend) in [("CPU", &shipped().cpu as &dyn Backend), ("GPU", &shipped().gpu)] {
            let got = write(backend, std::slice::from_ref(&text), Forgetting::Full, 16).remove(0);
            assert_eq!(shown(&got), shown(&expected), "{name}");
            assert_eq!(got, expected, "{name}");
        }
    }
}

/// Prompts from Shakespeare and from elsewhere.
const PROMPTS: [&str; 20] = [
    "To be or not to be",
    "ROMEO:\n",
    "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\n",
    "KING RICHARD III:\nA horse! a horse! my kingdom for a horse!\n",
    "Now is the winter of our discontent\nMade glorious summer by",
    "O Romeo, Romeo! wherefore art thou",
    "Shall I compare thee to a summer's day?",
    "JULIET:\nMy bounty is as boundless as the sea,\n",
    "What's in a name? that which we call a rose",
    "MENENIUS:\n",
    "The quality of mercy is not strain'd,",
    "It was the best of times, it was the worst of times,",
    "In the beginning God created the heaven and the earth.",
    "Call me Ishmael. Some years ago",
    "fn main() {\n    println!(\"hello\");\n}\n",
    "The quick brown fox jumps over the lazy dog. ",
    "3.14159265358979",
    "Ein Männlein steht im Walde",
    "\n",
    "THE END\n\n\n",
];

#[test]
fn twenty_greedy_texts_agree_between_the_devices() {
    let prompts: Vec<Vec<u32>> = PROMPTS.iter().map(|prompt| ids(prompt)).collect();
    let forgetting = Forgetting::of_model(&model("shakespeare").config);
    for prompt in &prompts {
        let text = Text { prompt, params: greedy(), tokens: 200 };
        let [gpu, cpu] = [&shipped().gpu as &dyn Backend, &shipped().cpu]
            .map(|backend| write(backend, std::slice::from_ref(&text), forgetting, 50).remove(0));
        assert_eq!(gpu.len(), 200);
        if let Some(step) = (0..200).find(|&i| gpu[i] != cpu[i]) {
            let read = [prompt, &cpu[..step]].concat();
            panic!("{:?} parts ways at step {step}: {}", shown(prompt), margin(&read));
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_text_on_both_devices_in_any_burst() {
    let options = SamplingOptions { temperature: 0.8, top_k: 50, ..SamplingOptions::default() };
    let forgetting = Forgetting::of_model(&model("shakespeare").config);
    let prompts: Vec<Vec<u32>> = PROMPTS[..3].iter().map(|prompt| ids(prompt)).collect();
    let text = |(index, prompt)| {
        let params = SamplerParams::new(&options, 1 + index as u64, index as u32);
        Text { prompt, params, tokens: 150 }
    };
    let texts: Vec<Text> = prompts.iter().map(Vec::as_slice).enumerate().map(text).collect();
    let gpu = write(&shipped().gpu, &texts, forgetting, 40);
    assert_eq!(write(&shipped().cpu, &texts, forgetting, 40), gpu, "CPU and GPU");
    assert_eq!(write(&shipped().gpu, &texts[1..2], forgetting, 7)[0], gpu[1], "alone, in other bursts");
}

#[test]
fn a_sequence_that_has_ended_changes_nothing_more() {
    for backend in [&shipped().cpu as &dyn Backend, &shipped().gpu] {
        let prompt = ids("ROMEO:\n");
        // The third token of its greedy text ends it.
        let text = Text { prompt: &prompt, params: greedy(), tokens: 3 };
        let tokens = write(backend, &[text], Forgetting::Full, 3).remove(0);
        let first = tokens.iter().position(|token| *token == tokens[2]).unwrap();
        let run = |steps: usize| {
            let mut slots = backend.create_slots(1).unwrap();
            let mut counts = vec![0; 256];
            counts[tokens[2] as usize] = EOS_BIT;
            slots.set_sampler(0, &greedy(), &counts, 0).unwrap();
            let mut clock = Clock::new(Forgetting::Full);
            let reads = prompt[..prompt.len() - 1].iter().map(|&t| (Input::Token(t), Output::State));
            let draws = (0..steps).map(|i| match i {
                0 => (Input::Token(*prompt.last().unwrap()), Output::Token),
                _ => (Input::Previous, Output::Token),
            });
            let steps = reads.chain(draws).map(|(input, output)| vec![step(clock.tick(), input, output)]);
            let run = slots.run(&Plan { steps: steps.collect(), trace_logits: false }).unwrap();
            let drawn: Vec<u32> = run.tokens.iter().map(|step| step[0]).filter(|&t| t != NO_TOKEN).collect();
            (drawn, run.samplers[0], slots.read_state(0).unwrap(), slots.logits(0).unwrap())
        };
        let (drawn, control, state, logits) = run(first + 1);
        assert_eq!(drawn, tokens[..=first], "{}", backend.device());
        assert_eq!(control.status(), Some(Status::Eos));
        let (later_drawn, later_control, later_state, later_logits) = run(first + 20);
        assert_eq!((later_drawn, later_control), (drawn, control), "{}", backend.device());
        assert_eq!(bits(&later_state), bits(&state), "{}", backend.device());
        assert_eq!(bits(&later_logits), bits(&logits), "{}", backend.device());
    }
}
