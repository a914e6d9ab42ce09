//! Reading a chunk of tokens at once.
//!
//! The blocks of neurons are divided into *units*, a fixed number of ranges that do not depend on the number of
//! threads. Per layer every unit adds up its own share of the attention, and, when all have, of the decoder output;
//! shares are added in the units' order.

use super::chunk_kernels::{
    ChunkAttend, ChunkPhases, ChunkProduct, ChunkProject, ChunkRead, ChunkScratch, CopyPanels, GateScratch,
    GroupTokens, padded_tokens,
};
use super::pages::Pages;
use super::residual::{Accumulate, Embed, Finish, LayerNorm};
use super::rows::Weighted;
use super::weights::{AnyWeights, Half, TILE, Weights};
use super::worker::{self, LayerMemory};
use super::{Shared, lock, rescale};
use crate::backend::pack::Geometry;
use crate::backend::{BackendError, Chunk};
use std::ops::Range;
use std::sync::{Mutex, PoisonError, RwLock};

/// Most tokens in a chunk: enough to read the state's rows seldom, few enough for the caches.
pub const CHUNK_TOKENS: usize = 96;
/// Units at most, where a head has enough blocks.
const UNITS: usize = 16;

/// Consecutive blocks of one head.
#[derive(Clone, Debug)]
struct Unit {
    head: usize,
    blocks: Range<usize>,
}

/// What a unit leaves for others.
struct UnitOutput {
    /// q · state, `[T][row]` in panels.
    attention: Vec<f32>,
    /// q · q of all pairs of tokens, `[T][T padded]`.
    scores: Vec<f32>,
    /// Decoder output, `[T][row]`.
    update: Vec<f32>,
}

/// What a thread needs for itself.
struct ThreadMemory {
    /// Residual stream, `[T][row]`.
    x: Vec<f32>,
    /// The same in groups.
    groups: Vec<f32>,
    /// The same times each token's write scale.
    scaled_x: Vec<f32>,
    /// Matrices `[T][row]` in panels.
    panels: Vec<f32>,
    /// Attention output of one head, `[T][row]`.
    y: Vec<f32>,
    /// A layer's update, `[T][row]`.
    update: Vec<f32>,
    /// Cosines and sines of one head, `[T][padded N]`.
    phases: [Vec<f32>; 2],
    scratch: ChunkScratch,
    /// A tile of weights as f32.
    tile: Vec<f32>,
    gates: GateScratch,
    list: Vec<Weighted>,
}

/// Reads chunks; its memory is kept from one to the next.
pub struct ChunkReader {
    units: Vec<Unit>,
    /// Activations of each unit, `[T][unit neurons]`.
    activations: Vec<Mutex<Pages<f32>>>,
    outputs: Vec<RwLock<UnitOutput>>,
    threads: Vec<Mutex<ThreadMemory>>,
}

fn units(g: &Geometry) -> Vec<Unit> {
    let per_head = (UNITS / g.heads).clamp(1, g.blocks_per_head);
    let part = |i: usize| g.blocks_per_head * i / per_head;
    let heads = (0..g.heads).flat_map(|head| (0..per_head).map(move |i| (head, i)));
    heads
        .map(|(head, i)| {
            let first = head * g.blocks_per_head;
            Unit { head, blocks: first + part(i)..first + part(i + 1) }
        })
        .collect()
}

impl ChunkReader {
    pub fn new(shared: &Shared) -> Result<Self, BackendError> {
        let g = &shared.model.geometry;
        let units = units(g);
        let rows = || vec![0.0; CHUNK_TOKENS * g.row];
        let thread = || ThreadMemory {
            x: rows(),
            groups: Vec::new(),
            scaled_x: rows(),
            panels: rows(),
            y: rows(),
            update: rows(),
            phases: [0, 1].map(|_| vec![0.0; CHUNK_TOKENS * g.padded_neurons()]),
            scratch: ChunkScratch::default(),
            tile: Vec::new(),
            gates: GateScratch::default(),
            list: Vec::new(),
        };
        let output = || UnitOutput {
            attention: rows(),
            scores: vec![0.0; CHUNK_TOKENS * padded_tokens(CHUNK_TOKENS)],
            update: rows(),
        };
        let activations = |unit: &Unit| {
            Ok(Mutex::new(Pages::zeroed(CHUNK_TOKENS * unit.blocks.len() * g.block, "a chunk's activations")?))
        };
        Ok(Self {
            activations: units.iter().map(activations).collect::<Result<_, BackendError>>()?,
            outputs: units.iter().map(|_| RwLock::new(output())).collect(),
            threads: (0..shared.pool.current_num_threads()).map(|_| Mutex::new(thread())).collect(),
            units,
        })
    }

    /// Reads a chunk into a sequence's memory, whose window is empty. Returns the logits where they are asked for.
    pub fn read(
        &self,
        shared: &Shared,
        memory: &mut [LayerMemory<Pages<f32>>],
        barrier: &super::barrier::Barrier,
        chunk: &Chunk,
    ) -> Vec<f32> {
        let _turn = lock(&shared.turn);
        let shares: Vec<usize> = self.units.iter().map(|unit| unit.blocks.len()).collect();
        let g = &shared.model.geometry;
        let parts = worker::split_layers(memory, g, &shares);
        let parts: Vec<Mutex<_>> = parts.into_iter().map(Mutex::new).collect();
        let logits = Mutex::new(vec![0.0; if chunk.logits { chunk.tokens.len() * g.vocab } else { 0 }]);
        shared.pool.broadcast(|thread| {
            let _guard = barrier.guard();
            let run = Run { reader: self, shared, chunk, parts: &parts, barrier, thread: thread.index() };
            match &shared.model.weights {
                AnyWeights::F32(weights) => run.run(weights, &logits),
                AnyWeights::F16(weights) => run.run(weights, &logits),
            }
        });
        logits.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One thread's part of reading a chunk.
struct Run<'a> {
    reader: &'a ChunkReader,
    shared: &'a Shared,
    chunk: &'a Chunk,
    /// Each unit's part of the memory, `[units][layers]`.
    parts: &'a [Mutex<Vec<LayerMemory<&'a mut [f32]>>>],
    barrier: &'a super::barrier::Barrier,
    thread: usize,
}

impl Run<'_> {
    /// This thread's units.
    fn units(&self) -> Range<usize> {
        let (units, threads) = (self.reader.units.len(), self.reader.threads.len());
        units * self.thread / threads..units * (self.thread + 1) / threads
    }

    fn run<E: Half>(&self, weights: &Weights<E>, logits: &Mutex<Vec<f32>>) {
        let (g, level, chunk) = (&self.shared.model.geometry, self.shared.level, self.chunk);
        let tokens = chunk.tokens.len();
        let own = &mut *lock(&self.reader.threads[self.thread]);
        for (token, x) in chunk.tokens.iter().zip(own.x.chunks_exact_mut(g.row)) {
            let embedding = &weights.embed[token.token as usize * g.row..][..g.row];
            level.run(Embed { embedding, width: g.width, x });
        }
        let [cosines, sines] = &mut own.phases;
        let size = tokens * g.padded_neurons();
        let tables = [&mut cosines[..size], &mut sines[..size]];
        level.run(ChunkPhases { turns: &self.shared.model.turns, position: chunk.position, tables });
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
                self.attend(weights, own, unit, layer);
            }
            self.barrier.wait();
            let mut head = None;
            for unit in self.units() {
                if head.replace(self.reader.units[unit].head) != Some(self.reader.units[unit].head) {
                    self.gather_attention(own, self.reader.units[unit].head);
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

    /// `own.groups` from `own.x`.
    fn group_tokens(&self, own: &mut ThreadMemory) {
        let g = &self.shared.model.geometry;
        let x = &own.x[..self.chunk.tokens.len() * g.row];
        self.shared.level.run(GroupTokens { x, row: g.row, width: g.width, to: &mut own.groups });
    }

    /// A unit's neurons fire and meet the past.
    fn attend<E: Half>(&self, weights: &Weights<E>, own: &mut ThreadMemory, index: usize, layer: usize) {
        let (g, level) = (&self.shared.model.geometry, self.shared.level);
        let tokens = self.chunk.tokens.len();
        let unit = &self.reader.units[index];
        let mut output = self.reader.outputs[index].write().unwrap_or_else(PoisonError::into_inner);
        let UnitOutput { attention, scores, .. } = &mut *output;
        let attention = &mut attention[..tokens * g.row];
        let scores = &mut scores[..tokens * padded_tokens(tokens)];
        attention.fill(0.0);
        scores.fill(0.0);
        let u = &mut lock(&self.reader.activations[index])[..];
        let part = &mut lock(&self.parts[index])[layer];
        if let Some(factor) = self.chunk.rescale {
            rescale(part.state, factor);
        }
        let stride = unit.blocks.len() * g.block;
        for (place, block) in unit.blocks.clone().enumerate() {
            let tiles = &weights.encoder[block * g.block * g.width..][..g.block * g.width];
            for (tile_index, tile) in tiles.chunks_exact(g.width * TILE).enumerate() {
                level.run(ChunkProduct {
                    tile,
                    x: &own.groups,
                    tokens,
                    out: &mut u[place * g.block + tile_index * TILE..],
                    stride,
                    relu: true,
                    weights: &mut own.tile,
                });
            }
            let first = block % g.blocks_per_head * g.block;
            level.run(ChunkAttend {
                u: &u[place * g.block..],
                stride,
                phases: [&own.phases[0][first..], &own.phases[1][first..]],
                phase_stride: g.padded_neurons(),
                scaled_x: &own.panels[..tokens * g.row],
                state: &mut part.state[place * g.block * g.row..][..g.block * g.row],
                row: g.row,
                attention,
                scores,
                scratch: &mut own.scratch,
            });
        }
    }

    /// A head's attention output after its layer norm: `own.y`.
    fn gather_attention(&self, own: &mut ThreadMemory, head: usize) {
        let (g, level) = (&self.shared.model.geometry, self.shared.level);
        let tokens = self.chunk.tokens.len();
        // The residuals in panels have been used.
        let panels = &mut own.panels[..tokens * g.row];
        panels.fill(0.0);
        let mut scores = vec![0.0; tokens * padded_tokens(tokens)];
        for (unit, output) in self.reader.units.iter().zip(&self.reader.outputs).filter(|(unit, _)| unit.head == head) {
            debug_assert!(!unit.blocks.is_empty());
            let output = output.read().unwrap_or_else(PoisonError::into_inner);
            level.run(Accumulate { to: panels, from: &output.attention[..tokens * g.row] });
            let size = scores.len();
            level.run(Accumulate { to: &mut scores, from: &output.scores[..size] });
        }
        let y = &mut own.y[..tokens * g.row];
        level.run(CopyPanels { from: panels, to: y, row: g.row, into_panels: false });
        let read_scales: Vec<f32> = self.chunk.tokens.iter().map(|token| token.read_scale).collect();
        level.run(ChunkRead {
            scores: &scores,
            scaled_x: &own.scaled_x,
            read_scales: &read_scales,
            y,
            list: &mut own.list,
        });
        y.chunks_exact_mut(g.row).for_each(|v| level.run(LayerNorm { v, width: g.width }));
    }

    /// A unit's gated neurons and their decoder output.
    fn project<E: Half>(&self, weights: &Weights<E>, own: &mut ThreadMemory, index: usize) {
        let (g, level) = (&self.shared.model.geometry, self.shared.level);
        let tokens = self.chunk.tokens.len();
        let unit = &self.reader.units[index];
        let mut output = self.reader.outputs[index].write().unwrap_or_else(PoisonError::into_inner);
        let update = &mut output.update[..tokens * g.row];
        update.fill(0.0);
        let u = lock(&self.reader.activations[index]);
        for (place, block) in unit.blocks.clone().enumerate() {
            let rows = block * g.block * g.row..(block + 1) * g.block * g.row;
            level.run(ChunkProject {
                u: &u[place * g.block..],
                stride: unit.blocks.len() * g.block,
                y: &own.y[..tokens * g.row],
                row: g.row,
                encoder_v: &weights.encoder_v[rows.clone()],
                decoder: &weights.decoder[rows],
                update,
                scratch: &mut own.gates,
            });
        }
    }

    /// x ← LN(x + LN(update)).
    fn finish(&self, own: &mut ThreadMemory) {
        let (g, level) = (&self.shared.model.geometry, self.shared.level);
        let tokens = self.chunk.tokens.len();
        let update = &mut own.update[..tokens * g.row];
        update.fill(0.0);
        for output in &self.reader.outputs {
            let output = output.read().unwrap_or_else(PoisonError::into_inner);
            level.run(Accumulate { to: update, from: &output.update[..tokens * g.row] });
        }
        for (x, update) in own.x.chunks_exact_mut(g.row).zip(update.chunks_exact_mut(g.row)) {
            level.run(Finish { x, update, width: g.width });
        }
    }

    /// This thread's tiles of the head.
    fn logits<E: Half>(&self, weights: &Weights<E>, own: &mut ThreadMemory, logits: &Mutex<Vec<f32>>) {
        let (g, level) = (&self.shared.model.geometry, self.shared.level);
        let tokens = self.chunk.tokens.len();
        let tiles = worker::share_out(g, self.reader.threads.len()).swap_remove(self.thread).head_tiles;
        let mut out = vec![0.0; tokens * TILE];
        self.group_tokens(own);
        for index in tiles {
            let tile = &weights.head[index * TILE * g.width..][..TILE * g.width];
            let (x, weights) = (&own.groups, &mut own.tile);
            level.run(ChunkProduct { tile, x, tokens, out: &mut out, stride: TILE, relu: false, weights });
            let count = (g.vocab - index * TILE).min(TILE);
            let mut logits = lock(logits);
            for (to, from) in logits.chunks_exact_mut(g.vocab).zip(out.chunks_exact(TILE)) {
                to[index * TILE..][..count].copy_from_slice(&from[..count]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::CpuBackend;
    use super::super::simd::Level;
    use super::*;
    use crate::backend::{Backend, ChunkToken, WeightType};
    use crate::model::Model;
    use crate::model::synthetic::SyntheticSpec;
    use std::sync::Arc;

    /// Logits and state after a long and a short chunk, computed at one level.
    fn read(model: &Model, weights: WeightType, level: Level) -> [Vec<f32>; 2] {
        let mut backend = CpuBackend::new(model, weights, Some(2)).unwrap();
        Arc::get_mut(&mut backend.shared).unwrap().level = level;
        let mut slots = backend.create_slots(1).unwrap();
        let mut position = 0;
        let mut logits = Vec::new();
        for count in [CHUNK_TOKENS as u32, 37] {
            let token = |t| ChunkToken { token: (7 * t + t * t) % 61, read_scale: 0.9, write_scale: 1.1 };
            let tokens = (position..position + count).map(token).collect();
            let rescale = (position > 0).then_some(0.5);
            let chunk = Chunk { position, rescale, tokens, logits: true };
            logits.extend(slots.prefill(0, &chunk).unwrap());
            position += count;
        }
        [logits, slots.read_state(0).unwrap()]
    }

    #[test]
    fn chunks_are_the_same_at_every_level() {
        // Rows of a panel of four vectors and of one; of one vector alone; neurons that fill no block.
        for (n_embd, neurons_per_head) in [(72, 200), (10, 70), (256, 130)] {
            let model = Model::synthetic(&SyntheticSpec {
                n_layer: 2,
                n_embd,
                n_head: 2,
                neurons_per_head,
                vocab_size: 61,
                density: 0.3,
                seed: 3,
            });
            for weights in [WeightType::F32, WeightType::F16] {
                let wanted = read(&model, weights, Level::Portable);
                for level in Level::available() {
                    // Sums in another order, fused or not.
                    for (got, wanted) in read(&model, weights, level).iter().zip(&wanted) {
                        let size = wanted.iter().fold(0.0_f32, |size, x| size.max(x.abs()));
                        assert!(size > 0.1 && got.len() == wanted.len());
                        for (got, wanted) in got.iter().zip(wanted) {
                            let limit = 1e-4 * size;
                            assert!((got - wanted).abs() <= limit, "{level:?}, D {n_embd}: {got}, not {wanted}");
                        }
                    }
                }
            }
        }
    }
}
