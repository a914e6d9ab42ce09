use crate::backend::cpu::CpuBackend;
use crate::backend::cpu::simd::Level;
use crate::backend::cpu::slots::CpuSlots;
use crate::backend::{Backend, Chunk, ChunkToken, Input, Output, Plan, SlotStep, Slots, StateType, WeightType};
use crate::model::Model;
use crate::model::synthetic::SyntheticSpec;
use std::sync::Arc;

/// Seven blocks in each of two heads, and five tiles of the vocabulary.
fn model() -> Model {
    Model::synthetic(&SyntheticSpec {
        n_layer: 3,
        n_embd: 24,
        n_head: 2,
        neurons_per_head: 1_700,
        vocab_size: 300,
        density: 0.3,
        seed: 5,
    })
}

/// Steps of three slots, one of them idle at times, with forgetting.
fn plan() -> Plan {
    let slot = |step: u32, slot: u32| match (step + slot) % 5 {
        0 => SlotStep::IDLE,
        _ => SlotStep {
            input: Input::Token((7 * step + 31 * slot) % 300),
            output: Output::Logits,
            position: step,
            read_scale: 0.9,
            write_scale: 1.1,
            rescale: (step % 6 == 4).then_some(0.5),
        },
    };
    Plan { steps: (0..24).map(|step| (0..3).map(|i| slot(step, i)).collect()).collect(), trace_logits: true }
}

/// Logits and states of steps, a chunk, and steps again.
fn results(model: &Model, state_type: StateType, threads: usize, slow_thread: Option<usize>) -> Vec<f32> {
    let backend = CpuBackend::new(model, WeightType::F32, Some(threads)).unwrap().with_state(state_type);
    let mut slots = CpuSlots::new(backend.shared.clone(), 3).unwrap();
    slots.slow_down(slow_thread);
    let token = |t: u32| ChunkToken { token: t * t % 300, read_scale: 0.9, write_scale: 1.1 };
    let chunk = Chunk { position: 24, rescale: Some(0.5), tokens: (0..50).map(token).collect(), logits: true };
    let mut results = Vec::new();
    for _ in 0..2 {
        results.extend(slots.run(&plan()).unwrap().logits.into_iter().flatten().flatten());
        results.extend(slots.prefill(1, &chunk).unwrap());
    }
    for slot in 0..3 {
        results.extend(slots.snapshot(slot).unwrap().words.into_iter().map(f32::from_bits));
    }
    results
}

#[test]
fn results_do_not_depend_on_who_computes_them() {
    let model = model();
    let check = |state_type, cases: &[(usize, Option<usize>)]| {
        let wanted = results(&model, state_type, 1, None);
        for &(threads, slow_thread) in cases {
            let got = results(&model, state_type, threads, slow_thread);
            let same = got.len() == wanted.len() && got.iter().zip(&wanted).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{state_type}: {threads} threads, of which {slow_thread:?} is slow");
        }
    };
    check(StateType::F32, &[(2, None), (2, Some(0)), (2, Some(1)), (3, Some(1)), (7, None), (7, Some(3))]);
    check(StateType::I16, &[(2, None), (7, Some(3))]);
    check(StateType::I8, &[(2, None), (7, Some(3))]);
}

/// Logits and state of two slots, the second with a sliding window, computed at one level.
fn slid(model: &Model, level: Level) -> [Vec<f32>; 2] {
    let mut backend = CpuBackend::new(model, WeightType::F16, Some(2)).unwrap();
    Arc::get_mut(&mut backend.shared).unwrap().level = level;
    let mut slots = backend.create_slots(2).unwrap();
    slots.set_reach(1, Some(21)).unwrap();
    let step = |position: u32| {
        let input = Input::Token(position * 7 % 300);
        SlotStep { input, output: Output::Logits, position, ..SlotStep::IDLE }
    };
    let plan = Plan { steps: (0..60).map(|position| vec![step(position); 2]).collect(), trace_logits: true };
    let logits = slots.run(&plan).unwrap().logits.into_iter().flatten().flatten().collect();
    [logits, slots.read_state(1).unwrap()]
}

#[test]
fn tokens_leave_a_sliding_window_alike_at_every_level() {
    let model = model();
    let wanted = slid(&model, Level::available()[0]);
    let vocab = 300;
    let [first, second]: [Vec<f32>; 2] =
        [0, 1].map(|slot| wanted[0].chunks_exact(vocab).skip(slot).step_by(2).flatten().copied().collect());
    // Nothing leaves before the 21st token has been read.
    assert_eq!(first[..22 * vocab], second[..22 * vocab]);
    assert_ne!(first[22 * vocab..], second[22 * vocab..]);
    for level in Level::available() {
        // Levels sum in different orders, with and without fused multiply-adds.
        for (got, wanted) in slid(&model, level).iter().zip(&wanted) {
            let size = wanted.iter().fold(0.0_f32, |size, x| size.max(x.abs()));
            assert!(size > 0.1 && got.len() == wanted.len());
            for (got, wanted) in got.iter().zip(wanted) {
                assert!((got - wanted).abs() <= 1e-4 * size, "{level:?}: {got}, not {wanted}");
            }
        }
    }
}
