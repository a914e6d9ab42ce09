//! A driver that accepts everything and computes nothing must be noticed: by `--check`, by `verify`,
//! and by plain `generate`. `tests/drivers/statistics.sh` runs this.
#![cfg(target_os = "linux")]

#[path = "common/driver.rs"]
mod driver;
#[path = "common/layer.rs"]
mod layer;

use pipeline_statistics::LAYER;
use std::io::Read;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest that a run may take; `verify` compiles all kernels several hundred times.
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs the program to its end. Returns its exit code, what it printed, and its errors.
fn run(arguments: &[&str], answers: bool) -> (Option<i32>, String, String) {
    let mut command = driver::program();
    let folder = TempDir::new().expect("a folder");
    if answers {
        // The layer makes the driver say that its work is complete.
        command.envs(layer::environment(folder.path(), LAYER, "libpipeline_statistics.so"));
    }
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    // Read while it runs: a full pipe would stop it.
    let (stdout, stderr) = (child.stdout.take().expect("a pipe"), child.stderr.take().expect("a pipe"));
    let read = |mut from: Box<dyn Read + Send>| {
        thread::spawn(move || {
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes).expect("a pipe");
            String::from_utf8_lossy(&bytes).into_owned()
        })
    };
    let (stdout, stderr) = (read(Box::new(stdout)), read(Box::new(stderr)));
    let start = Instant::now();
    let code = loop {
        match child.try_wait().expect("its state") {
            Some(status) => break status.code(),
            None if start.elapsed() > PATIENCE => {
                child.kill().expect("it can be ended");
                panic!("{arguments:?} hangs");
            }
            None => thread::sleep(Duration::from_millis(50)),
        }
    };
    (code, stdout.join().expect("text"), stderr.join().expect("text"))
}

/// The one line of error of a failed run.
fn error(arguments: &[&str], answers: bool) -> String {
    let (code, stdout, stderr) = run(arguments, answers);
    assert_eq!(code, Some(1), "{arguments:?} ends with {code:?}\n{stdout}\n{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{arguments:?}: {stderr}");
    errors[0].to_string()
}

const GENERATE: [&str; 7] =
    ["generate", "--device", "gpu", "--prompt", "To be, or not to be: that is the", "--max-new-tokens", "200"];

#[test]
#[ignore = "needs a driver: tests/drivers/statistics.sh"]
fn generate_fails_with_one_line() {
    for options in [&[][..], &["--check"], &["--greedy"]] {
        let arguments = [&GENERATE[..], options].concat();
        let drawn = error(&arguments, true);
        assert!(drawn.contains("it drew "), "{drawn}");
    }
}

#[test]
#[ignore = "needs a driver: tests/drivers/statistics.sh"]
fn a_device_that_never_answers_is_lost() {
    for arguments in [&GENERATE[..], &["verify", "--device", "gpu"]] {
        let lost = error(arguments, false);
        assert!(lost.contains("no answer"), "{lost}");
    }
}

/// Not on every driver: Mesa 25's stand-in for AMD's kernel driver runs out of memory half-way.
#[test]
#[ignore = "needs a driver: tests/drivers/other-statistics.sh"]
fn verify_rejects_all_kernels() {
    let (code, stdout, stderr) = run(&["verify", "--device", "gpu"], true);
    assert_eq!(code, Some(1), "{stdout}\n{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert!(stdout.matches("FAILED").count() > 250, "{stdout}");
}
