//! The kernels of a step over a block, or over all of them.

use crate::backend::SlotStep;
use crate::backend::cpu::decode::attend::{Attend, BlockMemory};
use crate::backend::cpu::decode::encode::{Rotate, activate};
use crate::backend::cpu::decode::leave::Leave;
use crate::backend::cpu::decode::logits::logits;
use crate::backend::cpu::decode::project::Project;
use crate::backend::cpu::decode::settle::Settle;
use crate::backend::cpu::dense::{Tile, block_tiles};
use crate::backend::cpu::exchange::{Job, LeavingScratch, Scratch, read, write};
use crate::backend::cpu::gather::Accumulate;
use crate::backend::cpu::lock;
use crate::backend::cpu::norm::LayerNorm;
use crate::backend::cpu::share::{LayerMemory, LayerPart, OwnMemory};
use crate::backend::cpu::simd::Level;
use crate::backend::cpu::state::{AnyRows, on_rows};
use crate::backend::cpu::stream::Stream;
use crate::backend::cpu::weights::{Weight, Weights};
use crate::backend::pack::Geometry;

impl Job<'_> {
    /// Activations of a block.
    pub fn encode<E: Weight>(&self, weights: &Weights<E>, stream: &Stream, block: usize) {
        let g = &self.model.geometry;
        let tiles = Tile::range(&weights.encoder.numbers, g.width, block_tiles(g, block), self.exchange.threads());
        let u = &mut lock(&self.exchange.blocks[block].u);
        let scales = weights.encoder.scales(g.neurons_of(block));
        let biases = weights.biases(g.neurons_of(block));
        activate(self.level, tiles, [scales, biases], &stream.x, g.row, &stream.active, u, g.block, 0);
    }

    /// Partial attention output of a block, whose memory is `[slots][layers]`.
    pub fn attend(
        &self,
        stream: &Stream,
        steps: &[SlotStep],
        layer: usize,
        block: usize,
        memory: &mut OwnMemory,
        scratch: &mut Scratch,
    ) {
        let g = &self.model.geometry;
        let results = &self.exchange.blocks[block];
        let u = lock(&results.u);
        let mut attention = write(&results.attention);
        for &slot in &stream.active {
            let [cosines, sines] = scratch.phases.of(g, slot, block);
            let list = &mut scratch.list;
            self.level.run(Rotate { u: &u[slot * g.block..][..g.block], cosines, sines, list });
            let LayerMemory { state, rotated, .. } = &mut memory[slot][layer];
            on_rows!(state.part(0, g.block, g.row), state => self.level.run(Attend {
                list: &mut scratch.list,
                position: steps[slot].position,
                read_scale: steps[slot].read_scale,
                memory: BlockMemory { state, rotated, recent: stream.window(g, slot, layer) },
                prefetch: self.streams,
                y: &mut attention[slot * g.row..][..g.row],
                scratch: &mut scratch.rows,
            }));
        }
    }

    /// What [`Job::attend`] leaves to do for sequences with a sliding window: tokens leave it. Out of
    /// the way of runs without one.
    #[cold]
    #[inline(never)]
    pub fn leave<E: Weight>(
        &self,
        weights: &Weights<E>,
        stream: &Stream,
        layer: usize,
        block: usize,
        memory: &mut OwnMemory,
        scratch: &mut Scratch,
    ) {
        let g = &self.model.geometry;
        let results = &self.exchange.blocks[block];
        let u = lock(&results.u);
        let mut attention = write(&results.attention);
        let leaving = scratch.leaving.get_or_insert_with(|| Box::new(LeavingScratch::new(g, stream.slots)));
        leaving.phases.prepare_leaving(self.model, self.level, stream, block);
        for (slot, past, position) in stream.sliding() {
            let [cosines, sines] = scratch.phases.of(g, slot, block);
            let list = &mut scratch.list;
            self.level.run(Rotate { u: &u[slot * g.block..][..g.block], cosines, sines, list });
            leaving.list.truncate(0);
            if let Some(left) = past.leaving_at(position) {
                let tiles = block_tiles(g, block);
                let tiles = Tile::range(&weights.encoder.numbers, g.width, tiles, self.exchange.threads());
                let scales = weights.encoder.scales(g.neurons_of(block));
                let biases = weights.biases(g.neurons_of(block));
                let x = past.residual(layer, left);
                activate(self.level, tiles, [scales, biases], x, g.row, &[0], &mut leaving.u, g.block, 0);
                let [cosines, sines] = leaving.phases.of(g, slot, block);
                self.level.run(Rotate { u: &leaving.u, cosines, sines, list: &mut leaving.list });
            }
            let LayerMemory { state, leaving: rotated, .. } = &mut memory[slot][layer];
            let AnyRows::F32(state) = state.part(0, g.block, g.row) else {
                unreachable!("sliding windows have states of floats")
            };
            self.level.run(Leave {
                list: &scratch.list,
                leaving: &leaving.list,
                position,
                memory: BlockMemory { state, rotated, recent: past.leaving(layer) },
                y: &mut attention[slot * g.row..][..g.row],
                scratch: &mut scratch.rows,
            });
        }
    }

    /// Sums a head's attention outputs into `y`, `[slots][row]`, before the layer norm.
    pub fn gather_attention(&self, active: &[usize], head: usize, y: &mut [f32]) {
        let g = &self.model.geometry;
        y.fill(0.0);
        for block in &self.exchange.blocks[head * g.blocks_per_head..][..g.blocks_per_head] {
            let partial = read(&block.attention);
            for &slot in active {
                let range = slot * g.row..(slot + 1) * g.row;
                self.level.run(Accumulate { to: &mut y[range.clone()], from: &partial[range] });
            }
        }
    }

    /// Gates and partial decoder output of a block. `gathered` is the head whose attention output
    /// is in `scratch.y`.
    pub fn project<E: Weight>(
        &self,
        weights: &Weights<E>,
        active: &[usize],
        block: usize,
        scratch: &mut Scratch,
        gathered: &mut Option<usize>,
    ) {
        let g = &self.model.geometry;
        let head = block / g.blocks_per_head;
        if gathered.replace(head) != Some(head) {
            self.gather_attention(active, head, &mut scratch.y);
            self.norm_attention(active, &mut scratch.y);
        }
        self.project_gathered(weights, active, block, scratch);
    }

    /// y ← LN(y), `[slots][row]`.
    pub fn norm_attention(&self, active: &[usize], y: &mut [f32]) {
        let g = &self.model.geometry;
        for &slot in active {
            self.level.run(LayerNorm { v: &mut y[slot * g.row..][..g.row], width: g.width });
        }
    }

    /// [`Job::project`] with the head's attention output in `scratch.y`.
    pub fn project_gathered<E: Weight>(
        &self,
        weights: &Weights<E>,
        active: &[usize],
        block: usize,
        scratch: &mut Scratch,
    ) {
        let g = &self.model.geometry;
        let rows = block * g.block * g.row..(block + 1) * g.block * g.row;
        let results = &self.exchange.blocks[block];
        let (mut u, mut update) = (lock(&results.u), write(&results.update));
        for &slot in active {
            self.level.run(Project {
                u: &mut u[slot * g.block..][..g.block],
                y: &scratch.y[slot * g.row..][..g.row],
                encoder_v: &weights.encoder_v.numbers[rows.clone()],
                decoder: &weights.decoder.numbers[rows.clone()],
                scales: [&weights.encoder_v, &weights.decoder].map(|matrix| matrix.scales(g.neurons_of(block))),
                update: &mut update[slot * g.row..][..g.row],
                prefetch: self.streams,
                list: &mut scratch.list,
            });
        }
    }

    /// Sums the blocks' decoder outputs into the stream's update.
    pub fn gather_update(&self, stream: &mut Stream) {
        let g = &self.model.geometry;
        stream.update.fill(0.0);
        for block in &self.exchange.blocks {
            let partial = read(&block.update);
            for &slot in &stream.active {
                let range = slot * g.row..(slot + 1) * g.row;
                self.level.run(Accumulate { to: &mut stream.update[range.clone()], from: &partial[range] });
            }
        }
    }

    /// Logits of a tile of the LM head.
    pub fn logits<E: Weight>(&self, weights: &Weights<E>, stream: &Stream, tile: usize) {
        let g = &self.model.geometry;
        let range = tile..tile + 1;
        let tiles = range.clone().zip(Tile::range(&weights.lm_head, g.width, range, self.exchange.threads()));
        logits(self.level, tiles, &stream.x, g.row, &stream.with_logits, self.logits);
    }
}

/// Settles a block's part of a sequence's window in all layers. The residuals keep their values:
/// with zero activations they have no effect.
pub fn settle(level: Level, g: &Geometry, stream: &Stream, slot: usize, memory: &mut [LayerPart<'_>]) {
    let scratch = &mut vec![0.0; 2 * g.row][..];
    for (layer, LayerMemory { state, rotated, leaving }) in memory.iter_mut().enumerate() {
        let recent = stream.window(g, slot, layer);
        on_rows!(state.part(0, g.block, g.row), state => {
            level.run(Settle { memory: BlockMemory { state, rotated, recent }, scratch });
        });
        if let Some(past) = &stream.pasts[slot] {
            let recent = past.leaving(layer);
            on_rows!(state.part(0, g.block, g.row), state => {
                level.run(Settle { memory: BlockMemory { state, rotated: leaving, recent }, scratch });
            });
        }
    }
}
