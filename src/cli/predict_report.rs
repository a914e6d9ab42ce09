//! The results of `bdh-gpu bench --predict` as tables, CSV and JSON.

use super::bench_report::{Format, csv, line, table};
use super::format;
use bdh_gpu::bench::{KernelPrediction, Prediction};
use bdh_gpu::generation::Bdh;
use serde_json::{Map, Value, json};

/// A table per card and batch; in CSV and JSON a row per kernel, and one for the step.
pub fn report(bdh: &Bdh, predictions: &[Prediction], format: Format) -> String {
    let rows = || predictions.iter().flat_map(|prediction| rows(bdh, prediction));
    match format {
        Format::Json => {
            let object = |row: Vec<Value>| -> Value {
                KEYS.iter().map(ToString::to_string).zip(row).collect::<Map<_, _>>().into()
            };
            line(rows().map(object).collect())
        }
        Format::Csv => csv(&KEYS, rows()),
        Format::Table | Format::Md => {
            let one = |prediction: &Prediction| self::prediction(bdh, prediction, format);
            predictions.iter().map(one).collect::<Vec<_>>().join("\n")
        }
    }
}

const KEYS: [&str; 17] = [
    "model",
    "weights",
    "state",
    "card",
    "batch",
    "kernel",
    "dispatches_per_step",
    "workgroups",
    "memory_bytes",
    "repeated_bytes",
    "rounds",
    "barriers",
    "chain_microseconds",
    "bytes_microseconds",
    "microseconds_per_step",
    "tokens_per_second",
    "phase",
];

fn rows(bdh: &Bdh, prediction: &Prediction) -> Vec<Vec<Value>> {
    let row = |part: &KernelPrediction, rate: Option<f64>| {
        vec![
            json!(bdh.model().name),
            json!(bdh.backend().weight_type().to_string()),
            json!(prediction.state.to_string()),
            json!(prediction.machine),
            json!(prediction.batch),
            json!(part.kernel),
            json!(part.dispatches),
            json!(part.workgroups),
            json!(part.memory_bytes),
            json!(part.repeated_bytes),
            json!(part.rounds),
            json!(part.barriers),
            json!(part.chain_us),
            json!(part.bytes_us),
            json!(part.time_us),
            json!(rate),
            json!("decode"),
        ]
    };
    let step = prediction.step();
    let kernels = prediction.kernels.iter().map(|kernel| row(kernel, None));
    kernels.chain([row(&step, Some(prediction.rate(step.time_us)))]).collect()
}

fn prediction(bdh: &Bdh, prediction: &Prediction, format: Format) -> String {
    let step = prediction.step();
    let [u, pair, g] = [prediction.density.u, prediction.density.pair, prediction.density.g].map(|share| 100.0 * share);
    let heading =
        ["kernel", "dispatches", "workgroups", "MB memory", "MB repeated", "rounds", "barriers", "chain µs", "µs/step"];
    let cells = |part: &KernelPrediction| {
        [
            part.kernel.to_string(),
            part.dispatches.to_string(),
            part.workgroups.to_string(),
            format!("{:.1}", part.memory_bytes / 1e6),
            format!("{:.1}", part.repeated_bytes / 1e6),
            format!("{:.0}", part.rounds),
            format!("{:.0}", part.barriers),
            format!("{:.1}", part.chain_us),
            format!("{:.1}", part.time_us),
        ]
    };
    let space = if format == Format::Md { "" } else { "\n" };
    let rate = |microseconds| format::thousands(prediction.rate(microseconds).round() as u64);
    format!(
        "{} ({}, state {}) predicted on {}, batch {}\n{space}{}\ndensity: u {u:.1} %, pairs {pair:.1} %, g {g:.1} %\n\
         {:.1} µs per step, {} tokens/s; the bytes alone take {:.1} µs, {} tokens/s\n",
        bdh.model().name,
        bdh.backend().weight_type(),
        prediction.state,
        prediction.machine,
        prediction.batch,
        table(format, heading, prediction.kernels.iter().chain([&step]).map(cells)),
        step.time_us,
        rate(step.time_us),
        step.bytes_us,
        rate(step.bytes_us),
    )
}
