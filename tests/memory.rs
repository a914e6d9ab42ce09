//! How much memory the program takes, by the operating system's account.
//!
//! That account begins with what the process had that started the program: here as little as possible.

#![cfg(all(unix, feature = "embedded-model"))]

#[path = "common/program.rs"]
mod program;

use bdh_gpu::model::{Model, SaveOptions, SyntheticSpec};
use program::{file_with, path};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use tempfile::TempDir;
use wait4::Wait4;

/// Where `a_model_is_made` shall put its model.
const DIRECTORY: &str = "BDH_GPU_TEST_MODEL";

/// Most memory that a run of `generate` on the CPU took, in bytes.
fn peak_memory(arguments: &[&str]) -> u64 {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bdh-gpu"));
    command.args(["generate", "--device", "cpu", "--quiet", "--seed", "1"]).args(arguments);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let used = child.wait4().unwrap();
    assert!(used.status.success());
    used.rusage.maxrss
}

fn spec() -> SyntheticSpec {
    let (n_layer, n_embd, n_head, neurons_per_head) = (2, 256, 4, 10240);
    SyntheticSpec { n_layer, n_embd, n_head, neurons_per_head, vocab_size: 256, density: 0.3, seed: 1 }
}

/// No test but a part of the next one, which must not have a large model in its own memory.
#[test]
#[ignore = "run by decoding_takes_weights_state_and_little_more"]
fn a_model_is_made() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let mut model = Model::synthetic(&spec());
    model.weights = model.weights.to_f16();
    model.save(PathBuf::from(directory), &SaveOptions::default()).unwrap();
}

#[test]
fn decoding_takes_weights_state_and_little_more() {
    let folder = TempDir::new().unwrap();
    let directory = folder.path().join("m");
    let mut maker = Command::new(std::env::current_exe().unwrap());
    maker.args(["--exact", "a_model_is_made", "--ignored"]).env(DIRECTORY, &directory);
    assert!(maker.output().unwrap().status.success());

    let spec = spec();
    let neurons = (spec.n_head * spec.neurons_per_head) as u64;
    let (layers, width, vocab) = (spec.n_layer as u64, spec.n_embd as u64, spec.vocab_size as u64);
    let (weights, state) = (2 * width * (3 * neurons + 2 * vocab), 4 * layers * neurons * width);
    let prompt = "To be or not to be? ".repeat(10);
    let found = peak_memory(&["--model", path(&directory), "--prompt", &prompt, "-n", "40"]);
    // The weights once, not once more as the bytes of their file.
    let allowed = weights + state + (64 << 20);
    assert!(found < allowed, "{found} bytes, {allowed} allowed: weights {weights}, state {state}");
    assert!(found > weights + state, "{found} bytes cannot be all");
}

#[test]
fn a_thousand_prompts_take_no_more_memory_than_a_few() {
    let measure = |count| {
        let (_folder, prompts) = file_with(&b"To be or not to be\n".repeat(count));
        peak_memory(&["--prompts", path(&prompts), "-n", "10"])
    };
    let (few, many) = (measure(50), measure(1000));
    // 950 more prompts of 18 tokens, and what an allocator takes more than it is asked for.
    assert!(many < few + (4 << 20), "{few} bytes for 50 prompts, {many} for 1,000");
}
