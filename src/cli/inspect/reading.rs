//! One token's sources and synapses.

use super::Watched;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use bdh_gpu::generation::GenerationError;
use bdh_gpu::inspect::{HostWeights, Reading, Replay};
use bdh_gpu::model::NeuronName;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Prints what the token at `position` reads in every layer: the `top` largest sources, and the
/// `top` largest synapses that lead to the `top` strongest gates.
pub fn run(watched: &Watched, tokens: &[u32], position: usize, top: usize, as_json: bool) -> Result<(), Failure> {
    let Watched { bdh, forgetting, .. } = watched;
    if position >= tokens.len() {
        let last = tokens.len() - 1;
        return Err(Failure::Usage(format!("--at {position}: the text has tokens 0 to {last}")));
    }
    let mut replay = Replay::new(bdh, Arc::new(HostWeights::new(bdh.model())), *forgetting, usize::MAX);
    let mut layers = Vec::new();
    bdh.watch_text(&tokens[..=position], *forgetting, |token, _| {
        replay.read(&token, |reading| {
            if token.position as usize == position {
                layers.push(object(watched, tokens, reading, top));
            }
        });
        Ok::<_, GenerationError>(ControlFlow::Continue(()))
    })?;
    let text = bdh.decode(&[tokens[position]]);
    let mut output = Output::new();
    if as_json {
        return output.json(&json!({"position": position, "text": text, "layers": layers}));
    }
    output.line(format_args!("token {position} {text:?}"))?;
    for layer in &layers {
        output.line(format_args!("\nlayer {}: largest sources, share of what is read", layer["layer"]))?;
        for source in layer["sources"].as_array().into_iter().flatten() {
            let share = source["share"].as_f64().unwrap_or_default();
            output.line(format_args!(
                "{:8}  {:8} {:+7.1} %",
                source["position"],
                shown(&source["text"]),
                100.0 * share
            ))?;
        }
        output.line("  largest synapses, part of z, and the token that wrote most of each")?;
        for synapse in layer["synapses"].as_array().into_iter().flatten() {
            let number = |name: &str| synapse[name].as_f64().unwrap_or_default();
            let name = |end: &str| synapse[end].as_str().unwrap_or_default().to_string();
            let synapse_name = format!("{} -> {}", name("from"), name("to"));
            let source =
                format!("{} {} ({:.0} %)", synapse["source"], shown(&synapse["text"]), 100.0 * number("share"));
            output.line(format_args!(
                "  {synapse_name:18} {:+7.3} of {:+7.3}  {source}",
                number("value"),
                number("z")
            ))?;
        }
    }
    Ok(())
}

/// Text with its control characters escaped, as a token is shown.
fn shown(text: &Value) -> String {
    format!("{:?}", text.as_str().unwrap_or_default()).replace(r"\\x", r"\x")
}

fn object(watched: &Watched, tokens: &[u32], reading: &Reading, top: usize) -> Value {
    let text = |position: u32| watched.bdh.decode(&[tokens[position as usize]]);
    let name = |neuron: u32| NeuronName::of_number(neuron, &watched.bdh.model().config).to_string();
    let sources = reading.largest_sources(top);
    let sources = sources
        .iter()
        .map(|source| json!({"position": source.position, "text": text(source.position), "share": source.share}));
    let synapses = reading.largest_synapses(top, top);
    let synapses = synapses.iter().map(|synapse| {
        let (source, share) = synapse.source.unzip();
        json!({
            "from": name(synapse.from),
            "to": name(synapse.to),
            "value": synapse.value,
            "z": synapse.z,
            "source": source,
            "text": source.map(text),
            "share": share,
        })
    });
    json!({
        "layer": reading.layer,
        "sources": sources.collect::<Vec<_>>(),
        "synapses": synapses.collect::<Vec<_>>(),
    })
}
