//! Counts turned into entries of neurons, and the files of an atlas.

use super::tally::{BINS, SHARD, Sample, Shard, Tally, edges};
use super::{AtlasError, Corpus};
use crate::files::{self, PendingFile};
use crate::generation::Bdh;
use crate::inspect::arrays::{f32s, u32s};
use crate::inspect::document::{self, EFFECTS, PageText, Shards};
use crate::inspect::effects::{Effects, Readout};
use crate::inspect::weights::HostWeights;
use crate::model::NeuronName;
use crate::model::forgetting::Forgetting;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use rayon::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::Path;

/// Random firings that are shown; the others of the sample are for the quantiles.
const SHOWN_RANDOM: usize = 6;
/// Firings that are shown for their quantile.
const SHOWN_QUANTILES: usize = 8;
/// Tokens that a neuron fires on most.
const TOKENS: usize = 8;
/// Neurons that it fires with most.
const PARTNERS: usize = 6;

/// Shards whose entries are in memory together.
const SHARDS_AT_ONCE: usize = 16;

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
    let maker = Maker { bdh, corpus, tally, weights, readout };
    let (path, at) = (folder.join("shards"), folder.join("neurons.jsonl"));
    std::fs::create_dir_all(&path).map_err(|error| AtlasError::File { path: path.clone(), error })?;
    let mut named: BTreeSet<u32> = BTreeSet::new();
    let failed = |error| AtlasError::File { path: at.clone(), error };
    let mut lines = PendingFile::create(&at).map_err(failed)?;
    // Entries of a few shards at a time: those of a large model would not fit into memory together.
    let count = tally.shards.len();
    for first in (0..count).step_by(SHARDS_AT_ONCE) {
        let some = first..(first + SHARDS_AT_ONCE).min(count);
        let made: Result<Vec<Made>, AtlasError> = some.into_par_iter().map(|shard| maker.make(shard, &path)).collect();
        for made in made? {
            lines.write_all(made.lines.as_bytes()).map_err(failed)?;
            named.extend(made.named);
        }
    }
    lines.commit().map_err(failed)?;
    let mut data = document::heading("atlas", bdh, forgetting, text);
    data["corpus"] = json!({"name": corpus.name, "tokens": corpus.tokens.len(), "segment": corpus.segment});
    data["shard"] = json!(SHARD);
    data["neurons"] = maker.index();
    named.extend(tally.occurrences.iter().zip(0..).filter(|(count, _)| **count > 0).map(|(_, token)| token));
    data["token_texts"] = document::token_texts(bdh, &named);
    put(&folder.join("index.html"), document::html(&data, Shards::Beside).as_bytes())
}

/// Entries are much alike: packed, they take a sixth.
fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(bytes)?;
    packed.finish()
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), AtlasError> {
    files::write(path, bytes).map_err(|error| AtlasError::File { path: path.to_owned(), error })
}

/// A shard that has been written.
struct Made {
    /// Its entries, a line each.
    lines: String,
    /// Tokens that its neurons' effects name.
    named: BTreeSet<u32>,
}

struct Maker<'a> {
    bdh: &'a Bdh,
    corpus: &'a Corpus<'a>,
    tally: &'a Tally,
    weights: HostWeights,
    readout: Readout,
}

impl Maker<'_> {
    /// Writes the file of a shard into a folder.
    fn make(&self, shard: usize, folder: &Path) -> Result<Made, AtlasError> {
        let mut made = Made { lines: String::new(), named: BTreeSet::new() };
        let mut entries = String::new();
        for neuron in shard * SHARD..((shard + 1) * SHARD).min(self.tally.sizes.neurons) {
            let effects = self.readout.effects(self.weights.decoder(neuron as u32), EFFECTS);
            made.named.extend(effects.plus.iter().chain(&effects.minus).map(|(token, _)| *token));
            let name = Value::String(self.name(neuron as u32));
            let entry = self.entry(neuron, &effects).to_string();
            // The same object, with its name as the first field.
            made.lines += &format!("{{\"neuron\":{name},{}\n", &entry[1..]);
            entries += &format!("{}{name}:{entry}", if entries.is_empty() { '{' } else { ',' });
        }
        let path = folder.join(format!("{shard:04}.js"));
        let packed =
            gzip((entries + "}").as_bytes()).map_err(|error| AtlasError::File { path: path.clone(), error })?;
        put(&path, format!("bdhShard({shard}, \"{}\");\n", BASE64_STANDARD.encode(packed)).as_bytes())?;
        Ok(made)
    }

    fn name(&self, neuron: u32) -> String {
        NeuronName::of_number(neuron, &self.bdh.model().config).to_string()
    }

    fn entry(&self, neuron: usize, effects: &Effects) -> Value {
        let (shard, own) = (&self.tally.shards[neuron / SHARD], neuron % SHARD);
        let layers = self.tally.sizes.layers;
        let fired = &shard.fired[own * layers..][..layers];
        let total: u64 = fired.iter().sum();
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
        let mut context = json!({
            "kind": kind,
            "offset": sample.token,
            "layer": sample.layer,
            "u": short(sample.u),
            "g": short(sample.g),
            "text": self.bdh.decode(tokens),
            "tokens": tokens,
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
        let layers = self.tally.sizes.layers as u64;
        let counts = shard.by_token(own);
        let mut order: Vec<usize> = (0..counts.len()).filter(|token| counts[*token].0 > 0).collect();
        order.sort_by_key(|token| std::cmp::Reverse(counts[*token].0));
        let entry = |token: &usize| {
            let (count, sum) = counts[*token];
            let count = f64::from(count);
            json!({
                "token": token,
                "text": self.bdh.decode(&[*token as u32]),
                "rate": count / (self.tally.occurrences[*token] * layers).max(1) as f64,
                "share": count / total.max(1) as f64,
                "mean": sum / count,
            })
        };
        order.iter().take(TOKENS).map(entry).collect()
    }

    /// The table of all neurons.
    fn index(&self) -> Value {
        let (layers, neurons) = (self.tally.sizes.layers, self.tally.sizes.neurons);
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
            let by_token = shard.by_token(own);
            let counts = by_token.iter().map(|(count, _)| *count).zip(0..);
            let most = counts.max_by_key(|(count, token)| (*count, std::cmp::Reverse(*token)));
            let (count, token) = most.filter(|(count, _)| *count > 0).unwrap_or((0, u32::MAX));
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
