//! Weights files with checksums, altered at random, and files made to waste memory: an error or the right weights
//! each time, and never more memory than twice the file's length and 64 MiB.

mod common;
#[path = "../fuzz/src/mutation.rs"]
mod mutation;

use bdh_gpu::model::{LoadOptions, Model};
use common::allocation::{Counting, held, measured};
use common::zip;
use rand::SeedableRng;
use rand::rngs::Xoshiro256PlusPlus;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Loads a file and returns what came of it and the bytes that were allocated meanwhile.
fn load(path: &Path) -> (Result<Model, String>, usize) {
    measured(|| {
        Model::from_path_with(path, &LoadOptions { n_layer: Some(1), ..LoadOptions::default() })
            .map_err(|error| error.to_string())
    })
}

#[track_caller]
fn check_memory(path: &Path, allocated: usize) {
    let length = fs::metadata(path).unwrap().len() as usize;
    assert!(allocated <= 2 * length + (64 << 20), "{allocated} bytes for a file of {length}");
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoints").join(name)
}

fn weights(model: &Model) -> Vec<Vec<f32>> {
    let w = &model.weights;
    [&w.embed, &w.encoder, &w.encoder_v, &w.decoder, &w.lm_head].map(|tensor| tensor.to_vec()).into()
}

/// Where checksums cover everything, what loads is what was saved.
#[test]
fn checksums_protect_the_weights() {
    const ROUNDS: usize = 3_000;
    let directory = TempDir::new().unwrap();
    let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
    for name in ["float16.pt", "protocol-4.pt", "mlx-compressed.npz"] {
        let original = fs::read(fixture(name)).unwrap();
        let path = directory.path().join(name);
        fs::write(&path, &original).unwrap();
        let expected = weights(&load(&path).0.unwrap());
        let mut loaded = 0;
        for round in 0..ROUNDS {
            let altered = mutation::mutated(std::slice::from_ref(&original), &mut random);
            // Removed first: some file systems wait for the disk when a file is overwritten.
            fs::remove_file(&path).unwrap();
            fs::write(&path, altered).unwrap();
            let (result, allocated) = load(&path);
            check_memory(&path, allocated);
            match result {
                Ok(model) => {
                    loaded += 1;
                    assert!(weights(&model) == expected, "{name}: altered weights in round {round}");
                }
                Err(message) => assert!(!message.contains('\n'), "{message}"),
            }
        }
        assert!((ROUNDS / 50..ROUNDS * 3 / 4).contains(&loaded), "{name}: {loaded} of {ROUNDS} loaded");
    }
}

/// Pickles that would fill the memory, were their number of values not limited.
#[test]
fn greedy_pickles_are_stopped() {
    const COUNT: usize = 4_000_000;
    let repeat = |part: &[u8]| [b"\x80\x02", &part.repeat(COUNT / part.len())[..], b"."].concat();
    let text = b"X\x07\0\0\0storage".to_vec();
    let storage = [b"(", &text[..], b"ctorch\nFloatStorage\n", b"X\x01\0\0\0k", b"X\x03\0\0\0cpu", b"K\x01tQ"].concat();
    let sizes = b"(K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01t";
    let tensor = [b"ctorch._utils\n_rebuild_tensor_v2\n(", &storage[..], b"K\0", sizes, sizes, b"tq\x01"].concat();
    let tensors =
        [&tensor[..], &b"0ctorch._utils\n_rebuild_tensor_v2\nq\x02"[..], &b"h\x02h\x01R".repeat(500_000)].concat();
    let list =
        [&b"]("[..], &b"N".repeat(200_000), b"eq\0", &b"ccollections\nOrderedDict\nh\0\x85R".repeat(20_000)].concat();
    for (what, pickle) in [
        ("lists", repeat(b"]")),
        ("marks", repeat(b"(")),
        ("dicts", repeat(b"}NNs")),
        ("nested", repeat(b"]2a")),
        ("copies", repeat(b"](NNNNe")),
        ("memo", repeat(b"]\x94")),
        ("memo number", b"\x80\x02]r\xff\xff\xff\xff.".to_vec()),
        ("texts", repeat(b"X\0\0\0\0")),
        ("tensors", [b"\x80\x02", &tensors[..], b"."].concat()),
        ("dicts of one list", [b"\x80\x02", &list[..], b"."].concat()),
    ] {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("model.pt");
        fs::write(&path, zip::checkpoint(&pickle)).unwrap();
        let (result, allocated) = load(&path);
        let message = result.expect_err(what);
        assert!(message.contains("data.pkl holds"), "{what}: {message}");
        println!("{what}: {allocated} bytes for a pickle of {}: {message}", pickle.len());
        assert!(allocated <= 64 << 20, "{what}: {allocated} bytes");
    }
}

/// Members that claim to unpack to far more than they are.
#[test]
fn claimed_sizes_are_not_believed() {
    let original = fs::read(fixture("mlx-compressed.npz")).unwrap();
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("model.npz");
    let entry = original.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
    for size in [u32::MAX - 1, 1 << 30, 1 << 26, 0] {
        let mut altered = original.clone();
        altered[entry + 24..entry + 28].copy_from_slice(&size.to_le_bytes());
        fs::write(&path, altered).unwrap();
        let (result, allocated) = load(&path);
        let message = result.expect_err("a false size");
        assert!(
            message.contains("far more than the file holds") || message.contains("does not unpack to"),
            "{message}"
        );
        check_memory(&path, allocated);
    }
}

/// The counter itself: what is not counted cannot be limited.
#[test]
fn allocations_are_counted() {
    let before = held();
    let ((), peak) = measured(|| drop(vec![1u8; 100 << 20]));
    assert!(peak >= 100 << 20 && held() - before < 1000);
}
