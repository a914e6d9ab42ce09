//! Models by their name on the Hugging Face Hub, from a server on this machine.
//!
//! | file | what it checks |
//! | --- | --- |
//! | `server` | the Hub that the tests talk to |
//! | `download` | what is downloaded, where it lies, broken connections |
//! | `choice` | revisions, files, split weights, tokenizers |
//! | `offline` | the cache without the Hub |
//! | `refusals` | whatever a server may answer |
//! | `names` | what is a name and what is a path |
#![cfg(feature = "hub")]

#[path = "../common/program.rs"]
mod program;

mod choice;
mod download;
mod names;
mod offline;
mod refusals;
mod server;

use program::{Run, program, repository, run_command};
use server::{Repository, Server};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The commit that main is.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What every test generates.
const GENERATE: [&str; 8] =
    ["--prompt", "KING:", "--greedy", "--max-new-tokens", "8", "--no-stream", "--device", "cpu"];

/// A file of the shipped model.
fn shipped(file: &str) -> Vec<u8> {
    std::fs::read(repository().join("models/bdh-shakespeare").join(file)).expect("a file of the shipped model")
}

/// The shipped model as it would be published.
fn files() -> BTreeMap<String, Vec<u8>> {
    let names = ["README.md", "config.json", "generation_config.json", "model.safetensors"];
    names.map(|name| (name.to_owned(), shipped(name))).into()
}

/// A repository of one commit.
fn published(files: BTreeMap<String, Vec<u8>>) -> Repository {
    Repository {
        revisions: [("main".to_owned(), COMMIT.to_owned())].into(),
        commits: [(COMMIT.to_owned(), files)].into(),
        token: None,
    }
}

/// A server, and a home directory of the Hub's programs.
struct Hub {
    server: Server,
    home: TempDir,
}

impl Hub {
    fn new(repository: Repository) -> Self {
        Self { server: Server::start(repository), home: TempDir::new().expect("a directory") }
    }

    fn shipped() -> Self {
        Self::new(published(files()))
    }

    /// Runs the program with more environment variables.
    fn run_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Run {
        let mut command = program();
        command.env("HF_HOME", self.home.path()).env("HF_ENDPOINT", self.server.endpoint());
        command.envs(variables.iter().copied()).current_dir(self.home.path());
        run_command(command.args(arguments))
    }

    fn run(&self, arguments: &[&str]) -> Run {
        self.run_with(arguments, &[])
    }

    /// Generates with a model.
    fn generate(&self, model: &str) -> Run {
        self.generate_with(model, &[])
    }

    fn generate_with(&self, model: &str, variables: &[(&str, &str)]) -> Run {
        self.run_with(&[&["generate", "--model", model][..], &GENERATE].concat(), variables)
    }

    /// The error of a run that must fail, whatever else the server was made to do: one line, and no
    /// panic.
    #[track_caller]
    fn error(&self, model: &str) -> String {
        let error = self.generate(model).error(1);
        assert!(!error.contains("panicked"), "{error}");
        error
    }

    /// A path in the cache of the model.
    fn cached(&self, path: &str) -> PathBuf {
        self.home.path().join("hub/models--somebody--tiny-dragon").join(path)
    }

    /// Names of the blobs.
    fn blobs(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.cached("blobs")).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().expect("text")).collect();
        names.sort();
        names
    }
}

/// What the shipped model generates from its directory.
fn expected() -> String {
    let model = repository().join("models/bdh-shakespeare");
    run_command(program().args(["generate", "--model", text(&model)]).args(GENERATE)).ok()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}
