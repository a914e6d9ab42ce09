//! Files that are missing or something else.

use super::both;
use super::small::Small;
use bdh_gpu::model::Model;
use std::fs;
use tempfile::TempDir;

#[test]
fn missing_files_are_named() {
    let message = both::from_path("no/such/model").unwrap_err().to_string();
    assert_eq!(message, "no/such/model: no such file or directory; expected a model directory or a weights file");
    let directory = TempDir::new().unwrap();
    let message = both::from_path(directory.path()).unwrap_err().to_string();
    assert!(
        message.ends_with(": holds no weights, expected model.safetensors, model.pt or model.npz in this directory"),
        "{message}"
    );
    let mut small = Small::new();
    small.files.clear();
    small.refuses(
        "config.json: not found; expected the model's configuration beside its weights, which carry none of their own",
    );
}

#[test]
fn the_only_weights_file_of_a_directory_is_the_model() {
    let small = Small::new();
    small.load().unwrap();
    let path = |name: &str| small.path().join(name);
    fs::rename(path("model.safetensors"), path("mine.safetensors")).unwrap();
    fs::write(path("optimizer.pt"), "").unwrap();
    assert!(both::from_path(small.path()).unwrap().notes.is_empty());
    fs::write(path("other.pt"), "").unwrap();
    let message = both::from_path(small.path()).unwrap_err().to_string();
    assert!(
        message.ends_with(
            ": holds mine.safetensors, other.pt, expected model.safetensors, model.pt or model.npz in this directory; give \
             the path of the file itself"
        ),
        "{message}"
    );
}

#[test]
fn an_index_of_parts_is_checked() {
    let small = Small::new();
    small.load().unwrap();
    let index = small.path().join("model.safetensors.index.json");
    fs::rename(small.path().join("model.safetensors"), small.path().join("part.safetensors")).unwrap();
    let refusal = |text: &str| {
        fs::write(&index, text).unwrap();
        both::from_path(small.path()).map(|_| ()).map_err(|error| error.to_string())
    };
    assert_eq!(refusal(r#"{"weight_map": {"encoder": "part.safetensors"}}"#), Ok(()));
    for (text, expected) in [
        ("", "the file is empty, expected a JSON object"),
        ("{}", "no \"weight_map\", expected an index that says which tensor is in which file"),
        (r#"{"weight_map": {}}"#, "an empty \"weight_map\", expected the names of the parts"),
        (
            r#"{"weight_map": {"encoder": "../part.safetensors"}}"#,
            "tensor \"encoder\" lies in \"../part.safetensors\", expected the name of a file beside the index",
        ),
        (r#"{"weight_map": {"encoder": 7}}"#, "tensor \"encoder\" lies in 7, expected"),
        (
            r#"{"weight_map": {"other": "part.safetensors"}}"#,
            "tensor \"other\" is not in \"part.safetensors\", where the index has it, expected every part of the same model",
        ),
        (r#"{"weight_map": {"encoder": "other"}}"#, "the part \"other\", which \"model.safetensors.index.json\" names"),
    ] {
        let message = refusal(text).unwrap_err();
        assert!(message.contains(expected) && !message.contains('\n'), "{message}");
    }
    fs::copy(small.path().join("part.safetensors"), small.path().join("twice.safetensors")).unwrap();
    let twice = r#"{"weight_map": {"encoder": "part.safetensors", "decoder": "twice.safetensors"}}"#;
    assert!(refusal(twice).unwrap_err().contains("tensor \"decoder\" is in two of its parts, expected it in one"));
}

#[test]
fn directories_in_place_of_files_are_refused() {
    let directory = TempDir::new().unwrap();
    fs::create_dir(directory.path().join("model.safetensors")).unwrap();
    let message = both::from_path(directory.path()).unwrap_err().to_string();
    assert!(message.ends_with("model.safetensors: is a directory, expected a regular file"), "{message}");
    let mut small = Small::new();
    small.files.clear();
    fs::create_dir(small.path().join("config.json")).unwrap();
    small.refuses("config.json: is a directory, expected a regular file");
}

#[cfg(unix)]
#[test]
fn pipes_and_devices_are_refused_without_waiting() {
    let directory = TempDir::new().unwrap();
    let pipe = directory.path().join("model.safetensors");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    if made.is_ok_and(|status| status.success()) {
        for path in [directory.path(), &pipe] {
            let message = Model::from_path(path).unwrap_err().to_string();
            assert!(message.ends_with("model.safetensors: is a named pipe, expected a regular file"), "{message}");
        }
    }
    let message = Model::from_path("/dev/null").unwrap_err().to_string();
    assert_eq!(message, "/dev/null: is a device, expected a regular file");
}

#[cfg(unix)]
#[test]
fn unreadable_files_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let small = Small::new();
    small.load().unwrap();
    let weights = small.path().join("model.safetensors");
    fs::set_permissions(&weights, fs::Permissions::from_mode(0o000)).unwrap();
    // An administrator may read everything.
    if fs::File::open(&weights).is_err() {
        let message = Model::from_path(small.path()).unwrap_err().to_string();
        assert!(message.contains("model.safetensors: cannot be read: Permission denied"), "{message}");
    }
}

#[cfg(not(feature = "tokenizers"))]
#[test]
fn a_tokenizer_needs_its_feature() {
    Small::new().file("tokenizer.json", "{}").refuses(
        "tokenizer.json: this program was built without the feature \"tokenizers\", which reads it; \
         build it with that feature",
    );
}
