//! Sliding windows: every token sees the W tokens before it, and nothing else.

mod common;

#[path = "common/gpu.rs"]
mod gpu;

use bdh_gpu::backend::StateType;
use bdh_gpu::generation::{
    BatchEvent, BatchOptions, Bdh, Completion, DeviceChoice, DeviceOptions, GenerationError, GenerationOptions, Past,
    Session, Snapshot, StateError, WeightChoice,
};
use bdh_gpu::model::forgetting::Forgetting;
use common::{assert_close, naive};
use std::ops::ControlFlow;

/// Squared error over squared norm, and largest difference: as everywhere between the CPU's f32 and f64.
const NMSE: f64 = 1e-10;
const MAX_ABS: f64 = 1e-4;

fn cpu(folder: &str, threads: usize) -> Bdh {
    let options = DeviceOptions {
        device: DeviceChoice::Cpu,
        weights: WeightChoice::F32,
        threads: Some(threads),
        ..DeviceOptions::default()
    };
    Bdh::with(common::model(folder), &options).expect("the CPU")
}

fn tokens(bdh: &Bdh, count: u32) -> Vec<u32> {
    (0..count).map(|i| (i * 37 + i * i % 11) % bdh.model().config.vocab_size as u32).collect()
}

fn logits(bdh: &Bdh, tokens: &[u32], forgetting: Forgetting) -> Vec<f32> {
    bdh.logits(tokens, forgetting, |_| ControlFlow::Continue(())).expect("logits")
}

/// Windows around the sizes of a step (16 tokens settle together) and of a chunk (96).
const WINDOWS: [u32; 8] = [1, 2, 7, 15, 16, 17, 33, 97];

#[test]
fn logits_are_those_of_the_dense_definition() {
    for folder in ["micro", "odd-shapes", "one-head", "deep"] {
        let bdh = cpu(folder, 2);
        let tokens = tokens(&bdh, 150);
        let full = naive::logits(bdh.model(), &tokens, 0, Forgetting::Full);
        for window in WINDOWS {
            let forgetting = Forgetting::Window { tokens: window };
            let expected = naive::logits(bdh.model(), &tokens, 0, forgetting);
            let got = logits(&bdh, &tokens, forgetting);
            assert_close(&format!("{folder}, window {window}"), &got, &expected, NMSE, MAX_ABS);
            // The definition itself: nothing leaves before token W + 1 is read.
            let vocab = bdh.model().config.vocab_size;
            assert_eq!(expected[..(window as usize + 1) * vocab], full[..(window as usize + 1) * vocab]);
            assert_ne!(expected, full);
        }
    }
}

#[test]
fn a_window_longer_than_the_text_changes_nothing() {
    let bdh = cpu("odd-shapes", 1);
    let tokens = tokens(&bdh, 130);
    let full = logits(&bdh, &tokens, Forgetting::Full);
    for window in [130, 5000, u32::MAX >> 12] {
        assert_eq!(logits(&bdh, &tokens, Forgetting::Window { tokens: window }), full, "window {window}");
    }
}

#[test]
fn results_do_not_depend_on_threads_or_on_how_tokens_are_fed() {
    let forgetting = Forgetting::Window { tokens: 20 };
    let bdh = cpu("shakespeare", 1);
    let tokens = tokens(&bdh, 90);
    let expected = logits(&bdh, &tokens, forgetting);
    assert_eq!(logits(&cpu("shakespeare", 2), &tokens, forgetting), expected);
    assert_eq!(logits(&cpu("shakespeare", 3), &tokens, forgetting), expected);
    // What is drawn after all tokens, read in pieces.
    let greedy = |pieces: &[&[u32]], burst: usize| {
        let mut session = bdh.session_with(forgetting).expect("a session");
        session.limit_burst(burst);
        pieces.iter().for_each(|piece| session.feed(piece).expect("tokens are read"));
        generate(&mut session, 40)
    };
    let whole = greedy(&[&tokens], 64);
    assert_eq!(greedy(&[&tokens], 1), whole);
    // Chunks end elsewhere, so sums round elsewhere: texts agree, logits to rounding.
    assert_eq!(greedy(&[&tokens[..3], &tokens[3..25], &tokens[25..]], 5), whole);
}

fn generate(session: &mut Session, count: usize) -> Vec<u32> {
    let options = GenerationOptions { max_new_tokens: count, seed: Some(5), ..Default::default() };
    session.generate(&options).expect("tokens are drawn").tokens
}

#[test]
fn the_state_holds_the_window_and_nothing_else() {
    for folder in ["micro", "odd-shapes"] {
        let bdh = cpu(folder, 2);
        let config = bdh.model().config.clone();
        let tokens = tokens(&bdh, 70);
        for window in [5, 30] {
            let forgetting = Forgetting::Window { tokens: window };
            let mut session = bdh.session_with(forgetting).expect("a session");
            session.feed(&tokens).expect("tokens are read");
            let state = session.state().expect("a state");
            let mut reference = common::recurrent::Recurrent::new(bdh.model(), forgetting);
            tokens.iter().for_each(|&token| drop(reference.read(token)));
            assert_eq!(state.numbers.len(), config.state_len());
            assert_close(&format!("{folder}, window {window}"), &state.numbers, reference.state(), NMSE, MAX_ABS);
        }
    }
}

/// Through a file and into a new session, as another process would.
fn reopen(bdh: &Bdh, session: &mut Session) -> Session {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state");
    session.snapshot().expect("a snapshot").save(bdh, &path).expect("a file");
    let mut reopened = bdh.session_with(Forgetting::Full).expect("a session");
    reopened.restore(&Snapshot::load(bdh, &path).expect("a sound file")).expect("a state that fits");
    assert_eq!(reopened.snapshot().expect("a snapshot"), session.snapshot().expect("a snapshot"));
    assert_eq!(reopened.forgetting(), session.forgetting());
    reopened
}

#[test]
fn a_saved_conversation_goes_on_bit_for_bit() {
    let bdh = cpu("shakespeare", 2);
    for window in [1, 16, 37, 500] {
        let forgetting = Forgetting::Window { tokens: window };
        let mut whole = bdh.session_with(forgetting).expect("a session");
        let mut parts = reopen(&bdh, &mut bdh.session_with(forgetting).expect("a session"));
        for round in 0..4 {
            let turn = tokens(&bdh, 11 + 13 * round);
            whole.feed(&turn).expect("tokens are read");
            parts.feed(&turn).expect("tokens are read");
            parts = reopen(&bdh, &mut parts);
            assert_eq!(generate(&mut parts, 21), generate(&mut whole, 21), "window {window}");
            parts = reopen(&bdh, &mut parts);
            let mut fork = whole.fork().expect("a fork");
            assert_eq!(fork.snapshot().unwrap(), whole.snapshot().unwrap());
            generate(&mut fork, 9);
            assert_eq!(parts.snapshot().unwrap(), whole.snapshot().unwrap(), "window {window}");
        }
    }
}

#[test]
fn a_text_is_the_same_alone_and_in_a_batch() {
    let bdh = cpu("shakespeare", 2);
    let prompts: Vec<Vec<u32>> = (0..5).map(|i| tokens(&bdh, 3 + 17 * i)).collect();
    let options = GenerationOptions { max_new_tokens: 60, seed: Some(3), ..Default::default() };
    let forgetting = Forgetting::Window { tokens: 24 };
    let run = |prompts: &[Vec<u32>], slots: usize| {
        let batch =
            BatchOptions { num_return_sequences: 2, slots: Some(slots), burst: None, forgetting, seeds: Vec::new() };
        let mut texts = vec![Vec::new(); 2 * prompts.len()];
        let each = |event| {
            if let BatchEvent::Done(Completion { prompt, index, result, .. }) = event {
                texts[2 * prompt + index] = result.expect("a text").tokens;
            }
            ControlFlow::Continue(())
        };
        bdh.run_batch(prompts, &options, &batch, each).expect("a batch");
        texts
    };
    let together = run(&prompts, 3);
    for (prompt, expected) in prompts.iter().zip(together.chunks(2)) {
        assert_eq!(run(std::slice::from_ref(prompt), 1), expected);
    }
}

#[test]
fn damaged_windows_are_rejected() {
    let bdh = cpu("micro", 1);
    let mut session = bdh.session_with(Forgetting::Window { tokens: 9 }).expect("a session");
    session.feed(&tokens(&bdh, 30)).expect("tokens are read");
    let mut file = Vec::new();
    session.snapshot().unwrap().write(&bdh, &mut file).unwrap();
    let read = |file: &[u8]| Snapshot::read(&bdh, file, std::path::Path::new("state"));
    assert!(read(&file).is_ok());
    // Flags, then the length of the window; each under a valid checksum.
    for (offset, value) in [(68, 0_u32), (68, 5), (68, 12), (72, 0), (72, 8), (72, 10), (72, u32::MAX)] {
        let mut changed = file.clone();
        changed.truncate(file.len() - 32);
        changed[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        let hash = blake3::hash(&changed);
        changed.extend(hash.as_bytes());
        let error = read(&changed).expect_err("a damaged file");
        assert!(matches!(error, StateError::Inconsistent { .. }), "{offset}: {value}: {error}");
    }
}

#[test]
fn impossible_windows_are_refused_with_one_line() {
    let bdh = cpu("micro", 1);
    let window = Forgetting::Window { tokens: 9 };
    let mut session = bdh.session().expect("a session");
    assert!(matches!(session.set_forgetting(window), Err(GenerationError::WindowChange)));
    let mut session = bdh.session_with(window).expect("a session");
    assert!(session.set_forgetting(window).is_ok());
    assert!(matches!(session.set_forgetting(Forgetting::Full), Err(GenerationError::WindowChange)));
    session.feed(&[1, 2, 3]).unwrap();
    assert!(matches!(session.forget(1, &[]), Err(GenerationError::ForgetInWindow)));

    for state in [StateType::I16, StateType::I8] {
        let options = DeviceOptions { device: DeviceChoice::Cpu, state, ..DeviceOptions::default() };
        let rounded = Bdh::with(common::model("micro"), &options).expect("the CPU");
        assert!(matches!(rounded.session_with(window), Err(GenerationError::RoundedWindow)));
    }
    let past = |past: Past| past.forgetting(&bdh.model().config).unwrap_err().to_string();
    assert_eq!(past(Past { window: Some(0), ..Past::default() }), "window must be above 0, got 0");
    let both = Past { window: Some(3), forget_tau: Some(2.0), ..Past::default() };
    assert!(past(both).starts_with("window excludes context and forget_tau"));
}
