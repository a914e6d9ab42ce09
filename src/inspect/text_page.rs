//! The data of a text's page: one JSON object, whose format is described in `docs/inspector.md`.

use super::arrays::{f16s, f32s, u8s, u32s};
use super::document::{self, PageText, Shards};
use super::replay::{Reading, Replay, Synapse};
use super::series::Series;
use super::trace::Expectation;
use super::weights::HostWeights;
use crate::backend::watch::strongest;
use crate::generation::{Bdh, GenerationError, TokenTrace};
use crate::model::forgetting::Forgetting;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

/// No token, no neuron.
pub(super) const NONE: u32 = u32::MAX;
/// Neurons named for each token and layer.
const TOP: usize = 16;
/// Most likely next tokens.
const NEXT: usize = 3;
/// Past tokens named for each token and layer.
const SOURCES: usize = 8;
/// Synapses named for each token and layer, and the strongest gates that they lead to.
const SYNAPSES: usize = 4;
const TARGETS: usize = 3;
/// Past tokens that are looked through for sources. Forgetting leaves little of older ones, memory
/// is bounded, and time too: every token streams what these have written from memory.
const MEMORY: usize = 512;
/// Times at which the state is drawn, at most.
const TIMES: usize = 24;
/// Cells of a drawing of the state.
const ROWS: usize = 64;
const COLUMNS: usize = 32;

/// Numbers of a text's tokens, row by row.
#[derive(Default)]
struct TextPage {
    surprise: Vec<f32>,
    next: Vec<(u32, f32)>,
    /// Of u and of g: how many, their sum, and the largest of each layer.
    counts: [Vec<u32>; 2],
    sums: [Vec<f32>; 2],
    maxima: [Vec<f32>; 2],
    top: Vec<[f32; 2]>,
    top_neurons: Vec<u32>,
    sources: Vec<(u32, f32)>,
    rest: Vec<f32>,
    synapses: Vec<Synapse>,
    times: Vec<u32>,
    cells: Vec<u8>,
    cell_maxima: Vec<f32>,
    /// How often each neuron has fired, and the sum of its gates while it was among the strongest.
    fired: Vec<usize>,
    weight: Vec<f32>,
}

const NO_SYNAPSE: Synapse = Synapse { from: NONE, to: NONE, value: 0.0, z: 0.0, source: None };

/// Reads a text and makes its page, a document for a browser. `progress` hears how many of 2 · T
/// tokens are done: which neurons to list in full is known after the first reading only. It may end
/// the work; the page is then of no use.
///
/// # Errors
/// As [`Bdh::watch_text`].
pub fn text_page(
    bdh: &Bdh,
    tokens: &[u32],
    forgetting: Forgetting,
    text: &PageText,
    progress: impl FnMut(usize) -> ControlFlow<()>,
) -> Result<String, GenerationError> {
    Ok(document::html(&text_data(bdh, tokens, forgetting, text, progress)?, Shards::None))
}

/// The data of [`text_page`].
///
/// # Errors
/// See there.
pub fn text_data(
    bdh: &Bdh,
    tokens: &[u32],
    forgetting: Forgetting,
    text: &PageText,
    mut progress: impl FnMut(usize) -> ControlFlow<()>,
) -> Result<Value, GenerationError> {
    let weights = Arc::new(HostWeights::new(bdh.model()));
    let (layers, neurons) = (weights.layers, weights.heads * weights.neurons);
    let mut page = TextPage {
        fired: vec![0; neurons],
        weight: vec![0.0; neurons],
        maxima: [vec![0.0; layers], vec![0.0; layers]],
        ..TextPage::default()
    };
    let mut replay = Replay::new(bdh, weights.clone(), forgetting, MEMORY);
    let mut expected = Expectation::default();
    let mut read = 0;
    bdh.watch_text(tokens, forgetting, |token, logits| {
        page.surprise.push(expected.surprise(token.token));
        expected = Expectation::of(logits);
        page.next.extend(padded(expected.most_likely(NEXT), NEXT, (NONE, 0.0)));
        page.count(&token);
        replay.read(&token, |reading| page.read(reading));
        read += 1;
        if is_drawn(read, tokens.len()) {
            page.draw(&weights, &replay, read as u32);
        }
        Ok::<_, GenerationError>(progress(read))
    })?;
    drop(replay);
    let mut series = Series::choose(&page.fired, &page.weight, layers);
    bdh.watch_text(tokens, forgetting, |token, _| {
        series.push(&token);
        read += 1;
        Ok::<_, GenerationError>(progress(read))
    })?;
    let mut data = document::heading("trace", bdh, forgetting, text);
    data["series"] = series.json();
    let mut named: BTreeSet<u32> = page.next.iter().map(|(token, _)| *token).filter(|token| *token != NONE).collect();
    data["effects"] = document::effects(bdh, &weights, series.neurons(), &mut named);
    document::put_text(&mut data, bdh, tokens, named);
    page.put(&mut data, &weights, tokens.len());
    Ok(data)
}

/// The times at which the state is drawn: after the first token, after the last, and evenly
/// between.
fn is_drawn(read: usize, tokens: usize) -> bool {
    let times = TIMES.min(tokens);
    read == tokens || (read * times / tokens) > ((read - 1) * times / tokens)
}

/// Exactly `count` entries.
fn padded<T: Clone>(mut entries: Vec<T>, count: usize, none: T) -> Vec<T> {
    entries.resize(count, none);
    entries
}

impl TextPage {
    /// Takes in a token's neurons.
    fn count(&mut self, token: &TokenTrace) {
        for (layer, fired) in token.neurons.iter().enumerate() {
            let open = fired.open();
            for (kind, (values, count)) in [(&fired.u, fired.len()), (&fired.g, open)].into_iter().enumerate() {
                self.counts[kind].push(count as u32);
                self.sums[kind].push(values.iter().sum());
                let highest = &mut self.maxima[kind][layer];
                *highest = values.iter().copied().fold(*highest, f32::max);
            }
            fired.neurons.iter().for_each(|&neuron| self.fired[neuron as usize] += 1);
            let top = strongest(fired, TOP);
            top.iter().for_each(|firing| self.weight[firing.neuron as usize] += firing.g);
            self.top_neurons.extend(padded(top.iter().map(|firing| firing.neuron).collect(), TOP, NONE));
            self.top.extend(padded(top.iter().map(|firing| [firing.u, firing.g]).collect(), TOP, [0.0; 2]));
        }
    }

    /// Takes in what a token reads in a layer.
    fn read(&mut self, reading: &Reading) {
        let sources = reading.largest_sources(SOURCES);
        let named: f32 = sources.iter().map(|source| source.share).sum();
        // Nothing is read before there is a past.
        self.rest.push(if reading.y.iter().all(|y| *y == 0.0) { 0.0 } else { 1.0 - named });
        let named = sources.iter().map(|source| (source.position, source.share)).collect();
        self.sources.extend(padded(named, SOURCES, (NONE, 0.0)));

        let found = reading.largest_synapses(TARGETS, SYNAPSES);
        self.synapses.extend(padded(found, SYNAPSES, NO_SYNAPSE));
    }

    /// Draws the state: the longest part of a pair's rows in each block of pairs and dimensions.
    fn draw(&mut self, weights: &HostWeights, replay: &Replay, time: u32) {
        let (width, pairs) = (weights.width, weights.neurons / 2);
        let [rows, columns, pairs_per_row, per_column] = cells(weights);
        self.times.push(time);
        for layer in 0..weights.layers {
            let (state, scale) = replay.state(layer);
            for head in state.chunks_exact(weights.neurons * width) {
                let mut cells = vec![0.0_f32; rows * columns];
                for pair in 0..pairs {
                    let (a, b) = head[2 * pair * width..][..2 * width].split_at(width);
                    for (dimension, (a, b)) in a.iter().zip(b).enumerate() {
                        let cell = &mut cells[pair / pairs_per_row * columns + dimension / per_column];
                        *cell = cell.max(scale * a.hypot(*b));
                    }
                }
                let highest = cells.iter().copied().fold(0.0, f32::max);
                let shade = |cell: &f32| (255.0 * cell / highest.max(f32::MIN_POSITIVE)).round() as u8;
                self.cells.extend(cells.iter().map(shade));
                self.cell_maxima.push(highest);
            }
        }
    }

    /// Puts everything into the data.
    fn put(self, data: &mut Value, weights: &HostWeights, tokens: usize) {
        let layers = weights.layers;
        let grid = [tokens, layers];
        let [u_counts, g_counts] = &self.counts;
        let [u_sums, g_sums] = &self.sums;
        let [u_maxima, g_maxima] = &self.maxima;
        let column = |values: &[[f32; 2]], at: usize| values.iter().map(|pair| pair[at]).collect::<Vec<_>>();
        let (next_ids, next_probabilities): (Vec<u32>, Vec<f32>) = self.next.into_iter().unzip();
        data["surprise"] = f32s(&[tokens], &self.surprise);
        data["next"] = json!({
            "k": NEXT,
            "ids": u32s(&[tokens, NEXT], &next_ids),
            "probabilities": f32s(&[tokens, NEXT], &next_probabilities),
        });
        data["counts"] = json!({"u": u32s(&grid, u_counts), "g": u32s(&grid, g_counts)});
        data["sums"] = json!({"u": f32s(&grid, u_sums), "g": f32s(&grid, g_sums)});
        data["maxima"] = json!({"u": f32s(&[layers], u_maxima), "g": f32s(&[layers], g_maxima)});
        let shape = [tokens, layers, TOP];
        data["top"] = json!({
            "k": TOP,
            "neurons": u32s(&shape, &self.top_neurons),
            "u": f16s(&shape, &column(&self.top, 0)),
            "g": f16s(&shape, &column(&self.top, 1)),
        });
        let shape = [tokens, layers, SOURCES];
        let (positions, shares): (Vec<u32>, Vec<f32>) = self.sources.into_iter().unzip();
        data["sources"] = json!({
            "k": SOURCES,
            "tokens": u32s(&shape, &positions),
            "shares": f32s(&shape, &shares),
            "rest": f32s(&grid, &self.rest),
        });
        let shape = [tokens, layers, SYNAPSES];
        let names = |name: fn(&Synapse) -> u32| u32s(&shape, &self.synapses.iter().map(name).collect::<Vec<_>>());
        let values = |value: fn(&Synapse) -> f32| f32s(&shape, &self.synapses.iter().map(value).collect::<Vec<_>>());
        data["synapses"] = json!({
            "k": SYNAPSES,
            "from": names(|synapse| synapse.from),
            "to": names(|synapse| synapse.to),
            "values": values(|synapse| synapse.value),
            "z": values(|synapse| synapse.z),
            "sources": names(|synapse| synapse.source.map_or(NONE, |(position, _)| position)),
            "source_shares": values(|synapse| synapse.source.map_or(0.0, |(_, share)| share)),
        });
        let [rows, columns, pairs_per_row, per_column] = cells(weights);
        let times = self.times.len();
        data["state"] = json!({
            "rows": rows,
            "columns": columns,
            "times": u32s(&[times], &self.times),
            "cells": u8s(&[times, layers, weights.heads, rows, columns], &self.cells),
            "maxima": f32s(&[times, layers, weights.heads], &self.cell_maxima),
            "neurons_per_row": 2 * pairs_per_row,
            "dimensions_per_column": per_column,
        });
    }
}

/// Rows and columns of a drawing of the state, pairs in a row, dimensions in a column.
fn cells(weights: &HostWeights) -> [usize; 4] {
    let (pairs, width) = (weights.neurons / 2, weights.width);
    let (per_row, per_column) = (pairs.div_ceil(ROWS), width.div_ceil(COLUMNS));
    [pairs.div_ceil(per_row), width.div_ceil(per_column), per_row, per_column]
}
