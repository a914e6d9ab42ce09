//! Fuzzing without a fuzzer: every file of a corpus, then mutations of them from a fixed seed.
#![allow(dead_code, reason = "every test crate uses a part")]

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, RngExt, SeedableRng};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// An input that takes longer has hung: the slowest one takes well under a second.
const HUNG: Duration = Duration::from_secs(120);
/// Longest input that mutations make of a corpus file, beyond the file's own length.
const GROWTH: usize = 4096;

/// Pieces of the formats that are read: what lies at their edges.
const PIECES: [&[u8]; 40] = [
    b"0",
    b"-1",
    b"1e999",
    b"-0.0",
    b"NaN",
    b"4294967295",
    b"4294967296",
    b"18446744073709551615",
    b"1000000000000",
    b"null",
    b"true",
    b"\"\"",
    b"[]",
    b"{}",
    b"[[[[[[[[",
    b"{\"a\":",
    b"\\u0000",
    b"\\ud800",
    b"\"",
    b",",
    b"\n",
    b"/",
    b"--",
    b"=",
    b"@",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\0\0\0\0\0",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\xf0\x9f",
    b"\xe2\x80\xae",
    b"\x1b[2J",
    b"PK\x01\x02",
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"\x80\x02}q\0(",
    b"\x93NUMPY",
];
/// Opcodes of pickles.
const OPCODES: &[u8] = b"()]}tadesubRQ.0125IJKLMFGXUTCBSVpqrghjcio\x80\x81\x85\x86\x87\x88\x89\x8a\x8c\x93\x94\x95";

/// Calls `target` with every file of `fuzz/corpus/{name}` and with `rounds` mutations of them. An input that panics or
/// hangs is left in the folder for temporary files, and named.
///
/// # Panics
/// As `target` does; where the corpus is empty.
pub fn run(name: &str, target: impl Fn(&[u8]), rounds: usize) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder).expect("a corpus").map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{}: no corpus", folder.display());
    let corpus: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).expect("a corpus file")).collect();
    let mut random = Xoshiro256PlusPlus::seed_from_u64(name.bytes().map(u64::from).sum());
    let mutations = (0..rounds).map(|_| mutated(&corpus, &mut random)).collect::<Vec<_>>();
    watched(name, &target, corpus.iter().chain(&mutations));
}

fn watched<'a>(name: &str, target: impl Fn(&[u8]), inputs: impl Iterator<Item = &'a Vec<u8>>) {
    let current = Mutex::new((Instant::now(), Vec::new()));
    let (working, watch) = channel::<()>();
    std::thread::scope(|scope| {
        let current = &current;
        scope.spawn(move || {
            while watch.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
                let (start, input) = &*current.lock().unwrap();
                if start.elapsed() > HUNG {
                    keep(name, "hangs", input);
                    std::process::abort();
                }
            }
        });
        // Ends the watch, also when a target panics.
        let _working = working;
        for input in inputs {
            *current.lock().unwrap() = (Instant::now(), input.clone());
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(input))) {
                keep(name, "panics", input);
                resume_unwind(panic);
            }
        }
    });
}

fn keep(name: &str, what: &str, input: &[u8]) {
    let path = std::env::temp_dir().join(format!("bdh-gpu-fuzz-{name}"));
    let kept = fs::write(&path, input).map_or_else(|error| error.to_string(), |()| path.display().to_string());
    eprintln!("{name} {what} on the input in {kept}");
}

/// A corpus file with a few changes, at either end more often than in the middle.
pub fn mutated(corpus: &[Vec<u8>], random: &mut impl Rng) -> Vec<u8> {
    let mut bytes = corpus[random.random_range(0..corpus.len())].clone();
    let longest = bytes.len() + GROWTH;
    for _ in 0..random.random_range(1..5) {
        let end = bytes.len();
        let at = match random.random_range(0..4) {
            0 => random.random_range(0..=end),
            1 => random.random_range(end - end.min(1500)..=end),
            _ => random.random_range(0..=end.min(1200)),
        };
        let part = |random: &mut dyn Rng, most: usize| at..(at + random.random_range(1..most)).min(end);
        match random.random_range(0..10) {
            0 => bytes.truncate(at),
            1 if at < end => bytes[at] = random.random(),
            2 if at < end => bytes[at] ^= 1 << random.random_range(0..8),
            3 if at < end => bytes[at] = OPCODES[random.random_range(0..OPCODES.len())],
            4 => {
                let piece = PIECES[random.random_range(0..PIECES.len())];
                bytes.splice(at..(at + piece.len()).min(end), piece.iter().copied());
            }
            5 => {
                let piece = PIECES[random.random_range(0..PIECES.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
            6 => drop(bytes.drain(part(random, 40))),
            7 => {
                let copy = bytes[part(random, 200)].to_vec();
                let to = random.random_range(0..=bytes.len());
                bytes.splice(to..to, copy);
            }
            8 => {
                // The rest of another file.
                let other = &corpus[random.random_range(0..corpus.len())];
                bytes.truncate(at);
                bytes.extend(&other[at.min(other.len())..]);
            }
            _ if at < end => bytes[at] = random.random_range(b'0'..=b'9'),
            _ => {}
        }
        bytes.truncate(longest);
    }
    bytes
}
