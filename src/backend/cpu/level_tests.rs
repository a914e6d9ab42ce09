//! Steps, chunks and beams at every level of instructions, compared with portable code.
//!
//! Levels add in different orders, with and without fused multiply-adds. Sums have at most a few
//! hundred terms of about size one, and each rounding is 6e-8 of a term; two layers, with norms
//! that enlarge errors, stay within 1e-4 of the largest number.

use super::CpuBackend;
use super::prefill::CHUNK_TOKENS;
use super::simd::Level;
use crate::backend::beams::{BeamFold, BeamRead, BeamStep, PathEntry};
use crate::backend::{Backend, Chunk, ChunkToken, Input, Output, Plan, SlotStep, StateType, WeightType};
use crate::model::Model;
use crate::model::synthetic::SyntheticSpec;
use crate::sampling::SamplerParams;
use std::sync::Arc;

const VOCAB: u32 = 61;

/// A limit on errors, in units of the largest number.
type Case = ((WeightType, StateType), f32);

const CASES: [Case; 4] = [
    ((WeightType::F32, StateType::F32), 1e-4),
    ((WeightType::F16, StateType::F32), 1e-4),
    // Another order of sums may tip a code, by one step of the row's 127.
    ((WeightType::I8, StateType::I16), 2e-4),
    ((WeightType::I8, StateType::I8), 1.1 / 127.0),
];

fn backend(model: &Model, (weights, state): (WeightType, StateType), level: Level) -> CpuBackend {
    let mut backend = CpuBackend::new(model, weights, Some(2)).unwrap().with_state(state);
    Arc::get_mut(&mut backend.shared).unwrap().level = level;
    backend
}

/// Logits after some tokens, and the state after the last one, in one slot.
fn chunks(backend: &CpuBackend) -> Vec<Vec<f32>> {
    let mut slots = backend.create_slots(1).unwrap();
    let mut position = 0;
    let mut logits = Vec::new();
    for count in [CHUNK_TOKENS as u32, 37] {
        let token = |t| ChunkToken { token: (7 * t + t * t) % VOCAB, read_scale: 0.9, write_scale: 1.1 };
        let tokens = (position..position + count).map(token).collect();
        let rescale = (position > 0).then_some(0.5);
        let chunk = Chunk { position, rescale, tokens, logits: true };
        logits.extend(slots.prefill(0, &chunk).unwrap());
        position += count;
    }
    vec![logits, slots.read_state(0).unwrap()]
}

/// Logits of steps in which one to five slots take part, past the window's end, and all states.
fn steps(backend: &CpuBackend) -> Vec<Vec<f32>> {
    const SLOTS: u32 = 5;
    let mut slots = backend.create_slots(SLOTS as usize).unwrap();
    let slot = |step: u32, slot: u32| match slot > step % SLOTS {
        true => SlotStep::IDLE,
        false => SlotStep {
            input: Input::Token((7 * step + 31 * slot) % VOCAB),
            output: Output::Logits,
            position: step,
            read_scale: 0.9,
            write_scale: 1.1,
            rescale: (step == 20).then_some(0.5),
        },
    };
    let steps = (0..22).map(|step| (0..SLOTS).map(|i| slot(step, i)).collect()).collect();
    let run = slots.run(&Plan { steps, trace_logits: true }).unwrap();
    let logits = run.logits.into_iter().flatten().flatten().collect();
    let states = (0..SLOTS as usize).map(|slot| slots.read_state(slot).unwrap());
    [logits].into_iter().chain(states).collect()
}

/// Scores of the candidates of two beams that share a node, and the state after this node's fold.
fn beams(backend: &CpuBackend) -> Vec<Vec<f32>> {
    let mut beams = backend.create_beams(2).unwrap();
    let chunk = Chunk {
        tokens: (0..20).map(|token| ChunkToken { token, read_scale: 1.0, write_scale: 1.0 }).collect(),
        ..Chunk::default()
    };
    beams.base().unwrap().prefill(0, &chunk).unwrap();
    beams.start(&SamplerParams::default(), &[0; VOCAB as usize]).unwrap();
    let mut scores = Vec::new();
    let paths: [&[usize]; 3] = [&[], &[0], &[0]];
    for (step, nodes) in [&[0][..], &[1, 2], &[3, 4]].into_iter().enumerate() {
        let read = |(beam, &node): (usize, &usize)| {
            let own = (step == 2).then_some(1 + beam);
            let path = paths[step].iter().copied().chain(own).map(|node| PathEntry { node, weight: 0.9 }).collect();
            BeamRead { token: (5 * step + 17 * beam) as u32 % VOCAB, node, path }
        };
        let selection = beams.step(&BeamStep {
            position: 20 + step as u32,
            read_scale: 0.9,
            reads: nodes.iter().enumerate().map(read).collect(),
            scores: vec![0.0, -1.0],
            parents: None,
            generated: step as u32,
            candidates: VOCAB as usize,
        });
        scores.extend(selection.unwrap().candidates.into_iter().map(|candidate| candidate.score));
    }
    beams.fold(&[BeamFold { node: 0, write_scale: 1.1, rescale: None }]).unwrap();
    vec![scores, beams.base().unwrap().read_state(0).unwrap()]
}

/// Compares a computation's results at every level with the portable ones.
fn compare(computation: fn(&CpuBackend) -> Vec<Vec<f32>>) {
    // Rows of a wide and a narrow panel, of a narrow one, of wide ones; partly filled blocks.
    for (n_embd, neurons_per_head) in [(72, 200), (10, 70), (256, 130)] {
        let model = Model::synthetic(&SyntheticSpec {
            n_layer: 2,
            n_embd,
            n_head: 2,
            neurons_per_head,
            vocab_size: VOCAB as usize,
            density: 0.3,
            seed: 3,
        });
        for (types, limit) in CASES {
            let levels = Level::available();
            let wanted = computation(&backend(&model, types, levels[0]));
            for &level in &levels[1..] {
                let got = computation(&backend(&model, types, level));
                assert_eq!(got.len(), wanted.len());
                for (got, wanted) in got.iter().zip(&wanted) {
                    let size = wanted.iter().fold(0.0_f32, |size, x| size.max(x.abs()));
                    assert!(size > 0.1 && got.len() == wanted.len());
                    for (got, wanted) in got.iter().zip(wanted) {
                        let limit = limit * size;
                        assert!((got - wanted).abs() <= limit, "{level:?}, D {n_embd}, {types:?}: {got}, not {wanted}");
                    }
                }
            }
        }
    }
}

#[test]
fn chunks_are_the_same_at_every_level() {
    compare(chunks);
}

#[test]
fn steps_are_the_same_at_every_level() {
    compare(steps);
}

#[test]
fn beams_are_the_same_at_every_level() {
    compare(beams);
}
