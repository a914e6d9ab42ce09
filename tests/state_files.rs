//! Snapshots and state files: a conversation goes on exactly as it would have, and nothing but a sound file of
//! the same model is ever loaded.

mod common;

#[path = "common/gpu.rs"]
mod gpu;

use bdh_gpu::backend::StateType;
use bdh_gpu::generation::{
    Bdh, BeamOptions, DeviceChoice, DeviceOptions, FinishReason, GenerationOptions, Hypothesis, Session, Snapshot,
    StateError, WeightChoice,
};
use bdh_gpu::model::forgetting::Forgetting;
use bdh_gpu::sampling::{SamplingOptions, philox4x32_10};
use std::ops::ControlFlow;
use std::path::Path;

fn bdh(folder: &str, device: DeviceChoice) -> Bdh {
    Bdh::new(common::model(folder), &device, WeightChoice::Auto).expect("a device")
}

fn session(bdh: &Bdh) -> Session {
    // Forgetting sets in within the tests' lengths, and rescales the state.
    bdh.session_with(Forgetting::After { context: 40, tau: 2.0 }).expect("a session")
}

fn feed(session: &mut Session, tokens: &[u32]) {
    session.feed(tokens).expect("tokens are read");
}

fn bytes(text: &[u8]) -> Vec<u32> {
    text.iter().map(|&byte| u32::from(byte)).collect()
}

fn options(max_new_tokens: usize) -> GenerationOptions {
    let sampling =
        SamplingOptions { frequency_penalty: 0.1, presence_penalty: 0.2, min_new_tokens: 50, ..Default::default() };
    let eos_token_ids = vec![b'e'.into()];
    GenerationOptions { max_new_tokens, sampling, seed: Some(7), eos_token_ids, ..Default::default() }
}

fn generate(session: &mut Session, max_new_tokens: usize) -> Vec<u32> {
    session.generate(&options(max_new_tokens)).expect("tokens are drawn").tokens
}

/// Through a file and into a new session, as another process would.
fn reopen(bdh: &Bdh, session: &mut Session) -> Session {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("state");
    session.snapshot().expect("a snapshot").save(bdh, &path).expect("a file");
    let mut reopened = bdh.session_with(Forgetting::Full).expect("a session");
    reopened.restore(&Snapshot::load(bdh, &path).expect("a sound file")).expect("a state that fits");
    assert_eq!(reopened.snapshot().expect("a snapshot"), session.snapshot().expect("a snapshot"));
    reopened
}

fn a_saved_conversation_goes_on(device: DeviceChoice) {
    let bdh = bdh("shakespeare", device);
    let turns = [&b"KING:\nWhat news"[..], b" and the queen", b"!"];
    let mut whole = session(&bdh);
    // Reopened before and after every step.
    let mut parts = reopen(&bdh, &mut session(&bdh));
    for turn in turns {
        feed(&mut whole, &bytes(turn));
        feed(&mut parts, &bytes(turn));
        parts = reopen(&bdh, &mut parts);
        let expected = generate(&mut whole, 90);
        let mut got = generate(&mut parts, 33);
        parts = reopen(&bdh, &mut parts);
        got.extend(generate(&mut parts, expected.len() - 33));
        assert_eq!(got, expected, "a generation in two parts is the generation");
        parts = reopen(&bdh, &mut parts);
        assert_eq!(parts.snapshot().unwrap(), whole.snapshot().unwrap());
    }
}

#[test]
fn a_saved_conversation_goes_on_on_the_cpu() {
    a_saved_conversation_goes_on(DeviceChoice::Cpu);
}

#[test]
fn a_saved_conversation_goes_on_on_the_gpu() {
    a_saved_conversation_goes_on(gpu::device());
}

#[test]
fn a_state_moves_to_another_device() {
    let (cpu, gpu) = (bdh("shakespeare", DeviceChoice::Cpu), bdh("shakespeare", gpu::device()));
    for (from, to) in [(&cpu, &gpu), (&gpu, &cpu)] {
        let mut first = session(from);
        feed(&mut first, &bytes(b"To be or not to be"));
        generate(&mut first, 30);
        let mut second = session(to);
        second.restore(&first.snapshot().unwrap()).unwrap();
        assert_eq!(second.snapshot().unwrap(), first.snapshot().unwrap());
        // Devices agree to rounding, which changes no token here.
        assert_eq!(generate(&mut second, 30), generate(&mut first, 30));
    }
}

#[test]
fn a_fork_and_its_origin_do_not_disturb_each_other() {
    let bdh = bdh("shakespeare", DeviceChoice::Cpu);
    let mut origin = session(&bdh);
    feed(&mut origin, &bytes(b"First Citizen:\n"));
    let mut fork = origin.fork().unwrap();
    feed(&mut fork, &bytes(b"Another way"));
    generate(&mut fork, 20);
    let mut untouched = session(&bdh);
    feed(&mut untouched, &bytes(b"First Citizen:\n"));
    assert_eq!(generate(&mut origin, 60), generate(&mut untouched, 60));
    assert_ne!(fork.snapshot().unwrap(), origin.snapshot().unwrap());
}

#[test]
fn a_stop_text_leaves_the_state_of_what_was_kept() {
    let bdh = bdh("shakespeare", DeviceChoice::Cpu);
    for (max, stop) in [(200, "\n\n"), (2000, "BOLINGBROKE"), (200, "e")] {
        let mut stopped = session(&bdh);
        feed(&mut stopped, &bytes(b"KING:\n"));
        let options = GenerationOptions { stop: vec![stop.to_string()], eos_token_ids: Vec::new(), ..options(max) };
        let mut streamed = Vec::new();
        let generated = stopped
            .generate_with(&options, |tokens| {
                streamed.extend_from_slice(tokens);
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(streamed, generated.tokens);
        let mut plain = session(&bdh);
        feed(&mut plain, &bytes(b"KING:\n"));
        let unstopped = GenerationOptions { stop: Vec::new(), ..options.clone() };
        let whole = plain.generate(&unstopped).unwrap().tokens;
        let text: String = whole.iter().map(|&token| token as u8 as char).collect();
        let at = text.find(stop).unwrap_or_else(|| panic!("{stop:?} does not occur in {text:?}"));
        assert_eq!((generated.finish_reason, &generated.tokens[..]), (FinishReason::Stop, &whole[..at]), "{stop:?}");
        let mut exact = session(&bdh);
        feed(&mut exact, &bytes(b"KING:\n"));
        let exactly = GenerationOptions { max_new_tokens: at, ..unstopped };
        exact.generate(&exactly).unwrap();
        assert_eq!(stopped.snapshot().unwrap(), exact.snapshot().unwrap(), "{stop:?}");
    }
}

#[test]
fn beams_continue_a_conversation() {
    let bdh = bdh("shakespeare", DeviceChoice::Cpu);
    let prompt = bytes(b"To be or not to be");
    let beam = BeamOptions { num_beams: 3, num_return_sequences: 3, max_new_tokens: 12, ..Default::default() };
    let sampling = SamplingOptions { repetition_penalty: 1.2, ..Default::default() };
    let expected = bdh.beam_search(&prompt, &sampling, &beam, Forgetting::Full).unwrap();
    let mut session = bdh.session_with(Forgetting::Full).unwrap();
    feed(&mut session, &prompt[..5]);
    feed(&mut session, &prompt[5..]);
    let before = session.snapshot().unwrap();
    let found = session.beam_search(&sampling, &beam).unwrap();
    // The prompt came in two pieces here: the same to rounding.
    let texts = |found: &[Hypothesis]| found.iter().map(|text| text.tokens.clone()).collect::<Vec<_>>();
    assert_eq!(texts(&found), texts(&expected));
    assert!(found.iter().zip(&expected).all(|(a, b)| (a.score - b.score).abs() < 1e-5), "{found:?} {expected:?}");
    assert_eq!(session.snapshot().unwrap(), before);

    // A beam that comes to a stop text ends there.
    let alone = BeamOptions { num_return_sequences: 1, num_beams: 1, ..beam };
    let mut text = |beam: &BeamOptions| {
        let found = session.beam_search(&sampling, beam).unwrap().remove(0);
        (found.tokens.iter().map(|&token| token as u8 as char).collect::<String>(), found.ended)
    };
    let (whole, _) = text(&alone);
    let stop = whole[6..8].to_string();
    let kept = whole.find(&stop).expect("a part of it");
    assert_eq!(text(&BeamOptions { stop: vec![stop], ..alone }), (whole[..kept].to_string(), true));
}

/// A state file of a small model, and the model.
fn small_file(folder: &Path) -> (Bdh, std::path::PathBuf, Vec<u8>) {
    small_file_of(folder, StateType::F32)
}

/// The same with a state of another type.
fn small_file_of(folder: &Path, state: StateType) -> (Bdh, std::path::PathBuf, Vec<u8>) {
    let options = DeviceOptions { device: DeviceChoice::Cpu, state, ..DeviceOptions::default() };
    let bdh = Bdh::with(common::model("odd-shapes"), &options).expect("a device");
    let mut session = session(&bdh);
    feed(&mut session, &[1, 2, 3]);
    generate(&mut session, 9);
    let path = folder.join("state");
    session.snapshot().unwrap().save(&bdh, &path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    (bdh, path, bytes)
}

#[test]
fn a_thousand_corruptions_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let files = [StateType::F32, StateType::I16, StateType::I8].map(|state| small_file_of(folder.path(), state));
    for (bdh, path, sound) in &files {
        std::fs::write(path, sound).unwrap();
        Snapshot::load(bdh, path).expect("the file is sound");
    }
    let mut kinds = std::collections::BTreeMap::new();
    for case in 0..1000u32 {
        let (bdh, path, sound) = &files[case as usize / 4 % 3];
        let random = philox4x32_10([case, 0, 0, 0], [1, 2]);
        let at = random[1] as usize % sound.len();
        let mut bytes = sound.clone();
        match case % 4 {
            0 => bytes[at] ^= 1 << (random[2] % 8),
            // Early bytes decide how the rest is read.
            1 => bytes[at % 176] ^= 1 << (random[2] % 8),
            2 => bytes.truncate(at),
            _ => bytes.extend(std::iter::repeat_n(random[2] as u8, 1 + at % 100)),
        }
        std::fs::write(path, &bytes).unwrap();
        let error = Snapshot::load(bdh, path).expect_err("a corrupt file");
        let message = error.to_string();
        assert!(message.starts_with(&path.display().to_string()) && !message.contains('\n'), "{message}");
        let kind = format!("{error:?}");
        *kinds.entry(kind.split([' ', '{']).next().unwrap_or_default().to_string()).or_insert(0) += 1;
    }
    let kinds: Vec<&str> = kinds.keys().map(String::as_str).collect();
    assert_eq!(kinds, ["Checksum", "Length", "NotAState", "Version"]);
}

#[test]
fn every_kind_of_wrong_file_has_its_own_message() {
    let folder = tempfile::tempdir().unwrap();
    let (bdh, path, sound) = small_file(folder.path());
    let message = |bdh: &Bdh, bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Snapshot::load(bdh, &path).unwrap_err().to_string().replace(&path.display().to_string(), "FILE")
    };
    let with = |at: usize, bytes: &[u8]| {
        let mut file = sound.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        let end = file.len() - 32;
        let checksum = blake3::hash(&file[..end]);
        file[end..].copy_from_slice(checksum.as_bytes());
        file
    };
    let mut flipped = sound.clone();
    flipped[200] ^= 4;
    let other = self::bdh("micro", DeviceChoice::Cpu);
    let messages = [
        message(&bdh, b""),
        message(&bdh, b"{}"),
        message(&bdh, &sound[..100]),
        message(&bdh, &sound[..sound.len() - 1]),
        message(&bdh, &flipped),
        message(&bdh, &with(8, &2u32.to_le_bytes())),
        message(&bdh, &with(8, &0u32.to_le_bytes())),
        message(&bdh, &with(16, &[0xab])),
        message(&other, &sound),
        message(&bdh, &with(12, &4u32.to_le_bytes())),
        message(&bdh, &with(96, &f64::NAN.to_le_bytes())),
        message(&bdh, &with(144, &1_000_000u32.to_le_bytes())),
    ];
    insta::assert_snapshot!("state-file-errors", messages.join("\n"));
    let missing = Snapshot::load(&bdh, &folder.path().join("missing")).unwrap_err();
    assert!(matches!(missing, StateError::Read { .. }), "{missing:?}");
    assert!(matches!(Snapshot::load(&bdh, folder.path()).unwrap_err(), StateError::NotAFile { .. }));
}

#[test]
fn a_file_of_an_absurd_size_is_refused_before_memory_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (bdh, path, mut bytes) = small_file(folder.path());
    for at in [120, 128] {
        bytes[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(Snapshot::load(&bdh, &path).unwrap_err(), StateError::Length { .. }));
    }
}

#[test]
fn a_model_is_told_by_its_weights() {
    let folder = tempfile::tempdir().unwrap();
    let (_, path, bytes) = small_file(folder.path());
    std::fs::write(&path, &bytes).unwrap();
    let mut model = common::model("odd-shapes");
    let mut weights = model.weights.decoder.to_vec();
    weights[17] += 1e-3;
    model.weights.decoder = bdh_gpu::model::Tensor::from_f32(model.weights.decoder.shape(), weights);
    let altered = Bdh::new(model, &DeviceChoice::Cpu, WeightChoice::F32).unwrap();
    assert!(matches!(Snapshot::load(&altered, &path).unwrap_err(), StateError::OtherModel { .. }));
    // The same weights in another type are the same model.
    let same = Bdh::new(common::model("odd-shapes"), &DeviceChoice::Cpu, WeightChoice::F32).unwrap();
    Snapshot::load(&same, &path).expect("the same model");
}
