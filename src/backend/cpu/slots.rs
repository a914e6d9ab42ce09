//! Sequences that decode together on the CPU.

use super::decode::sample::SlotSampler;
use super::exchange::{Exchange, Job, read};
use super::pages::Pages;
use super::prefill::Prefill;
use super::probe::Probe;
use super::share::{LayerMemory, OwnMemory, share_out, split_memory};
use super::stream::Stream;
use super::team::{OnePhase, Task};
use super::weights::on_weights;
use super::worker::Run;
use super::worker::kernels::settle;
use super::{CACHED_STATES, Shared, lock};
use crate::backend::memory::{self, Memory, WINDOW};
use crate::backend::pack::Geometry;
use crate::backend::profile::Profile;
use crate::backend::{BackendError, Chunk, Plan, RunOutput, Slots};
use crate::sampling::{SamplerParams, SamplerState};
use std::sync::{Arc, Mutex, PoisonError};

/// See [`Slots`].
pub(super) struct CpuSlots {
    shared: Arc<Shared>,
    /// `[slots][layers]`
    pub memory: Vec<Vec<LayerMemory<Pages<f32>>>>,
    /// `[slots]`
    samplers: Vec<Mutex<SlotSampler>>,
    /// `[slots]`, each `[V]`.
    logits: Vec<Mutex<Vec<f32>>>,
    exchange: Exchange,
    /// Created by the first prefill.
    prefill: Option<Prefill>,
}

impl CpuSlots {
    /// Allocates `count` empty sequences.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`] if their states do not fit.
    pub fn new(shared: Arc<Shared>, count: usize) -> Result<Self, BackendError> {
        let g = &shared.model.geometry;
        let layer = |_| {
            Ok(LayerMemory {
                state: Pages::zeroed(g.layer_state(), "a sequence's state")?,
                rotated: Pages::zeroed(g.all_neurons() * WINDOW, "a sequence's window")?,
            })
        };
        // Reserve the total first: with overcommit, many small allocations succeed where one big
        // one would fail.
        let numbers = (g.layer_state() + g.all_neurons() * WINDOW).saturating_mul(g.layers).saturating_mul(count);
        drop(Pages::<f32>::zeroed(numbers, "the sequences' states")?);
        let memory = (0..count).map(|_| (0..g.layers).map(layer).collect()).collect::<Result<_, BackendError>>()?;
        let threads = shared.pool.current_num_threads();
        let exchange = Exchange::new(g, share_out(g, threads), count);
        Ok(Self {
            memory,
            samplers: (0..count).map(|_| Mutex::new(SlotSampler::new(g.vocab))).collect(),
            logits: (0..count).map(|_| Mutex::new(vec![0.0; g.vocab])).collect(),
            exchange,
            prefill: None,
            shared,
        })
    }
}

impl Slots for CpuSlots {
    fn count(&self) -> usize {
        self.memory.len()
    }

    fn clear(&mut self, slot: usize) -> Result<(), BackendError> {
        for layer in &mut self.memory[slot] {
            layer.state.fill(0.0);
            layer.rotated.fill(0.0);
        }
        self.stream().recent_of(slot).fill(0.0);
        Ok(())
    }

    fn copy(&mut self, from: usize, to: usize) -> Result<(), BackendError> {
        if from == to {
            return Ok(());
        }
        let [source, target] = self.memory.get_disjoint_mut([from, to]).expect("two different slots");
        for (source, target) in source.iter().zip(target) {
            target.state.copy_from_slice(&source.state);
            target.rotated.copy_from_slice(&source.rotated);
        }
        let stream = self.stream();
        let source = stream.recent_of(from).to_vec();
        stream.recent_of(to).copy_from_slice(&source);
        let source = lock(&self.logits[from]).clone();
        lock(&self.logits[to]).copy_from_slice(&source);
        let (source, mut target) = (lock(&self.samplers[from]), lock(&self.samplers[to]));
        target.params = source.params;
        target.state = source.state;
        target.counts.copy_from_slice(&source.counts);
        Ok(())
    }

    fn set_sampler(
        &mut self,
        slot: usize,
        params: &SamplerParams,
        counts: &[u32],
        generated: u32,
    ) -> Result<(), BackendError> {
        let sampler = &mut *lock(&self.samplers[slot]);
        sampler.params = *params;
        sampler.counts.copy_from_slice(counts);
        sampler.state = SamplerState { token: sampler.state.token, generated, ..SamplerState::default() };
        Ok(())
    }

    fn run(&mut self, plan: &Plan) -> Result<RunOutput, BackendError> {
        let shared = self.shared.clone();
        let g = &shared.model.geometry;
        let job = Job {
            plan,
            model: &shared.model,
            level: shared.level,
            streams: (self.memory.len() * g.layers * g.layer_state() * 4) as u64 > CACHED_STATES,
            exchange: &self.exchange,
            samplers: &self.samplers,
            logits: &self.logits,
            output: Mutex::new(RunOutput::default()),
        };
        let _running = lock(&shared.run_lock);
        let memory = by_block(&mut self.memory, g);
        on_weights!(&shared.model.weights, weights => {
            self.exchange.team.run(&shared.pool, &Run::new(&job, weights, &memory));
        });
        let mut output = job.output.into_inner().unwrap_or_else(PoisonError::into_inner);
        output.samplers = self.samplers.iter().map(|sampler| lock(sampler).state).collect();
        Ok(output)
    }

    fn profile(&mut self, plan: &Plan) -> Result<Profile, BackendError> {
        let scratch = &self.exchange.scratch;
        scratch.iter().for_each(|own| lock(own).probe = Some(Box::new(Probe::start())));
        let run = self.run(plan);
        let probes = self.exchange.scratch.iter().filter_map(|own| lock(own).probe.take());
        let probes: Vec<Probe> = probes.map(|probe| *probe).collect();
        run.map(|_| Probe::merge(&probes))
    }

    fn prefill(&mut self, slot: usize, chunk: &Chunk) -> Result<Vec<f32>, BackendError> {
        self.settle(slot);
        let prefill = match &mut self.prefill {
            Some(prefill) => prefill,
            none => none.insert(Prefill::new(&self.shared)?),
        };
        let logits = prefill.run(&self.shared, &mut self.memory[slot], &self.exchange.team, chunk);
        if let Some(last) = logits.chunks_exact(self.shared.model.geometry.vocab).next_back() {
            lock(&self.logits[slot]).copy_from_slice(last);
        }
        Ok(logits)
    }

    fn logits(&mut self, slot: usize) -> Result<Vec<f32>, BackendError> {
        Ok(lock(&self.logits[slot]).clone())
    }

    fn read_state(&mut self, slot: usize) -> Result<Vec<f32>, BackendError> {
        let g = &self.shared.model.geometry;
        let layers = 0..g.layers;
        Ok(layers.flat_map(|layer| self.read_memory(slot, layer).settled(1)).collect())
    }

    fn write_state(&mut self, slot: usize, state: &[f32]) -> Result<(), BackendError> {
        let g = &self.shared.model.geometry;
        let (layers, size) = (g.layers, g.heads * g.neurons * g.width);
        let mut memory = Memory::zeros(1, g.heads, g.neurons, g.width);
        for layer in 0..layers {
            memory.state.copy_from_slice(&state[layer * size..][..size]);
            self.write_memory(slot, layer, &memory);
        }
        Ok(())
    }

    fn snapshot(&mut self, slot: usize) -> Result<Vec<f32>, BackendError> {
        let g = &self.shared.model.geometry;
        let mut numbers = Vec::with_capacity(g.layers * memory::layer_len(g.heads * g.neurons, g.width));
        for layer in 0..g.layers {
            let Memory { state, rotated, recent } = self.read_memory(slot, layer);
            [state, rotated, recent].iter().for_each(|part| numbers.extend_from_slice(part));
        }
        Ok(numbers)
    }

    fn restore(&mut self, slot: usize, memory: &[f32]) -> Result<(), BackendError> {
        let g = self.shared.model.geometry.clone();
        for (layer, numbers) in memory.chunks_exact(memory::layer_len(g.heads * g.neurons, g.width)).enumerate() {
            let (state, window) = numbers.split_at(g.heads * g.neurons * g.width);
            let (rotated, recent) = window.split_at(g.heads * g.neurons * WINDOW);
            let memory = Memory { state: state.into(), rotated: rotated.into(), recent: recent.into() };
            self.write_memory(slot, layer, &memory);
        }
        Ok(())
    }
}

impl CpuSlots {
    /// One layer of a sequence's memory, without padding.
    fn read_memory(&mut self, slot: usize, layer: usize) -> Memory {
        let g = &self.shared.model.geometry;
        let LayerMemory { state, rotated } = &self.memory[slot][layer];
        let recent = read(&self.exchange.stream).window(g, slot, layer).to_vec();
        Memory {
            state: g.unpad(state, g.row, g.width),
            rotated: g.unpad(rotated, WINDOW, WINDOW),
            recent: recent.chunks_exact(g.row).flat_map(|row| &row[..g.width]).copied().collect(),
        }
    }

    /// Replaces one layer of a sequence's memory.
    fn write_memory(&mut self, slot: usize, layer: usize, memory: &Memory) {
        let g = &self.shared.model.geometry;
        let LayerMemory { state, rotated } = &mut self.memory[slot][layer];
        g.pad(&memory.state, g.width, state, g.row);
        g.pad(&memory.rotated, WINDOW, rotated, WINDOW);
        let size = WINDOW * g.row;
        let stream = self.exchange.stream.get_mut().unwrap_or_else(PoisonError::into_inner);
        let rows = stream.recent_of(slot)[layer * size..][..size].chunks_exact_mut(g.row);
        for (row, from) in rows.zip(memory.recent.chunks_exact(g.width)) {
            row[..g.width].copy_from_slice(from);
        }
    }

    /// Makes a thread pause in every task.
    #[cfg(test)]
    pub fn slow_down(&mut self, thread: Option<usize>) {
        self.exchange.team.slow_thread = thread;
    }

    fn stream(&mut self) -> &mut Stream {
        self.exchange.stream.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Settles a sequence: its window enters the state and is empty afterwards.
    pub fn settle(&mut self, slot: usize) {
        let shared = self.shared.clone();
        let g = &shared.model.geometry;
        let _running = lock(&shared.run_lock);
        let memory = by_block(&mut self.memory[slot..=slot], g);
        let (exchange, stream) = (&self.exchange, &*read(&self.exchange.stream));
        let blocks = |queue: usize| exchange.shares[queue].blocks.clone();
        let perform = |task: Task| {
            let memory = &mut lock(&memory[blocks(task.queue).start + task.index])[0];
            settle(shared.level, g, stream, slot, memory);
        };
        exchange.team.run(&shared.pool, &OnePhase::new(|queue| blocks(queue).len(), perform));
    }
}

/// Every block's part of the memory.
pub fn by_block<'a>(memory: &'a mut [Vec<LayerMemory<Pages<f32>>>], g: &Geometry) -> Vec<Mutex<OwnMemory<'a>>> {
    split_memory(memory, g, &vec![1; g.blocks()]).into_iter().map(Mutex::new).collect()
}
