//! Files that are missing or something else.

use super::small::Small;
use bdh_gpu::model::Model;
use std::fs;
use tempfile::TempDir;

#[test]
fn missing_files_are_named() {
    let message = Model::from_path("no/such/model").unwrap_err().to_string();
    assert_eq!(message, "no/such/model: no such file or directory; expected a model directory or a weights file");
    let directory = TempDir::new().unwrap();
    let message = Model::from_path(directory.path()).unwrap_err().to_string();
    assert!(
        message.ends_with(": holds no weights, expected model.safetensors, model.pt or model.npz in this directory"),
        "{message}"
    );
    let mut small = Small::new();
    small.files.clear();
    small.refuses(
        "config.json: not found; expected the model's configuration beside its weights, which carry none of their own \
         (`bdh-gpu convert --n-layer N` makes one from the tensors)",
    );
}

#[test]
fn directories_in_place_of_files_are_refused() {
    let directory = TempDir::new().unwrap();
    fs::create_dir(directory.path().join("model.safetensors")).unwrap();
    let message = Model::from_path(directory.path()).unwrap_err().to_string();
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
