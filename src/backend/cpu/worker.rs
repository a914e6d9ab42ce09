//! One thread's share of a run.
//!
//! A thread owns a range of neuron blocks: their weights, their rows of every sequence's state, their
//! activations. Per layer the threads exchange the blocks' partial attention outputs (only where a head
//! is split between threads) and their partial decoder outputs, and meet at a barrier after each.

use super::barrier::Barrier;
use super::dense::{Tile, block_tiles, tile_product};
use super::encode::{self, Attend, BlockMemory, Phases, Rotate, Settle};
use super::pages::Pages;
use super::probe::{Phase, Probe};
use super::project::Project;
use super::residual::{Accumulate, Embed, Finish, LayerNorm};
use super::rows::RowList;
use super::simd::Level;
use super::weights::{AnyWeights, CpuModel, Half, TILE, Weights};
use super::{SlotSampler, lock, rescale, running};
use crate::backend::memory::WINDOW;
use crate::backend::pack::Geometry;
use crate::backend::{Input, Output, Plan, RunOutput, SlotStep};
use crate::sampling::NO_TOKEN;
use std::ops::Range;
use std::sync::{Mutex, PoisonError, RwLock, RwLockWriteGuard};

/// Which blocks and which tiles of the head a thread owns.
#[derive(Clone, Debug)]
pub struct Share {
    pub index: usize,
    pub blocks: Range<usize>,
    pub head_tiles: Range<usize>,
}

/// Divides blocks and head tiles among threads as evenly as they go.
pub fn share_out(g: &Geometry, threads: usize) -> Vec<Share> {
    let part = |total: usize, i: usize| total * i / threads..total * (i + 1) / threads;
    let tiles = g.vocab.div_ceil(TILE);
    (0..threads).map(|index| Share { index, blocks: part(g.blocks(), index), head_tiles: part(tiles, index) }).collect()
}

/// One layer's memory of one sequence but for the window's residuals, which every thread keeps for itself.
#[derive(Debug, Default)]
pub struct LayerMemory<S> {
    /// `[neurons][row]`
    pub state: S,
    /// The window's rotated activations, `[neurons][WINDOW]`.
    pub rotated: S,
}

/// A thread's part of every memory: `[slots][layers]`.
pub type OwnMemory<'a> = Vec<Vec<LayerMemory<&'a mut [f32]>>>;

/// Splits every memory by the threads' numbers of blocks: `[threads][slots][layers]`.
pub fn split_memory<'a>(
    memory: &'a mut [Vec<LayerMemory<Pages<f32>>>],
    g: &Geometry,
    shares: &[usize],
) -> Vec<OwnMemory<'a>> {
    let mut parts: Vec<OwnMemory> = shares.iter().map(|_| Vec::with_capacity(memory.len())).collect();
    for slot in memory {
        parts.iter_mut().zip(split_layers(slot, g, shares)).for_each(|(part, own)| part.push(own));
    }
    parts
}

/// Splits one sequence's memory by numbers of blocks: `[shares][layers]`.
pub fn split_layers<'a>(
    memory: &'a mut [LayerMemory<Pages<f32>>],
    g: &Geometry,
    shares: &[usize],
) -> Vec<Vec<LayerMemory<&'a mut [f32]>>> {
    let mut parts: Vec<Vec<_>> = shares.iter().map(|_| Vec::with_capacity(memory.len())).collect();
    for layer in memory {
        let (mut state, mut rotated) = (&mut layer.state[..], &mut layer.rotated[..]);
        for (part, blocks) in parts.iter_mut().zip(shares) {
            part.push(LayerMemory {
                state: state.split_off_mut(..blocks * g.block * g.row).expect("a share of the blocks"),
                rotated: rotated.split_off_mut(..blocks * g.block * WINDOW).expect("a share of the blocks"),
            });
        }
    }
    parts
}

/// Where threads leave what others read. Each thread writes only its own entry, and only between the
/// barriers at which nobody reads it, so the locks never wait.
pub struct Exchange {
    pub barrier: Barrier,
    /// The threads' block ranges.
    blocks: Vec<Range<usize>>,
    /// Whether some head's blocks belong to more than one thread.
    heads_split: bool,
    /// Partial attention outputs, per thread `[own blocks][slots][row]`.
    pub attention: Vec<RwLock<Vec<f32>>>,
    /// Partial decoder outputs, alternating by layer, per thread `[own blocks][slots][row]`.
    update: [Vec<RwLock<Vec<f32>>>; 2],
}

impl Exchange {
    pub fn new(g: &Geometry, shares: &[Share], slots: usize) -> Self {
        let buffers = || shares.iter().map(|s| RwLock::new(vec![0.0; s.blocks.len() * slots * g.row])).collect();
        Self {
            barrier: Barrier::new(shares.len()),
            blocks: shares.iter().map(|s| s.blocks.clone()).collect(),
            heads_split: shares.iter().any(|s| !s.blocks.start.is_multiple_of(g.blocks_per_head)),
            attention: buffers(),
            update: [buffers(), buffers()],
        }
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        self.blocks.len()
    }

    /// Whether attention outputs must be exchanged before they are used.
    pub fn heads_split(&self) -> bool {
        self.heads_split
    }

    /// Calls `add` with each block of `wanted` in order, and its partial results `[slots][row]`.
    fn for_each_block(
        &self,
        partials: &[RwLock<Vec<f32>>],
        wanted: Range<usize>,
        size: usize,
        mut add: impl FnMut(usize, &[f32]),
    ) {
        for (own, partial) in self.blocks.iter().zip(partials) {
            let range = own.start.max(wanted.start)..own.end.min(wanted.end);
            if range.is_empty() {
                continue;
            }
            let partial = partial.read().unwrap_or_else(PoisonError::into_inner);
            for block in range {
                add(block, &partial[(block - own.start) * size..][..size]);
            }
        }
    }
}

pub fn write(lock: &RwLock<Vec<f32>>) -> RwLockWriteGuard<'_, Vec<f32>> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// A run as all its threads see it.
pub struct Job<'a> {
    pub plan: &'a Plan,
    pub model: &'a CpuModel,
    pub level: Level,
    /// Whether the states are too large to stay in a cache.
    pub streams: bool,
    pub exchange: &'a Exchange,
    pub samplers: &'a [Mutex<SlotSampler>],
    pub logits: &'a [Mutex<Vec<f32>>],
    pub output: Mutex<RunOutput>,
}

/// A thread's share and its scratch memory.
pub struct Worker {
    pub share: Share,
    pub slots: usize,
    /// Residual stream, `[slots][row]`.
    pub x: Vec<f32>,
    /// A layer's update, `[slots][row]`.
    pub update: Vec<f32>,
    /// Activations of the own blocks, `[slots][own blocks * block]`; their gates after `project`.
    pub u: Vec<f32>,
    /// Attention outputs, `[heads][slots][row]`.
    pub attention: Vec<f32>,
    /// Cosines and sines, `[slots][padded N]`.
    pub cosines: Vec<f32>,
    pub sines: Vec<f32>,
    /// What is active in the block at hand.
    pub list: RowList,
    /// The windows' residuals, the same in every thread, `[slots][layers][WINDOW][row]`.
    pub recent: Vec<f32>,
    /// Sequences that take part in the current step.
    pub active: Vec<usize>,
    /// Those of them that draw a token.
    drawing: Vec<usize>,
    /// Measures the run, where it is profiled.
    pub probe: Option<Box<Probe>>,
}

impl Worker {
    pub fn new(g: &Geometry, share: Share, slots: usize) -> Self {
        Self {
            slots,
            x: vec![0.0; slots * g.row],
            update: vec![0.0; slots * g.row],
            u: vec![0.0; slots * share.blocks.len() * g.block],
            attention: vec![0.0; g.heads * slots * g.row],
            cosines: vec![0.0; slots * g.padded_neurons()],
            sines: vec![0.0; slots * g.padded_neurons()],
            list: RowList::default(),
            recent: vec![0.0; slots * g.layers * WINDOW * g.row],
            active: Vec::with_capacity(slots),
            drawing: Vec::with_capacity(slots),
            probe: None,
            share,
        }
    }

    /// The windows' residuals of a sequence in all layers, `[layers][WINDOW][row]`.
    pub fn recent_of(&mut self, slot: usize) -> &mut [f32] {
        let size = self.recent.len() / self.slots;
        &mut self.recent[slot * size..][..size]
    }

    /// Runs this thread's share of every step. `memory` is its own part.
    pub fn run(&mut self, job: &Job, memory: &mut OwnMemory) {
        match &job.model.weights {
            AnyWeights::F32(weights) => self.run_typed(job, weights, memory),
            AnyWeights::F16(weights) => self.run_typed(job, weights, memory),
        }
    }

    fn run_typed<E: Half>(&mut self, job: &Job, weights: &Weights<E>, memory: &mut OwnMemory) {
        self.lap(Phase::Wait);
        for steps in &job.plan.steps {
            self.start(job, weights, steps);
            self.lap(Phase::Embed);
            for (slot, step) in steps.iter().enumerate() {
                if let Some(factor) = step.rescale.filter(|_| self.active.contains(&slot)) {
                    memory[slot].iter_mut().for_each(|layer| rescale(layer.state, factor));
                    rescale(self.recent_of(slot), factor);
                }
            }
            for layer in 0..job.model.geometry.layers {
                self.count_settled(steps, layer, memory);
                self.encode(job, weights, steps, layer, memory);
                self.lap(Phase::Attend);
                self.count_neurons(Probe::neurons, layer);
                if job.exchange.heads_split {
                    job.exchange.barrier.wait();
                    self.lap(Phase::Wait);
                }
                self.project(job, weights, layer);
                self.lap(Phase::Project);
                self.count_neurons(Probe::gates, layer);
                job.exchange.barrier.wait();
                self.lap(Phase::Wait);
                self.finish(job, layer);
                self.lap(Phase::Finish);
            }
            if steps.iter().any(|step| step.output > Output::State) {
                self.logits(job, weights, steps);
                self.lap(Phase::Logits);
                job.exchange.barrier.wait();
                self.lap(Phase::Wait);
                self.sample(job);
                self.lap(Phase::Sample);
                job.exchange.barrier.wait();
                self.lap(Phase::Wait);
            }
            if self.share.index == 0 {
                self.record(job, steps);
            }
        }
    }

    /// Where the run is profiled: what has passed since the last lap was `phase`.
    fn lap(&mut self, phase: Phase) {
        if let Some(probe) = &mut self.probe {
            probe.lap(phase);
        }
    }

    /// Where the run is profiled: counts a layer's activations or gates of the own blocks.
    fn count_neurons(&mut self, count: fn(&mut Probe, usize, &[f32], usize, &[usize]), layer: usize) {
        if let Some(probe) = &mut self.probe {
            count(probe, layer, &self.u, self.u.len() / self.slots, &self.active);
        }
    }

    /// Where the run is profiled: counts the step, and the pairs whose window is about to enter the state.
    fn count_settled(&mut self, steps: &[SlotStep], layer: usize, memory: &OwnMemory) {
        if let Some(probe) = &mut self.probe {
            if self.share.index == 0 && layer == 0 {
                probe.step(self.active.len(), steps.iter().any(|step| step.output > Output::State));
            }
            self.active.iter().for_each(|&slot| probe.settled(&memory[slot][layer], steps[slot].position));
        }
    }

    /// Finds the sequences that take part, their embeddings and their phases.
    fn start<E: Half>(&mut self, job: &Job, weights: &Weights<E>, steps: &[SlotStep]) {
        let g = &job.model.geometry;
        self.active.clear();
        self.drawing.clear();
        for (slot, step) in steps.iter().enumerate() {
            let control = lock(&job.samplers[slot]).control;
            let token = match step.input {
                Input::Idle => continue,
                Input::Token(token) => token,
                Input::Previous if running(&control) => control.token,
                Input::Previous => continue,
            };
            self.active.push(slot);
            if step.output == Output::Token && running(&control) {
                self.drawing.push(slot);
            }
            let embedding = &weights.embed[token as usize * g.row..][..g.row];
            let x = &mut self.x[slot * g.row..][..g.row];
            job.level.run(Embed { embedding, width: g.width, x });
            self.rotate(job, slot, step.position);
        }
    }

    /// Cosines and sines for a sequence at `position`: a thread needs those of its own blocks, at most
    /// a whole head's.
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

    /// The own blocks fire and meet the state.
    pub fn encode<E: Half>(
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
            encode::activate(job.level, tiles, x, g.row, active, &mut self.u, stride, offset);
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
                    ahead: job.streams,
                    y: &mut attention[(own * self.slots + slot) * g.row..][..g.row],
                });
            }
            if let Some(probe) = &mut self.probe {
                probe.lap(Phase::Attend);
            }
        }
        for &slot in &self.active {
            let step = &steps[slot];
            let turn = step.position as usize % WINDOW;
            let to = &mut self.recent[recent(slot) + turn * g.row..][..g.row];
            for (to, x) in to.iter_mut().zip(&self.x[slot * g.row..][..g.row]) {
                *to = x * step.write_scale;
            }
        }
    }

    /// This thread's part of a sequence's window enters the state. The residuals stay: nothing refers to them.
    pub fn settle(&mut self, level: Level, g: &Geometry, slot: usize, memory: &mut [LayerMemory<&mut [f32]>]) {
        for (layer, memory) in memory.iter_mut().enumerate() {
            let recent = &self.recent[(slot * g.layers + layer) * WINDOW * g.row..][..WINDOW * g.row];
            let (state, rotated) = (&mut *memory.state, &mut *memory.rotated);
            level.run(Settle { memory: BlockMemory { state, rotated, recent }, row: g.row });
        }
    }

    /// Heads that own a block of this thread.
    fn own_heads(&self, g: &Geometry) -> Range<usize> {
        let blocks = &self.share.blocks;
        blocks.start / g.blocks_per_head..blocks.end.div_ceil(g.blocks_per_head)
    }

    /// Sums the attention outputs of the own heads: `self.attention`, before its layer norm.
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

    /// The own blocks' gated neurons and their decoder output.
    pub fn project<E: Half>(&mut self, job: &Job, weights: &Weights<E>, layer: usize) {
        self.gather_attention(job);
        self.project_gathered(job, weights, layer);
    }

    /// As [`Worker::project`], from `self.attention`.
    pub fn project_gathered<E: Half>(&mut self, job: &Job, weights: &Weights<E>, layer: usize) {
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
                    ahead: job.streams,
                    list: &mut self.list,
                });
            }
        }
    }

    /// Sums the blocks' updates of a layer: `self.update`.
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

    /// As [`Worker::finish`], from `self.update`.
    pub fn finish_gathered(&mut self, job: &Job) {
        let g = &job.model.geometry;
        for &slot in &self.active {
            let range = slot * g.row..(slot + 1) * g.row;
            let (x, update) = (&mut self.x[range.clone()], &mut self.update[range]);
            job.level.run(Finish { x, update, width: g.width });
        }
    }

    /// The own tiles of the head.
    pub fn logits<E: Half>(&mut self, job: &Job, weights: &Weights<E>, steps: &[SlotStep]) {
        let g = &job.model.geometry;
        self.active.retain(|&slot| steps[slot].output >= Output::Logits);
        let tiles = self.share.head_tiles.clone();
        for (index, tile) in tiles.clone().zip(Tile::range(&weights.head, g.width, tiles, job.exchange.threads())) {
            tile_product(job.level, tile, &self.x, g.row, &self.active, |slot, sums| {
                let mut logits = lock(&job.logits[slot]);
                let to = &mut logits[index * TILE..];
                let count = to.len().min(TILE);
                to[..count].copy_from_slice(&sums[..count]);
            });
        }
    }

    /// Draws the tokens of this thread's part of the sequences.
    fn sample(&mut self, job: &Job) {
        let threads = job.exchange.threads();
        for &slot in self.drawing.iter().filter(|&slot| slot % threads == self.share.index) {
            lock(&job.samplers[slot]).draw(&lock(&job.logits[slot]));
        }
    }

    /// Keeps what a step produced. The others are at the next step by now, but they cannot reach the
    /// logits or the samplers before this thread joins them at a barrier.
    fn record(&self, job: &Job, steps: &[SlotStep]) {
        let mut output = lock(&job.output);
        let mut tokens = vec![NO_TOKEN; steps.len()];
        for &slot in &self.drawing {
            tokens[slot] = lock(&job.samplers[slot]).drawn();
        }
        output.tokens.push(tokens);
        if job.plan.trace_logits {
            // `logits` left those that computed them.
            let mut logits = vec![Vec::new(); steps.len()];
            for &slot in self.active.iter().filter(|&&slot| steps[slot].output > Output::State) {
                logits[slot] = lock(&job.logits[slot]).clone();
            }
            output.logits.push(logits);
        }
    }
}
