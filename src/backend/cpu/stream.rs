//! The inputs that all blocks of a layer share: the residual stream, the windows' residuals, and
//! rotary phases.

use super::past::Past;
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
    /// What sliding windows hold, `[slots]`.
    pub pasts: Vec<Option<Past>>,
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
            pasts: (0..slots).map(|_| None).collect(),
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
            if let Some(past) = &mut self.pasts[slot] {
                past.pass(layer, step.position, &self.x[slot * g.row..][..g.row]);
            }
        }
    }

    /// The active sequences with a sliding window, and the positions of their tokens.
    pub fn sliding(&self) -> impl Iterator<Item = (usize, &Past, u32)> {
        let past = |&slot: &usize| Some((slot, self.pasts[slot].as_ref()?, self.positions[slot]));
        self.active.iter().filter_map(past)
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
        let positions = stream.active.iter().map(|&slot| (slot, stream.positions[slot]));
        self.prepare_at(model, level, stream.step, positions, block);
    }

    /// Computes the phases of a block for the tokens that leave sliding windows, unless they are
    /// there.
    pub fn prepare_leaving(&mut self, model: &CpuModel, level: Level, stream: &Stream, block: usize) {
        let leaving = stream.sliding().filter_map(|(slot, past, now)| Some((slot, past.leaving_at(now)?)));
        self.prepare_at(model, level, stream.step, leaving, block);
    }

    /// Computes the phases of a block for slots and positions, unless they are there.
    fn prepare_at(
        &mut self,
        model: &CpuModel,
        level: Level,
        step: u64,
        positions: impl Iterator<Item = (usize, u32)>,
        block: usize,
    ) {
        let g = &model.geometry;
        let block = block % g.blocks_per_head;
        if std::mem::replace(&mut self.step[block], step) == step {
            return;
        }
        let first = block * g.block;
        for (slot, position) in positions {
            let at = slot * g.padded_neurons() + first;
            level.run(Phases {
                turns: &model.turns[first..first + g.block],
                position,
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
