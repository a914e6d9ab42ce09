//! PyTorch checkpoints. tests/checkpoints/make.py says how the files were made.

use super::both;
use super::common::{golden, zip};
use super::small::SMALL_CONFIG;
use bdh_gpu::model::{Dtype, Format, Layout, LoadOptions, Model, ModelError, Tensor};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoints").join(name)
}

/// Loads a file that has no configuration beside it.
pub fn load(name: &str) -> Result<Model, ModelError> {
    both::from_path_with(fixture(name), &LoadOptions { n_layer: Some(1), ..LoadOptions::default() })
}

#[track_caller]
fn refuses(name: &str, message: &str) {
    let found = load(name).expect_err("the file should have been refused").to_string();
    assert_eq!(found, format!("{}: {message}", fixture(name).display()));
}

/// Whether every weight has the values that make.py gives it.
#[track_caller]
pub fn check_values(name: &str, model: &Model) {
    let w = &model.weights;
    let value = |place: usize| (place % 17) as f32 / 8.0 - 1.0;
    let shapes: [(&Tensor, &[usize]); 5] = [
        (&w.embed, &[5, 4]),
        (&w.encoder, &[2, 4, 6]),
        (&w.encoder_v, &[2, 4, 6]),
        (&w.decoder, &[12, 4]),
        (&w.lm_head, &[4, 5]),
    ];
    for (tensor, shape) in shapes {
        assert_eq!(tensor.shape(), shape, "{name}");
        let expected: Vec<f32> = (0..tensor.len()).map(value).collect();
        assert_eq!(tensor.to_vec(), expected, "{name} {shape:?}");
    }
}

#[test]
fn golden_checkpoints_load_with_their_sizes() {
    for name in ["pt-state-dict", "pt-compiled", "pt-training-checkpoint"] {
        let directory = golden(name);
        for path in [directory.clone(), directory.join("model.pt")] {
            let model = both::from_path(path).unwrap();
            let config = &model.config;
            let sizes = [config.n_layer, config.n_embd, config.n_head, config.neurons_per_head, config.vocab_size];
            assert_eq!(sizes, [2, 16, 2, 32, 256], "{name}");
            assert_eq!(model.source, Some((Format::PyTorch, Layout::Official)));
            assert!(model.stored_freqs && model.notes.is_empty(), "{name}: {:?}", model.notes);
            assert_eq!(model.name, name);
        }
    }
}

#[test]
fn element_types_and_views_load_with_their_values() {
    for (name, dtype) in [
        ("float32.pt", Dtype::F32),
        ("float64.pt", Dtype::F64),
        ("float16.pt", Dtype::F16),
        ("bfloat16.pt", Dtype::BF16),
        ("mixed.pt", Dtype::BF16),
        ("views.pt", Dtype::F32),
        ("parameters.pt", Dtype::F32),
        ("protocol-4.pt", Dtype::F32),
        ("no-checksums.pt", Dtype::F32),
    ] {
        let model = load(name).unwrap();
        check_values(name, &model);
        assert_eq!(model.weights_dtype(), dtype, "{name}");
        assert!(!model.stored_freqs && model.notes.is_empty());
        // Nothing says how many layers there are.
        let message = both::from_path(fixture(name)).unwrap_err().to_string();
        assert!(message.contains("config.json: not found; expected the model's configuration"), "{message}");
    }
}

#[test]
fn training_checkpoints_carry_their_configuration() {
    for kind in ["dict", "object", "namespace", "slots", "beside"] {
        let name = format!("config-{kind}.pt");
        let model = both::from_path(fixture(&name)).unwrap();
        check_values(&name, &model);
        assert_eq!(model.config.n_layer, 1, "{name}");
        assert!(model.notes.is_empty(), "{name}: {:?}", model.notes);
    }
}

#[test]
fn a_configuration_beside_the_checkpoint_counts() {
    let directory = TempDir::new().unwrap();
    fs::copy(fixture("config-dict.pt"), directory.path().join("model.pt")).unwrap();
    fs::write(directory.path().join("config.json"), SMALL_CONFIG.replace("\"n_layer\": 1", "\"n_layer\": 3")).unwrap();
    let model = both::from_path(directory.path()).unwrap();
    assert_eq!(model.config.n_layer, 3);
    assert_eq!(model.notes.len(), 1);
    assert!(
        model.notes[0].ends_with("model.pt: its own configuration has n_layer 1; config.json has 3, which counts"),
        "{:?}",
        model.notes
    );
    let options = LoadOptions { n_layer: Some(2), ..LoadOptions::default() };
    assert_eq!(both::from_path_with(directory.path(), &options).unwrap().config.n_layer, 2);
    let options = LoadOptions { n_layer: Some(0), ..LoadOptions::default() };
    let message = both::from_path_with(directory.path(), &options).unwrap_err().to_string();
    assert!(message.contains("key \"n_layer\" is 0, expected a whole number from 1"), "{message}");
}

#[test]
fn what_is_no_state_dict_is_refused() {
    refuses(
        "legacy.pt",
        "a legacy PyTorch checkpoint (a pickle that is not in a zip), expected the format of PyTorch 1.6 and later; \
         save it again with torch.save(torch.load(path), new_path)",
    );
    let again = "expected a state dict; save it again with torch.save(model.state_dict(), path)";
    refuses("whole-model.pt", &format!("a whole pickled model, or another object, {again}"));
    refuses(
        "per-layer.pt",
        "tensor \"encoders.0\" belongs to one layer, expected weights that all layers share; this is not a BDH model",
    );
    let message = load("expanded.pt").unwrap_err().to_string();
    assert!(
        message.contains(
            "tensor \"lm_head\" is a view with gaps or repetitions, and copying it takes 4398046511104 bytes"
        ),
        "{message}"
    );
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("config.json"), SMALL_CONFIG).unwrap();
    fs::copy(fixture("other-dtype.pt"), directory.path().join("model.pt")).unwrap();
    let message = both::from_path(directory.path()).unwrap_err().to_string();
    assert!(message.contains("tensor \"encoder\" has shape [2], expected [2, 4, 6]"), "{message}");
    for (members, expected) in [
        (&[("model/data.pkl", &b"\x80\x02}."[..])][..], "a dict without tensors, expected a state dict"),
        (&[("model/data.pkl", b"\x80\x02]."), ("model/byteorder", b"big")], "written on a big-endian machine"),
        (&[("model/data.pkl", b"\x80\x02]."), ("model/constants.pkl", b"")], "a TorchScript program"),
        (&[("model/data.txt", b"")], "a zip archive without data.pkl"),
        (&[("a", b"1"), ("a", b"2")], "member \"a\" occurs twice"),
    ] {
        let message = refusal(&zip::archive(members));
        assert!(message.contains(expected), "{message}");
    }
}

fn refusal(bytes: &[u8]) -> String {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("model.pt");
    fs::write(&path, bytes).unwrap();
    both::from_path_with(path, &LoadOptions { n_layer: Some(1), ..LoadOptions::default() })
        .expect_err("refused")
        .to_string()
}

#[test]
fn damaged_checkpoints_are_refused() {
    let whole = fs::read(fixture("float32.pt")).unwrap();
    let message = refusal(&whole[..whole.len() - 1]);
    assert!(message.contains("the directory at the end of the zip archive is damaged or missing"), "{message}");
    // A bit of a weight, which only the checksum can tell.
    let at = whole.windows(4).position(|bytes| bytes == (-0.875f32).to_le_bytes()).unwrap();
    let mut altered = whole.clone();
    altered[at] ^= 1;
    let message = refusal(&altered);
    assert!(message.contains("the checksum of member \"float32/data/"), "{message}");
    for (pickle, expected) in [
        (&b"\x80\x02"[..], "data.pkl holds the pickle ends too early at byte 2"),
        (b"\x80\x020.", "an empty stack"),
        (b"\x80\x02h\x07.", "memo number 7, which was never set"),
        (b"\x80\x02\xff.", "unknown opcode 0xff"),
        (b"\x80\x02X\xff\xff\xff\xffabc.", "the pickle ends too early"),
        (b"\x80\x02B\xff\xff\xff\xffabc.", "the pickle ends too early"),
        (b"\x80\x02\x8b\xff\xff\xff\xff1.", "the pickle ends too early"),
        (b"\x80\x02\x82\x01.", "an extension code"),
        (b"\x80\x02Pabc\n.", "a reference by text"),
        (b"\x80\x02}Ns.", "an empty stack"),
        (b"\x80\x02}NNu.", "no open mark"),
        (b"\x80\x02}(NNNu.", "a key without a value"),
    ] {
        let message = refusal(&zip::checkpoint(pickle));
        assert!(message.contains(expected), "{pickle:?}: {message}");
    }
}

/// A call of `os.system` in every way a pickle can make one. The command would leave a file behind.
#[test]
fn malicious_pickles_are_refused_and_run_nothing() {
    let directory = TempDir::new().unwrap();
    let witness = directory.path().join("witness");
    let command = format!("echo run > {}", witness.display());
    let text = |text: &str| [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
    let short = |text: &str| [&[0x8c, text.len() as u8][..], text.as_bytes()].concat();
    let arguments = [text(&command), vec![0x85]].concat();
    let pickle = |parts: &[&[u8]]| [b"\x80\x04", &parts.concat()[..], b"."].concat();
    let ways: Vec<(&str, Vec<u8>, &str)> = vec![
        ("REDUCE", pickle(&[b"cos\nsystem\n", &arguments, b"R"]), "os.system"),
        ("posix", pickle(&[b"cposix\nsystem\n", &arguments, b"R"]), "posix.system"),
        ("nt", pickle(&[b"cnt\nsystem\n", &arguments, b"R"]), "nt.system"),
        ("STACK_GLOBAL", pickle(&[&short("os"), &short("system"), b"\x93", &arguments, b"R"]), "os.system"),
        (
            "dotted",
            pickle(&[&short("torch"), &short("serialization.os.system"), b"\x93", &arguments, b"R"]),
            "torch.serialization.os.system",
        ),
        ("INST", pickle(&[b"(", &text(&command), b"ios\nsystem\n"]), "os.system"),
        ("OBJ", pickle(&[b"(cos\nsystem\n", &text(&command), b"o"]), "os.system"),
        ("NEWOBJ", pickle(&[b"cos\nsystem\n", &arguments, b"\x81"]), "os.system"),
        ("NEWOBJ_EX", pickle(&[b"cos\nsystem\n", &arguments, b"}\x92"]), "os.system"),
        ("GLOBAL alone", pickle(&[b"cos\nsystem\n"]), "os.system"),
        (
            "BUILD",
            pickle(&[b"cbdh\nConfig\n)\x81}", &text("__setstate__"), b"cos\nsystem\nsb", &text(&command), b"b"]),
            "os.system",
        ),
        ("eval", pickle(&[b"c__builtin__\neval\n", &arguments, b"R"]), "__builtin__.eval"),
        ("getattr", pickle(&[b"cbuiltins\ngetattr\n", &arguments, b"R"]), "builtins.getattr"),
        ("Popen", pickle(&[b"csubprocess\nPopen\n", &arguments, b"R"]), "subprocess.Popen"),
        ("beside a tensor", pickle(&[b"}", &text("encoder"), b"cos\nsystem\n", &arguments, b"Rs"]), "os.system"),
    ];
    for (way, pickle, name) in ways {
        let path = directory.path().join("model.pt");
        fs::write(&path, zip::checkpoint(&pickle)).unwrap();
        match both::from_path_with(&path, &LoadOptions { n_layer: Some(1), ..LoadOptions::default() }) {
            Err(ModelError::Forbidden { name: found, .. }) => assert_eq!(found, name, "{way}"),
            other => panic!("{way}: {other:?}"),
        }
        assert!(!witness.exists(), "{way}");
    }
    // Objects of other classes are no danger, since nothing of theirs is run; they are no state dict either.
    let message = refusal(&zip::checkpoint(&pickle(&[b"cbdh\nrun\n", &arguments, b"R"])));
    assert!(message.contains("a whole pickled model, or another object, expected a state dict"), "{message}");
}
