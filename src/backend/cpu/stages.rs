//! The CPU's kernels one at a time, on one thread.

use super::weights::{AnyWeights, Half, Weights};
use super::worker::{self, Exchange, Job, OwnState, Worker};
use super::{CpuBackend, SlotSampler, rescale};
use crate::backend::stage::{
    EncodeInput, EncodeOutput, LogitsInput, ProjectInput, ProjectOutput, SampleInput, SampleOutput, Stages,
};
use crate::backend::{BackendError, Input, Output, Plan, RunOutput, SlotStep};
use crate::sampling::Control;
use std::sync::Mutex;

/// Everything a stage needs besides its input: one thread that owns all blocks.
pub(super) struct Bench<'a> {
    backend: &'a CpuBackend,
    exchange: Exchange,
    pub worker: Worker,
    slots: usize,
}

impl<'a> Bench<'a> {
    pub fn new(backend: &'a CpuBackend, slots: usize) -> Self {
        let g = &backend.shared.model.geometry;
        let mut shares = worker::share_out(g, 1);
        let exchange = Exchange::new(g, &shares, slots);
        let mut worker = Worker::new(g, shares.remove(0), slots);
        worker.active = (0..slots).collect();
        Self { backend, exchange, worker, slots }
    }

    fn with<R>(&mut self, logits: &[Mutex<Vec<f32>>], run: impl FnOnce(&mut Worker, &Job) -> R) -> R {
        let job = Job {
            plan: &Plan::default(),
            model: &self.backend.shared.model,
            level: self.backend.shared.level,
            exchange: &self.exchange,
            samplers: &[],
            logits,
            output: Mutex::new(RunOutput::default()),
        };
        run(&mut self.worker, &job)
    }

    /// Puts `[S, D]` numbers into padded rows.
    fn pad(&self, values: &[f32], to: &mut [f32]) {
        let g = &self.backend.shared.model.geometry;
        for (from, to) in values.chunks_exact(g.width).zip(to.chunks_exact_mut(g.row)) {
            to[..g.width].copy_from_slice(from);
        }
    }

    /// Takes `[S, D]` numbers out of padded rows.
    fn trim(&self, values: &[f32]) -> Vec<f32> {
        let g = &self.backend.shared.model.geometry;
        values.chunks_exact(g.row).flat_map(|row| &row[..g.width]).copied().collect()
    }

    /// Puts the residual stream and the phases in place.
    pub fn residual<E: Half>(&mut self, weights: &Weights<E>, input: &EncodeInput) {
        let g = &self.backend.shared.model.geometry;
        let (mut x, mut update) = (vec![0.0; self.slots * g.row], vec![0.0; self.slots * g.row]);
        self.pad(&input.residual, &mut x);
        self.pad(&input.update, &mut update);
        (self.worker.x, self.worker.update) = (x, update);
        let level = self.backend.shared.level;
        self.worker.active.retain(|&slot| input.steps[slot].input == Input::Previous);
        self.with(&[], |worker, job| worker.finish_gathered(job));
        self.worker.active = (0..self.slots).filter(|&slot| input.steps[slot].input != Input::Idle).collect();
        for (slot, step) in input.steps.iter().enumerate() {
            if let Input::Token(token) = step.input {
                let embedding = &weights.embed[token as usize * g.row..][..g.row];
                let x = &mut self.worker.x[slot * g.row..][..g.row];
                level.run(super::residual::Embed { embedding, width: g.width, x });
            }
            self.with(&[], |worker, job| worker.rotate(job, slot, step.position));
        }
    }
}

impl CpuBackend {
    fn encode_typed<E: Half>(&self, weights: &Weights<E>, input: &EncodeInput) -> EncodeOutput {
        let g = &self.shared.model.geometry;
        let slots = input.steps.len();
        let mut bench = Bench::new(self, slots);
        bench.residual(weights, input);
        let per_slot = g.heads * g.neurons * g.width;
        let mut states: Vec<Vec<f32>> = vec![vec![0.0; g.layer_state()]; slots];
        for (state, from) in states.iter_mut().zip(input.state.chunks_exact(per_slot)) {
            for (head, from) in
                state.chunks_exact_mut(g.padded_neurons() * g.row).zip(from.chunks_exact(g.neurons * g.width))
            {
                bench.pad(from, head);
            }
        }
        let mut own: OwnState = states.iter_mut().map(|state| vec![state.as_mut_slice()]).collect();
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
        let heads = bench.worker.u.chunks_exact(g.padded_neurons());
        EncodeOutput {
            residual: bench.trim(&bench.worker.x),
            activations: heads.flat_map(|head| &head[..g.neurons]).copied().collect(),
            attention,
            state: states
                .iter()
                .flat_map(|state| state.chunks_exact(g.padded_neurons() * g.row))
                .flat_map(|head| bench.trim(&head[..g.neurons * g.row]))
                .collect(),
        }
    }

    fn project_typed<E: Half>(&self, weights: &Weights<E>, input: &ProjectInput) -> ProjectOutput {
        let g = &self.shared.model.geometry;
        let slots = input.attention.len() / (g.heads * g.width);
        let mut bench = Bench::new(self, slots);
        for (to, from) in
            bench.worker.u.chunks_exact_mut(g.padded_neurons()).zip(input.activations.chunks_exact(g.neurons))
        {
            to[..g.neurons].copy_from_slice(from);
        }
        for (i, from) in input.attention.chunks_exact(g.width).enumerate() {
            let (slot, head) = (i / g.heads, i % g.heads);
            bench.worker.attention[(head * slots + slot) * g.row..][..g.width].copy_from_slice(from);
        }
        bench.with(&[], |worker, job| {
            worker.project_gathered(job, weights, 0);
            worker.gather_update(job, 0);
        });
        let heads = bench.worker.u.chunks_exact(g.padded_neurons());
        let gates = heads.flat_map(|head| &head[..g.neurons]).copied().collect();
        ProjectOutput { update: bench.trim(&bench.worker.update), gates: Some(gates) }
    }

    fn logits_typed<E: Half>(&self, weights: &Weights<E>, input: &LogitsInput) -> Vec<f32> {
        let g = &self.shared.model.geometry;
        let slots = input.residual.len() / g.width;
        let mut bench = Bench::new(self, slots);
        let step = SlotStep { input: Input::Previous, output: Output::Logits, ..SlotStep::IDLE };
        let steps = vec![step; slots];
        let (residual, update) = (input.residual.clone(), input.update.clone());
        bench.residual(weights, &EncodeInput { steps: steps.clone(), residual, update, state: Vec::new() });
        let logits: Vec<Mutex<Vec<f32>>> = (0..slots).map(|_| Mutex::new(vec![0.0; g.vocab])).collect();
        bench.with(&logits, |worker, job| worker.logits(job, weights, &steps));
        logits.into_iter().flat_map(|logits| super::lock(&logits).clone()).collect()
    }
}

impl Stages for CpuBackend {
    fn encode(&self, input: &EncodeInput) -> Result<EncodeOutput, BackendError> {
        Ok(match &self.shared.model.weights {
            AnyWeights::F32(weights) => self.encode_typed(weights, input),
            AnyWeights::F16(weights) => self.encode_typed(weights, input),
        })
    }

    fn project(&self, input: &ProjectInput) -> Result<ProjectOutput, BackendError> {
        Ok(match &self.shared.model.weights {
            AnyWeights::F32(weights) => self.project_typed(weights, input),
            AnyWeights::F16(weights) => self.project_typed(weights, input),
        })
    }

    fn logits(&self, input: &LogitsInput) -> Result<Vec<f32>, BackendError> {
        Ok(match &self.shared.model.weights {
            AnyWeights::F32(weights) => self.logits_typed(weights, input),
            AnyWeights::F16(weights) => self.logits_typed(weights, input),
        })
    }

    fn sample(&self, input: &SampleInput) -> Result<SampleOutput, BackendError> {
        let vocab = self.shared.model.geometry.vocab;
        let mut output = SampleOutput { control: Vec::new(), counts: input.counts.clone() };
        for (slot, counts) in output.counts.chunks_exact_mut(vocab).enumerate() {
            let mut sampler = SlotSampler::new(vocab);
            sampler.params = input.params[slot];
            sampler.counts.copy_from_slice(counts);
            sampler.control = Control { generated: input.generated[slot], ..Control::default() };
            sampler.draw(&input.logits[slot * vocab..][..vocab]);
            counts.copy_from_slice(&sampler.counts);
            output.control.push(sampler.control);
        }
        Ok(output)
    }

    fn rescale(&self, state: &[f32], factors: &[f32]) -> Result<Vec<f32>, BackendError> {
        let mut state = state.to_vec();
        let size = state.len() / factors.len().max(1);
        for (state, &factor) in state.chunks_exact_mut(size).zip(factors) {
            rescale(state, factor);
        }
        Ok(state)
    }
}
