//! `bdh-gpu bench --predict`: the figures of the decode step as it is, and what it prints.

use assert_cmd::Command;
use serde_json::Value;

/// The published size, whose densities are those of the figures below.
const SYNTHETIC: [&str; 4] = ["--synthetic", "6,256,4,128,256", "--density", "0.25"];

fn run(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_bdh-gpu")).arg("bench").args(arguments).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The row of a card, a batch and a kernel.
fn find<'a>(rows: &'a Value, card: &str, batch: usize, kernel: &str) -> &'a Value {
    let row = |row: &&Value| row["card"] == card && row["batch"] == batch && row["kernel"] == kernel;
    rows.as_array().expect("a list").iter().find(row).unwrap_or_else(|| panic!("no {kernel} on {card}: {rows}"))
}

/// A change of the schedule moves these figures: put the new ones here, with the change.
///
/// The first schedule was counted by hand from the shaders: 210, 395 and 2,700 µs for one sequence,
/// 4,100, 13,000 and 178,000 for 64. The model gave 196, 386, 2,806, 4,380, 12,145 and 157,172.
#[test]
fn a_step_takes_what_it_took() {
    let cards = ["--predict", "h200", "--predict", "rx7900xtx", "--predict", "igpu"];
    let rows = run(&[&SYNTHETIC[..], &cards, &["--batch", "1,64", "--format", "json"]].concat());
    let rows: Value = serde_json::from_str(&rows).expect("JSON");
    // In µs.
    let figures = [
        ("h200", 1, 180.0),
        ("rx7900xtx", 1, 385.0),
        ("igpu", 1, 2_800.0),
        ("h200", 64, 3_100.0),
        ("rx7900xtx", 64, 10_000.0),
        ("igpu", 64, 90_000.0),
    ];
    for (card, batch, expected) in figures {
        let step = find(&rows, card, batch, "step");
        let predicted = step["microseconds_per_step"].as_f64().expect("a number");
        println!("{card}, batch {batch}: {predicted:.0} µs, was {expected} µs");
        assert!((predicted / expected - 1.0).abs() < 0.15, "{card}, batch {batch}: {predicted} µs, was {expected}");
    }
    // 247 MB must move; every workgroup of encode sums 128 KiB again.
    let step = find(&rows, "h200", 1, "step");
    assert!((step["memory_bytes"].as_f64().expect("a number") / 247e6 - 1.0).abs() < 0.03, "{step}");
    assert_eq!(
        (&step["dispatches_per_step"], step["rounds"].as_f64() > Some(150.0)),
        (&Value::from(14), true),
        "{step}"
    );
    let encode = find(&rows, "h200", 1, "encode");
    assert!((83e6..120e6).contains(&encode["repeated_bytes"].as_f64().expect("a number")), "{encode}");
    // A page of states holds 60 slots: a batch of 64 encodes each layer twice.
    assert_eq!(find(&rows, "h200", 64, "step")["dispatches_per_step"], 31);
    // Every slot's state counts once, however its tiles are filled.
    let bytes = |batch| find(&rows, "h200", batch, "embed")["memory_bytes"].as_f64().expect("a number");
    assert!((bytes(64) / (64.0 * (bytes(1) - 16.8e6)) - 1.0).abs() < 0.05, "{} {}", bytes(64), bytes(1));
}

#[test]
fn predictions_are_printed_in_every_format() {
    let small = ["--synthetic", "2,16,2,4,50", "--predict", "100,5,10", "--predict", "igpu", "--batch", "1,3"];
    let print = |format| run(&[&small[..], &["--format", format]].concat());
    let rows: Value = serde_json::from_str(&print("json")).expect("JSON");
    let alone = ["embed", "project", "encode", "logits", "sample", "step"];
    let batch = ["embed", "collect", "project_collected", "finish", "encode_finished", "logits", "sample", "step"];
    for card in ["100,5,10", "igpu"] {
        for (batch, kernels) in [(1, &alone[..]), (3, &batch)] {
            for &kernel in kernels {
                let row = find(&rows, card, batch, kernel);
                assert!(row["microseconds_per_step"].as_f64() >= row["bytes_microseconds"].as_f64(), "{row}");
                assert_eq!(row["tokens_per_second"].is_f64(), kernel == "step", "{row}");
            }
        }
    }
    let text = print("csv");
    let cells = csv::Reader::from_reader(text.as_bytes()).records().filter(Result::is_ok).count();
    assert_eq!(cells, 2 * (alone.len() + batch.len()), "{text}");
    for (format, first) in [("table", "kernel"), ("md", "| kernel |")] {
        let text = print(format);
        assert!(text.lines().any(|line| line.starts_with(first)), "{text}");
        assert_eq!(text.matches("tokens/s; the bytes alone take").count(), 4, "{text}");
    }
}

#[test]
fn what_is_no_card_is_rejected_with_one_line() {
    for (arguments, expected) in
        [(&["--predict", "h100"][..], "expected h200"), (&["--predict", "h200", "--profile"], "cannot be used with")]
    {
        let output =
            Command::new(env!("CARGO_BIN_EXE_bdh-gpu")).arg("bench").args(arguments).output().expect("it starts");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && stderr.contains(expected), "{stderr}");
    }
}
