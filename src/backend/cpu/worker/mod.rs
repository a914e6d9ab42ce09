//! One thread's share of a run.
//!
//! A thread owns a range of neuron blocks: their weights, their rows of every sequence's state and
//! their activations. In each layer the threads exchange the blocks' partial attention outputs
//! (only if a head is split between threads) and their partial decoder outputs, with a barrier
//! after each.

mod kernels;

use super::decode::embed::Embed;
use super::decode::rescale::rescale;
use super::decode::sample::running;
use super::exchange::Job;
use super::lock;
use super::probe::{Phase, Probe};
use super::rows::RowList;
use super::share::{OwnMemory, Share};
use super::weights::{Weight, Weights, on_weights};
use crate::backend::memory::WINDOW;
use crate::backend::pack::Geometry;
use crate::backend::{Input, Output, SlotStep};
use crate::sampling::NO_TOKEN;

/// A thread's share and its scratch memory.
pub struct Worker {
    /// The thread's share.
    pub share: Share,
    /// Number of sequences.
    pub slots: usize,
    /// Residual stream, `[slots][row]`.
    pub x: Vec<f32>,
    /// Decoder output of a layer, `[slots][row]`.
    pub update: Vec<f32>,
    /// Activations of the own blocks, `[slots][own blocks * block]`; gates after `project`.
    pub u: Vec<f32>,
    /// Attention outputs, `[heads][slots][row]`.
    pub attention: Vec<f32>,
    /// Cosines of the rotary phases, `[slots][padded N]`.
    pub cosines: Vec<f32>,
    /// Sines of the rotary phases, `[slots][padded N]`.
    pub sines: Vec<f32>,
    /// Active neurons of the current block.
    pub list: RowList,
    /// The windows' residuals, `[slots][layers][WINDOW][row]`; every thread has the same copy.
    pub recent: Vec<f32>,
    /// Sequences that take part in the current step.
    pub active: Vec<usize>,
    /// The active sequences that draw a token.
    drawing: Vec<usize>,
    /// Measures the run if it is profiled.
    pub probe: Option<Box<Probe>>,
}

impl Worker {
    /// A worker with empty windows.
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

    /// Runs this thread's share of every step. `memory` is the thread's part.
    pub fn run(&mut self, job: &Job, memory: &mut OwnMemory) {
        on_weights!(&job.model.weights, weights => self.run_typed(job, weights, memory));
    }

    fn run_typed<E: Weight>(&mut self, job: &Job, weights: &Weights<E>, memory: &mut OwnMemory) {
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
                if job.exchange.heads_split() {
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

    /// Charges the time since the last lap to `phase`, if the run is profiled.
    fn lap(&mut self, phase: Phase) {
        if let Some(probe) = &mut self.probe {
            probe.lap(phase);
        }
    }

    /// Counts a layer's activations or gates of the own blocks, if the run is profiled.
    fn count_neurons(&mut self, count: fn(&mut Probe, usize, &[f32], usize, &[usize]), layer: usize) {
        if let Some(probe) = &mut self.probe {
            count(probe, layer, &self.u, self.u.len() / self.slots, &self.active);
        }
    }

    /// Counts the step and the pairs that are about to settle, if the run is profiled.
    fn count_settled(&mut self, steps: &[SlotStep], layer: usize, memory: &OwnMemory) {
        if let Some(probe) = &mut self.probe {
            if self.share.index == 0 && layer == 0 {
                probe.step(self.active.len(), steps.iter().any(|step| step.output > Output::State));
            }
            self.active.iter().for_each(|&slot| probe.settled(&memory[slot][layer], steps[slot].position));
        }
    }

    /// Lists the sequences that take part; computes their embeddings and phases.
    fn start<E: Weight>(&mut self, job: &Job, weights: &Weights<E>, steps: &[SlotStep]) {
        let g = &job.model.geometry;
        self.active.clear();
        self.drawing.clear();
        for (slot, step) in steps.iter().enumerate() {
            let sampler = lock(&job.samplers[slot]).state;
            let token = match step.input {
                Input::Idle => continue,
                Input::Token(token) => token,
                Input::Previous if running(&sampler) => sampler.token,
                Input::Previous => continue,
            };
            self.active.push(slot);
            if step.output == Output::Token && running(&sampler) {
                self.drawing.push(slot);
            }
            let embedding = &weights.embed[token as usize * g.row..][..g.row];
            let x = &mut self.x[slot * g.row..][..g.row];
            job.level.run(Embed { embedding, width: g.width, x });
            self.rotate(job, slot, step.position);
        }
    }

    /// Draws the tokens of this thread's part of the sequences.
    fn sample(&mut self, job: &Job) {
        let threads = job.exchange.threads();
        for &slot in self.drawing.iter().filter(|&slot| slot % threads == self.share.index) {
            lock(&job.samplers[slot]).draw(&lock(&job.logits[slot]));
        }
    }

    /// Records a step's results. Other threads may already run the next step, but they cannot
    /// change logits or samplers before this thread reaches the next barrier.
    fn record(&self, job: &Job, steps: &[SlotStep]) {
        let mut output = lock(&job.output);
        let mut tokens = vec![NO_TOKEN; steps.len()];
        for &slot in &self.drawing {
            tokens[slot] = lock(&job.samplers[slot]).drawn();
        }
        output.tokens.push(tokens);
        if job.plan.trace_logits {
            // `Worker::logits` has kept only sequences with logits active.
            let mut logits = vec![Vec::new(); steps.len()];
            for &slot in self.active.iter().filter(|&&slot| steps[slot].output > Output::State) {
                logits[slot] = lock(&job.logits[slot]).clone();
            }
            output.logits.push(logits);
        }
    }
}
