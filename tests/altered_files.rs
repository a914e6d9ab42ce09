//! Weights files altered at random, and files made to waste memory: an error or a correct load each time,
//! never a panic, and never more memory than the file's length and 64 MiB.

mod common;

use bdh_gpu::model::{LoadOptions, Model};
use common::{golden, zip};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, RngExt, SeedableRng};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Counts what each thread has allocated, so that tests do not disturb each other.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(change: isize) {
    HELD.with(|held| {
        held.set(held.get() + change);
        PEAK.with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: everything is passed on to the system's allocator unchanged; `realloc` is the trait's own, which
// counts the old and the new block together, as a copy needs them.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Loads a file and returns what came of it and the bytes that were allocated meanwhile.
fn load(path: &Path) -> (Result<Model, String>, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let result = Model::from_path_with(path, &LoadOptions { n_layer: Some(1) }).map_err(|error| error.to_string());
    (result, (PEAK.get() - before) as usize)
}

#[track_caller]
fn check_memory(path: &Path, allocated: usize) {
    let length = fs::metadata(path).unwrap().len() as usize;
    assert!(allocated <= length + (64 << 20), "{allocated} bytes for a file of {length}");
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/checkpoints").join(name)
}

/// Removed first: some file systems wait for the disk when a file is overwritten.
fn replace(path: &Path, bytes: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, bytes).unwrap();
}

fn weights(model: &Model) -> Vec<Vec<f32>> {
    let w = &model.weights;
    [&w.embed, &w.encoder, &w.encoder_v, &w.decoder, &w.lm_head].map(|tensor| tensor.to_vec()).into()
}

/// Loads `rounds` altered versions of each file. Those that load must be sound and, where `protected` says
/// that checksums cover everything, hold the original weights. Returns how many loaded.
fn alter_many(files: &[(&str, Vec<u8>, bool)], rounds: usize, seed: u64) -> usize {
    let directory = TempDir::new().unwrap();
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut loaded = 0;
    for (name, original, protected) in files {
        let path = directory.path().join(name);
        replace(&path, original);
        let expected = weights(&load(&path).0.unwrap());
        for round in 0..rounds / files.len() {
            let altered = alter(original, &mut random);
            replace(&path, &altered);
            let (result, allocated) = load(&path);
            check_memory(&path, allocated);
            match result {
                Ok(model) => {
                    loaded += 1;
                    let found = weights(&model);
                    assert!(found.iter().flatten().all(|value| value.is_finite()), "{name} {round}");
                    assert!(!protected || found == expected, "{name}: altered weights in round {round}");
                }
                Err(message) => assert!(!message.contains('\n'), "{message}"),
            }
        }
        fs::remove_file(path).unwrap();
    }
    loaded
}

/// Cuts, inserts, repeats or overwrites bytes, at either end more often than in the middle.
fn alter(original: &[u8], random: &mut impl Rng) -> Vec<u8> {
    const OPCODES: &[u8] = b"()]}tadesubRQ.0125IJKLMFGXUTCBSVpqrghjcio\x80\x81\x85\x86\x87\x88\x89\x8a\x8c\x93\x94\x95";
    let mut bytes = original.to_vec();
    for _ in 0..random.random_range(1..4) {
        if bytes.len() < 8 {
            break;
        }
        let end = bytes.len() - 4;
        let at = match random.random_range(0..4) {
            0 => random.random_range(0..end),
            1 => random.random_range(end - end.min(1500)..end),
            _ => random.random_range(0..end.min(1200)),
        };
        match random.random_range(0..9) {
            0 => bytes.truncate(at),
            1 => bytes[at] = random.random(),
            2 => bytes[at] ^= 1 << random.random_range(0..8),
            3 => bytes[at] = OPCODES[random.random_range(0..OPCODES.len())],
            4 => bytes[at..at + 4]
                .copy_from_slice(&[[0xff; 4], [0; 4], [0xff, 0xff, 0xff, 0x7f]][random.random_range(0..3)]),
            5 => {
                let count = random.random_range(1..20);
                bytes.splice(at..at, (0..count).map(|_| random.random::<u8>()));
            }
            6 => {
                let to = (at + random.random_range(1..40)).min(bytes.len());
                bytes.drain(at..to);
            }
            7 => {
                let part = bytes[at..(at + random.random_range(1..200)).min(bytes.len())].to_vec();
                bytes.splice(at..at, part);
            }
            _ => bytes[at] = random.random_range(b'0'..=b'9'),
        }
    }
    bytes
}

/// The archive without its checksums, so that altered pickles are read at all.
fn without_checksums(mut archive: Vec<u8>) -> Vec<u8> {
    let entries: Vec<usize> =
        archive.windows(4).enumerate().filter(|(_, w)| *w == b"PK\x01\x02").map(|(at, _)| at).collect();
    for at in entries {
        archive[at + 16..at + 20].fill(0);
    }
    archive
}

const ROUNDS: usize = 10_000;

#[test]
fn altered_pytorch_checkpoints() {
    let read = |name: &str| fs::read(fixture(name)).unwrap();
    let files = [
        ("a.pt", without_checksums(read("config-object.pt")), false),
        ("b.pt", without_checksums(read("views.pt")), false),
        ("c.pt", read("float16.pt"), true),
        ("d.pt", read("protocol-4.pt"), true),
        ("e.pt", read("no-checksums.pt"), false),
    ];
    let loaded = alter_many(&files, ROUNDS, 1);
    assert!((ROUNDS / 20..ROUNDS * 3 / 4).contains(&loaded), "{loaded} of {ROUNDS} loaded");
}

#[test]
fn altered_safetensors() {
    let small = fs::read(golden("st-f16").join("model.safetensors")).unwrap();
    let ported = fs::read(golden("hf-untied").join("model.safetensors")).unwrap();
    let loaded = alter_many(&[("a.safetensors", small, false), ("b.safetensors", ported, false)], ROUNDS, 2);
    assert!((ROUNDS / 20..ROUNDS * 3 / 4).contains(&loaded), "{loaded} of {ROUNDS} loaded");
}

#[test]
fn altered_numpy_archives() {
    let read = |name: &str| fs::read(fixture(name)).unwrap();
    let files = [
        ("a.npz", without_checksums(read("mlx.npz")), false),
        ("b.npz", read("mlx-compressed.npz"), true),
        ("c.npz", without_checksums(read("mlx-fortran.npz")), false),
    ];
    let loaded = alter_many(&files, ROUNDS, 3);
    assert!((ROUNDS / 20..ROUNDS * 3 / 4).contains(&loaded), "{loaded} of {ROUNDS} loaded");
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
    let before = HELD.get();
    PEAK.set(before);
    drop(vec![1u8; 100 << 20]);
    assert!(PEAK.get() - before >= 100 << 20 && HELD.get() - before < 1000);
}
