//! The program killed (`kill -9`) at any moment of writing: what was there before is there and whole.

mod common;
#[path = "common/program.rs"]
mod program;

use program::repository;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const TRIES: usize = 100;

/// `generate` with the shipped model on the CPU.
fn generate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bdh-gpu"));
    command.args(["generate", "--device", "cpu", "--quiet", "--seed", "1", "--model"]);
    command.arg(repository().join("models/bdh-shakespeare")).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Runs a command a hundred times and kills it at moments spread over its whole run. `sound` says whether the file
/// `name` is one that a finished run leaves. Returns how often the program was killed before its end.
fn kill_often(folder: &Path, name: &str, arguments: &[&str], sound: impl Fn(&Path) -> bool) -> usize {
    let path = folder.join(name);
    let start = Instant::now();
    assert!(generate(arguments).status().unwrap().success() && sound(&path));
    let length = start.elapsed();
    let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
    let mut killed = 0;
    for index in 0..TRIES {
        let mut child = generate(arguments).spawn().unwrap();
        let moment = length.mul_f64(1.2 * (index as f64 + random.random::<f64>()) / TRIES as f64);
        std::thread::sleep(moment.max(Duration::from_millis(1)));
        let _ = child.kill();
        killed += usize::from(!child.wait().unwrap().success());
        assert!(sound(&path), "{name} after being killed at {moment:?} of {length:?}");
    }
    killed
}

/// Temporary files that a killed program left: hidden, of a name that says whose they are.
fn leftovers(folder: &Path, name: &str) -> usize {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let others: Vec<String> = names.filter(|other| other != name).collect();
    let (start, end) = (format!(".{name}."), ".part");
    assert!(others.iter().all(|other| other.starts_with(&start) && other.ends_with(end)), "{others:?}");
    others.len()
}

#[test]
fn a_state_is_the_old_or_the_new_one() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.state");
    let path = path.to_str().unwrap();
    let first = ["--prompt", "KING:", "-n", "4", "--save-state", path];
    let second = ["--load-state", path, "-n", "4", "--save-state", path];
    assert!(generate(&first).status().unwrap().success());
    // BLAKE3 over the whole file: the check that loading does, without a program for each.
    let sound = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        let (content, checksum) = bytes.split_at(bytes.len() - 32);
        bytes.starts_with(b"BDHSTATE") && blake3::hash(content).as_bytes() == checksum
    };
    let killed = kill_often(folder.path(), "a.state", &second, sound);
    println!("killed {killed} of {TRIES} times, {} temporary files left", leftovers(folder.path(), "a.state"));
    assert!(killed > 0, "the first moments are long before the program's end");
    assert!(generate(&["--load-state", path, "-n", "1"]).status().unwrap().success());
}

#[test]
fn an_output_is_the_old_or_the_new_one() {
    let folder = TempDir::new().unwrap();
    let (path, prompts) = (folder.path().join("texts.txt"), TempDir::new().unwrap());
    let prompts = prompts.path().join("prompts");
    fs::write(&prompts, "KING:\nQUEEN:\nROMEO:\n").unwrap();
    let arguments = ["--prompts", prompts.to_str().unwrap(), "-n", "60", "--output", path.to_str().unwrap()];
    assert!(generate(&arguments).status().unwrap().success());
    let whole = fs::read(&path).unwrap();
    let killed = kill_often(folder.path(), "texts.txt", &arguments, |path: &Path| fs::read(path).unwrap() == whole);
    println!("killed {killed} of {TRIES} times, {} temporary files left", leftovers(folder.path(), "texts.txt"));
    assert!(killed > 0, "the first moments are long before the program's end");
}

/// Ctrl-C, once or twice, at any moment: the old file or the new one, and nothing beside it.
#[cfg(unix)]
#[test]
fn an_interrupt_leaves_nothing_behind() {
    const TRIES: usize = 20;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("text.txt");
    let arguments = ["--prompt", "KING:", "-n", "300", "--output", path.to_str().unwrap()];
    let start = Instant::now();
    assert!(generate(&arguments).status().unwrap().success());
    let (length, whole) = (start.elapsed(), fs::read(&path).unwrap());
    for index in 0..TRIES {
        let mut child = generate(&arguments).spawn().unwrap();
        std::thread::sleep(length.mul_f64(index as f64 / TRIES as f64));
        let kill = format!("kill -INT {0}; kill -INT {0}", child.id());
        // It may be over already.
        let _ = Command::new("sh").args(["-c", &kill]).stderr(Stdio::null()).status();
        child.wait().unwrap();
        assert_eq!(fs::read(&path).unwrap(), whole, "after {index} of {TRIES} of its time");
        assert_eq!(leftovers(folder.path(), "text.txt"), 0, "after {index} of {TRIES} of its time");
    }
}
