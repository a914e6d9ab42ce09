//! `bdh-gpu compare`: what smaller numbers cost.

use super::args::{ContextArgs, DeviceArgs, ModelArgs, State, ThreadArgs, Weights};
use super::failure::Failure;
use super::format;
use super::output::{Notices, Output};
use super::score::{Format, InputArgs, block_size};
use bdh_gpu::backend::WeightType;
use bdh_gpu::compare::{CompareError, Comparison, compare};
use bdh_gpu::generation::{Bdh, DeviceChoice, GenerationError, check_state};
use bdh_gpu::model::forgetting::Forgetting;
use clap::Args;
use serde_json::{Value, json};
use std::ops::ControlFlow;

const DETAILS: &str = "\
Examples:
  bdh-gpu compare --file play.txt
  bdh-gpu compare --file play.txt --state i16 --weights auto
  bdh-gpu compare --file play.txt --model mine --context full --state i16 --format json

Reads the text once with exact numbers and once with smaller ones, token by token as generation
does, and compares the predictions of every token. The divergence is that of Kullback and Leibler
from the exact distribution, in nats; greedy and drawn say how often both find the same token
likeliest, or draw the same one with the same random number at temperature 1.";

/// Say what smaller states and weights cost in quality, and what they gain in speed
#[derive(Debug, Args)]
#[command(after_help = DETAILS)]
pub struct Compare {
    #[command(flatten)]
    input: InputArgs,
    /// How to print the result
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t, help_heading = "Output")]
    format: Format,
    /// Also print the mean divergence of each block of N predictions, N above 0
    #[arg(long, value_name = "N", value_parser = block_size, allow_hyphen_values = true, help_heading = "Output")]
    blocks: Option<usize>,
    #[command(flatten)]
    model: ModelArgs,
    /// The device, as for generate
    #[arg(long, value_name = "DEVICE", default_value = "auto", help_heading = "Model and device")]
    device: DeviceChoice,
    /// Types of the states to compare, one or several [default: i16, i8 and f32]
    #[arg(long = "state", value_name = "TYPE,…", value_enum, value_delimiter = ',', help_heading = "Model and device")]
    states: Vec<State>,
    /// Types of the weights to compare, one or several [default: auto and int8]
    #[arg(long, value_name = "TYPE,…", value_enum, value_delimiter = ',', help_heading = "Model and device")]
    weights: Vec<Weights>,
    #[command(flatten)]
    threads: ThreadArgs,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    notices: Notices,
}

/// The numbers of one comparison.
struct Row {
    state: String,
    weights: String,
    comparison: Comparison,
}

impl Compare {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        self.input.check()?;
        let model = self.model.load(&self.notices)?;
        let forgetting = self.context.forgetting(&model.config)?;
        self.states.iter().try_for_each(|&state| check_state(state.into(), forgetting))?;
        let tokens = self.input.read(&model)?;
        if tokens.len() < 2 {
            return Err(GenerationError::TooShort(tokens.len()).into());
        }
        let open = |state, weights, model| {
            let device = self.device.clone();
            let options = DeviceArgs { device, weights, state, compact: false, threads: self.threads };
            options.open_silently(model, &self.notices)
        };
        let exact = open(State::F32, Weights::Auto, model)?;
        self.notices.say(format_args!("{} on {}", exact.model().name, exact.device()));
        let mut rows = Vec::new();
        for (state, weights) in self.variants(forgetting) {
            let other = open(state, weights, exact.model().clone())?;
            let bar = self.notices.progress("Comparing", tokens.len());
            let comparison =
                compare(&exact, &other, &tokens, forgetting, self.blocks.unwrap_or(tokens.len()), |read| {
                    bar.set_position(read as u64);
                    ControlFlow::Continue(())
                });
            bar.finish_and_clear();
            let [state, weights] = names(&other);
            rows.push(Row { state, weights, comparison: comparison? });
        }
        let exact = names(&exact);
        match self.format {
            Format::Text => Output::new().write(&report(&exact, &rows, self.blocks)),
            Format::Json => Output::new().json(&object(&exact, &rows, self.blocks)),
        }
    }

    /// The types to compare.
    fn variants(&self, forgetting: Forgetting) -> Vec<(State, Weights)> {
        let states = match &self.states[..] {
            [] => vec![State::I16, State::I8, State::F32],
            given => given.to_vec(),
        };
        let weights = if self.weights.is_empty() { vec![Weights::Auto, Weights::Int8] } else { self.weights.clone() };
        let all = weights.iter().flat_map(|&weights| states.iter().map(move |&state| (state, weights)));
        let sensible = |&(state, weights): &(State, Weights)| {
            (state, weights) != (State::F32, Weights::Auto) && check_state(state.into(), forgetting).is_ok()
        };
        all.filter(sensible).collect()
    }
}

/// Types of the state and of the weights.
fn names(bdh: &Bdh) -> [String; 2] {
    let weights: WeightType = bdh.backend().weight_type();
    [bdh.backend().state_type().to_string(), weights.to_string()]
}

/// The result for people.
fn report(exact: &[String; 2], rows: &[Row], blocks: Option<usize>) -> String {
    let Some(first) = rows.first() else { return "nothing to compare: these numbers are exact\n".to_string() };
    let heading = [
        "state",
        "weights",
        "bits/token",
        "difference",
        "divergence",
        "largest",
        "greedy",
        "drawn",
        "MB/token",
        "tokens/s",
    ];
    let dash = || "-".to_string();
    let rate = |reading: &bdh_gpu::compare::Reading, predicted: usize| {
        format!("{:.1}", predicted as f64 / reading.time.as_secs_f64().max(1e-9))
    };
    let reference = &first.comparison;
    let mut cells = vec![[
        exact[0].clone(),
        exact[1].clone(),
        format!("{:.5}", reference.bits()[0]),
        dash(),
        dash(),
        dash(),
        dash(),
        dash(),
        format!("{:.2}", reference.exact.bytes_per_token / 1e6),
        rate(&reference.exact, reference.predicted),
    ]];
    cells.extend(rows.iter().map(|row| {
        let comparison = &row.comparison;
        let [exact, other] = comparison.bits();
        [
            row.state.clone(),
            row.weights.clone(),
            format!("{other:.5}"),
            format!("{:+.5}", other - exact),
            format!("{:.1e}", comparison.divergence),
            format!("{:.1e}", comparison.largest_divergence),
            format!("{:.2} %", 100.0 * comparison.same_greedy),
            format!("{:.2} %", 100.0 * comparison.same_drawn),
            format!("{:.2}", comparison.other.bytes_per_token / 1e6),
            rate(&comparison.other, comparison.predicted),
        ]
    }));
    let mut text = format::columns(heading, &cells);
    text.push_str(&format!("\npredicted tokens: {}\n", format::thousands(reference.predicted as u64)));
    if let Some(size) = blocks {
        for row in rows {
            let lines: Vec<[String; 2]> = row
                .comparison
                .divergence_by_block
                .iter()
                .enumerate()
                .map(|(index, divergence)| {
                    let first = 1 + index * size;
                    let last = (first - 1).saturating_add(size).min(row.comparison.predicted);
                    [format!("{first}-{last}"), format!("{divergence:.1e}")]
                })
                .collect();
            text.push_str(&format!("\nstate {}, weights {}\n", row.state, row.weights));
            text.push_str(&format::columns(["tokens", "divergence"], &lines));
        }
    }
    text
}

/// The result for programs: a list of comparisons.
fn object(exact: &[String; 2], rows: &[Row], blocks: Option<usize>) -> Value {
    let one = |row: &Row| {
        let comparison = &row.comparison;
        let [exact_bits, bits] = comparison.bits();
        let rate =
            |reading: &bdh_gpu::compare::Reading| comparison.predicted as f64 / reading.time.as_secs_f64().max(1e-9);
        let mut object = json!({
            "exact_state": exact[0],
            "exact_weights": exact[1],
            "state": row.state,
            "weights": row.weights,
            "predicted": comparison.predicted,
            "exact_bits_per_token": exact_bits,
            "bits_per_token": bits,
            "divergence": comparison.divergence,
            "largest_divergence": comparison.largest_divergence,
            "same_greedy": comparison.same_greedy,
            "same_drawn": comparison.same_drawn,
            "exact_bytes_per_token": comparison.exact.bytes_per_token,
            "bytes_per_token": comparison.other.bytes_per_token,
            "exact_tokens_per_second": rate(&comparison.exact),
            "tokens_per_second": rate(&comparison.other),
        });
        if blocks.is_some() {
            object["divergence_by_block"] = json!(comparison.divergence_by_block);
        }
        object
    };
    rows.iter().map(one).collect()
}

impl From<CompareError> for Failure {
    fn from(error: CompareError) -> Self {
        match error {
            CompareError::Generation(error) => error.into(),
            CompareError::Bench(error) => error.into(),
        }
    }
}
