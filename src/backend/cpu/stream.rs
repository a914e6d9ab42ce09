//! The inputs that all blocks of a layer share: the residual stream, the windows' residuals, and
//! rotary phases.

use super::rotary::Phases;
use super::simd::Level;
use super::weights::CpuModel;
use crate::backend::SlotStep;
use crate::backend::cpu::decode::embed::{Embed, Finish};
use crate::backend::cpu::weights::{Weight, Weights};
use crate::backend::memory::WINDOW;
use crate::backend::pack::Geometry;

/// Residual stream, windows and positions of all sequences.
pub struct Stream {
    /// Number of sequences.
    pub slots: usize,
    /// Residual stream, `[slots][row]`.
    pub x: Vec<f32>,
    /// Decoder output of a layer, `[slots][row]`.
    pub update: Vec<f32>,
    /// Steps so far: tells one step's phases from another's.
    pub step: u64,
    /// Positions of the active sequences, `[slots]`.
    pub positions: Vec<u32>,
    /// The windows' residuals, `[slots][layers][WINDOW][row]`.
    pub recent: Vec<f32>,
    /// Sequences that take part in the current step.
    pub active: Vec<usize>,
    /// The active sequences that need logits.
    pub with_logits: Vec<usize>,
    /// The active sequences that draw a token.
    pub drawing: Vec<usize>,
}

impl Stream {
    /// Empty windows.
    pub fn new(g: &Geometry, slots: usize) -> Self {
        Self {
            slots,
            x: vec![0.0; slots * g.row],
            update: vec![0.0; slots * g.row],
            step: 0,
            positions: vec![0; slots],
            recent: vec![0.0; slots * g.layers * WINDOW * g.row],
            active: Vec::with_capacity(slots),
            with_logits: Vec::with_capacity(slots),
            drawing: Vec::with_capacity(slots),
        }
    }

    /// The windows' residuals of a sequence in all layers, `[layers][WINDOW][row]`.
    pub fn recent_of(&mut self, slot: usize) -> &mut [f32] {
        let size = self.recent.len() / self.slots;
        &mut self.recent[slot * size..][..size]
    }

    /// The window's residuals of a sequence in one layer, `[WINDOW][row]`.
    pub fn window(&self, g: &Geometry, slot: usize, layer: usize) -> &[f32] {
        &self.recent[(slot * g.layers + layer) * WINDOW * g.row..][..WINDOW * g.row]
    }

    /// Embeds a sequence's token.
    pub fn embed<E: Weight>(&mut self, g: &Geometry, level: Level, weights: &Weights<E>, slot: usize, token: u32) {
        let embedding = &weights.embed[token as usize * g.row..][..g.row];
        let x = &mut self.x[slot * g.row..][..g.row];
        level.run(Embed { embedding, width: g.width, x });
    }

    /// The tokens of a layer enter the windows.
    pub fn enter_window(&mut self, g: &Geometry, steps: &[SlotStep], layer: usize) {
        for &slot in &self.active {
            let step = &steps[slot];
            let at = (slot * g.layers + layer) * WINDOW + step.position as usize % WINDOW;
            let to = &mut self.recent[at * g.row..][..g.row];
            for (to, x) in to.iter_mut().zip(&self.x[slot * g.row..][..g.row]) {
                *to = x * step.write_scale;
            }
        }
    }

    /// x ← LN(x + LN(update)).
    pub fn finish(&mut self, g: &Geometry, level: Level) {
        for &slot in &self.active {
            let range = slot * g.row..(slot + 1) * g.row;
            let (x, update) = (&mut self.x[range.clone()], &mut self.update[range]);
            level.run(Finish { x, update, width: g.width });
        }
    }
}

/// Rotary phases of a step. Each thread has its own: to compute them takes no longer than to fetch
/// them from another processor's cache.
#[derive(Default)]
pub struct StepPhases {
    /// The step of each block of a head; see [`Stream::step`].
    step: Vec<u64>,
    /// Cosines, `[slots][padded N]`.
    cosines: Vec<f32>,
    /// Sines, `[slots][padded N]`.
    sines: Vec<f32>,
}

impl StepPhases {
    /// Phases of no step.
    pub fn new(g: &Geometry, slots: usize) -> Self {
        let numbers = || vec![0.0; slots * g.padded_neurons()];
        Self { step: vec![u64::MAX; g.blocks_per_head], cosines: numbers(), sines: numbers() }
    }

    /// Computes the phases of a block for the active sequences, unless they are there.
    pub fn prepare(&mut self, model: &CpuModel, level: Level, stream: &Stream, block: usize) {
        let g = &model.geometry;
        let block = block % g.blocks_per_head;
        if std::mem::replace(&mut self.step[block], stream.step) == stream.step {
            return;
        }
        let first = block * g.block;
        for &slot in &stream.active {
            let at = slot * g.padded_neurons() + first;
            level.run(Phases {
                turns: &model.turns[first..first + g.block],
                position: stream.positions[slot],
                cosines: &mut self.cosines[at..at + g.block],
                sines: &mut self.sines[at..at + g.block],
            });
        }
    }

    /// Cosines and sines of a block, `[block]` each.
    pub fn of(&self, g: &Geometry, slot: usize, block: usize) -> [&[f32]; 2] {
        let first = slot * g.padded_neurons() + block % g.blocks_per_head * g.block;
        [&self.cosines[first..][..g.block], &self.sines[first..][..g.block]]
    }
}
