//! Long texts: the state against an accumulation in f64, a token repeated 100,000 times.
//!
//! The f64 reference computes everything anew, so that the distance holds all of f32's roundings: those of a token's own
//! numbers and those of the sums over the tokens. A sum of T terms in f32 is off by at most T · 2^-24 of the sum of their
//! magnitudes; with forgetting, T is in effect the few τ tokens that still count, whatever the length of the text.

mod common;

use bdh_gpu::backend::cpu::CpuBackend;
use bdh_gpu::backend::{Backend, Input, Output, Plan, SlotStep, Slots, WeightType};
use bdh_gpu::model::forgetting::{Clock, Forgetting};
use bdh_gpu::model::{Model, SyntheticSpec};
use common::{Distance, distance, recurrent::Recurrent};

/// Squared error over squared norm that a state and logits may have with forgetting, however long the text: 1e-6 in size.
const FADING: f64 = 1e-12;
/// The same for a full memory of 100,000 tokens, and for a sliding window after them: 1e-4 in size, a sixtieth of the
/// worst case 100,000 · 2^-24.
const FULL: f64 = 1e-8;

/// What a device's sequence and the reference are apart after a text.
#[derive(Debug)]
struct Drift {
    state: Distance,
    logits: Distance,
}

/// Reads tokens one by one on both, in pieces, and compares at the end of each piece.
#[track_caller]
fn drift(model: &Model, forgetting: Forgetting, tokens: impl Iterator<Item = u32>, pieces: usize) {
    let backend = CpuBackend::new(model, WeightType::F32, Some(1)).unwrap();
    let mut slots = backend.create_slots(1).unwrap();
    slots.set_reach(0, forgetting.window()).unwrap();
    let mut clock = Clock::new(forgetting);
    let mut reference = Recurrent::new(model, forgetting);
    let tokens: Vec<u32> = tokens.collect();
    for piece in tokens.chunks(tokens.len().div_ceil(pieces)) {
        let (mut expected, mut got) = (Vec::new(), Vec::new());
        for burst in piece.chunks(256) {
            got = read(&mut *slots, &mut clock, burst);
            burst.iter().for_each(|&token| expected = reference.read(token));
        }
        // What the next token would see of the state.
        let seen = f64::from(clock.read_scale_at(clock.position() as u32));
        let state: Vec<f32> = slots.read_state(0).unwrap().iter().map(|x| (f64::from(*x) * seen) as f32).collect();
        let drift = Drift { state: distance(&state, reference.state()), logits: distance(&got, &expected) };
        println!("after {} tokens: {drift:?}", clock.position());
        let allowed = if matches!(forgetting, Forgetting::After { .. }) { FADING } else { FULL };
        assert!(drift.state.nmse <= allowed && drift.logits.nmse <= allowed, "{drift:?}");
    }
}

/// Reads tokens and returns the logits after the last, `[V]`.
fn read(slots: &mut dyn Slots, clock: &mut Clock, tokens: &[u32]) -> Vec<f32> {
    let step = |(index, &token): (usize, &u32)| {
        let tick = clock.tick();
        let output = if index + 1 == tokens.len() { Output::Logits } else { Output::State };
        vec![SlotStep {
            input: Input::Token(token),
            output,
            position: tick.position,
            read_scale: tick.read_scale,
            write_scale: tick.write_scale,
            rescale: tick.rescale,
        }]
    };
    let plan = Plan { steps: tokens.iter().enumerate().map(step).collect(), trace_logits: false };
    slots.run(&plan).unwrap();
    slots.logits(0).unwrap()
}

fn small() -> Model {
    Model::synthetic(&SyntheticSpec {
        n_layer: 2,
        n_embd: 16,
        n_head: 2,
        neurons_per_head: 16,
        vocab_size: 32,
        density: 0.3,
        seed: 5,
    })
}

/// Tokens without a pattern, the same each time.
fn mixed(count: u32, vocab: u32) -> impl Iterator<Item = u32> {
    (0..count).map(move |i| (i.wrapping_mul(2_654_435_761) >> 16) % vocab)
}

#[test]
fn the_state_does_not_drift_over_100_000_tokens() {
    drift(&small(), Forgetting::After { context: 256, tau: 128.0 }, mixed(100_000, 32), 5);
}

#[test]
fn a_full_memory_of_100_000_tokens_is_right() {
    drift(&small(), Forgetting::Full, mixed(100_000, 32), 5);
}

/// A row is rounded when a token enters and when it leaves, and the rest of both stays for ever: it grows as the root
/// of the number of tokens.
#[test]
fn a_sliding_window_leaves_little_behind_over_100_000_tokens() {
    drift(&small(), Forgetting::Window { tokens: 100 }, mixed(100_000, 32), 5);
}

#[test]
fn a_token_may_be_repeated_100_000_times() {
    let repeated = || std::iter::repeat_n(3, 100_000);
    drift(&small(), Forgetting::Full, repeated(), 5);
    drift(&small(), Forgetting::After { context: 256, tau: 128.0 }, repeated(), 5);
}

/// The shipped model reads its own kind of text. Minutes without optimisation: `cargo test --release --test long_runs -- --ignored --nocapture`.
#[test]
#[ignore = "takes minutes; a short text of the same is tested below"]
fn the_shipped_model_does_not_drift_over_20_000_tokens() {
    shipped(20_000, 10);
}

#[test]
fn the_shipped_model_does_not_drift() {
    shipped(400, 1);
}

fn shipped(count: u32, pieces: usize) {
    let model = common::model("shakespeare");
    let forgetting = Forgetting::of_model(&model.config);
    let text = include_str!("../README.md").bytes().filter(u8::is_ascii).cycle().take(count as usize);
    drift(&model, forgetting, text.map(u32::from), pieces);
}
