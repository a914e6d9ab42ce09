//! Registers, workgroup memory and code size of every kernel, as AMD's compiler for Linux reports
//! them. The driver computes nothing (`tests/drivers/radv.sh`), so this needs no graphics card.
#![cfg(target_os = "linux")]

#[path = "common/layer.rs"]
mod layer;
#[path = "common/program.rs"]
mod program;

use bdh_gpu::model::{Dtype, Model, SaveOptions, SyntheticSpec};
use pipeline_statistics::{LAYER, OUTPUT};
use program::path;
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// Environment variable: the script that runs a program on RADV.
const RADV: &str = "BDH_TEST_RADV";

/// 25 million parameters: layers, width, heads, neurons as a multiple of the width, vocabulary.
const SYNTHETIC: &str = "6,256,4,128,256";
const DENSITY: f64 = 0.25;

/// Columns of the table: title, and the statistics that it adds up.
const COLUMNS: [(&str, &[&str]); 7] = [
    ("VGPRs", &["VGPRs"]),
    ("SGPRs", &["SGPRs"]),
    ("LDS bytes", &["LDS size"]),
    ("spilled", &["Spilled VGPRs", "Spilled SGPRs"]),
    ("scratch bytes", &["Scratch size"]),
    ("code bytes", &["Code size"]),
    ("waves/SIMD", &["Subgroups per SIMD"]),
];

/// A kernel, and the numbers of its columns.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    kernel: String,
    numbers: Vec<u64>,
}

impl Row {
    /// Reads a line of the layer.
    fn read(line: &str) -> Self {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let kernel = line["name"].as_str().map_or_else(|| format!("#{}", line["pipeline"]), String::from);
        let number = |name: &&str| line["statistics"][name].as_u64().unwrap_or_else(|| panic!("no {name:?} in {line}"));
        Self { kernel, numbers: COLUMNS.iter().map(|(_, names)| names.iter().map(number).sum()).collect() }
    }
}

/// Runs the program on RADV. Returns the pipelines that it made, in order.
fn pipelines(arguments: &[&str]) -> Vec<Row> {
    let radv = std::env::var_os(RADV).unwrap_or_else(|| panic!("{RADV} is not set: use tests/drivers/statistics.sh"));
    let folder = TempDir::new().expect("a folder");
    let lines = folder.path().join("statistics");
    let output = Command::new(radv)
        .arg(env!("CARGO_BIN_EXE_bdh-gpu"))
        .args(arguments)
        .envs(layer::environment(folder.path(), LAYER, "libpipeline_statistics.so"))
        .env(OUTPUT, &lines)
        // Makes wgpu pass the kernels' names on to Vulkan.
        .env("WGPU_DEBUG", "1")
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{output:?}");
    let lines = std::fs::read_to_string(lines).expect("the layer has written statistics");
    lines.lines().map(Row::read).collect()
}

/// A model directory of the same shape as [`SYNTHETIC`].
fn model_directory(folder: &TempDir) -> PathBuf {
    let model = Model::synthetic(&SyntheticSpec {
        n_layer: 6,
        n_embd: 256,
        n_head: 4,
        neurons_per_head: 256 * 128 / 4,
        vocab_size: 256,
        density: DENSITY,
        seed: 1,
    });
    let directory = folder.path().join("model");
    let options = SaveOptions { dtype: Some(Dtype::F16), ..SaveOptions::default() };
    model.save(&directory, &options).expect("a model directory");
    directory
}

/// Prints rows in columns, as wide as they need.
fn print(rows: &[Row]) {
    let titles = COLUMNS.map(|(title, _)| title);
    let widest = rows.iter().map(|row| row.kernel.len()).max().unwrap_or(0);
    let line = |kernel: &str, cells: &[String]| {
        let cells: Vec<String> =
            cells.iter().zip(titles).map(|(cell, title)| format!("{cell:>0$}", title.len().max(6))).collect();
        println!("{kernel:widest$}  {}", cells.join("  "));
    };
    line("kernel", &titles.map(String::from));
    for row in rows {
        line(&row.kernel, &row.numbers.iter().map(u64::to_string).collect::<Vec<_>>());
    }
}

#[test]
#[ignore = "needs RADV: tests/drivers/statistics.sh"]
fn table_of_all_kernels() {
    let density = DENSITY.to_string();
    let bench = ["bench", "--synthetic", SYNTHETIC, "--density", &density, "--device", "gpu", "-r", "1", "-n", "8"];
    let alone = pipelines(&[&bench[..], &["--prompt-tokens", "64"]].concat());
    let batch = pipelines(&[&bench[..], &["--prompt-tokens", "0", "--batch", "8"]].concat());

    let folder = TempDir::new().expect("a folder");
    let model = model_directory(&folder);
    // Long enough to be prefilled.
    let prompt = "To be, or not to be: that is the question. ".repeat(4);
    let beams = ["--num-beams", "2", "--prompt", &prompt, "--max-new-tokens", "8"];
    let beams = pipelines(&[&["generate", "--device", "gpu", "--model", path(&model)], &beams[..]].concat());

    // Of a run for several sequences, only the kernels that differ.
    let mut rows = alone.clone();
    for (run, pipelines) in [("batch of 8", batch), ("2 beams", beams)] {
        for row in pipelines.into_iter().filter(|row| !alone.contains(row)) {
            let known = alone.iter().any(|other| other.kernel == row.kernel);
            let kernel = if known { format!("{} ({run})", row.kernel) } else { row.kernel };
            rows.push(Row { kernel, ..row });
        }
    }
    assert!(!rows.is_empty(), "the driver tells nothing about its pipelines");
    print(&rows);
}
