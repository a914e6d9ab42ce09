//! Neurons and synapses that tell texts about a concept from others.

use super::Watched;
use crate::cli::failure::Failure;
use crate::cli::format;
use crate::cli::input::Prompts;
use crate::cli::output::Output;
use bdh_gpu::inspect::concept::{self, ConceptError, Finding};
use bdh_gpu::model::{Model, NeuronName};
use clap::{Args, ValueHint};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// From this share of tokens on, a neuron is a hub.
const HUB: f64 = 0.5;

/// Texts about a concept, and others.
#[derive(Debug, Args)]
#[command(next_help_heading = "Concept")]
pub struct ConceptArgs {
    /// Find the neurons and synapses that tell the texts of this file, one on each line, from those
    /// of --against
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "against")]
    concept: Option<PathBuf>,
    /// Texts without the concept, one on each line, as similar otherwise as can be
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "concept")]
    against: Option<PathBuf>,
}

impl ConceptArgs {
    /// The two files, where there are any.
    pub fn given(&self) -> Option<[&Path; 2]> {
        Some([self.concept.as_deref()?, self.against.as_deref()?])
    }
}

/// The texts of both files.
pub fn read(files: [&Path; 2], model: &Model) -> Result<[Vec<Vec<u32>>; 2], Failure> {
    Ok([Prompts::read(files[0], model)?.tokens, Prompts::read(files[1], model)?.tokens])
}

/// Finds and prints, `top` of each.
pub fn run(watched: &Watched, texts: [Vec<Vec<u32>>; 2], top: usize, json_lines: bool) -> Result<(), Failure> {
    let Watched { bdh, forgetting, notices, .. } = watched;
    let tokens = texts.iter().flatten().map(Vec::len).sum();
    let count = texts.iter().map(Vec::len).sum::<usize>();
    let bar = notices.progress("Reading", tokens);
    let found = concept::concept(bdh, [&texts[0], &texts[1]], *forgetting, top, |done| {
        bar.set_position((done * tokens / (2 * count)) as u64);
    });
    bar.finish_and_clear();
    let found = found.map_err(|error| match error {
        ConceptError::Generation(error) => error.into(),
        other => Failure::Usage(other.to_string()),
    })?;
    let name = |neuron: u32| NeuronName::of_number(neuron, &bdh.model().config).to_string();
    let neurons: Vec<(String, &Finding<_>)> = found.neurons.iter().map(|found| (name(found.what), found)).collect();
    let synapse = |(from, to): (u32, u32)| format!("{} -> {}", name(from), name(to));
    let synapses: Vec<(String, &Finding<_>)> =
        found.synapses.iter().map(|found| (synapse(found.what), found)).collect();
    let mut output = Output::new();
    if json_lines {
        for (name, finding) in &neurons {
            output.json(&object("neuron", name, finding))?;
        }
        for (name, finding) in &synapses {
            output.json(&object("synapse", name, finding))?;
        }
        return Ok(());
    }
    let [tested, pairs] = found.tests;
    let columns = |kind| [kind, "AUROC", "chosen by", "p", "corrected", "effect", "fires in", "and in others"];
    output.write(&format!("{} texts about the concept, {} others\n\n", texts[0].len(), texts[1].len()))?;
    output.write(&format::columns(columns("neuron"), &neurons.iter().map(|(n, f)| row(n, f)).collect::<Vec<_>>()))?;
    output.line("")?;
    output.write(&format::columns(columns("synapse"), &synapses.iter().map(|(n, f)| row(n, f)).collect::<Vec<_>>()))?;
    output.line(format_args!(
        "\nAUROC and p are of the half of the texts that had no part in the choice; p is corrected for {tested} neurons\n\
         and {pairs} synapses. To correlate is not to cause: --ablate tells."
    ))
}

fn row<T>(name: &str, finding: &Finding<T>) -> [String; 8] {
    let hub = if finding.rates[1] > HUB { " (hub)" } else { "" };
    [
        name.to_string(),
        format!("{:.3}", finding.held_out.auroc),
        format!("{:.3}", finding.chosen_by),
        format!("{:.1e}", finding.held_out.p),
        format!("{:.1e}", finding.adjusted),
        format!("{:+.2}", finding.effect),
        format!("{:.1} %", 100.0 * finding.rates[0]),
        format!("{:.1} %{hub}", 100.0 * finding.rates[1]),
    ]
}

fn object<T>(kind: &str, name: &str, finding: &Finding<T>) -> Value {
    json!({
        kind: name,
        "auroc": finding.held_out.auroc,
        "u": finding.held_out.u,
        "p": finding.held_out.p,
        "adjusted": finding.adjusted,
        "chosen_by": finding.chosen_by,
        "effect": finding.effect,
        "rates": finding.rates,
        "hub": finding.rates[1] > HUB,
        "positive": finding.values[0],
        "negative": finding.values[1],
    })
}
