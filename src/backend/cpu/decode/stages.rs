//! The decode kernels one at a time, on one thread.

use super::embed::Embed;
use super::rescale::rescale;
use super::sample::SlotSampler;
use crate::backend::cpu::exchange::{Exchange, Job};
use crate::backend::cpu::norm::LayerNorm;
use crate::backend::cpu::share::{LayerMemory, OwnMemory, share_out};
use crate::backend::cpu::weights::{Weight, Weights, on_weights};
use crate::backend::cpu::worker::Worker;
use crate::backend::cpu::{CpuBackend, lock};
use crate::backend::memory::{Memory, WINDOW};
use crate::backend::pack::Geometry;
use crate::backend::stage::{
    EncodeInput, EncodeOutput, LogitsInput, ProjectInput, ProjectOutput, SampleInput, SampleOutput, Stages,
};
use crate::backend::{BackendError, Input, Output, Plan, SlotStep};
use crate::sampling::SamplerState;
use std::sync::Mutex;

/// A test bench for single kernels: one thread that owns all blocks.
pub struct Bench<'a> {
    backend: &'a CpuBackend,
    exchange: Exchange,
    /// The thread.
    pub worker: Worker,
    slots: usize,
}

impl<'a> Bench<'a> {
    /// A bench for `slots` sequences, all active.
    pub fn new(backend: &'a CpuBackend, slots: usize) -> Self {
        let g = &backend.shared.model.geometry;
        let mut shares = share_out(g, 1);
        let exchange = Exchange::new(g, &shares, slots);
        let mut worker = Worker::new(g, shares.remove(0), slots);
        worker.active = (0..slots).collect();
        Self { backend, exchange, worker, slots }
    }

    /// Calls `run` with the worker and a job without a plan.
    fn with<R>(&mut self, logits: &[Mutex<Vec<f32>>], run: impl FnOnce(&mut Worker, &Job) -> R) -> R {
        let plan = Plan::default();
        run(&mut self.worker, &Job::new(&self.backend.shared, &plan, &self.exchange, logits, false))
    }

    /// Copies `[S, D]` numbers into padded rows.
    fn pad(&self, values: &[f32], to: &mut [f32]) {
        let g = &self.backend.shared.model.geometry;
        for (from, to) in values.chunks_exact(g.width).zip(to.chunks_exact_mut(g.row)) {
            to[..g.width].copy_from_slice(from);
        }
    }

    /// `[S, D]` numbers as padded rows.
    fn padded(&self, values: &[f32]) -> Vec<f32> {
        let g = &self.backend.shared.model.geometry;
        let mut rows = vec![0.0; values.len() / g.width * g.row];
        self.pad(values, &mut rows);
        rows
    }

    /// Copies `[S, D]` numbers out of padded rows.
    fn trim(&self, values: &[f32]) -> Vec<f32> {
        let g = &self.backend.shared.model.geometry;
        values.chunks_exact(g.row).flat_map(|row| &row[..g.width]).copied().collect()
    }

    /// Computes the residual stream and the phases.
    pub fn residual<E: Weight>(&mut self, weights: &Weights<E>, input: &EncodeInput) {
        let g = &self.backend.shared.model.geometry;
        (self.worker.x, self.worker.update) = (self.padded(&input.residual), self.padded(&input.update));
        let level = self.backend.shared.level;
        self.worker.active.retain(|&slot| input.steps[slot].input == Input::Previous);
        self.with(&[], |worker, job| worker.finish_gathered(job));
        self.worker.active = (0..self.slots).filter(|&slot| input.steps[slot].input != Input::Idle).collect();
        for (slot, step) in input.steps.iter().enumerate() {
            if let Input::Token(token) = step.input {
                let embedding = &weights.embed[token as usize * g.row..][..g.row];
                let x = &mut self.worker.x[slot * g.row..][..g.row];
                level.run(Embed { embedding, width: g.width, x });
            }
            self.with(&[], |worker, job| worker.rotate(job, slot, step.position));
        }
    }
}

impl CpuBackend {
    fn encode_typed<E: Weight>(&self, weights: &Weights<E>, input: &EncodeInput) -> EncodeOutput {
        let g = &self.shared.model.geometry;
        let slots = input.steps.len();
        let mut bench = Bench::new(self, slots);
        bench.residual(weights, input);
        let mut memory = Memory::zeros(slots, 1, g.all_neurons(), g.row);
        // The slots are laid out like further heads.
        let all = Geometry { heads: slots * g.heads, ..g.clone() };
        all.pad(&input.memory.state, g.width, &mut memory.state, g.row);
        all.pad(&input.memory.rotated, WINDOW, &mut memory.rotated, WINDOW);
        bench.pad(&input.memory.recent, &mut memory.recent);
        let size = WINDOW * g.row;
        for (slot, recent) in memory.recent.chunks_exact(size).enumerate() {
            bench.worker.recent_of(slot)[..size].copy_from_slice(recent);
        }
        let states = memory.state.chunks_exact_mut(g.layer_state());
        let windows = memory.rotated.chunks_exact_mut(g.all_neurons() * WINDOW);
        let mut own: OwnMemory =
            states.zip(windows).map(|(state, rotated)| vec![LayerMemory { state, rotated }]).collect();
        bench.with(&[], |worker, job| {
            worker.encode(job, weights, &input.steps, 0, &mut own);
            worker.gather_attention(job);
        });
        for (slot, _) in input.steps.iter().enumerate().filter(|(_, step)| step.input == Input::Idle) {
            bench.worker.x[slot * g.row..][..g.row].fill(0.0);
        }
        let mut attention = Vec::new();
        for slot in 0..slots {
            for head in 0..g.heads {
                attention.extend_from_slice(&bench.worker.attention[(head * slots + slot) * g.row..][..g.width]);
            }
        }
        let recent: Vec<f32> = (0..slots).flat_map(|slot| bench.worker.recent_of(slot)[..size].to_vec()).collect();
        EncodeOutput {
            residual: bench.trim(&bench.worker.x),
            activations: all.unpad(&bench.worker.u, 1, 1),
            attention,
            memory: Memory {
                state: all.unpad(&memory.state, g.row, g.width),
                rotated: all.unpad(&memory.rotated, WINDOW, WINDOW),
                recent: bench.trim(&recent),
            },
        }
    }

    fn project_typed<E: Weight>(&self, weights: &Weights<E>, input: &ProjectInput) -> ProjectOutput {
        let g = &self.shared.model.geometry;
        let slots = input.attention.len() / (g.heads * g.width);
        let mut bench = Bench::new(self, slots);
        let all = Geometry { heads: slots * g.heads, ..g.clone() };
        all.pad(&input.activations, 1, &mut bench.worker.u, 1);
        for (i, from) in input.attention.chunks_exact(g.width).enumerate() {
            let (slot, head) = (i / g.heads, i % g.heads);
            bench.worker.attention[(head * slots + slot) * g.row..][..g.width].copy_from_slice(from);
        }
        bench.with(&[], |worker, job| {
            worker.project_gathered(job, weights, 0);
            worker.gather_update(job, 0);
        });
        let gates = all.unpad(&bench.worker.u, 1, 1);
        ProjectOutput { update: bench.trim(&bench.worker.update), gates: Some(gates) }
    }

    fn logits_typed<E: Weight>(&self, weights: &Weights<E>, input: &LogitsInput) -> Vec<f32> {
        let g = &self.shared.model.geometry;
        let slots = input.residual.len() / g.width;
        let mut bench = Bench::new(self, slots);
        let step = SlotStep { input: Input::Previous, output: Output::Logits, ..SlotStep::IDLE };
        let steps = vec![step; slots];
        let (residual, update) = (input.residual.clone(), input.update.clone());
        bench.residual(
            weights,
            &EncodeInput { steps: steps.clone(), residual, update, finished: None, memory: Memory::default() },
        );
        let logits: Vec<Mutex<Vec<f32>>> = (0..slots).map(|_| Mutex::new(vec![0.0; g.vocab])).collect();
        bench.with(&logits, |worker, job| worker.logits(job, weights, &steps));
        logits.into_iter().flat_map(|logits| lock(&logits).clone()).collect()
    }
}

impl Stages for CpuBackend {
    fn encode(&self, input: &EncodeInput) -> Result<EncodeOutput, BackendError> {
        Ok(on_weights!(&self.shared.model.weights, weights => self.encode_typed(weights, input)))
    }

    fn finish(&self, residual: &[f32], update: &[f32]) -> Result<Vec<f32>, BackendError> {
        let mut bench = Bench::new(self, residual.len() / self.shared.model.geometry.width);
        let [x, update] = [residual, update].map(|rows| bench.padded(rows));
        (bench.worker.x, bench.worker.update) = (x, update);
        bench.with(&[], |worker, job| worker.finish_gathered(job));
        Ok(bench.trim(&bench.worker.x))
    }

    fn collect(&self, attention: &[f32]) -> Result<Vec<f32>, BackendError> {
        let g = &self.shared.model.geometry;
        let bench = Bench::new(self, 1);
        let mut rows = bench.padded(attention);
        for v in rows.chunks_exact_mut(g.row) {
            self.shared.level.run(LayerNorm { v, width: g.width });
        }
        Ok(bench.trim(&rows))
    }

    fn project(&self, input: &ProjectInput) -> Result<ProjectOutput, BackendError> {
        Ok(on_weights!(&self.shared.model.weights, weights => self.project_typed(weights, input)))
    }

    fn logits(&self, input: &LogitsInput) -> Result<Vec<f32>, BackendError> {
        Ok(on_weights!(&self.shared.model.weights, weights => self.logits_typed(weights, input)))
    }

    fn sample(&self, input: &SampleInput) -> Result<SampleOutput, BackendError> {
        let vocab = self.shared.model.geometry.vocab;
        let mut output = SampleOutput { samplers: Vec::new(), counts: input.counts.clone() };
        for (slot, counts) in output.counts.chunks_exact_mut(vocab).enumerate() {
            let mut sampler = SlotSampler::new(vocab);
            sampler.params = input.params[slot];
            sampler.counts.copy_from_slice(counts);
            sampler.state = SamplerState { generated: input.generated[slot], ..SamplerState::default() };
            sampler.draw(&input.logits[slot * vocab..][..vocab]);
            counts.copy_from_slice(&sampler.counts);
            output.samplers.push(sampler.state);
        }
        Ok(output)
    }

    fn rescale(&self, memory: &Memory, factors: &[f32]) -> Result<Memory, BackendError> {
        let mut memory = memory.clone();
        for part in [&mut memory.state, &mut memory.recent] {
            let size = part.len() / factors.len().max(1);
            for (part, &factor) in part.chunks_exact_mut(size.max(1)).zip(factors) {
                rescale(part, factor);
            }
        }
        Ok(memory)
    }

    fn settle(&self, memory: &Memory, sequence: usize, sequences: usize) -> Result<Memory, BackendError> {
        let g = &self.shared.model.geometry;
        let all = Geometry { heads: sequences * g.heads, ..g.clone() };
        let mut bench = Bench::new(self, 1);
        let mut padded = Memory::zeros(1, sequences, g.all_neurons(), g.row);
        all.pad(&memory.state, g.width, &mut padded.state, g.row);
        all.pad(&memory.rotated, WINDOW, &mut padded.rotated, WINDOW);
        let recent = &memory.recent[sequence * WINDOW * g.width..][..WINDOW * g.width];
        let mut rows = vec![0.0; WINDOW * g.row];
        bench.pad(recent, &mut rows);
        bench.worker.recent_of(0)[..rows.len()].copy_from_slice(&rows);
        let state = &mut padded.state[sequence * g.layer_state()..][..g.layer_state()];
        let rotated = &mut padded.rotated[sequence * g.all_neurons() * WINDOW..][..g.all_neurons() * WINDOW];
        bench.worker.settle(self.shared.level, g, 0, &mut [LayerMemory { state, rotated }]);
        Ok(Memory {
            state: all.unpad(&padded.state, g.row, g.width),
            rotated: all.unpad(&padded.rotated, WINDOW, WINDOW),
            recent: memory.recent.clone(),
        })
    }
}
