//! The decode kernels one at a time, on one thread.

use super::rescale::rescale;
use super::sample::SlotSampler;
use crate::backend::cpu::exchange::{Exchange, Job, Scratch};
use crate::backend::cpu::norm::LayerNorm;
use crate::backend::cpu::pages::Pages;
use crate::backend::cpu::share::{LayerPages, share_out, split_layers, split_memory};
use crate::backend::cpu::stream::Stream;
use crate::backend::cpu::weights::{TILE, Weight, Weights, on_weights};
use crate::backend::cpu::worker::kernels::settle;
use crate::backend::cpu::{CpuBackend, lock};
use crate::backend::memory::{Memory, WINDOW};
use crate::backend::pack::Geometry;
use crate::backend::stage::{
    EncodeInput, EncodeOutput, LogitsInput, ProjectInput, ProjectOutput, SampleInput, SampleOutput, Stages,
};
use crate::backend::{BackendError, Input, Output, Plan, SlotStep};
use crate::sampling::SamplerState;
use maybe_async::maybe_async;
use std::sync::Mutex;

/// A test bench for single kernels: one thread that owns all blocks.
pub struct Bench<'a> {
    backend: &'a CpuBackend,
    /// The blocks' results.
    pub exchange: Exchange,
    /// The sequences.
    pub stream: Stream,
    scratch: Scratch,
    slots: usize,
}

impl<'a> Bench<'a> {
    /// A bench for `slots` sequences, all active.
    pub fn new(backend: &'a CpuBackend, slots: usize) -> Self {
        let g = &backend.shared.model.geometry;
        let mut stream = Stream::new(g, slots);
        stream.active = (0..slots).collect();
        let exchange = Exchange::new(g, share_out(g, 1), slots);
        Self { backend, exchange, stream, scratch: Scratch::new(g, slots), slots }
    }

    /// Calls `run` with a job without a plan.
    fn with<R>(&mut self, logits: &[Mutex<Vec<f32>>], run: impl FnOnce(&mut Stream, &mut Scratch, &Job) -> R) -> R {
        let plan = Plan::default();
        let job = Job::new(&self.backend.shared, &plan, &self.exchange, logits, false);
        run(&mut self.stream, &mut self.scratch, &job)
    }

    /// Attention outputs before the layer norm, `[S, H, D]`.
    pub fn attention(&mut self) -> Vec<f32> {
        let g = &self.backend.shared.model.geometry;
        let mut y = vec![0.0; self.slots * g.row];
        let mut attention = vec![0.0; self.slots * g.heads * g.width];
        for head in 0..g.heads {
            self.with(&[], |stream, _, job| job.gather_attention(&stream.active, head, &mut y));
            for (slot, y) in y.chunks_exact(g.row).enumerate() {
                attention[(slot * g.heads + head) * g.width..][..g.width].copy_from_slice(&y[..g.width]);
            }
        }
        attention
    }

    /// Activations or gates, `[S, H, N]`.
    pub fn activations(&self) -> Vec<f32> {
        let g = &self.backend.shared.model.geometry;
        let blocks: Vec<_> = self.exchange.blocks.iter().map(|block| lock(&block.u)).collect();
        let slots = 0..self.slots;
        slots
            .flat_map(|slot| {
                let padded = blocks.iter().flat_map(|u| &u[slot * g.block..][..g.block]).copied().collect::<Vec<_>>();
                g.unpad(&padded, 1, 1)
            })
            .collect()
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

    /// Computes the residual stream.
    pub fn residual<E: Weight>(&mut self, weights: &Weights<E>, input: &EncodeInput) {
        let g = &self.backend.shared.model.geometry;
        (self.stream.x, self.stream.update) = (self.padded(&input.residual), self.padded(&input.update));
        let level = self.backend.shared.level;
        self.stream.active.retain(|&slot| input.steps[slot].input == Input::Previous);
        self.stream.finish(g, level);
        self.stream.active = (0..self.slots).filter(|&slot| input.steps[slot].input != Input::Idle).collect();
        for (slot, step) in input.steps.iter().enumerate() {
            if let Input::Token(token) = step.input {
                self.stream.embed(g, level, weights, slot, token);
            }
            self.stream.positions[slot] = step.position;
        }
    }
}

impl CpuBackend {
    fn encode_typed<E: Weight>(&self, weights: &Weights<E>, input: &EncodeInput) -> Result<EncodeOutput, BackendError> {
        let g = &self.shared.model.geometry;
        let slots = input.steps.len();
        let mut bench = Bench::new(self, slots);
        bench.residual(weights, input);
        let mut memory = self.pages_of(&input.memory, slots)?;
        let mut recent = vec![0.0; slots * WINDOW * g.row];
        bench.pad(&input.memory.recent, &mut recent);
        let size = WINDOW * g.row;
        for (slot, recent) in recent.chunks_exact(size).enumerate() {
            bench.stream.recent_of(slot)[..size].copy_from_slice(recent);
        }
        let mut blocks = split_memory(&mut memory, g, &vec![1; g.blocks()]);
        bench.with(&[], |stream, scratch, job| {
            for (block, memory) in blocks.iter_mut().enumerate() {
                scratch.phases.prepare(job.model, job.level, stream, block);
                job.encode(weights, stream, block);
                job.attend(stream, &input.steps, 0, block, memory, scratch);
            }
            stream.enter_window(g, &input.steps, 0);
        });
        for (slot, _) in input.steps.iter().enumerate().filter(|(_, step)| step.input == Input::Idle) {
            bench.stream.x[slot * g.row..][..g.row].fill(0.0);
        }
        let attention = bench.attention();
        let recent: Vec<f32> = (0..slots).flat_map(|slot| bench.stream.recent_of(slot)[..size].to_vec()).collect();
        drop(blocks);
        Ok(EncodeOutput {
            residual: bench.trim(&bench.stream.x),
            activations: bench.activations(),
            attention,
            memory: self.memory_of(&memory, bench.trim(&recent)),
        })
    }

    /// Memories of one layer in the backend's layout, `[S][1]`.
    fn pages_of(&self, memory: &Memory, sequences: usize) -> Result<Vec<Vec<LayerPages>>, BackendError> {
        let g = &self.shared.model.geometry;
        let states = memory.state.chunks_exact(memory.state.len() / sequences);
        let windows = memory.rotated.chunks_exact(memory.rotated.len() / sequences);
        let layer = |(state, window): (&[f32], &[f32])| {
            let mut rotated = Pages::zeroed(g.all_neurons() * WINDOW, "a window")?;
            g.pad(window, WINDOW, &mut rotated, WINDOW);
            Ok(vec![LayerPages::new(self.state_of(state)?, rotated)?])
        };
        states.zip(windows).map(layer).collect()
    }

    /// The inverse of [`CpuBackend::pages_of`], with the windows' residuals.
    fn memory_of(&self, memory: &[Vec<LayerPages>], recent: Vec<f32>) -> Memory {
        let g = &self.shared.model.geometry;
        Memory {
            state: memory.iter().flat_map(|layers| layers[0].state.to_floats(g)).collect(),
            rotated: memory.iter().flat_map(|layers| g.unpad(&layers[0].rotated, WINDOW, WINDOW)).collect(),
            recent,
        }
    }

    fn project_typed<E: Weight>(&self, weights: &Weights<E>, input: &ProjectInput) -> ProjectOutput {
        let g = &self.shared.model.geometry;
        let slots = input.attention.len() / (g.heads * g.width);
        let mut bench = Bench::new(self, slots);
        let all = Geometry { heads: slots * g.heads, ..g.clone() };
        let mut u = vec![0.0; slots * g.all_neurons()];
        all.pad(&input.activations, 1, &mut u, 1);
        for (at, from) in u.chunks_exact(g.block).enumerate() {
            let (slot, block) = (at / g.blocks(), at % g.blocks());
            lock(&bench.exchange.blocks[block].u)[slot * g.block..][..g.block].copy_from_slice(from);
        }
        bench.with(&[], |stream, scratch, job| {
            for block in 0..g.blocks() {
                let head = block / g.blocks_per_head;
                let outputs = input.attention.chunks_exact(g.width).skip(head).step_by(g.heads);
                for (y, from) in scratch.y.chunks_exact_mut(g.row).zip(outputs) {
                    y[..g.width].copy_from_slice(from);
                }
                job.norm_attention(&stream.active, &mut scratch.y);
                job.project_gathered(weights, &stream.active, block, scratch);
            }
            job.gather_update(stream);
        });
        ProjectOutput { update: bench.trim(&bench.stream.update), gates: Some(bench.activations()) }
    }

    fn logits_typed<E: Weight>(&self, weights: &Weights<E>, input: &LogitsInput) -> Vec<f32> {
        let g = &self.shared.model.geometry;
        let slots = input.residual.len() / g.width;
        let mut bench = Bench::new(self, slots);
        let step = SlotStep { input: Input::Previous, output: Output::Logits, ..SlotStep::IDLE };
        let steps = vec![step; slots];
        let (residual, update) = (input.residual.clone(), input.update.clone());
        let memory = Memory::default();
        bench.residual(weights, &EncodeInput { steps, residual, update, finished: None, memory });
        let logits: Vec<Mutex<Vec<f32>>> = (0..slots).map(|_| Mutex::new(vec![0.0; g.vocab])).collect();
        bench.stream.with_logits = (0..slots).collect();
        bench.with(&logits, |stream, _, job| {
            (0..g.vocab.div_ceil(TILE)).for_each(|tile| job.logits(weights, stream, tile));
        });
        logits.into_iter().flat_map(|logits| lock(&logits).clone()).collect()
    }
}

#[maybe_async(?Send)]
impl Stages for CpuBackend {
    async fn encode(&self, input: &EncodeInput) -> Result<EncodeOutput, BackendError> {
        on_weights!(&self.shared.model.weights, weights => self.encode_typed(weights, input))
    }

    async fn finish(&self, residual: &[f32], update: &[f32]) -> Result<Vec<f32>, BackendError> {
        let g = &self.shared.model.geometry;
        let mut bench = Bench::new(self, residual.len() / g.width);
        let [x, update] = [residual, update].map(|rows| bench.padded(rows));
        (bench.stream.x, bench.stream.update) = (x, update);
        bench.stream.finish(g, self.shared.level);
        Ok(bench.trim(&bench.stream.x))
    }

    async fn collect(&self, attention: &[f32]) -> Result<Vec<f32>, BackendError> {
        let g = &self.shared.model.geometry;
        let bench = Bench::new(self, 1);
        let mut rows = bench.padded(attention);
        for v in rows.chunks_exact_mut(g.row) {
            self.shared.level.run(LayerNorm { v, width: g.width });
        }
        Ok(bench.trim(&rows))
    }

    async fn project(&self, input: &ProjectInput) -> Result<ProjectOutput, BackendError> {
        Ok(on_weights!(&self.shared.model.weights, weights => self.project_typed(weights, input)))
    }

    async fn logits(&self, input: &LogitsInput) -> Result<Vec<f32>, BackendError> {
        Ok(on_weights!(&self.shared.model.weights, weights => self.logits_typed(weights, input)))
    }

    async fn sample(&self, input: &SampleInput) -> Result<SampleOutput, BackendError> {
        let vocab = self.shared.model.geometry.vocab;
        let mut output = SampleOutput { samplers: Vec::new(), counts: input.counts.clone() };
        for (slot, counts) in output.counts.chunks_exact_mut(vocab).enumerate() {
            let mut sampler = SlotSampler::new(vocab);
            sampler.params = input.params[slot];
            sampler.counts.copy_from_slice(counts);
            sampler.sampler.set_biases(&input.biases[slot * vocab..][..vocab]);
            sampler.state = SamplerState { generated: input.generated[slot], ..SamplerState::default() };
            sampler.draw(&input.logits[slot * vocab..][..vocab]);
            counts.copy_from_slice(&sampler.counts);
            output.samplers.push(sampler.state);
        }
        Ok(output)
    }

    async fn rescale(&self, memory: &Memory, factors: &[f32]) -> Result<Memory, BackendError> {
        let g = &self.shared.model.geometry;
        let mut pages = self.pages_of(memory, factors.len())?;
        let mut recent = memory.recent.clone();
        for ((layers, recent), &factor) in pages.iter_mut().zip(recent.chunks_exact_mut(WINDOW * g.width)).zip(factors)
        {
            layers[0].state.rows_mut().rescale(factor);
            rescale(recent, factor);
        }
        Ok(self.memory_of(&pages, recent))
    }

    async fn settle(&self, memory: &Memory, sequence: usize, sequences: usize) -> Result<Memory, BackendError> {
        let g = &self.shared.model.geometry;
        let mut bench = Bench::new(self, 1);
        let recent = &memory.recent[sequence * WINDOW * g.width..][..WINDOW * g.width];
        let mut rows = vec![0.0; WINDOW * g.row];
        bench.pad(recent, &mut rows);
        bench.stream.recent_of(0)[..rows.len()].copy_from_slice(&rows);
        let mut pages = self.pages_of(memory, sequences)?;
        for mut block in split_layers(&mut pages[sequence], g, &vec![1; g.blocks()]) {
            settle(self.shared.level, g, &bench.stream, 0, &mut block);
        }
        Ok(self.memory_of(&pages, memory.recent.clone()))
    }
}
