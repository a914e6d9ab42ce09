//! `bdh-gpu info`: what a model is.

use super::args::ModelArgs;
use super::failure::Failure;
use super::format;
use super::output::{Notices, Output};
use bdh_gpu::backend::StateType;
use bdh_gpu::generation::{GenerationOptions, Settings};
use bdh_gpu::model::Model;
use bdh_gpu::model::forgetting::Forgetting;
use bdh_gpu::options::{self, Kind, Spec};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

const EXAMPLES: &str = "\
Examples:
  bdh-gpu info
  bdh-gpu info --model models/bdh-shakespeare --format json";

/// Show what a model is: sizes, weights, context, defaults, training
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Info {
    #[command(flatten)]
    model: ModelArgs,
    /// How to print it
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t, help_heading = "Output")]
    format: Format,
    #[command(flatten)]
    notices: Notices,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
}

impl Info {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        let model = self.model.load(&self.notices)?;
        match self.format {
            Format::Text => Output::new().write(&text(&model)),
            Format::Json => Output::new().json(&object(&model)),
        }
    }
}

fn text(model: &Model) -> String {
    let config = &model.config;
    let number = |number: usize| format::thousands(number as u64);
    let tokens = |count: u32| format!("{} tokens", format::thousands(count.into()));
    let id = |ids: &[u32]| if ids.is_empty() { "none".to_string() } else { format::ids(ids) };
    let forgetting = match Forgetting::of_model(config) {
        Forgetting::Full => "none: everything is remembered in full; --context N changes that".to_string(),
        Forgetting::After { context, tau } => {
            format!("from position {} with a time constant of {tau} tokens", format::thousands(context.into()))
        }
        Forgetting::Window { tokens: window } => format!("before the last {}", tokens(window)),
    };
    let freqs = format!("{}, {}", model.rope, model.frequencies);
    let state_bytes = |state: StateType| format::bytes(state.state_bytes(config));
    let mut rows = vec![
        ("name", model.name.clone()),
        ("parameters", number(config.parameters())),
        ("layers", format!("{}, sharing one set of weights", number(config.n_layer))),
        ("width", number(config.n_embd)),
        ("heads", number(config.n_head)),
        ("neurons", format!("{} ({} per head)", number(config.neurons()), number(config.neurons_per_head))),
        ("vocabulary", number(config.vocab_size)),
        ("weights", format!("{}, {}", model.weights_dtype(), format::bytes(weight_bytes(model)))),
        ("layout", model.source.map_or("none".to_string(), |(format, layout)| format!("{layout}, {format}"))),
        ("rotary embedding", freqs),
        (
            "state",
            format!(
                "{} numbers per text, whatever its length: {} (i16 {}, i8 {})",
                number(config.state_len()),
                state_bytes(StateType::F32),
                state_bytes(StateType::I16),
                state_bytes(StateType::I8)
            ),
        ),
        ("tokenizer", model.tokenizer.to_string()),
        ("bos token", id(config.bos_token_id.as_slice())),
        ("eos tokens", id(&config.eos_token_ids)),
        (
            "trained context",
            config.trained_context.map_or(
                "not declared; assumed: no limit, though many models are trained on 512 tokens".to_string(),
                tokens,
            ),
        ),
        ("forgetting", forgetting),
        ("generation", format::settings(&drawing(model))),
    ];
    rows.extend(model.notes.iter().map(|note| ("note", note.clone())));
    let mut text = format::pairs(&rows);
    if let Some(training) = &model.training_args {
        let values: Vec<String> = training.values().map(plain).collect();
        let rows: Vec<(&str, String)> = training.keys().map(String::as_str).zip(values).collect();
        text.push_str("\ntraining\n");
        text.extend(format::pairs(&rows).lines().map(|line| format!("  {line}\n")));
    }
    text
}

/// A JSON value on one line; text without its quotes.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.split_whitespace().collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

fn weight_bytes(model: &Model) -> u64 {
    let w = &model.weights;
    let tensors = [&w.embed, &w.encoder, &w.encoder_v, &w.decoder, &w.lm_head];
    tensors.iter().map(|tensor| tensor.stored_bytes()).sum()
}

fn object(model: &Model) -> Value {
    let config = &model.config;
    let forgetting = match Forgetting::of_model(config) {
        Forgetting::Full => Value::Null,
        Forgetting::After { context, tau } => json!({ "context": context, "tau": tau }),
        Forgetting::Window { tokens } => json!({ "window": tokens }),
    };
    json!({
        "name": model.name,
        "parameters": config.parameters(),
        "layers": config.n_layer,
        "width": config.n_embd,
        "heads": config.n_head,
        "neurons": config.neurons(),
        "neurons_per_head": config.neurons_per_head,
        "vocabulary": config.vocab_size,
        "weights": { "dtype": model.weights_dtype().to_string(), "bytes": weight_bytes(model) },
        "rope": model.rope.to_string(),
        "frequencies": model.frequencies.to_string(),
        "stored_frequencies": model.stored_freqs,
        "state": {
            "numbers": config.state_len(),
            "bytes": StateType::F32.state_bytes(config),
            "bytes_i16": StateType::I16.state_bytes(config),
            "bytes_i8": StateType::I8.state_bytes(config),
        },
        "layout": model.source.map(|(_, layout)| layout.to_string()),
        "format": model.source.map(|(format, _)| format.to_string()),
        "tokenizer": model.tokenizer.to_string(),
        "bos_token_id": config.bos_token_id,
        "eos_token_ids": config.eos_token_ids,
        "trained_context": config.trained_context,
        "forgetting": forgetting,
        "generation": generation(model),
        "training_args": model.training_args,
        "notes": model.notes,
    })
}

/// The model's options of drawing.
fn drawing(model: &Model) -> Settings {
    Settings { options: GenerationOptions::of_model(model), ..Settings::default() }
}

/// The same, as generation_config.json has them; a seed that it does not give is null.
fn generation(model: &Model) -> Value {
    let request = drawing(model).request();
    let is_scalar = |spec: &&Spec| spec.in_file && spec.kind != Kind::Ids && spec.heading != options::BEAMS;
    let json = |spec: &Spec| spec.given(&request).map_or(Value::Null, |value| value.to_json());
    let pairs = options::in_help_order().filter(is_scalar).map(|spec| (spec.name.to_string(), json(spec)));
    Value::Object(pairs.collect())
}
