//! The results of `bdh-gpu bench` as tables, CSV and JSON.

use super::format;
use bdh_gpu::bench::{DeviceProfile, Profiled, Report, Row, Speed};
use bdh_gpu::generation::Bdh;
use clap::ValueEnum;
use serde_json::{Value, json};
use std::time::Duration;

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Table,
    Md,
    Csv,
    Json,
}

/// Rates, and below a table the densities and bandwidths that were measured.
pub fn report(report: &Report, format: Format) -> String {
    match format {
        Format::Json => line(json!(report.rows)),
        Format::Csv => csv(&RATE_KEYS, report.rows.iter().map(|row| rate_values(row).to_vec())),
        Format::Table | Format::Md => table(format, RATE_HEADING, report.rows.iter().map(rate_cells)) + &footer(report),
    }
}

/// Profiles, each below the other; below a table what an ordinary step takes.
pub fn profiles(profiles: &[(&Bdh, DeviceProfile)], format: Format) -> String {
    let rows = || profiles.iter().flat_map(|(bdh, profile)| profile_rows(bdh, profile));
    match format {
        Format::Json => {
            let object = |row: Vec<Value>| -> Value {
                PROFILE_KEYS.iter().map(ToString::to_string).zip(row).collect::<serde_json::Map<_, _>>().into()
            };
            line(rows().map(object).collect())
        }
        Format::Csv => csv(&PROFILE_KEYS, rows()),
        Format::Table | Format::Md => {
            let one = |(bdh, profile): &(&Bdh, DeviceProfile)| profile_table(bdh, profile, format);
            profiles.iter().map(one).collect::<Vec<_>>().join("\n")
        }
    }
}

pub(super) fn line(value: Value) -> String {
    format!("{value}\n")
}

const RATE_HEADING: [&str; 12] = [
    "model",
    "parameters",
    "weights",
    "state",
    "device",
    "test",
    "batch",
    "depth",
    "tokens/s",
    "MB/token",
    "GB/s",
    "of floor",
];

fn rate_cells(row: &Row) -> [String; 12] {
    let speed = match row.speed {
        Speed::TokensPerSecond(rate) => format!("{rate:.1} ± {:.1}", row.stddev),
        Speed::Seconds(seconds) => format!("{:.1} ± {:.1} ms", 1e3 * seconds, 1e3 * row.stddev),
    };
    let or_dash = |number: Option<String>| number.unwrap_or_else(|| "-".to_string());
    [
        row.model.clone(),
        format::short(row.parameters),
        row.weights.clone(),
        row.state.clone(),
        row.device.clone(),
        row.test.clone(),
        row.batch.to_string(),
        row.depth.to_string(),
        speed,
        or_dash(row.bytes_per_token.map(|bytes| format!("{:.1$}", bytes / 1e6, if bytes < 1e6 { 3 } else { 2 }))),
        or_dash(row.gb_per_second.map(|rate| format!("{rate:.1}"))),
        or_dash(row.share_of_floor.map(|share| format!("{:.0} %", 100.0 * share))),
    ]
}

fn footer(report: &Report) -> String {
    let mut lines = Vec::new();
    // Decoding says more about a model than reading a prompt does.
    let decode = report.rows.iter().find(|row| row.test.starts_with("tg"));
    if let Some(row) = decode.or(report.rows.first()) {
        let [u, pair, g] = [row.density.u, row.density.pair, row.density.g].map(|share| 100.0 * share);
        lines.push(format!("density ({}): u {u:.1} %, pairs {pair:.1} %, g {g:.1} %", row.test));
    }
    if let Some(memory) = &report.bandwidth {
        let (threads, size) = (memory.threads, format::bytes(memory.bytes));
        let plural = if threads == 1 { "" } else { "s" };
        lines.push(format!(
            "memory bandwidth ({threads} thread{plural}, {size}): read {:.1} GB/s, copy {:.1} GB/s",
            memory.read, memory.copy
        ));
        let mut smaller: Vec<(usize, f64)> = Vec::new();
        for (row, bandwidth) in report.rows.iter().filter_map(|row| Some((row, row.bandwidth_gb_per_second?))) {
            if bandwidth != memory.read && !smaller.contains(&(row.batch, bandwidth)) {
                smaller.push((row.batch, bandwidth));
            }
        }
        let of = |(batch, bandwidth): &(usize, f64)| {
            format!("over as many bytes as batch {batch} takes: read {bandwidth:.1} GB/s")
        };
        lines.extend(smaller.iter().map(of));
    }
    format!("\n{}\n", lines.join("\n"))
}

const RATE_KEYS: [&str; 19] = [
    "model",
    "parameters",
    "weights",
    "state",
    "device",
    "test",
    "batch",
    "depth",
    "tokens_per_second",
    "seconds",
    "stddev",
    "samples",
    "bytes_per_token",
    "gb_per_second",
    "density_u",
    "density_pair",
    "density_g",
    "bandwidth_gb_per_second",
    "share_of_floor",
];

fn rate_values(row: &Row) -> [Value; 19] {
    let (rate, seconds) = match row.speed {
        Speed::TokensPerSecond(rate) => (Some(rate), None),
        Speed::Seconds(seconds) => (None, Some(seconds)),
    };
    let samples: Vec<String> = row.samples.iter().map(f64::to_string).collect();
    [
        json!(row.model),
        json!(row.parameters),
        json!(row.weights),
        json!(row.state),
        json!(row.device),
        json!(row.test),
        json!(row.batch),
        json!(row.depth),
        json!(rate),
        json!(seconds),
        json!(row.stddev),
        json!(samples.join(" ")),
        json!(row.bytes_per_token),
        json!(row.gb_per_second),
        json!(row.density.u),
        json!(row.density.pair),
        json!(row.density.g),
        json!(row.bandwidth_gb_per_second),
        json!(row.share_of_floor),
    ]
}

const PROFILE_KEYS: [&str; 10] = [
    "model",
    "weights",
    "device",
    "batch",
    "depth",
    "kernel",
    "runs_per_step",
    "microseconds_per_step",
    "share",
    "phase",
];

fn microseconds(time: Duration, steps: usize) -> f64 {
    1e6 * time.as_secs_f64() / steps.max(1) as f64
}

fn phase(profiled: Profiled) -> &'static str {
    match profiled {
        Profiled::Decode => "decode",
        Profiled::Prefill => "prefill",
        Profiled::Beam => "beam",
    }
}

fn profile_rows(bdh: &Bdh, measured: &DeviceProfile) -> Vec<Vec<Value>> {
    let total: Duration = measured.profile.parts.iter().map(|part| part.time).sum();
    let parts = measured.profile.parts.iter().map(|part| {
        vec![
            json!(bdh.model().name),
            json!(bdh.backend().weight_type().to_string()),
            json!(bdh.device().to_string()),
            json!(measured.batch),
            json!(measured.depth),
            json!(part.name),
            json!(part.dispatches.map(|runs| runs as f64 / measured.steps.max(1) as f64)),
            json!(microseconds(part.time, measured.steps)),
            json!(part.time.as_secs_f64() / total.as_secs_f64().max(1e-9)),
            json!(phase(measured.profiled)),
        ]
    });
    parts.collect()
}

fn profile_table(bdh: &Bdh, measured: &DeviceProfile, format: Format) -> String {
    let total: Duration = measured.profile.parts.iter().map(|part| part.time).sum();
    let cells = |row: Vec<Value>| {
        let number = |index: usize| row[index].as_f64();
        [
            row[5].as_str().unwrap_or_default().to_string(),
            number(6).map_or("-".to_string(), |runs| format!("{runs}")),
            format!("{:.1}", number(7).unwrap_or_default()),
            format!("{:.1} %", 100.0 * number(8).unwrap_or_default()),
        ]
    };
    let heading = match format {
        Format::Md => "",
        _ => "\n",
    };
    format!(
        "{} ({}) on {}, {}, batch {}, depth {}\n{heading}{}\nall: {:.1} µs per step; an ordinary step takes {:.1} µs\n",
        bdh.model().name,
        bdh.backend().weight_type(),
        bdh.device(),
        phase(measured.profiled),
        measured.batch,
        measured.depth,
        table(format, ["kernel", "runs/step", "µs/step", "share"], profile_rows(bdh, measured).into_iter().map(cells)),
        microseconds(total, measured.steps),
        microseconds(measured.ordinary, measured.steps),
    )
}

/// Rows below a heading, for people or for Markdown.
pub(super) fn table<const N: usize>(
    format: Format,
    heading: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> String {
    if format != Format::Md {
        return format::columns(heading, &rows.collect::<Vec<_>>());
    }
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = line(&heading.map(str::to_string)) + &line(&[const { "---" }; N].map(str::to_string));
    rows.for_each(|row| text += &line(&row.map(|cell| cell.replace('|', "\\|"))));
    text
}

/// Comma-separated values as RFC 4180 has them; nothing stands for null.
pub(super) fn csv(keys: &[&str], rows: impl Iterator<Item = Vec<Value>>) -> String {
    let cell = |value: Value| match value {
        Value::Null => String::new(),
        Value::String(text) if text.contains(['"', ',', '\n', '\r']) => format!("\"{}\"", text.replace('"', "\"\"")),
        Value::String(text) => text,
        other => other.to_string(),
    };
    let mut text = keys.join(",") + "\n";
    for row in rows {
        text += &row.into_iter().map(cell).collect::<Vec<_>>().join(",");
        text.push('\n');
    }
    text
}
