//! A driver that fails on request: the layer of `tests/vulkan-faults` over the adapter under test.
#![allow(dead_code, reason = "every test crate uses a part")]

#[path = "layer.rs"]
mod layer;

use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use vulkan_faults::{LAYER, PLAN};

/// The layer, and what it is told.
pub struct Driver {
    folder: TempDir,
}

impl Driver {
    /// A driver that follows a plan (see the layer's documentation); an empty one works as ever.
    pub fn new(plan: &str) -> Self {
        let this = Self { folder: TempDir::new().expect("a folder") };
        this.plan(plan);
        this
    }

    /// Changes the plan, also of a program that runs.
    pub fn plan(&self, plan: &str) {
        set_plan(&self.plan_file(), plan);
    }

    fn plan_file(&self) -> PathBuf {
        self.folder.path().join("plan")
    }

    /// Variables that put the layer under a program.
    pub fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        let mut variables = layer::environment(self.folder.path(), LAYER, "libvulkan_faults.so").to_vec();
        variables.push((PLAN, self.plan_file()));
        variables
    }

    /// Submissions of the last run whose device was closed.
    pub fn submissions(&self) -> u64 {
        let count = std::fs::read_to_string(self.plan_file().with_extension("submissions")).expect("a count");
        count.parse().expect("a number")
    }
}

/// Gives the program that runs here a plan; it was started with [`Driver::environment`].
pub fn change_plan(plan: &str) {
    set_plan(Path::new(&std::env::var_os(PLAN).expect("the layer's plan")), plan);
}

/// In one step: the layer must not read half of it.
fn set_plan(path: &Path, plan: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, plan).and_then(|()| std::fs::rename(&new, path)).expect("a plan");
}

/// Runs a test of this program that is marked `#[ignore]`, in a process of its own, over a driver.
pub fn run_apart(test: &str, driver: &Driver) {
    let output = Command::new(std::env::current_exe().expect("the test's path"))
        .args(["--exact", test, "--ignored", "--nocapture"])
        .envs(driver.environment())
        .output()
        .expect("the test starts");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{test}: {text}");
}
