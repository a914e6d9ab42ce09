//! A chunk, layer by layer.
//!
//! Every layer is a phase of two tasks per unit: *attend* and *project*. Between two phases one
//! thread adds the shares up and prepares what all units of the next layer read.

use super::attend::Attend;
use super::layout::{CopyPanels, padded_tokens};
use super::product::{GroupTokens, Product};
use super::project::Project;
use super::read_write::{ReadWrite, Score};
use super::rotate::Phases;
use super::{ChunkStream, Prefill, ThreadMemory, UnitAttention};
use crate::backend::Chunk;
use crate::backend::cpu::decode::embed::{Embed, Finish};
use crate::backend::cpu::exchange::{read, write};
use crate::backend::cpu::gather::Accumulate;
use crate::backend::cpu::norm::LayerNorm;
use crate::backend::cpu::past::Past;
use crate::backend::cpu::share::LayerPart;
use crate::backend::cpu::state::on_rows;
use crate::backend::cpu::team::{Claims, Task, Team, Work};
use crate::backend::cpu::watch::Seen;
use crate::backend::cpu::weights::{TILE, Weight, Weights};
use crate::backend::cpu::{Shared, lock};
use crate::backend::watch::unscale;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A chunk's run.
pub(super) struct Run<'a, E: Weight> {
    prefill: &'a Prefill,
    shared: &'a Shared,
    weights: &'a Weights<E>,
    chunk: &'a Chunk,
    /// Each unit's part of the memory, `[units][layers]`.
    parts: &'a [Mutex<Vec<LayerPart<'a>>>],
    team: &'a Team,
    /// `[T][V]`
    logits: &'a Mutex<Vec<f32>>,
    /// The sequence's sliding window.
    past: Option<&'a Mutex<&'a mut Past>>,
    /// Phases begun: the layers, then the logits.
    begun: AtomicUsize,
}

impl<'a, E: Weight> Run<'a, E> {
    /// A run that has not begun.
    #[expect(clippy::too_many_arguments, reason = "a run's parts, one by one")]
    pub fn new(
        prefill: &'a Prefill,
        shared: &'a Shared,
        weights: &'a Weights<E>,
        chunk: &'a Chunk,
        parts: &'a [Mutex<Vec<LayerPart<'a>>>],
        team: &'a Team,
        logits: &'a Mutex<Vec<f32>>,
        past: Option<&'a Mutex<&'a mut Past>>,
    ) -> Self {
        Self { prefill, shared, weights, chunk, parts, team, logits, past, begun: AtomicUsize::new(0) }
    }

    /// The layer in progress; none if it is the logits.
    fn layer(&self) -> Option<usize> {
        let layer = self.begun.load(Ordering::Relaxed).saturating_sub(1);
        (layer < self.shared.model.geometry.layers).then_some(layer)
    }

    /// A queue's range of `total` units or tiles.
    fn share(&self, queue: usize, total: usize) -> Range<usize> {
        let threads = self.team.threads();
        total * queue / threads..total * (queue + 1) / threads
    }

    /// A layer's task: its unit, and whether it projects.
    fn unit(&self, task: Task) -> (usize, bool) {
        let own = self.share(task.queue, self.prefill.units.len());
        match task.index.checked_sub(own.len()) {
            None => (own.start + task.index, false),
            Some(index) => (own.start + index, true),
        }
    }

    /// Tiles of the LM head.
    fn tiles(&self) -> usize {
        self.shared.model.geometry.vocab.div_ceil(TILE)
    }

    /// The chunk's embeddings and phases.
    fn embed(&self, stream: &mut ChunkStream) {
        let (g, level, chunk) = (&self.shared.model.geometry, self.shared.level, self.chunk);
        for (token, x) in chunk.tokens.iter().zip(stream.x.chunks_exact_mut(g.row)) {
            let embedding = &self.weights.embed[token.token as usize * g.row..][..g.row];
            level.run(Embed { embedding, width: g.width, x });
        }
        let [cosines, sines] = &mut stream.phases;
        let size = chunk.tokens.len() * g.padded_neurons();
        let tables = [&mut cosines[..size], &mut sines[..size]];
        level.run(Phases { turns: &self.shared.model.turns, position: chunk.position, tables });
    }

    /// The residual stream in the orders that a layer's units read.
    fn arrange(&self, stream: &mut ChunkStream) {
        let g = &self.shared.model.geometry;
        let rows = stream.x.chunks_exact(g.row).zip(stream.scaled_x.chunks_exact_mut(g.row));
        for (token, (x, to)) in self.chunk.tokens.iter().zip(rows) {
            to.iter_mut().zip(x).for_each(|(to, x)| *to = x * token.write_scale);
        }
        let size = self.chunk.tokens.len() * g.row;
        let (from, to) = (&stream.scaled_x[..size], &mut stream.panels[..size]);
        self.shared.level.run(CopyPanels { from, to, row: g.row, into_panels: true });
    }

    /// Notes the residual stream for a sliding window.
    fn remember(&self, stream: &ChunkStream, layer: usize) {
        let Some(past) = self.past else { return };
        let mut past = lock(past);
        let rows = stream.x.chunks_exact(self.shared.model.geometry.row);
        for ((_, x), position) in self.chunk.tokens.iter().zip(rows).zip(self.chunk.position..) {
            past.pass(layer, position, x);
        }
    }

    /// Computes `stream.groups` from `stream.x`.
    fn group_tokens(&self, stream: &mut ChunkStream) {
        let g = &self.shared.model.geometry;
        let x = &stream.x[..self.chunk.tokens.len() * g.row];
        self.shared.level.run(GroupTokens { x, row: g.row, width: g.width, to: &mut stream.groups });
    }

    /// A unit's activations, its share of the attention, and its rows of the state.
    fn read_write(&self, stream: &ChunkStream, own: &mut ThreadMemory, index: usize, layer: usize) {
        let (g, level) = (&self.shared.model.geometry, self.shared.level);
        let tokens = self.chunk.tokens.len();
        let unit = &self.prefill.units[index];
        let UnitAttention { outputs: attention, scores } = &mut *write(&self.prefill.outputs[index].attention);
        let attention = &mut attention[..tokens * g.row];
        let scores = &mut scores[..tokens * padded_tokens(tokens)];
        attention.fill(0.0);
        scores.fill(0.0);
        let u = &mut lock(&self.prefill.activations[index])[..];
        let part = &mut lock(&self.parts[index])[layer];
        if let Some(factor) = self.chunk.rescale {
            part.state.rescale(factor);
        }
        let stride = unit.blocks.len() * g.block;
        for (local, block) in unit.blocks.clone().enumerate() {
            let scales = self.weights.encoder.scales(g.neurons_of(block));
            let biases = self.weights.biases(g.neurons_of(block));
            let tiles = &self.weights.encoder.numbers[block * g.block * g.width..][..g.block * g.width];
            for (tile_index, tile) in tiles.chunks_exact(g.width * TILE).enumerate() {
                level.run(Product {
                    tile,
                    scales: scales.get(tile_index * TILE..).unwrap_or_default(),
                    biases: biases.get(tile_index * TILE..).unwrap_or_default(),
                    x: &stream.groups,
                    tokens,
                    out: &mut u[local * g.block + tile_index * TILE..],
                    stride,
                    relu: true,
                    weights: &mut own.tile,
                });
            }
            let first = block % g.blocks_per_head * g.block;
            level.run(Score {
                u: &u[local * g.block..],
                stride,
                phases: [&stream.phases[0][first..], &stream.phases[1][first..]],
                phase_stride: g.padded_neurons(),
                block: g.block,
                tokens,
                scores,
                scratch: &mut own.read_write,
            });
            on_rows!(part.state.part(local * g.block, g.block, g.row), state => level.run(ReadWrite {
                scaled_x: &stream.panels[..tokens * g.row],
                state,
                row: g.row,
                attention,
                scratch: &mut own.read_write,
            }));
        }
    }

    /// A head's attention output after its layer norm, into `own.y`.
    fn attend(&self, stream: &ChunkStream, own: &mut ThreadMemory, head: usize) {
        let (g, level) = (&self.shared.model.geometry, self.shared.level);
        let tokens = self.chunk.tokens.len();
        let panels = &mut own.panels[..tokens * g.row];
        panels.fill(0.0);
        let mut scores = vec![0.0; tokens * padded_tokens(tokens)];
        for (unit, output) in self.prefill.units.iter().zip(&self.prefill.outputs).filter(|(unit, _)| unit.head == head)
        {
            debug_assert!(!unit.blocks.is_empty());
            let output = read(&output.attention);
            level.run(Accumulate { to: panels, from: &output.outputs[..tokens * g.row] });
            let size = scores.len();
            level.run(Accumulate { to: &mut scores, from: &output.scores[..size] });
        }
        let y = &mut own.y[..tokens * g.row];
        level.run(CopyPanels { from: panels, to: y, row: g.row, into_panels: false });
        let read_scales: Vec<f32> = self.chunk.tokens.iter().map(|token| token.read_scale).collect();
        level.run(Attend {
            scores: &scores,
            scaled_x: &stream.scaled_x,
            read_scales: &read_scales,
            y,
            list: &mut own.list,
        });
        y.chunks_exact_mut(g.row).for_each(|v| level.run(LayerNorm { v, width: g.width }));
    }

    /// A unit's gates and its share of the decoder output.
    fn project(&self, own: &mut ThreadMemory, index: usize, layer: usize) {
        let (g, level) = (&self.shared.model.geometry, self.shared.level);
        let tokens = self.chunk.tokens.len();
        let unit = &self.prefill.units[index];
        let update = &mut write(&self.prefill.outputs[index].update)[..tokens * g.row];
        update.fill(0.0);
        let u = lock(&self.prefill.activations[index]);
        for (local, block) in unit.blocks.clone().enumerate() {
            let rows = block * g.block * g.row..(block + 1) * g.block * g.row;
            level.run(Project {
                u: &u[local * g.block..],
                stride: unit.blocks.len() * g.block,
                y: &own.y[..tokens * g.row],
                row: g.row,
                encoder_v: &self.weights.encoder_v.numbers[rows.clone()],
                decoder: &self.weights.decoder.numbers[rows],
                scales: [&self.weights.encoder_v, &self.weights.decoder]
                    .map(|matrix| matrix.scales(g.neurons_of(block))),
                update,
                scratch: &mut own.project,
            });
            if let Some(watch) = &mut own.watch {
                let stride = unit.blocks.len() * g.block;
                let scales = self.weights.decoder.scales(g.neurons_of(block));
                for token in 0..tokens {
                    let own_u = &u[token * stride + local * g.block..][..g.block];
                    let mut gates = own.project.gates_of(token, g.block).to_vec();
                    unscale(&mut gates, scales);
                    watch.see(Seen::Activations, token, layer, block, own_u);
                    watch.see(Seen::Gates, token, layer, block, &gates);
                }
            }
        }
    }

    /// Sums the units' decoder outputs, and then x ← LN(x + LN(update)).
    fn finish(&self, stream: &mut ChunkStream) {
        let (g, level) = (&self.shared.model.geometry, self.shared.level);
        let tokens = self.chunk.tokens.len();
        let update = &mut stream.update[..tokens * g.row];
        update.fill(0.0);
        for output in &self.prefill.outputs {
            level.run(Accumulate { to: update, from: &read(&output.update)[..tokens * g.row] });
        }
        for (x, update) in stream.x.chunks_exact_mut(g.row).zip(update.chunks_exact_mut(g.row)) {
            level.run(Finish { x, update, width: g.width });
        }
    }

    /// Logits of a tile of the LM head.
    fn logits(&self, stream: &ChunkStream, own: &mut ThreadMemory, index: usize) {
        let (g, level) = (&self.shared.model.geometry, self.shared.level);
        let tokens = self.chunk.tokens.len();
        let mut out = vec![0.0; tokens * TILE];
        let tile = &self.weights.lm_head[index * TILE * g.width..][..TILE * g.width];
        let (x, weights) = (&stream.groups, &mut own.tile);
        level.run(Product {
            tile,
            scales: &[],
            biases: &[],
            x,
            tokens,
            out: &mut out,
            stride: TILE,
            relu: false,
            weights,
        });
        let count = (g.vocab - index * TILE).min(TILE);
        let mut logits = lock(self.logits);
        for (to, from) in logits.chunks_exact_mut(g.vocab).zip(out.chunks_exact(TILE)) {
            to[index * TILE..][..count].copy_from_slice(&from[..count]);
        }
    }
}

impl<E: Weight> Work for Run<'_, E> {
    fn next_phase(&self, _: usize) -> bool {
        let stream = &mut *write(&self.prefill.stream);
        match self.begun.fetch_add(1, Ordering::Relaxed) {
            0 => self.embed(stream),
            begun if begun <= self.shared.model.geometry.layers => self.finish(stream),
            _ => return false,
        }
        if let Some(layer) = self.layer() {
            self.remember(stream, layer);
            self.prefill.attended.iter().for_each(|count| count.store(0, Ordering::Relaxed));
            self.arrange(stream);
        } else if !self.chunk.logits {
            return false;
        }
        self.group_tokens(stream);
        true
    }

    fn tasks(&self, queue: usize) -> usize {
        match self.layer() {
            Some(_) => 2 * self.share(queue, self.prefill.units.len()).len(),
            None => self.share(queue, self.tiles()).len(),
        }
    }

    fn ready(&self, task: Task) -> bool {
        // A thread may still see an earlier phase; its claim fails.
        if self.layer().is_none() {
            return true;
        }
        let (unit, projects) = self.unit(task);
        let head = self.prefill.units.get(unit).map_or(0, |unit| unit.head);
        !projects || self.prefill.attended[head].load(Ordering::Acquire) == self.prefill.units_per_head()
    }

    fn perform(&self, thread: usize, first: Task, claims: &mut Claims<Self>) {
        let own = &mut *lock(&self.prefill.threads[thread]);
        let stream = &*read(&self.prefill.stream);
        let layer = self.layer();
        let mut next = Some(first);
        while let Some(task) = next {
            match layer {
                None => self.logits(stream, own, self.share(task.queue, self.tiles()).start + task.index),
                Some(layer) => match self.unit(task) {
                    (unit, false) => {
                        self.read_write(stream, own, unit, layer);
                        let head = self.prefill.units[unit].head;
                        let before = self.prefill.attended[head].fetch_add(1, Ordering::AcqRel);
                        if before + 1 == self.prefill.units_per_head() {
                            self.team.ring();
                        }
                    }
                    (unit, true) => {
                        let of = Some((self.team.phase(), self.prefill.units[unit].head));
                        if own.y_of != of {
                            self.attend(stream, own, self.prefill.units[unit].head);
                            own.y_of = of;
                        }
                        self.project(own, unit, layer);
                    }
                },
            }
            next = claims.next();
        }
    }
}
