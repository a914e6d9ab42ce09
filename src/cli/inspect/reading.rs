//! One token's sources and synapses.

use super::Watched;
use super::rows::quoted;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use bdh_gpu::generation::GenerationError;
use bdh_gpu::inspect::{HostWeights, Replay, Source, Synapse};
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
    let mut layers: Vec<(Vec<Source>, Vec<Synapse>)> = Vec::new();
    bdh.watch_text(&tokens[..=position], *forgetting, |token, _| {
        replay.read(&token, |reading| {
            if token.position as usize == position {
                layers.push((reading.largest_sources(top), reading.largest_synapses(top, top)));
            }
        });
        Ok::<_, GenerationError>(ControlFlow::Continue(()))
    })?;
    let text = |position: u32| bdh.decode(&[tokens[position as usize]]);
    let name = |neuron: u32| NeuronName::of_number(neuron, &bdh.model().config).to_string();
    let mut output = Output::new();
    if as_json {
        let source = |source: &Source| json!({"position": source.position, "text": text(source.position), "share": source.share});
        let synapse = |Synapse { from, to, value, z, source }: &Synapse| {
            let (source, share) = source.unzip();
            let (from, to, text) = (name(*from), name(*to), source.map(text));
            json!({"from": from, "to": to, "value": value, "z": z, "source": source, "text": text, "share": share})
        };
        let layer = |(layer, (sources, synapses)): (usize, &(Vec<Source>, Vec<Synapse>))| {
            json!({
                "layer": layer,
                "sources": sources.iter().map(source).collect::<Vec<_>>(),
                "synapses": synapses.iter().map(synapse).collect::<Vec<_>>(),
            })
        };
        let layers: Vec<Value> = layers.iter().enumerate().map(layer).collect();
        return output.json(&json!({"position": position, "text": text(position as u32), "layers": layers}));
    }
    output.line(format_args!("token {position} {}", quoted(&text(position as u32))))?;
    for (layer, (sources, synapses)) in layers.iter().enumerate() {
        output.line(format_args!("\nlayer {layer}: largest sources, share of what is read"))?;
        for Source { position, share, .. } in sources {
            output.line(format_args!("{position:8}  {:8} {:+7.1} %", quoted(&text(*position)), 100.0 * share))?;
        }
        output.line("  largest synapses, part of z, and the token that wrote most of each")?;
        for Synapse { from, to, value, z, source } in synapses {
            let source = source.map_or(String::new(), |(position, share)| {
                format!("{position} {} ({:.0} %)", quoted(&text(position)), 100.0 * share)
            });
            let synapse = format!("{} -> {}", name(*from), name(*to));
            output.line(format_args!("  {synapse:18} {value:+7.3} of {z:+7.3}  {source}"))?;
        }
    }
    Ok(())
}
