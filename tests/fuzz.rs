//! Readers of files against the corpus in `fuzz/corpus` and mutations of it: a result or an error of one line each
//! time, never a panic, and never more memory than twice the input's length and 64 MiB. The same targets run under
//! cargo-fuzz; `docs/reliability.md` says how.

#[path = "common/allocation.rs"]
mod allocation;
#[path = "../fuzz/src/mutation.rs"]
mod mutation;
#[path = "../fuzz/src/targets.rs"]
mod targets;

use allocation::{Counting, measured};
use std::path::Path;
use std::sync::Once;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Runs one target; `rounds` makes it a second or two without optimisation.
fn run(name: &str, rounds: usize) {
    quieten_caught_panics();
    let target = targets::TARGETS.iter().find(|(known, _)| *known == name).expect("a target").1;
    let limited = |input: &[u8]| {
        let ((), allocated) = measured(|| target(input));
        assert!(allocated <= 2 * input.len() + (64 << 20), "{allocated} bytes for an input of {}", input.len());
    };
    mutation::run(name, limited, rounds);
}

/// Printing a panic with a backtrace takes more memory than any input may, also where the library catches it.
fn quieten_caught_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !bdh_gpu::tokenizer::panic_is_caught() {
                print(panic);
            }
        }));
    });
}

#[test]
fn safetensors() {
    run("safetensors", 10_000);
}

#[test]
fn pytorch() {
    run("pytorch", 10_000);
}

#[test]
fn pickle() {
    run("pickle", 10_000);
}

#[test]
fn numpy() {
    run("numpy", 10_000);
}

#[test]
fn model_json() {
    run("model_json", 5_000);
}

#[test]
fn tokenizer() {
    run("tokenizer", 3_000);
}

#[test]
fn state() {
    run("state", 5_000);
}

#[test]
fn requests() {
    run("requests", 5_000);
}

/// After a change of the format, this makes the corpus anew: `bdh-gpu generate --device cpu --model fuzz/model
/// --tokens "1 2 3" --max-new-tokens 2 --seed 1 --save-state fuzz/corpus/state/sound`.
#[test]
fn the_corpus_of_states_holds_one_that_loads() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/state/sound");
    assert!(targets::state_loads(&std::fs::read(path).unwrap()));
}
