//! Public kinds of checkpoints: right, or refused with the reason. tests/checkpoints/make_kinds.py made the files, and the
//! numbers, by a forward pass of its own.

use super::both;
use super::common::naive;
use super::pytorch::fixture;
use bdh_gpu::generation::{Bdh, DeviceChoice, WeightChoice};
use bdh_gpu::model::forgetting::Forgetting;
use bdh_gpu::model::{Frequencies, LoadOptions, Model};
use serde_json::Value;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

const TOLERANCE: f64 = 1e-4;

fn case(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("case.json")).unwrap()).unwrap()
}

fn load(folder: &Path) -> Result<Model, String> {
    let case = case(folder);
    let options = LoadOptions {
        n_layer: case["n_layer"].as_u64().map(|n_layer| n_layer as usize),
        rope: case["rope"].as_str().map(|rope| rope.parse().unwrap()),
        ..LoadOptions::default()
    };
    both::from_path_with(folder, &options).map_err(|error| error.to_string())
}

fn kind(name: &str) -> PathBuf {
    fixture("kinds").join(name)
}

#[test]
fn public_kinds_are_right_or_refused() {
    let mut counts = [0, 0];
    for entry in fs::read_dir(fixture("kinds")).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let case = case(&folder);
        if let Some(words) = case["refused"].as_str() {
            let message = load(&folder).expect_err(&name);
            assert!(message.contains(words) && !message.contains('\n'), "{name}: {message}");
            counts[1] += 1;
            continue;
        }
        counts[0] += 1;
        let model = load(&folder).unwrap_or_else(|error| panic!("{name}: {error}"));
        check_text(&name, &case, &model);
        let tokens: Vec<u32> =
            case["tokens"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        let expected: Vec<f64> = case["logits"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        let logits = naive::logits(&model, &tokens, 0, Forgetting::Full);
        let last = &logits[logits.len() - expected.len()..];
        let furthest = last.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(furthest < TOLERANCE, "{name}: logits off by {furthest:e}");
        let bdh = Bdh::new(model, &DeviceChoice::Cpu, WeightChoice::F32).unwrap();
        let score = bdh.score(&tokens, Forgetting::Full, |_| ControlFlow::Continue(())).unwrap();
        let total = case["total"].as_f64().unwrap();
        assert!((score.total() - total).abs() < TOLERANCE, "{name}: {} and {total}", score.total());
    }
    assert!(counts[0] >= 15 && counts[1] >= 10, "{counts:?}");
}

/// The tokens of a text, where the case has one.
fn check_text(name: &str, case: &Value, model: &Model) {
    let Some(text) = case["text"].as_str() else { return };
    let encoded = model.tokenizer.encode(text.as_bytes());
    match case["ids"].as_array() {
        Some(ids) => {
            let ids: Vec<u64> = ids.iter().map(|id| id.as_u64().unwrap()).collect();
            assert_eq!(encoded.unwrap().into_iter().map(u64::from).collect::<Vec<_>>(), ids, "{name}");
        }
        None => {
            let message = encoded.unwrap_err().to_string();
            assert!(message.contains("no tokenizer") && message.contains("give its tokenizer"), "{message}");
        }
    }
}

/// What a wrong guess would have given: the numbers above tell the kinds apart.
#[test]
fn another_rotary_embedding_gives_other_numbers() {
    let folder = kind("kubotadaichi");
    let options =
        LoadOptions { n_layer: Some(2), rope: Some("interleaved:65536".parse().unwrap()), ..LoadOptions::default() };
    let model = both::from_path_with(&folder, &options).unwrap();
    let case = case(&folder);
    let tokens: Vec<u32> = case["tokens"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
    let logits = naive::logits(&model, &tokens, 0, Forgetting::Full);
    let expected: Vec<f64> = case["logits"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    let last = &logits[logits.len() - expected.len()..];
    assert!(last.iter().zip(&expected).any(|(a, b)| (a - b).abs() > 0.01));
}

#[test]
fn notes_say_what_was_assumed_and_left_out() {
    let notes = |name: &str| load(&kind(name)).unwrap().notes;
    assert!(notes("d3vmeh-bytes").is_empty() && notes("agk4444").is_empty() && notes("jploski-tied").is_empty());
    assert!(notes("eberlful").is_empty() && notes("aomukai").is_empty() && notes("characters").is_empty());
    let joined = notes("severian42").join("\n");
    for left_out in ["\"step\" is a single number", "\"loss\" is a single number", "\"lm_gate\" is not used"] {
        assert!(joined.contains(left_out), "{joined}");
    }
    assert!(notes("kubotadaichi").join("\n").contains("the paper's names: "));
    for (name, frequencies) in [
        ("5bridge-f16", "by formula; stored rounded to f16"),
        ("bfloat16", "by formula; stored rounded to bf16"),
        ("kubotadaichi", "by formula"),
        ("saga-grown", "stored with the weights"),
    ] {
        let model = load(&kind(name)).unwrap();
        assert_eq!(model.frequencies.to_string(), frequencies, "{name}");
        assert_eq!(model.stored_freqs, model.frequencies == Frequencies::Stored);
    }
}

#[test]
fn a_missing_part_is_named() {
    let message = load(&kind("sharded-part-missing")).unwrap_err();
    assert!(
        message.ends_with(
            "model-00002-of-00002.safetensors: the part \"model-00002-of-00002.safetensors\", which \
             \"model.safetensors.index.json\" names, cannot be read: no such file; expected it beside the index: copy or \
             download it again"
        ),
        "{message}"
    );
}

/// A saved copy is in the official form, whatever the original was.
#[test]
fn saved_copies_compute_the_same() {
    for name in ["kubotadaichi", "characters", "saga-grown", "bfloat16", "sharded", "reginaldferland"] {
        let original = load(&kind(name)).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("copy");
        original.save(&path, &bdh_gpu::model::SaveOptions::default()).unwrap();
        let copy = both::from_path(&path).unwrap();
        assert_eq!(copy.weights.freqs, original.weights.freqs, "{name}");
        assert_eq!(copy.weights.encoder.to_vec(), original.weights.encoder.to_vec(), "{name}");
        assert_eq!(copy.tokenizer.to_string(), original.tokenizer.to_string(), "{name}");
        assert!(copy.notes.is_empty(), "{name}: {:?}", copy.notes);
    }
}
