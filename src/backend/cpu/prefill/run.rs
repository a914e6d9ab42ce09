//! One thread's part of a chunk, layer by layer.

use super::attend::Attend;
use super::layout::{CopyPanels, padded_tokens};
use super::product::{GroupTokens, Product};
use super::project::Project;
use super::read_write::ReadWrite;
use super::rotate::Phases;
use super::{Prefill, ThreadMemory, UnitOutput};
use crate::backend::Chunk;
use crate::backend::cpu::barrier::Barrier;
use crate::backend::cpu::decode::embed::{Embed, Finish};
use crate::backend::cpu::decode::rescale::rescale;
use crate::backend::cpu::gather::Accumulate;
use crate::backend::cpu::norm::LayerNorm;
use crate::backend::cpu::share::{LayerMemory, share_out};
use crate::backend::cpu::weights::{TILE, Weight, Weights};
use crate::backend::cpu::{Shared, lock};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// One thread's part of a chunk.
pub(super) struct Run<'a> {
    pub prefill: &'a Prefill,
    pub shared: &'a Shared,
    pub chunk: &'a Chunk,
    /// Each unit's part of the memory, `[units][layers]`.
    pub parts: &'a [Mutex<Vec<LayerMemory<&'a mut [f32]>>>],
    pub barrier: &'a Barrier,
    /// Index of the thread.
    pub thread: usize,
}

impl Run<'_> {
    /// This thread's units.
    fn units(&self) -> Range<usize> {
        let (units, threads) = (self.prefill.units.len(), self.prefill.threads.len());
        units * self.thread / threads..units * (self.thread + 1) / threads
    }

    /// All layers, and the logits if the chunk asks for them.
    pub fn run<E: Weight>(&self, weights: &Weights<E>, logits: &Mutex<Vec<f32>>) {
        let (g, level, chunk) = (&self.shared.model.geometry, self.shared.level, self.chunk);
        let tokens = chunk.tokens.len();
        let own = &mut *lock(&self.prefill.threads[self.thread]);
        for (token, x) in chunk.tokens.iter().zip(own.x.chunks_exact_mut(g.row)) {
            let embedding = &weights.embed[token.token as usize * g.row..][..g.row];
            level.run(Embed { embedding, width: g.width, x });
        }
        let [cosines, sines] = &mut own.phases;
        let size = tokens * g.padded_neurons();
        let tables = [&mut cosines[..size], &mut sines[..size]];
        level.run(Phases { turns: &self.shared.model.turns, position: chunk.position, tables });
        for layer in 0..g.layers {
            for (token, (x, to)) in
                chunk.tokens.iter().zip(own.x.chunks_exact(g.row).zip(own.scaled_x.chunks_exact_mut(g.row)))
            {
                to.iter_mut().zip(x).for_each(|(to, x)| *to = x * token.write_scale);
            }
            self.group_tokens(own);
            let (from, to) = (&own.scaled_x[..tokens * g.row], &mut own.panels[..tokens * g.row]);
            level.run(CopyPanels { from, to, row: g.row, into_panels: true });
            for unit in self.units() {
                self.read_write(weights, own, unit, layer);
            }
            self.barrier.wait();
            let mut head = None;
            for unit in self.units() {
                if head.replace(self.prefill.units[unit].head) != Some(self.prefill.units[unit].head) {
                    self.attend(own, self.prefill.units[unit].head);
                }
                self.project(weights, own, unit);
            }
            self.barrier.wait();
            self.finish(own);
        }
        if chunk.logits {
            self.logits(weights, own, logits);
        }
    }

    /// Computes `own.groups` from `own.x`.
    fn group_tokens(&self, own: &mut ThreadMemory) {
        let g = &self.shared.model.geometry;
        let x = &own.x[..self.chunk.tokens.len() * g.row];
        self.shared.level.run(GroupTokens { x, row: g.row, width: g.width, to: &mut own.groups });
    }

    /// A unit's activations, its share of the attention, and its rows of the state.
    fn read_write<E: Weight>(&self, weights: &Weights<E>, own: &mut ThreadMemory, index: usize, layer: usize) {
        let (g, level) = (&self.shared.model.geometry, self.shared.level);
        let tokens = self.chunk.tokens.len();
        let unit = &self.prefill.units[index];
        let mut output = self.prefill.outputs[index].write().unwrap_or_else(PoisonError::into_inner);
        let UnitOutput { attention, scores, .. } = &mut *output;
        let attention = &mut attention[..tokens * g.row];
        let scores = &mut scores[..tokens * padded_tokens(tokens)];
        attention.fill(0.0);
        scores.fill(0.0);
        let u = &mut lock(&self.prefill.activations[index])[..];
        let part = &mut lock(&self.parts[index])[layer];
        if let Some(factor) = self.chunk.rescale {
            rescale(part.state, factor);
        }
        let stride = unit.blocks.len() * g.block;
        for (local, block) in unit.blocks.clone().enumerate() {
            let tiles = &weights.encoder[block * g.block * g.width..][..g.block * g.width];
            for (tile_index, tile) in tiles.chunks_exact(g.width * TILE).enumerate() {
                level.run(Product {
                    tile,
                    x: &own.groups,
                    tokens,
                    out: &mut u[local * g.block + tile_index * TILE..],
                    stride,
                    relu: true,
                    weights: &mut own.tile,
                });
            }
            let first = block % g.blocks_per_head * g.block;
            level.run(ReadWrite {
                u: &u[local * g.block..],
                stride,
                phases: [&own.phases[0][first..], &own.phases[1][first..]],
                phase_stride: g.padded_neurons(),
                scaled_x: &own.panels[..tokens * g.row],
                state: &mut part.state[local * g.block * g.row..][..g.block * g.row],
                row: g.row,
                attention,
                scores,
                scratch: &mut own.read_write,
            });
        }
    }

    /// A head's attention output after its layer norm, into `own.y`.
    fn attend(&self, own: &mut ThreadMemory, head: usize) {
        let (g, level) = (&self.shared.model.geometry, self.shared.level);
        let tokens = self.chunk.tokens.len();
        // No unit of this layer needs the residuals in panels any more.
        let panels = &mut own.panels[..tokens * g.row];
        panels.fill(0.0);
        let mut scores = vec![0.0; tokens * padded_tokens(tokens)];
        for (unit, output) in self.prefill.units.iter().zip(&self.prefill.outputs).filter(|(unit, _)| unit.head == head)
        {
            debug_assert!(!unit.blocks.is_empty());
            let output = output.read().unwrap_or_else(PoisonError::into_inner);
            level.run(Accumulate { to: panels, from: &output.attention[..tokens * g.row] });
            let size = scores.len();
            level.run(Accumulate { to: &mut scores, from: &output.scores[..size] });
        }
        let y = &mut own.y[..tokens * g.row];
        level.run(CopyPanels { from: panels, to: y, row: g.row, into_panels: false });
        let read_scales: Vec<f32> = self.chunk.tokens.iter().map(|token| token.read_scale).collect();
        level.run(Attend {
            scores: &scores,
            scaled_x: &own.scaled_x,
            read_scales: &read_scales,
            y,
            list: &mut own.list,
        });
        y.chunks_exact_mut(g.row).for_each(|v| level.run(LayerNorm { v, width: g.width }));
    }

    /// A unit's gates and its share of the decoder output.
    fn project<E: Weight>(&self, weights: &Weights<E>, own: &mut ThreadMemory, index: usize) {
        let (g, level) = (&self.shared.model.geometry, self.shared.level);
        let tokens = self.chunk.tokens.len();
        let unit = &self.prefill.units[index];
        let mut output = self.prefill.outputs[index].write().unwrap_or_else(PoisonError::into_inner);
        let update = &mut output.update[..tokens * g.row];
        update.fill(0.0);
        let u = lock(&self.prefill.activations[index]);
        for (local, block) in unit.blocks.clone().enumerate() {
            let rows = block * g.block * g.row..(block + 1) * g.block * g.row;
            level.run(Project {
                u: &u[local * g.block..],
                stride: unit.blocks.len() * g.block,
                y: &own.y[..tokens * g.row],
                row: g.row,
                encoder_v: &weights.encoder_v[rows.clone()],
                decoder: &weights.decoder[rows],
                update,
                scratch: &mut own.project,
            });
        }
    }

    /// Sums the units' decoder outputs, and then x ← LN(x + LN(update)).
    fn finish(&self, own: &mut ThreadMemory) {
        let (g, level) = (&self.shared.model.geometry, self.shared.level);
        let tokens = self.chunk.tokens.len();
        let update = &mut own.update[..tokens * g.row];
        update.fill(0.0);
        for output in &self.prefill.outputs {
            let output = output.read().unwrap_or_else(PoisonError::into_inner);
            level.run(Accumulate { to: update, from: &output.update[..tokens * g.row] });
        }
        for (x, update) in own.x.chunks_exact_mut(g.row).zip(update.chunks_exact_mut(g.row)) {
            level.run(Finish { x, update, width: g.width });
        }
    }

    /// Logits of this thread's tiles of the LM head.
    fn logits<E: Weight>(&self, weights: &Weights<E>, own: &mut ThreadMemory, logits: &Mutex<Vec<f32>>) {
        let (g, level) = (&self.shared.model.geometry, self.shared.level);
        let tokens = self.chunk.tokens.len();
        let tiles = share_out(g, self.prefill.threads.len()).swap_remove(self.thread).lm_head_tiles;
        let mut out = vec![0.0; tokens * TILE];
        self.group_tokens(own);
        for index in tiles {
            let tile = &weights.lm_head[index * TILE * g.width..][..TILE * g.width];
            let (x, weights) = (&own.groups, &mut own.tile);
            level.run(Product { tile, x, tokens, out: &mut out, stride: TILE, relu: false, weights });
            let count = (g.vocab - index * TILE).min(TILE);
            let mut logits = lock(logits);
            for (to, from) in logits.chunks_exact_mut(g.vocab).zip(out.chunks_exact(TILE)) {
                to[index * TILE..][..count].copy_from_slice(&from[..count]);
            }
        }
    }
}
