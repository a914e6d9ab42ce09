//! What fuzzing calls, one function for each kind of input: any bytes give a result or an error of one line.
//!
//! `fuzz_targets/` calls these with inputs that coverage guides, `tests/fuzz.rs` with the corpus and
//! mutations of it. Targets of the command line are in `src/cli/fuzzing.rs`.

use bdh_gpu::generation::{Bdh, DeviceChoice, GenerationOptions, Settings, Snapshot, StateError, WeightChoice};
use bdh_gpu::model::{LoadOptions, Model, Tokenizer};
use bdh_gpu::server::{ChatTemplate, check_request};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use tempfile::TempDir;

#[path = "../../tests/common/zip.rs"]
mod zip;

/// A target: its name, which is its corpus folder's, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// Every target of this file.
pub const TARGETS: [Target; 8] = [
    ("safetensors", safetensors),
    ("pytorch", pytorch),
    ("pickle", pickle),
    ("numpy", numpy),
    ("model_json", model_json),
    ("tokenizer", tokenizer),
    ("state", state),
    ("requests", requests),
];

/// A weights file in safetensors.
pub fn safetensors(data: &[u8]) {
    weights_file("model.safetensors", data);
}

/// A weights file as torch.save writes it.
pub fn pytorch(data: &[u8]) {
    weights_file("model.pt", data);
}

/// A weights file as numpy.savez writes it.
pub fn numpy(data: &[u8]) {
    weights_file("model.npz", data);
}

/// The pickle of a checkpoint, whose storages are those of `tests/checkpoints/float32.pt`.
pub fn pickle(data: &[u8]) {
    const STORAGE: [u8; 192] = [0; 192];
    let archive = zip::archive(&[
        ("model/data.pkl", data),
        ("model/byteorder", b"little"),
        ("model/data/0", &STORAGE[..80]),
        ("model/data/1", &STORAGE),
        ("model/data/2", &STORAGE),
        ("model/data/3", &STORAGE),
        ("model/data/4", &STORAGE[..80]),
    ]);
    weights_file("model.pt", &archive);
}

/// The JSON files of a model directory: the first byte says which of them the rest is.
pub fn model_json(data: &[u8]) {
    const FILES: [&str; 4] = ["config.json", "generation_config.json", "training_args.json", "tokenizer_config.json"];
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(small_model_folder).path();
    let Some((&which, json)) = data.split_first() else { return };
    let path = folder.join(FILES[usize::from(which) % FILES.len()]);
    let before = fs::read(&path).ok();
    replace(&path, json);
    let result = Model::from_path(folder);
    match before {
        Some(before) => replace(&path, &before),
        None => fs::remove_file(&path).expect("the file just written"),
    }
    match result {
        Ok(model) => check_options(&model),
        Err(error) => check_message(&error),
    }
}

/// A tokenizer.json.
pub fn tokenizer(data: &[u8]) {
    const VOCAB: usize = 400;
    let tokenizer = match Tokenizer::from_json(data, VOCAB) {
        Ok(tokenizer) => tokenizer,
        Err(error) => return check_message(&error),
    };
    for text in ["", "To be, or not to be", " a  b\n\n", "déjà vu, 你好, 🐉\u{0}"] {
        match tokenizer.encode(text.as_bytes()) {
            Ok(tokens) => check_stream(&tokenizer, &tokens),
            Err(error) => check_message(&error),
        }
    }
    check_stream(&tokenizer, &(0..VOCAB as u32).step_by(7).collect::<Vec<_>>());
}

/// A state file, whose checksum is put right first; a state that loads is gone on from, and saved.
pub fn state(data: &[u8]) {
    let path = scratch("a.state");
    let (bdh, snapshot) = match load_state(data, &path) {
        (bdh, Ok(snapshot)) => (bdh, snapshot),
        (_, Err(error)) => return check_message(&error),
    };
    let mut session = bdh.session_with(snapshot.forgetting()).expect("a small state");
    session.restore(&snapshot).expect("a state of this model");
    let options = GenerationOptions { max_new_tokens: 3, seed: Some(1), ..GenerationOptions::default() };
    let fed = session.feed(&[1, 2]);
    match fed.and_then(|()| session.generate(&options)) {
        Ok(_) => {
            let snapshot = session.snapshot().expect("a snapshot");
            snapshot.save(bdh, &path).expect("a state file");
            let loaded = Snapshot::load(bdh, &path).expect("what was just saved");
            assert_eq!(loaded.position(), snapshot.position());
        }
        Err(error) => check_message(&error),
    }
}

/// A request's body, of a chat if the first byte is odd.
pub fn requests(data: &[u8]) {
    static TEMPLATE: OnceLock<ChatTemplate> = OnceLock::new();
    let Some((&kind, body)) = data.split_first() else { return };
    let template = TEMPLATE.get_or_init(|| ChatTemplate::built_in("user-assistant").expect("a template"));
    let template = (kind % 2 == 1).then_some(template);
    if let Err((status, error)) = check_request(small_bdh(), template, body) {
        assert!((400..500).contains(&status), "{status}: {error}");
        let message = error["error"]["message"].as_str().expect("a message");
        assert!(!message.is_empty() && message.len() < 3000, "a message of {} bytes", message.len());
    }
}

/// Whether [`state`] can go on from a file.
pub fn state_loads(data: &[u8]) -> bool {
    load_state(data, &scratch("b.state")).1.is_ok()
}

fn load_state(data: &[u8], path: &Path) -> (&'static Bdh, Result<Snapshot, StateError>) {
    const CHECKSUM: usize = 32;
    let bdh = small_bdh();
    let mut file = data.to_vec();
    if let Some(end) = file.len().checked_sub(CHECKSUM) {
        let checksum = blake3::hash(&file[..end]);
        file[end..].copy_from_slice(checksum.as_bytes());
    }
    replace(path, &file);
    (bdh, Snapshot::load(bdh, path))
}

fn small_bdh() -> &'static Bdh {
    static BDH: OnceLock<Bdh> = OnceLock::new();
    BDH.get_or_init(|| Bdh::new(small_model(), &DeviceChoice::Cpu, WeightChoice::F32).expect("a model"))
}

/// A small model of exact weights, one layer, width 4, 2 heads of 6 neurons, raw bytes: `fuzz/model`.
fn small_model() -> Model {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(small_model_folder);
    Model::from_path(folder.path()).expect("a model")
}

fn small_model_folder() -> TempDir {
    let folder = TempDir::new().expect("a folder");
    fs::write(folder.path().join("config.json"), include_bytes!("../model/config.json")).expect("a file");
    fs::write(folder.path().join("model.safetensors"), include_bytes!("../model/model.safetensors")).expect("a file");
    folder
}

fn weights_file(name: &str, data: &[u8]) {
    let path = scratch(name);
    replace(&path, data);
    match Model::from_path_with(&path, &LoadOptions { n_layer: Some(1), ..LoadOptions::default() }) {
        Ok(model) => {
            let w = &model.weights;
            for tensor in [&w.embed, &w.encoder, &w.encoder_v, &w.decoder, &w.lm_head] {
                assert!(tensor.to_vec().iter().all(|value| value.is_finite()), "weights that are not finite");
            }
            assert_eq!(w.embed.len(), model.config.vocab_size * model.config.n_embd);
            assert_eq!(w.encoder.len(), model.config.neurons() * model.config.n_embd);
        }
        Err(error) => check_message(&error),
    }
}

fn check_options(model: &Model) {
    assert!(model.config.state_len() > 0 && model.config.neurons_per_head.is_multiple_of(2));
    if let Err(error) = Settings::of_model(model).validate() {
        check_message(&error);
    }
}

/// Joined pieces are the text.
fn check_stream(tokenizer: &Tokenizer, tokens: &[u32]) {
    let (mut stream, mut text) = (tokenizer.stream(), String::new());
    tokens.iter().for_each(|&token| stream.push(token, &mut text));
    stream.finish(&mut text);
    assert_eq!(text, tokenizer.decode(tokens));
}

/// Errors are one line, for people, and do not grow with the input.
fn check_message(error: &dyn Error) {
    let message = error.to_string();
    assert!(!message.is_empty() && message.len() < 3000, "a message of {} bytes: {message}", message.len());
    assert!(!message.chars().any(char::is_control), "{message:?}");
}

/// A path of this process's own.
fn scratch(name: &str) -> PathBuf {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| TempDir::new().expect("a folder"));
    // Tests call targets from several threads.
    let thread: String = format!("{:?}", std::thread::current().id()).chars().filter(char::is_ascii_digit).collect();
    let folder = folder.path().join(thread);
    fs::create_dir_all(&folder).expect("a folder");
    folder.join(name)
}

/// Removed first: some file systems wait for the disk when a file is overwritten.
fn replace(path: &Path, bytes: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, bytes).expect("a temporary file");
}
