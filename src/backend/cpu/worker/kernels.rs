//! The kernels of a layer over a thread's own blocks.

use super::Worker;
use crate::backend::cpu::decode::attend::{Attend, BlockMemory};
use crate::backend::cpu::decode::embed::Finish;
use crate::backend::cpu::decode::encode::{Rotate, activate};
use crate::backend::cpu::decode::logits::logits;
use crate::backend::cpu::decode::project::Project;
use crate::backend::cpu::decode::settle::Settle;
use crate::backend::cpu::dense::{Tile, block_tiles};
use crate::backend::cpu::exchange::{Job, write};
use crate::backend::cpu::gather::Accumulate;
use crate::backend::cpu::norm::LayerNorm;
use crate::backend::cpu::probe::Phase;
use crate::backend::cpu::rotary::Phases;
use crate::backend::cpu::share::{LayerMemory, OwnMemory};
use crate::backend::cpu::simd::Level;
use crate::backend::cpu::weights::{Weight, Weights};
use crate::backend::memory::WINDOW;
use crate::backend::pack::Geometry;
use crate::backend::{Output, SlotStep};
use std::ops::Range;

impl Worker {
    /// Cosines and sines for a sequence at `position`. A thread needs those of its own blocks, at
    /// most those of a whole head.
    pub fn rotate(&mut self, job: &Job, slot: usize, position: u32) {
        let g = &job.model.geometry;
        for block in self.share.blocks.clone().take(g.blocks_per_head) {
            let first = block % g.blocks_per_head * g.block;
            let at = slot * g.padded_neurons() + first;
            job.level.run(Phases {
                turns: &job.model.turns[first..first + g.block],
                position,
                cosines: &mut self.cosines[at..at + g.block],
                sines: &mut self.sines[at..at + g.block],
            });
        }
    }

    /// Activations and partial attention outputs of the own blocks; the token enters the window.
    pub fn encode<E: Weight>(
        &mut self,
        job: &Job,
        weights: &Weights<E>,
        steps: &[SlotStep],
        layer: usize,
        memory: &mut OwnMemory,
    ) {
        let g = &job.model.geometry;
        let recent = |slot: usize| (slot * g.layers + layer) * WINDOW * g.row;
        let mut attention = write(&job.exchange.attention[self.share.index]);
        let stride = self.share.blocks.len() * g.block;
        for (own, block) in self.share.blocks.clone().enumerate() {
            let tiles = Tile::range(&weights.encoder, g.width, block_tiles(g, block), job.exchange.threads());
            let offset = own * g.block;
            let (x, active) = (&self.x, &self.active);
            activate(job.level, tiles, x, g.row, active, &mut self.u, stride, offset);
            if let Some(probe) = &mut self.probe {
                probe.lap(Phase::Encode);
            }
            for &slot in &self.active {
                let phases = slot * g.padded_neurons() + block % g.blocks_per_head * g.block;
                job.level.run(Rotate {
                    u: &self.u[slot * stride + offset..][..g.block],
                    cosines: &self.cosines[phases..][..g.block],
                    sines: &self.sines[phases..][..g.block],
                    list: &mut self.list,
                });
                let LayerMemory { state, rotated } = &mut memory[slot][layer];
                job.level.run(Attend {
                    list: &self.list,
                    position: steps[slot].position,
                    read_scale: steps[slot].read_scale,
                    memory: BlockMemory {
                        state: &mut state[own * g.block * g.row..][..g.block * g.row],
                        rotated: &mut rotated[own * g.block * WINDOW..][..g.block * WINDOW],
                        recent: &self.recent[recent(slot)..][..WINDOW * g.row],
                    },
                    prefetch: job.streams,
                    y: &mut attention[(own * self.slots + slot) * g.row..][..g.row],
                });
            }
            if let Some(probe) = &mut self.probe {
                probe.lap(Phase::Attend);
            }
        }
        for &slot in &self.active {
            let step = &steps[slot];
            let window_slot = step.position as usize % WINDOW;
            let to = &mut self.recent[recent(slot) + window_slot * g.row..][..g.row];
            for (to, x) in to.iter_mut().zip(&self.x[slot * g.row..][..g.row]) {
                *to = x * step.write_scale;
            }
        }
    }

    /// Settles this thread's part of a sequence's window in all layers. The residuals keep their
    /// values: with zero activations they have no effect.
    pub fn settle(&mut self, level: Level, g: &Geometry, slot: usize, memory: &mut [LayerMemory<&mut [f32]>]) {
        for (layer, memory) in memory.iter_mut().enumerate() {
            let recent = &self.recent[(slot * g.layers + layer) * WINDOW * g.row..][..WINDOW * g.row];
            let (state, rotated) = (&mut *memory.state, &mut *memory.rotated);
            level.run(Settle { memory: BlockMemory { state, rotated, recent }, row: g.row });
        }
    }

    /// Heads with a block of this thread.
    fn own_heads(&self, g: &Geometry) -> Range<usize> {
        let blocks = &self.share.blocks;
        blocks.start / g.blocks_per_head..blocks.end.div_ceil(g.blocks_per_head)
    }

    /// Sums the attention outputs of the own heads into `self.attention`, before the layer norm.
    pub fn gather_attention(&mut self, job: &Job) {
        let g = &job.model.geometry;
        let heads = self.own_heads(g);
        let size = self.slots * g.row;
        self.attention[heads.start * size..heads.end * size].fill(0.0);
        let blocks = heads.start * g.blocks_per_head..heads.end * g.blocks_per_head;
        job.exchange.for_each_block(&job.exchange.attention, blocks, size, |block, partial| {
            let head = &mut self.attention[block / g.blocks_per_head * size..][..size];
            for &slot in &self.active {
                let range = slot * g.row..(slot + 1) * g.row;
                job.level.run(Accumulate { to: &mut head[range.clone()], from: &partial[range] });
            }
        });
    }

    /// Gates and partial decoder outputs of the own blocks.
    pub fn project<E: Weight>(&mut self, job: &Job, weights: &Weights<E>, layer: usize) {
        self.gather_attention(job);
        self.project_gathered(job, weights, layer);
    }

    /// [`Worker::project`] from a complete `self.attention`.
    pub fn project_gathered<E: Weight>(&mut self, job: &Job, weights: &Weights<E>, layer: usize) {
        let g = &job.model.geometry;
        for head in self.own_heads(g) {
            for &slot in &self.active {
                let v = &mut self.attention[(head * self.slots + slot) * g.row..][..g.row];
                job.level.run(LayerNorm { v, width: g.width });
            }
        }
        let mut update = write(&job.exchange.update[layer % 2][self.share.index]);
        let stride = self.share.blocks.len() * g.block;
        for (own, block) in self.share.blocks.clone().enumerate() {
            let rows = block * g.block * g.row..(block + 1) * g.block * g.row;
            let head = block / g.blocks_per_head;
            for &slot in &self.active {
                job.level.run(Project {
                    u: &mut self.u[slot * stride + own * g.block..][..g.block],
                    y: &self.attention[(head * self.slots + slot) * g.row..][..g.row],
                    encoder_v: &weights.encoder_v[rows.clone()],
                    decoder: &weights.decoder[rows.clone()],
                    update: &mut update[(own * self.slots + slot) * g.row..][..g.row],
                    prefetch: job.streams,
                    list: &mut self.list,
                });
            }
        }
    }

    /// Sums the blocks' decoder outputs of a layer into `self.update`.
    pub fn gather_update(&mut self, job: &Job, layer: usize) {
        let g = &job.model.geometry;
        self.update.fill(0.0);
        let partials = &job.exchange.update[layer % 2];
        job.exchange.for_each_block(partials, 0..g.blocks(), self.slots * g.row, |_, partial| {
            for &slot in &self.active {
                let range = slot * g.row..(slot + 1) * g.row;
                job.level.run(Accumulate { to: &mut self.update[range.clone()], from: &partial[range] });
            }
        });
    }

    /// x ← LN(x + LN(update)).
    pub fn finish(&mut self, job: &Job, layer: usize) {
        self.gather_update(job, layer);
        self.finish_gathered(job);
    }

    /// [`Worker::finish`] from a complete `self.update`.
    pub fn finish_gathered(&mut self, job: &Job) {
        let g = &job.model.geometry;
        for &slot in &self.active {
            let range = slot * g.row..(slot + 1) * g.row;
            let (x, update) = (&mut self.x[range.clone()], &mut self.update[range]);
            job.level.run(Finish { x, update, width: g.width });
        }
    }

    /// Logits of the own tiles of the LM head. Only sequences that need logits stay active.
    pub fn logits<E: Weight>(&mut self, job: &Job, weights: &Weights<E>, steps: &[SlotStep]) {
        let g = &job.model.geometry;
        self.active.retain(|&slot| steps[slot].output >= Output::Logits);
        let own = self.share.lm_head_tiles.clone();
        let tiles = own.clone().zip(Tile::range(&weights.lm_head, g.width, own, job.exchange.threads()));
        logits(job.level, tiles, &self.x, g.row, &self.active, job.logits);
    }
}
