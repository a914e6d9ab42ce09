//! The program, run as its users run it.
#![allow(dead_code, reason = "every test crate uses a part")]

use assert_cmd::Command;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// What a run of the program left behind.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    /// Asserts success and returns what was printed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    /// Asserts success and reads what was printed as JSON.
    #[track_caller]
    pub fn json(self) -> Value {
        serde_json::from_str(&self.ok()).expect("one JSON value")
    }

    /// Asserts an exit code and a single line of error, and returns it.
    #[track_caller]
    pub fn error(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.stderr.starts_with("error: "), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        self.stderr
    }
}

pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bdh-gpu"));
    // What a terminal or a shell may add would show in the snapshots.
    command.env_remove("COLUMNS").env_remove("CLICOLOR_FORCE").env("NO_COLOR", "1");
    // No test asks the real Hub, nor does one depend on how this machine is set up for it.
    for variable in ["HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_OFFLINE"]
    {
        command.env_remove(variable);
    }
    command.env("HF_ENDPOINT", "http://127.0.0.1:9").env("NO_PROXY", "*");
    command
}

pub fn run_command(command: &mut Command) -> Run {
    let output = command.output().expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
    Run { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
}

pub fn run(arguments: &[&str]) -> Run {
    run_command(program().args(arguments))
}

/// `generate` on the CPU.
pub fn generate(arguments: &[&str]) -> Run {
    run_command(program().args(["generate", "--device", "cpu"]).args(arguments))
}

/// `score` on the CPU.
pub fn score(arguments: &[&str]) -> Run {
    run_command(program().args(["score", "--device", "cpu"]).args(arguments))
}

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn golden(folder: &str) -> String {
    repository().join("tests/golden").join(folder).to_str().expect("a UTF-8 path").to_string()
}

/// A copy of the shipped model with a generation_config.json of one's own.
pub fn model_with(generation_config: &str) -> TempDir {
    let directory = TempDir::new().expect("a directory");
    let shipped = repository().join("models/bdh-shakespeare");
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(shipped.join(file), directory.path().join(file)).expect("a copy");
    }
    std::fs::write(directory.path().join("generation_config.json"), generation_config).expect("a file");
    directory
}

pub fn file_with(content: &[u8]) -> (TempDir, PathBuf) {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("input");
    std::fs::write(&path, content).expect("a file");
    (directory, path)
}

pub fn path(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}
