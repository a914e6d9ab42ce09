//! `bdh-gpu needle`: what a model can look up at a distance.

use super::advice;
use super::args::{self, ContextArgs, DeviceArgs, ModelArgs};
use super::bench_report::csv;
use super::failure::Failure;
use super::format::{self, Report};
use super::output::{Notices, Output};
use super::score::InputArgs;
use bdh_gpu::generation::Mean;
use bdh_gpu::needle::{self, NeedleCell, NeedleError, NeedleOptions, Places};
use clap::Args;
use serde_json::{Value, json};
use std::ops::ControlFlow;

const DETAILS: &str = "\
Examples:
  bdh-gpu needle --file play.txt
  bdh-gpu needle --file play.txt --lengths 256,1024 --depths 0,50,100 --needles 32
  bdh-gpu needle --file play.txt --lengths 2048 --distances 64,128,256,512,1024 --context full
  bdh-gpu needle --file play.txt --needle-text \" {key} has {value}.\" --format csv

Somewhere in a part of the text stands a sentence with a random word, the needle: by default the
line \"The secret word of Tavo is ruvoki.\" At the end stands the same sentence up to that word. The
first table says how often greedy decoding goes on with the word; the second how many bits per byte
of the word the needle saves, compared with the same text without it; the third how many of them the
word itself saves, compared with a needle that has another word. A model that only learns from the
needle how such a sentence goes on saves bits in the second, and none in the third.

Lengths count the tokens before the word that is asked for; depth 0 is the start of the text, and
depth 100 lies right before the question. Distances count the tokens from word to word. After ±
stands the standard error over the needles.";

/// Hide a random word in a text and ask for it: what a model can look up at a distance
#[derive(Debug, Args)]
#[command(after_help = DETAILS)]
pub struct Needle {
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    needles: NeedleArgs,
    /// How to print the result
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t, help_heading = "Output")]
    format: Report,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    context: ContextArgs,
    #[command(flatten)]
    notices: Notices,
}

/// What to hide, and where.
#[derive(Debug, Args)]
#[command(next_help_heading = "Needles")]
struct NeedleArgs {
    /// Tokens before the word that is asked for, one number or several
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = args::whole::<usize>,
        allow_hyphen_values = true, default_values_t = NeedleOptions::default().lengths)]
    lengths: Vec<usize>,
    /// Percent of the text before the needle, one number or several [default: 0,25,50,75,100]
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = args::whole::<u32>,
        allow_hyphen_values = true, conflicts_with = "distances")]
    depths: Vec<u32>,
    /// Tokens from the needle's word to the one that is asked for instead, one number or several
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = args::whole::<usize>,
        allow_hyphen_values = true)]
    distances: Vec<usize>,
    /// Needles to average over, each in a part of the text of its own
    #[arg(long, value_name = "N", value_parser = args::whole::<u32>, allow_hyphen_values = true,
        default_value_t = NeedleOptions::default().needles)]
    needles: u32,
    /// The seed of the random words
    #[arg(long, value_name = "N", value_parser = args::whole::<u64>, allow_hyphen_values = true,
        default_value_t = NeedleOptions::default().seed)]
    seed: u64,
    /// The sentence, with {value} once and {key} anywhere; line ends count [default: the line "The secret word of {key}
    /// is {value}."]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    needle_text: Option<String>,
}

impl NeedleArgs {
    fn options(&self) -> NeedleOptions {
        let default = NeedleOptions::default();
        let places = match (&self.distances[..], &self.depths[..]) {
            ([], []) => default.places,
            ([], depths) => Places::Depths(depths.to_vec()),
            (distances, _) => Places::Distances(distances.to_vec()),
        };
        NeedleOptions {
            text: self.needle_text.clone().unwrap_or(default.text),
            lengths: self.lengths.clone(),
            places,
            needles: self.needles,
            seed: self.seed,
        }
    }
}

impl Needle {
    /// Runs the command.
    pub fn run(&self) -> Result<(), Failure> {
        self.input.check()?;
        let options = self.needles.options();
        let model = self.model.load(&self.notices)?;
        let forgetting = self.context.forgetting(&model.config)?;
        self.device.check(forgetting)?;
        let tokens = self.input.read(&model)?;
        needle::check(&model, &tokens, &options)?;
        let bdh = self.device.open(model, &self.notices)?;
        let bar = self.notices.progress("Looking for needles", usize::MAX);
        let cells = needle::measure(&bdh, &tokens, &options, forgetting, |read, total| {
            bar.set_length(total as u64);
            bar.set_position(read as u64);
            ControlFlow::Continue(())
        });
        bar.finish_and_clear();
        let cells = cells?;
        match self.format {
            Report::Text => Output::new().write(&text(&options, &cells)),
            Report::Csv => {
                let keys = keys(&options.places);
                Output::new().write(&csv(&keys, cells.iter().map(|cell| values(&options.places, cell))))
            }
            Report::Json => Output::new().json(&object(&options, &cells)),
        }
    }
}

/// The names of a cell's numbers. Of a distance that was asked for, there is one.
fn keys(places: &Places) -> Vec<&'static str> {
    let place = match places {
        Places::Depths(_) => &["length", "depth", "distance"][..],
        Places::Distances(_) => &["length", "distance"],
    };
    let found = ["needles", "hits", "bits_with", "bits_without", "bits_other"];
    let saved = ["gained", "gained_error", "looked_up", "looked_up_error"];
    [place, &found, &saved].concat()
}

fn values(places: &Places, cell: &NeedleCell) -> Vec<Value> {
    let place = match places {
        Places::Depths(_) => vec![json!(cell.length), json!(cell.place), json!(cell.distance)],
        Places::Distances(_) => vec![json!(cell.length), json!(cell.distance)],
    };
    let found = vec![
        json!(cell.needles),
        json!(cell.hits),
        json!(cell.with.bits),
        json!(cell.without.bits),
        json!(cell.other.bits),
        json!(cell.gained.bits),
        json!(cell.gained.standard_error),
        json!(cell.looked_up.bits),
        json!(cell.looked_up.standard_error),
    ];
    [place, found].concat()
}

/// The result for programs.
fn object(options: &NeedleOptions, cells: &[NeedleCell]) -> Value {
    let keys = keys(&options.places);
    let cell = |cell: &NeedleCell| -> Value {
        let values = values(&options.places, cell);
        keys.iter().map(ToString::to_string).zip(values).collect::<serde_json::Map<_, _>>().into()
    };
    json!({
        "needle_text": options.text,
        "needles": options.needles,
        "seed": options.seed,
        "cells": cells.iter().map(cell).collect::<Vec<_>>(),
    })
}

/// The result for people: a table of lengths and places for each number.
fn text(options: &NeedleOptions, cells: &[NeedleCell]) -> String {
    let (unit, places): (&str, Vec<String>) = match &options.places {
        Places::Depths(depths) => ("depth", depths.iter().map(|depth| format!("{depth} %")).collect()),
        Places::Distances(distances) => ("distance", distances.iter().map(usize::to_string).collect()),
    };
    let corner = format!("length \\ {unit}");
    let heading: Vec<&str> = std::iter::once(&corner).chain(&places).map(String::as_str).collect();
    let table = |title: &str, show: &dyn Fn(&NeedleCell) -> String| {
        let row = |&length: &usize| {
            let of = |place: usize| {
                let cell = cells.iter().find(|cell| cell.length == length && cell.place == options.places.value(place));
                cell.map_or("-".to_string(), show)
            };
            let cells = (0..places.len()).map(of);
            std::iter::once(length.to_string()).chain(cells).collect::<Vec<_>>()
        };
        let rows: Vec<_> = options.lengths.iter().map(row).collect();
        format!("{title}\n{}", format::columns(&heading, &rows))
    };
    let short = |mean: Mean| match mean.standard_error {
        Some(error) => format!("{:+.2} ± {error:.2}", mean.bits),
        None => format!("{:+.2}", mean.bits),
    };
    [
        table("found by greedy decoding", &|cell| format!("{}/{}", cell.hits, cell.needles)),
        table("bits per byte gained by the needle", &|cell| short(cell.gained)),
        table("bits per byte gained by its word alone", &|cell| short(cell.looked_up)),
    ]
    .join("\n")
}

impl From<NeedleError> for Failure {
    fn from(error: NeedleError) -> Self {
        match error {
            NeedleError::Generation(error) => error.into(),
            error => Self::Usage(advice::needle(&error)),
        }
    }
}
