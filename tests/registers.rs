//! Registers, spills, workgroup memory and code size of every kernel, as the compilers of graphics
//! cards report them, against the tables in `tests/drivers/registers/`. The drivers compute nothing,
//! so this needs no card: `tests/drivers/statistics.sh`, and `other-statistics.sh` beside it.
#![cfg(target_os = "linux")]

#[path = "common/driver.rs"]
mod driver;
#[path = "common/layer.rs"]
mod layer;
#[path = "common/program.rs"]
mod program;
#[path = "common/table.rs"]
mod table;

use bdh_gpu::model::{Dtype, Model, SaveOptions, SyntheticSpec};
use pipeline_statistics::{LAYER, OUTPUT};
use program::path;
use serde_json::Value;
use std::path::PathBuf;
use table::Row;
use tempfile::TempDir;

/// Environment variable: the compiler, one of [`columns`].
const COMPILER: &str = "BDH_TEST_COMPILER";
/// Environment variable: the chip, which names the table.
const CHIP: &str = "BDH_TEST_CHIP";
/// Environment variable: write the table instead of comparing with it.
const UPDATE: &str = "UPDATE";

/// 25 million parameters: layers, width, heads, neurons as a multiple of the width, vocabulary.
const SYNTHETIC: &str = "6,256,4,128,256";
const DENSITY: f64 = 0.25;

/// Titles of the columns.
const TITLES: [&str; 6] = ["registers", "spilled", "scratch bytes", "LDS bytes", "occupancy", "code bytes"];
/// Columns that nothing may add to: what is in them costs traffic to memory.
const SPILLS: [usize; 2] = [1, 2];

/// The statistics that a compiler's columns add up; empty if it does not tell.
fn columns(compiler: &str) -> [&'static [&'static str]; 6] {
    match compiler {
        "aco" => [
            &["VGPRs"],
            &["Spilled VGPRs", "Spilled SGPRs"],
            &["Scratch size"],
            &["LDS size"],
            &["Subgroups per SIMD"],
            &["Code size"],
        ],
        "nak" => [&["Number of GPRs"], &["Spills to memory"], &["SLM size"], &[], &["Max warps/SM"], &["Code size"]],
        "agx" => [&["GPRs"], &["Spills", "Fills"], &["Scratch"], &[], &["Threads"], &["Code size"]],
        other => panic!("{COMPILER} is {other}: expected aco, nak or agx"),
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: use tests/drivers/statistics.sh"))
}

/// Reads a line of the layer.
fn row(line: &str, columns: &[&[&str]]) -> Row {
    let line: Value = serde_json::from_str(line).expect("JSON");
    let kernel = line["name"].as_str().map_or_else(|| format!("#{}", line["pipeline"]), String::from);
    let number = |name: &&str| line["statistics"][name].as_u64().unwrap_or_else(|| panic!("no {name:?} in {line}"));
    let column = |names: &&[&str]| (!names.is_empty()).then(|| names.iter().map(number).sum());
    Row { kernel, numbers: columns.iter().map(column).collect() }
}

/// Runs the program on the driver. Returns the pipelines that it made, in order. How the run ends
/// does not matter: a driver that computes nothing is noticed in the end.
fn pipelines(arguments: &[&str]) -> Vec<Row> {
    let columns = columns(&variable(COMPILER));
    let folder = TempDir::new().expect("a folder");
    let lines = folder.path().join("statistics");
    let output = driver::program()
        .args(arguments)
        .envs(layer::environment(folder.path(), LAYER, "libpipeline_statistics.so"))
        .env(OUTPUT, &lines)
        // Makes wgpu pass the kernels' names on to Vulkan.
        .env("WGPU_DEBUG", "1")
        .output()
        .expect("the program starts");
    let lines = std::fs::read_to_string(lines).unwrap_or_else(|_| panic!("no statistics: {output:?}"));
    lines.lines().map(|line| row(line, &columns)).collect()
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

/// Every kernel of one sequence, and of several sequences those that differ.
fn all_rows() -> Vec<Row> {
    let density = DENSITY.to_string();
    let bench = ["bench", "--synthetic", SYNTHETIC, "--density", &density, "--device", "gpu", "-r", "1", "-n", "8"];
    let mut alone = pipelines(&[&bench[..], &["--prompt-tokens", "64"]].concat());
    let batch = pipelines(&[&bench[..], &["--prompt-tokens", "0", "--batch", "8"]].concat());

    let folder = TempDir::new().expect("a folder");
    let model = model_directory(&folder);
    // Long enough to be prefilled.
    let prompt = "To be, or not to be: that is the question. ".repeat(4);
    let generate = ["generate", "--device", "gpu", "--model", path(&model), "--prompt", &prompt];
    let several = ["--num-beams", "2", "--max-new-tokens", "8"];
    let beams = pipelines(&[&generate[..], &several].concat());
    // Kernels of smaller numbers.
    let types = |state: &'static str, weights: &'static str| ["--state", state, "--weights", weights];
    let small = [("i16", types("i16", "f16")), ("8 bits", types("i8", "int8"))].map(|(name, types)| {
        let mut rows = pipelines(&[&bench[..], &["--prompt-tokens", "64"], &types].concat());
        // States in 8 bits need forgetting.
        rows.extend(pipelines(&[&generate[..], &several, &types, &["--context", "256"]].concat()));
        (name, rows)
    });
    // Whatever the benchmark did not come to.
    for row in pipelines(&[&generate[..], &["--max-new-tokens", "8"]].concat()) {
        if !alone.iter().any(|other| other.kernel == row.kernel) {
            alone.push(row);
        }
    }
    let mut rows = alone;
    for (run, pipelines) in [("batch of 8", batch), ("2 beams", beams)].into_iter().chain(small) {
        for row in pipelines {
            if rows.contains(&row) {
                continue;
            }
            let known = rows.iter().any(|other| other.kernel == row.kernel);
            let kernel = if known { format!("{} ({run})", row.kernel) } else { row.kernel };
            let row = Row { kernel, ..row };
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
    }
    assert!(!rows.is_empty(), "the driver tells nothing about its pipelines");
    rows
}

/// The driver, as the list of devices names it.
fn driver_name() -> String {
    let output = driver::program().args(["devices", "--format", "json", "--quiet"]).output().expect("it starts");
    let devices: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let gpu = devices.as_array().and_then(|devices| devices.iter().find(|device| device["index"].is_u64()));
    gpu.and_then(|gpu| gpu["driver"].as_str()).unwrap_or_else(|| panic!("no adapter: {devices}")).to_string()
}

/// Kernels that spill more than the old table says, or at all if it does not know them.
fn grown_spills(old: &[Row], new: &[Row]) -> Vec<String> {
    let mut grown = Vec::new();
    for row in new {
        let known = old.iter().find(|other| other.kernel == row.kernel);
        for column in SPILLS {
            let before = known.and_then(|known| known.numbers[column]).unwrap_or(0);
            let now = row.numbers[column].unwrap_or(0);
            if now > before {
                grown.push(format!("{}: {} {before} -> {now}", row.kernel, TITLES[column]));
            }
        }
    }
    grown
}

#[test]
#[ignore = "needs a driver: tests/drivers/statistics.sh"]
fn kernels_compile_to_the_table() {
    let (compiler, chip, driver) = (variable(COMPILER), variable(CHIP), driver_name());
    let file = format!("tests/drivers/registers/{chip}.txt");
    let file_path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(&file);
    let rows = all_rows();
    let text = table::text(&format!("{chip}: {driver}"), &TITLES, &rows);
    print!("{text}");

    let Ok(old) = std::fs::read_to_string(&file_path) else {
        if std::env::var_os(UPDATE).is_some() {
            std::fs::write(&file_path, text).expect("the table");
        } else {
            println!("note: there is no {file} to compare with; UPDATE=1 writes it");
        }
        return;
    };
    let (first, old) = table::parse(&old);
    let grown = grown_spills(&old, &rows);
    assert!(grown.is_empty(), "{chip}: registers spill to memory:\n{}", grown.join("\n"));
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&file_path, text).expect("the table");
        return;
    }
    if first != format!("{chip}: {driver}") {
        println!("note: {file} is of another driver ({first}): only spills are compared");
        return;
    }
    let differences = table::differences(&old, &rows);
    let script = if compiler == "aco" { "statistics.sh" } else { "other-statistics.sh" };
    assert!(
        differences.is_empty(),
        "{} differ from {file} ({}):\n{}\nIf that is right, update the table: UPDATE=1 tests/drivers/{script}",
        differences.len(),
        TITLES.join(", "),
        differences.join("\n")
    );
}

#[test]
fn tables_are_read_as_they_are_written() {
    let row = |kernel: &str, numbers: [u64; 3]| Row { kernel: kernel.into(), numbers: numbers.map(Some).into() };
    let mut rows = vec![row("encode", [120, 0, 8660]), row("encode (batch of 8)", [96, 0, 70])];
    rows[1].numbers[1] = None;
    let text = table::text("chip: driver", &["registers", "spilled", "code bytes"], &rows);
    assert_eq!(table::parse(&text), ("chip: driver".to_string(), rows.clone()));

    assert!(table::differences(&rows, &rows).is_empty());
    let new = [row("encode", [112, 4, 8660]), row("project", [1, 0, 0])];
    assert_eq!(
        table::differences(&rows, &new),
        [
            "encode: 120 0 8660 is now 112 4 8660",
            "encode (batch of 8): 96 - 70 is now none",
            "project: none is now 1 0 0"
        ]
    );
    assert_eq!(grown_spills(&rows, &new), ["encode: spilled 0 -> 4"]);
}

/// A kernel that AMD's compiler spills is never in a table.
#[test]
fn nothing_spills_on_amd() {
    for chip in ["navi31", "vega10"] {
        let path = format!("{}/tests/drivers/registers/{chip}.txt", env!("CARGO_MANIFEST_DIR"));
        let (_, rows) = table::parse(&std::fs::read_to_string(&path).expect(&path));
        assert!(rows.len() > 20, "{chip} has {} rows", rows.len());
        for row in rows {
            assert!(SPILLS.iter().all(|&column| row.numbers[column] == Some(0)), "{chip}: {row:?}");
        }
    }
}
