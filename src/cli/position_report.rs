//! The result of `bdh-gpu score --by-position`.

use super::bench_report::csv;
use super::failure::Failure;
use super::format::{self, Report};
use super::output::{Notices, Output};
use bdh_gpu::generation::{ByPosition, Mean, PositionRange};
use serde_json::{Value, json};

const KEYS: [&str; 8] = [
    "first",
    "last",
    "pieces",
    "tokens",
    "bits_per_token",
    "bits_per_token_error",
    "bits_per_byte",
    "bits_per_byte_error",
];

/// Prints the result.
pub fn print(score: &ByPosition, report: Report, notices: &Notices) -> Result<(), Failure> {
    if score.left_out > 0 {
        notices.say(format_args!(
            "note: the last {} tokens are left out, fewer than a piece of {}",
            format::thousands(score.left_out as u64),
            format::thousands(score.length as u64)
        ));
    }
    match report {
        Report::Text => Output::new().write(&text(score)),
        Report::Csv => Output::new().write(&csv(&KEYS, score.ranges.iter().map(|range| values(range).to_vec()))),
        Report::Json => Output::new().json(&json!({
            "pieces": score.pieces,
            "length": score.length,
            "left_out": score.left_out,
            "ranges": score.ranges.iter().map(object).collect::<Vec<_>>(),
            "all": object(&score.all),
        })),
    }
}

/// A range's numbers, in the order of the keys.
fn values(range: &PositionRange) -> [Value; 8] {
    let bytes = |number: fn(Mean) -> Option<f64>| range.per_byte.and_then(number);
    [
        json!(range.first),
        json!(range.last),
        json!(range.pieces),
        json!(range.tokens),
        json!(range.per_token.bits),
        json!(range.per_token.standard_error),
        json!(bytes(|mean| Some(mean.bits))),
        json!(bytes(|mean| mean.standard_error)),
    ]
}

fn object(range: &PositionRange) -> Value {
    KEYS.iter().map(ToString::to_string).zip(values(range)).collect::<serde_json::Map<_, _>>().into()
}

/// The result for people. Where tokens are bytes, one column says both.
fn text(score: &ByPosition) -> String {
    let same = score.all.per_byte == Some(score.all.per_token);
    let mut heading = vec!["positions", "tokens"];
    if !same {
        heading.push("bits per token");
    }
    if score.all.per_byte.is_some() {
        heading.push("bits per byte");
    }
    let row = |name: String, range: &PositionRange| {
        let mut cells = vec![name, format::thousands(range.tokens as u64)];
        if !same {
            cells.push(format::mean(range.per_token));
        }
        if score.all.per_byte.is_some() {
            cells.push(range.per_byte.map_or("-".to_string(), format::mean));
        }
        cells
    };
    let mut rows: Vec<_> =
        score.ranges.iter().map(|range| row(format!("{}-{}", range.first, range.last), range)).collect();
    rows.push(row("all".to_string(), &score.all));
    let pieces =
        format!("{} of {} tokens", format::thousands(score.pieces as u64), format::thousands(score.length as u64));
    format!("{}{}", format::pairs(&[("pieces", pieces)]), format::columns(heading, &rows))
}
