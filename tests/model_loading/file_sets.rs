//! Models whose files are not on disk. [`super::both`] compares every other test's models, too.

use super::both::{Reads, folder, insert};
use super::common::golden;
use bdh_gpu::model::files::{companion_names, is_shard_index, shard_names, weights_names};
use bdh_gpu::model::{FileSet, LoadOptions, Model, ModelError, Rope};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/bdh-shakespeare")
}

fn checkpoint(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoints").join(name)
}

#[test]
fn a_page_can_fetch_a_model_by_known_names() {
    // As a page does: one weights file by the known names, the companions that are there.
    let directory = shipped();
    let mut set = FileSet::new();
    let weights = weights_names().iter().find(|name| directory.join(name).is_file()).unwrap();
    for name in companion_names().iter().map(String::as_str).chain([*weights]) {
        if let Ok(bytes) = fs::read(directory.join(name)) {
            set.insert_bytes(name, bytes);
        }
    }
    let model = Model::from_file_set(&set, "", &LoadOptions::default()).unwrap();
    let disk = Model::from_path(&directory).unwrap();
    assert_eq!((model.name.as_str(), &model.config), ("model", &disk.config));
    assert_eq!(model.weights.encoder.to_vec(), disk.weights.encoder.to_vec());
    assert!(!is_shard_index(weights));
}

#[test]
fn errors_of_a_set_are_those_of_a_folder() {
    let message =
        |set: &FileSet, path: &str| Model::from_file_set(set, path, &LoadOptions::default()).unwrap_err().to_string();
    let mut set = FileSet::new();
    assert!(message(&set, "m").starts_with("m: no such file or directory"));
    set.insert_bytes("m/config.json", b"{}".to_vec());
    assert!(message(&set, "m").starts_with("m: holds no weights, expected model.safetensors"));
    set.insert_bytes("m/a.pt", Vec::new());
    set.insert_bytes("m/b.pt", Vec::new());
    assert!(message(&set, "m").starts_with("m: holds a.pt, b.pt, expected"));
    assert_eq!(message(&set, "m/a.pt"), "m/a.pt: the file is empty, expected a safetensors file");
    set.insert_bytes("m/model.safetensors/x", Vec::new());
    assert_eq!(message(&set, "m"), "m/model.safetensors: is a directory, expected a regular file");
}

#[test]
fn an_index_names_its_shards() {
    let folder = checkpoint("kinds");
    let mut indices = 0;
    for kind in fs::read_dir(folder).unwrap().flatten() {
        for file in fs::read_dir(kind.path()).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if is_shard_index(&file) && kind.path().join("config.json").is_file() {
                indices += 1;
                let names = shard_names(&file, &fs::read(&file).unwrap()).unwrap();
                assert!(!names.is_empty());
            }
        }
    }
    assert!(indices > 0);
}

/// Loads a model again and again, with one read more each time before the source fails.
fn fails_at_every_read(path: &Path, options: &LoadOptions) {
    let (mut set, reads) = (FileSet::new(), Arc::new(Reads::default()));
    insert(&mut set, &reads, folder(path));
    let load = || Model::from_file_set(&set, path, options);
    load().unwrap();
    let count = reads.count.load(Relaxed);
    assert!(count >= 1, "{}: {count} reads", path.display());
    for broken in 1..=count {
        reads.count.store(0, Relaxed);
        reads.broken.store(broken, Relaxed);
        match load() {
            Err(error @ ModelError::Io { .. }) => {
                let message = error.to_string();
                assert!(message.ends_with(": cannot be read: the cable is out"), "{message}");
            }
            other => panic!("{}: read {broken} of {count} failed: {other:?}", path.display()),
        }
    }
}

#[test]
fn a_source_that_fails_is_an_error_wherever_it_fails() {
    let one_layer = LoadOptions { n_layer: Some(1), ..LoadOptions::default() };
    for name in ["micro", "hf-tied", "hf-untied", "pt-training-checkpoint", "st-bf16"] {
        fails_at_every_read(&golden(name), &LoadOptions::default());
    }
    for name in ["mlx-fortran.npz", "mlx-compressed.npz", "mlx.npz", "views.pt", "float64.pt"] {
        fails_at_every_read(&checkpoint(name), &one_layer);
    }
    // Larger than what is read ahead: weights are read after the tensors were found.
    fails_at_every_read(&shipped(), &LoadOptions::default());
    let half_split = LoadOptions { rope: Some("half-split:10000".parse::<Rope>().unwrap()), ..LoadOptions::default() };
    fails_at_every_read(&checkpoint("paper.pt"), &LoadOptions { n_layer: Some(1), ..half_split });
}
