//! What is counted as a neuron's entry, and the files of an atlas.

use super::tally::{BINS, SHARD, Sample, Shard, Tally, edges};
use super::{AtlasError, Corpus};
use crate::files::PendingFile;
use crate::generation::Bdh;
use crate::inspect::arrays::{f32s, u32s};
use crate::inspect::document::{self, EFFECTS, PageText, Shards};
use crate::inspect::effects::Readout;
use crate::inspect::weights::HostWeights;
use crate::model::forgetting::Forgetting;
use crate::model::{Config, NeuronName};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

/// Random firings that are shown; the others of the sample are for the quantiles.
const SHOWN_RANDOM: usize = 6;
/// Firings that are shown for their quantile.
const SHOWN_QUANTILES: usize = 8;
/// Tokens that a neuron fires on most.
const TOKENS: usize = 8;
/// Neurons that it fires with most.
const PARTNERS: usize = 6;

/// A number to four digits behind the point: 16-bit floats have no more.
fn short(number: f32) -> f64 {
    (f64::from(number) * 1e4).round() / 1e4
}

/// Writes the atlas of what has been counted.
pub(super) fn write(
    bdh: &Bdh,
    corpus: &Corpus,
    forgetting: Forgetting,
    text: &PageText,
    tally: &Tally,
    folder: &Path,
) -> Result<(), AtlasError> {
    let (weights, readout) = (HostWeights::new(bdh.model()), Readout::new(bdh.model()));
    let texts: BTreeMap<u32, String> =
        (0..tally.sizes.vocab as u32).map(|token| (token, bdh.decode(&[token]))).collect();
    let maker = Maker { config: &bdh.model().config, corpus, tally, weights, readout, texts };
    let shards: Vec<Vec<(String, Value)>> =
        (0..tally.shards.len()).into_par_iter().map(|shard| maker.shard(shard)).collect();
    let path = folder.join("shards");
    std::fs::create_dir_all(&path).map_err(|error| AtlasError::File { path: path.clone(), error })?;
    let mut lines = Vec::new();
    for (index, entries) in shards.iter().enumerate() {
        for (name, entry) in entries {
            let mut line = json!({"neuron": name});
            if let (Value::Object(line), Value::Object(entry)) = (&mut line, entry) {
                line.extend(entry.clone());
            }
            lines.extend(format!("{line}\n").bytes());
        }
        let entries: Map<String, Value> = entries.iter().cloned().collect();
        let data = BASE64_STANDARD.encode(Value::Object(entries).to_string());
        put(&path.join(format!("{index:04}.js")), format!("bdhShard({index}, \"{data}\");\n").as_bytes())?;
    }
    put(&folder.join("neurons.jsonl"), &lines)?;
    let mut data = document::heading("atlas", bdh, forgetting, text);
    data["corpus"] = json!({"name": corpus.name, "tokens": corpus.tokens.len(), "segment": corpus.segment});
    data["shard"] = json!(SHARD);
    let mut named = BTreeSet::new();
    data["neurons"] = maker.index(&mut named);
    data["token_texts"] = document::token_texts(bdh, &named);
    put(&folder.join("index.html"), document::html(&data, Shards::Beside).as_bytes())
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), AtlasError> {
    let write = || {
        let mut file = PendingFile::create(path)?;
        file.write_all(bytes)?;
        file.commit()
    };
    write().map_err(|error| AtlasError::File { path: path.to_owned(), error })
}

struct Maker<'a> {
    config: &'a Config,
    corpus: &'a Corpus<'a>,
    tally: &'a Tally,
    weights: HostWeights,
    readout: Readout,
    texts: BTreeMap<u32, String>,
}

impl Maker<'_> {
    /// The entries of a shard, by name.
    fn shard(&self, shard: usize) -> Vec<(String, Value)> {
        let neurons = shard * SHARD..((shard + 1) * SHARD).min(self.tally.sizes.neurons);
        neurons.map(|neuron| (self.name(neuron as u32), self.entry(neuron))).collect()
    }

    fn name(&self, neuron: u32) -> String {
        NeuronName::of_number(neuron, self.config).to_string()
    }

    fn entry(&self, neuron: usize) -> Value {
        let (shard, own) = (&self.tally.shards[neuron / SHARD], neuron % SHARD);
        let layers = self.tally.sizes.layers;
        let fired = &shard.fired[own * layers..][..layers];
        let total: u64 = fired.iter().sum();
        let effects = self.readout.effects(self.weights.decoder(neuron as u32), EFFECTS);
        let histogram = &shard.histogram[own * BINS..][..BINS];
        let partners = self.tally.partners(neuron, PARTNERS);
        let partners = partners.iter().map(|(other, phi)| json!({"neuron": self.name(*other), "correlation": phi}));
        json!({
            "fired": fired,
            "open": shard.open[own * layers..][..layers],
            "mean": shard.sum[own] / total.max(1) as f64,
            "max": shard.max_u[own],
            "max_g": shard.max_g[own],
            "histogram": {"edges": edges(), "counts": histogram},
            "contexts": self.contexts(shard, own),
            "tokens": self.tokens(shard, own, total),
            "effects": {"plus": effects.plus, "minus": effects.minus},
            "partners": partners.collect::<Vec<_>>(),
        })
    }

    /// The strongest firings, some of every quantile of a random sample, and random ones.
    fn contexts(&self, shard: &Shard, own: usize) -> Vec<Value> {
        let mut contexts: Vec<Value> = shard.top(own).iter().map(|sample| self.context(sample, "top", None)).collect();
        let mut sample = shard.random(own);
        let shown = sample.split_off(SHOWN_RANDOM.min(sample.len()));
        let random = std::mem::replace(&mut sample, shown);
        sample.sort_by(|a, b| b.u.total_cmp(&a.u));
        let count = SHOWN_QUANTILES.min(sample.len());
        for at in 0..count {
            let index = (2 * at + 1) * sample.len() / (2 * count);
            let quantile = 1.0 - (index as f64 + 0.5) / sample.len() as f64;
            contexts.push(self.context(&sample[index], "quantile", Some(quantile)));
        }
        contexts.extend(random.iter().map(|sample| self.context(sample, "random", None)));
        contexts
    }

    fn context(&self, sample: &Sample, kind: &str, quantile: Option<f64>) -> Value {
        let around = self.tally.sizes.around(sample.token);
        let tokens = &self.corpus.tokens[around.start as usize..around.end as usize];
        let texts: Vec<&str> = tokens.iter().map(|token| self.texts[token].as_str()).collect();
        let mut context = json!({
            "kind": kind,
            "offset": sample.token,
            "layer": sample.layer,
            "u": short(sample.u),
            "g": short(sample.g),
            "tokens": tokens,
            "texts": texts,
            "at": sample.token - around.start,
            "values": around.map(|token| short(sample.value(token))).collect::<Vec<_>>(),
        });
        if let Some(quantile) = quantile {
            context["quantile"] = json!(quantile);
        }
        context
    }

    /// The tokens that a neuron fires on most.
    fn tokens(&self, shard: &Shard, own: usize, total: u64) -> Vec<Value> {
        let (vocab, layers) = (self.tally.sizes.vocab, self.tally.sizes.layers as u64);
        let Some(counts) = shard.by_token.get(own * vocab..(own + 1) * vocab) else { return Vec::new() };
        let mut order: Vec<usize> = (0..vocab).filter(|token| counts[*token] > 0).collect();
        order.sort_by_key(|token| std::cmp::Reverse(counts[*token]));
        let entry = |token: &usize| {
            let count = f64::from(counts[*token]);
            json!({
                "token": token,
                "text": self.texts[&(*token as u32)],
                "rate": count / (self.tally.occurrences[*token] * layers).max(1) as f64,
                "share": count / total.max(1) as f64,
                "mean": shard.token_sum[own * vocab + token] / count,
            })
        };
        order.iter().take(TOKENS).map(entry).collect()
    }

    /// The table of all neurons.
    fn index(&self, named: &mut BTreeSet<u32>) -> Value {
        let (layers, neurons, vocab) = (self.tally.sizes.layers, self.tally.sizes.neurons, self.tally.sizes.vocab);
        let mut fired = vec![0_u32; layers * neurons];
        let [mut mean, mut max, mut rate, mut share] = [(); 4].map(|()| Vec::with_capacity(neurons));
        let mut top = Vec::with_capacity(neurons);
        for neuron in 0..neurons {
            let (shard, own) = (&self.tally.shards[neuron / SHARD], neuron % SHARD);
            let counts = &shard.fired[own * layers..][..layers];
            let total: u64 = counts.iter().sum();
            for (layer, count) in counts.iter().enumerate() {
                fired[layer * neurons + neuron] = u32::try_from(*count).unwrap_or(u32::MAX);
            }
            mean.push((shard.sum[own] / total.max(1) as f64) as f32);
            max.push(shard.max_u[own]);
            rate.push((total as f64 / (self.tally.tokens * layers as u64).max(1) as f64) as f32);
            let by_token = shard.by_token.get(own * vocab..(own + 1) * vocab).unwrap_or_default();
            let most = by_token.iter().enumerate().max_by_key(|(token, count)| (**count, std::cmp::Reverse(*token)));
            let (token, count) = most.filter(|(_, count)| **count > 0).map_or((u32::MAX, 0), |(t, c)| (t as u32, *c));
            named.extend(Some(token).filter(|token| *token != u32::MAX));
            top.push(token);
            share.push((f64::from(count) / total.max(1) as f64) as f32);
        }
        json!({
            "fired": u32s(&[layers, neurons], &fired),
            "mean": f32s(&[neurons], &mean),
            "max": f32s(&[neurons], &max),
            "rate": f32s(&[neurons], &rate),
            "top_token": u32s(&[neurons], &top),
            "top_token_share": f32s(&[neurons], &share),
        })
    }
}
