//! Beam search on both devices: against transformers' results, and against a search that recomputes every
//! hypothesis from scratch.

mod common;
#[path = "common/gpu.rs"]
mod gpu;

use bdh_gpu::backend::beams::{BeamRead, BeamStep, Beams, PathEntry};
use bdh_gpu::backend::cpu::CpuBackend;
use bdh_gpu::backend::gpu::GpuOptions;
use bdh_gpu::backend::memory::{SavedMemory, WINDOW};
use bdh_gpu::backend::{Backend, BackendError, Input, Output, Plan, SlotStep, StateType, WeightType};
use bdh_gpu::generation::beam::{self, BeamOptions, BeamSearch, Hypothesis, Step};
use bdh_gpu::generation::{Bdh, BeamProgress, DeviceChoice, GenerationError, GenerationOptions, WeightChoice};
use bdh_gpu::model::forgetting::{Clock, Forgetting};
use bdh_gpu::model::{EarlyStopping, Model, SyntheticSpec, Tensor};
use bdh_gpu::sampling::{EOS_BIT, PROMPT_BIT, SamplerParams, SamplingError, SamplingOptions};
use common::{Golden, model};
use std::ops::ControlFlow;

/// Both devices.
fn devices(model: &Model) -> [Bdh; 2] {
    [DeviceChoice::Cpu, gpu::device()]
        .map(|device| Bdh::new(model.clone(), &device, WeightChoice::F32).expect("the device takes the model"))
}

fn search(bdh: &Bdh, prompt: &[u32], sampling: &SamplingOptions, beam: &BeamOptions) -> Vec<Hypothesis> {
    search_with(bdh, prompt, sampling, beam, Forgetting::Full)
}

fn search_with(
    bdh: &Bdh,
    prompt: &[u32],
    sampling: &SamplingOptions,
    beam: &BeamOptions,
    forgetting: Forgetting,
) -> Vec<Hypothesis> {
    bdh.beam_search(prompt, sampling, beam, forgetting).expect("a search")
}

#[test]
fn sequences_and_scores_are_those_of_transformers() {
    for folder in ["hf-tied", "hf-untied"] {
        let golden = Golden::read(folder, "golden.safetensors");
        let expected = golden.tokens("beam4");
        let scores = golden.values("beam4_scores");
        let beam = BeamOptions { num_beams: 4, num_return_sequences: 4, max_new_tokens: 16, ..BeamOptions::default() };
        for bdh in devices(&model(folder)) {
            let found = search(&bdh, &expected[..5], &SamplingOptions::greedy(), &beam);
            assert_eq!(found.len(), 4);
            for ((found, expected), score) in found.iter().zip(expected.chunks_exact(21)).zip(&scores) {
                println!("{folder} on {}: {} ({score})", bdh.device(), found.score);
                assert_eq!(found.tokens, expected[5..], "{folder} on {}", bdh.device());
                assert!((found.score - score).abs() < 1e-4, "{folder}: {} {score}", found.score);
            }
        }
    }
}

/// Logits after `tokens`, read into an empty state.
fn logits(bdh: &Bdh, tokens: &[u32], forgetting: Forgetting) -> Vec<f32> {
    let mut slots = bdh.backend().create_slots(1).unwrap();
    let mut clock = Clock::new(forgetting);
    let step = |(index, &token): (usize, &u32)| {
        let tick = clock.tick();
        vec![SlotStep {
            input: Input::Token(token),
            output: if index + 1 == tokens.len() { Output::Logits } else { Output::State },
            position: tick.position,
            read_scale: tick.read_scale,
            write_scale: tick.write_scale,
            rescale: tick.rescale,
        }]
    };
    slots.run(&Plan { steps: tokens.iter().enumerate().map(step).collect(), trace_logits: false }).unwrap();
    slots.logits(0).unwrap()
}

/// The same search without anything shared: every beam's text is read from its first token at every step.
fn from_scratch(
    bdh: &Bdh,
    prompt: &[u32],
    sampling: &SamplingOptions,
    options: &BeamOptions,
    forgetting: Forgetting,
) -> Vec<Hypothesis> {
    let params = SamplerParams::new(sampling, 0, 0);
    let mut search = BeamSearch::new(options.clone()).unwrap();
    let mut counts = vec![0; bdh.model().config.vocab_size];
    prompt.iter().for_each(|&token| counts[token as usize] |= PROMPT_BIT);
    options.eos_token_ids.iter().for_each(|&token| counts[token as usize] |= EOS_BIT);
    let mut beams = vec![(prompt.to_vec(), counts); options.num_beams];
    while !search.is_over() {
        let rows: Vec<Vec<f32>> = beams.iter().map(|(text, _)| logits(bdh, text, forgetting)).collect();
        let rows: Vec<&[f32]> = rows.iter().map(|row| &row[..]).collect();
        let counts: Vec<&[u32]> = beams.iter().map(|(_, counts)| &counts[..]).collect();
        let (generated, k) = (search.generated() as u32, search.candidates_per_step());
        let candidates = beam::select(&rows, &counts, &[], search.scores(), &params, generated, k).unwrap();
        let Step::Continue(extensions) = search.advance(&candidates) else { break };
        let child = |extension: &beam::Extension| {
            let (mut text, mut counts) = beams[extension.parent as usize].clone();
            text.push(extension.token);
            counts[extension.token as usize] += 1;
            (text, counts)
        };
        beams = extensions.iter().map(child).collect();
    }
    search.finish()
}

/// A small model whose text is neither constant nor uniform, and in which no two beams tie.
fn small(vocab_size: usize) -> Model {
    Model::synthetic(&SyntheticSpec {
        n_layer: 3,
        n_embd: 20,
        n_head: 2,
        neurons_per_head: 70,
        vocab_size,
        density: 0.3,
        seed: 12,
    })
}

#[test]
fn a_shared_past_changes_nothing() {
    let prompt = [3, 1, 4, 1, 5, 9, 2, 6];
    let plain = SamplingOptions::greedy();
    let penalties = SamplingOptions {
        repetition_penalty: 1.3,
        frequency_penalty: 0.2,
        presence_penalty: -0.1,
        min_new_tokens: 5,
        ..plain
    };
    let fading = Forgetting::After { context: 10, tau: 2.0 };
    // Every token after the context asks for a rescale.
    let steep = Forgetting::After { context: 10, tau: 0.02 };
    let beams = |num_beams, max_new_tokens, eos: &[u32]| BeamOptions {
        num_beams,
        num_return_sequences: num_beams,
        max_new_tokens,
        eos_token_ids: eos.to_vec(),
        ..BeamOptions::default()
    };
    let never = BeamOptions { early_stopping: EarlyStopping::Never, length_penalty: 0.5, ..beams(5, 24, &[0, 7]) };
    let cases = [
        (11, plain, beams(1, 20, &[]), Forgetting::Full),
        (11, plain, beams(3, 40, &[]), Forgetting::Full),
        (11, plain, beams(8, 24, &[]), fading),
        (97, penalties, beams(4, 24, &[2]), fading),
        (300, penalties, beams(8, 12, &[2, 40, 41]), Forgetting::Full),
        (11, penalties, never, fading),
        (11, plain, beams(3, 16, &[]), steep),
        // Fewer continuations than beams.
        (2, plain, beams(8, 6, &[]), Forgetting::Full),
        (2, penalties, beams(5, 8, &[1]), fading),
        (1, plain, beams(3, 4, &[]), Forgetting::Full),
    ];
    for (case, (vocab, sampling, options, forgetting)) in cases.into_iter().enumerate() {
        let prompt: Vec<u32> = prompt.iter().map(|token| token % vocab as u32).collect();
        let devices = devices(&small(vocab));
        let expected = from_scratch(&devices[0], &prompt, &sampling, &options, forgetting);
        for bdh in devices {
            let found = search_with(&bdh, &prompt, &sampling, &options, forgetting);
            let what = format!("case {case} on {}", bdh.device());
            assert_eq!(found.len(), expected.len(), "{what}");
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!((&found.tokens, found.ended), (&expected.tokens, expected.ended), "{what}");
                assert!((found.score - expected.score).abs() < 1e-4, "{what}: {} {}", found.score, expected.score);
            }
        }
    }
}

#[test]
fn one_beam_is_greedy() {
    let model = model("shakespeare");
    let prompt = b"ROMEO:\nWhat light".map(u32::from);
    let sampling = SamplingOptions::greedy();
    let options = GenerationOptions { max_new_tokens: 40, sampling, ..GenerationOptions::default() };
    let beam = BeamOptions { num_beams: 1, max_new_tokens: 40, ..BeamOptions::default() };
    for bdh in devices(&model) {
        let mut session = bdh.session_with(Forgetting::Full).unwrap();
        session.feed(&prompt).unwrap();
        let greedy = session.generate(&options).unwrap();
        assert_eq!(search(&bdh, &prompt, &sampling, &beam)[0].tokens, greedy.tokens, "on {}", bdh.device());
    }
}

#[test]
fn biases_count_in_a_search() {
    let model = model("shakespeare");
    let prompt = b"ROMEO:\nWhat light".map(u32::from);
    let plain = BeamOptions { num_beams: 3, max_new_tokens: 20, ..BeamOptions::default() };
    let banned = BeamOptions { logit_bias: [(u32::from(b' '), -100.0)].into(), ..plain.clone() };
    let wanted = BeamOptions { logit_bias: [(u32::from(b'z'), 60.0)].into(), ..plain.clone() };
    for bdh in devices(&model) {
        let text = |beam: &BeamOptions| search(&bdh, &prompt, &SamplingOptions::greedy(), beam).remove(0).tokens;
        assert!(text(&plain).contains(&u32::from(b' ')));
        assert!(!text(&banned).contains(&u32::from(b' ')));
        assert_eq!(text(&wanted), [u32::from(b'z'); 20]);
        let outside = BeamOptions { logit_bias: [(256, 1.0)].into(), ..plain.clone() };
        let error = bdh.beam_search(&prompt, &SamplingOptions::greedy(), &outside, Forgetting::Full).unwrap_err();
        assert!(error.to_string().starts_with("logit_bias must be for tokens below"), "{error}");
    }
}

#[test]
fn more_beams_find_likelier_texts() {
    let model = model("shakespeare");
    let prompt = b"ROMEO:\nWhat light".map(u32::from);
    for bdh in devices(&model) {
        let best = |num_beams| {
            let beam = BeamOptions { num_beams, max_new_tokens: 64, ..BeamOptions::default() };
            let start = std::time::Instant::now();
            let mut largest = 0;
            let listen = |progress| {
                if let BeamProgress::Generated { state_bytes, .. } = progress {
                    largest = largest.max(state_bytes);
                }
                ControlFlow::Continue(())
            };
            let mut found =
                bdh.beam_search_with(&prompt, &SamplingOptions::greedy(), &beam, Forgetting::Full, listen).unwrap();
            let states = largest as f64 / (4.0 * SavedMemory::len(&bdh.model().config, StateType::F32) as f64);
            println!("{num_beams} beams, {}: {states:.2} states, {:.2?}", bdh.device(), start.elapsed());
            // A node is about 1/128 of this state. One beam needs a few, eight some more; without folding and
            // freeing there would be 512, four states' worth.
            assert!(if num_beams == 1 { states < 1.1 } else { (1.2..3.0).contains(&states) }, "{states}");
            found.remove(0)
        };
        let (one, eight) = (best(1), best(8));
        let text = |found: &Hypothesis| found.tokens.iter().map(|&token| token as u8 as char).collect::<String>();
        println!("{} {:?}\n{} {:?}", one.score, text(&one), eight.score, text(&eight));
        assert!(eight.score > one.score);
    }
}

#[test]
fn a_search_can_be_ended_and_the_beams_are_the_result() {
    for bdh in devices(&small(11)) {
        let beam = BeamOptions { num_beams: 3, num_return_sequences: 3, ..BeamOptions::default() };
        let mut heard = Vec::new();
        let found = bdh
            .beam_search_with(&[1, 2, 3], &SamplingOptions::greedy(), &beam, Forgetting::Full, |progress| {
                heard.push(progress);
                match progress {
                    BeamProgress::Generated { tokens: 4, .. } => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            })
            .unwrap();
        let tokens = |progress: &BeamProgress| match *progress {
            BeamProgress::Read(read) => (read, 0),
            BeamProgress::Generated { tokens, .. } => (2, tokens),
        };
        let heard: Vec<_> = heard.iter().map(tokens).collect();
        assert_eq!(heard[heard.len() - 5..], [(2, 0), (2, 1), (2, 2), (2, 3), (2, 4)]);
        assert!(found.len() == 3 && found.iter().all(|text| text.tokens.len() == 4 && !text.ended));
        let nothing = BeamOptions { max_new_tokens: 0, ..beam };
        assert!(search(&bdh, &[1], &SamplingOptions::greedy(), &nothing)[0].tokens.is_empty());
    }
}

#[test]
fn what_cannot_be_searched_is_an_error() {
    let bdh = Bdh::new(small(11), &DeviceChoice::Cpu, WeightChoice::F32).unwrap();
    let greedy = SamplingOptions::greedy();
    let error = |prompt: &[u32], sampling: SamplingOptions, beam: BeamOptions| {
        bdh.beam_search(prompt, &sampling, &beam, Forgetting::Full).unwrap_err()
    };
    let beam = BeamOptions::default();
    let many = BeamOptions { num_return_sequences: 5, ..beam.clone() };
    assert!(error(&[1], greedy, many).to_string().contains("num_return_sequences"));
    let sampling = SamplingOptions { repetition_penalty: -1.0, ..greedy };
    assert!(error(&[1], sampling, beam.clone()).to_string().contains("repetition_penalty"));
    assert!(error(&[11], greedy, beam.clone()).to_string().contains("vocabulary"));
    let ten = Bdh::new(small(10), &DeviceChoice::Cpu, WeightChoice::F32).unwrap();
    let empty = ten.beam_search(&[], &greedy, &beam, Forgetting::Full);
    assert!(empty.unwrap_err().to_string().contains("the prompt is empty"));
    // Every token is banned.
    let banned = BeamOptions { eos_token_ids: (0..11).collect(), ..beam };
    let GenerationError::Sampling { position, source, .. } =
        error(&[1, 2, 3], SamplingOptions { min_new_tokens: 1, ..greedy }, banned)
    else {
        panic!("another error")
    };
    assert_eq!((position, source), (2, Some(SamplingError::NothingLeft)));
}

#[test]
fn logits_that_are_not_numbers_are_an_error_with_the_position() {
    let mut model = small(11);
    // Products beyond f32 of both signs: infinity, or infinity minus infinity, as the order of sums has it; of opposite
    // signs for tokens that follow one another, so that they cannot all be minus infinity.
    let head = (0..220).map(|index| if index % 11 % 2 == 0 { f32::MAX } else { f32::MIN }).collect();
    model.weights.lm_head = Tensor::from_f32(&[20, 11], head);
    for bdh in devices(&model) {
        let beam = BeamOptions::default();
        let found = bdh.beam_search_with(&[1, 2, 3], &SamplingOptions::greedy(), &beam, Forgetting::Full, |_| {
            ControlFlow::Continue(())
        });
        let error = found.unwrap_err();
        println!("{error}");
        let GenerationError::Sampling { position, source, .. } = error else { panic!("{error}") };
        assert_eq!(position, 2, "on {}", bdh.device());
        let damaged = matches!(source, Some(SamplingError::NanLogits | SamplingError::InfiniteLogits));
        assert!(damaged, "{source:?} on {}", bdh.device());
    }
}

/// The sizes of the default model.
fn default_sizes() -> SyntheticSpec {
    SyntheticSpec { n_layer: 6, n_embd: 256, n_head: 4, neurons_per_head: 8192, vocab_size: 256, density: 0.1, seed: 1 }
}

const MIB: f64 = 1048576.0;

#[test]
fn eight_beams_of_the_default_model_take_little_more_than_one_state() {
    let model = Model::synthetic(&default_sizes());
    let state = 4 * model.config.state_len() as u64;
    assert_eq!(state, 192 << 20);
    let beam = BeamOptions { num_beams: 8, max_new_tokens: 8, ..BeamOptions::default() };
    for bdh in devices(&model) {
        let mut largest = 0;
        let search = bdh.beam_search_with(&[1, 2], &SamplingOptions::greedy(), &beam, Forgetting::Full, |progress| {
            if let BeamProgress::Generated { state_bytes, .. } = progress {
                largest = largest.max(state_bytes);
            }
            ControlFlow::Continue(())
        });
        search.unwrap();
        println!("{}: {:.0} MiB for 8 beams, 8 states are {:.0} MiB", bdh.device(), largest as f64 / MIB, 1536.0);
        // Even if no two beams ever had a token in common: 8 tokens of 8 beams.
        assert!(largest >= state && largest < state + 3 * 64 * (800 << 10) / 2, "{largest}");
        assert!(largest < 2 * state);
    }
}

/// A search in which no two beams share anything but the prompt: the most that nodes can take.
fn diverge(beams: &mut dyn Beams, tokens: usize) -> Result<u64, BackendError> {
    let count = beams.count();
    beams.start(&SamplerParams::new(&SamplingOptions::greedy(), 0, 0), &[0; 256])?;
    for index in 0..tokens {
        let read = |beam: usize| BeamRead {
            token: beam as u32,
            node: index * count + beam,
            path: (0..index).map(|past| PathEntry { node: past * count + beam, weight: 1.0 }).collect(),
        };
        beams.step(&BeamStep {
            position: index as u32,
            read_scale: 1.0,
            reads: (0..count).map(read).collect(),
            scores: vec![0.0; count],
            parents: None,
            generated: index as u32,
            candidates: 2 * count,
        })?;
    }
    Ok(beams.state_bytes())
}

#[test]
fn beams_that_share_nothing_take_a_node_for_every_token() {
    let model = Model::synthetic(&default_sizes());
    let cpu = CpuBackend::new(&model, WeightType::F32, Some(1)).unwrap();
    let bytes = diverge(&mut *cpu.create_beams(8).unwrap(), 16).unwrap();
    println!("8 beams × 16 tokens: {:.1} MiB, the state among it", bytes as f64 / MIB);
    // The base's state, its window, the nodes.
    assert_eq!(bytes, (192 << 20) + 4 * 6 * 32_768 * WINDOW as u64 + 8 * 16 * 4 * 6 * (32_768 + 256));
}

#[test]
fn what_a_binding_cannot_hold_is_an_error() {
    let sizes = SyntheticSpec { n_layer: 2, n_embd: 32, n_head: 2, neurons_per_head: 512, ..default_sizes() };
    let model = Model::synthetic(&sizes);
    let options = GpuOptions { max_binding: Some(256 << 10), ..GpuOptions::default() };
    let gpu = gpu::backend(&model, WeightType::F16, options);
    let error = diverge(&mut *gpu.create_beams(4).unwrap(), 40).unwrap_err();
    println!("{error}");
    assert!(matches!(error, BackendError::Limit { .. }), "{error}");
    assert!(error.to_string().contains("tokens that beams do not share"), "{error}");
}
