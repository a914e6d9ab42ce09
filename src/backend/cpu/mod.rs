//! The engine where there is no GPU, and what checks the GPU where there is one.
//!
//! One function per shader, over the same blocks of neurons: `encode`, `project`, `dense` (the head),
//! [`crate::sampling::Sampler`], `rescale`, and `beam_*` for the beam search. A fixed team of threads shares the blocks out; partial
//! sums are added in block order, so results do not depend on the number of threads.

mod barrier;
mod beam_attend;
mod beam_encode;
mod beam_fold;
mod beam_select;
mod beam_stages;
mod beams;
mod chunk;
mod chunk_kernels;
mod dense;
mod encode;
mod pages;
mod prefill_stages;
mod probe;
mod project;
mod residual;
mod rows;
pub mod simd;
mod stages;
mod unpack;
mod weights;
mod worker;

use super::beams::{BeamStages, Beams};
use super::memory::{self, Memory, WINDOW};
use super::prefill::PrefillStages;
use super::profile::Profile;
use super::{Backend, BackendError, Chunk, DeviceInfo, DeviceKind, Plan, RunOutput, Slots, WeightType, stage};
use crate::model::{Model, Weights};
use crate::sampling::{NO_TOKEN, Sampler, SamplerParams, SamplerState, Status};
use beams::CpuBeams;
use chunk::ChunkReader;
use pages::Pages;
use probe::Probe;
use simd::{LANES, Level};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use weights::{AnyWeights, CpuModel};
use worker::{Exchange, LayerMemory, OwnMemory, Worker};

/// A model's weights in host memory and the threads that use them.
pub struct CpuBackend {
    shared: Arc<Shared>,
}

/// What all slot sets of a backend share.
struct Shared {
    model: CpuModel,
    level: Level,
    pool: rayon::ThreadPool,
    /// One run at a time: its threads wait for one another.
    turn: Mutex<()>,
    device: DeviceInfo,
}

impl CpuBackend {
    /// Packs a model's weights for `threads` threads, or as many as there are processors.
    ///
    /// # Errors
    /// [`BackendError::Driver`] if the threads cannot be started.
    pub fn new(model: &Model, weight_type: WeightType, threads: Option<usize>) -> Result<Self, BackendError> {
        let available = std::thread::available_parallelism().map_or(1, |n| n.get());
        let model = CpuModel::new(model, weight_type)?;
        let threads = threads.unwrap_or(available).clamp(1, model.geometry.blocks());
        let level = Level::detect();
        let name = "CPU".to_string();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(|error| {
            BackendError::Driver { device: name.clone(), message: format!("cannot start {threads} threads: {error}") }
        })?;
        let plural = if threads == 1 { "" } else { "s" };
        let device = DeviceInfo {
            name: format!("CPU ({threads} thread{plural}, {})", format!("{level:?}").to_lowercase()),
            api: "CPU".into(),
            driver: String::new(),
            kind: DeviceKind::Cpu,
        };
        Ok(Self { shared: Arc::new(Shared { model, level, pool, turn: Mutex::new(()), device }) })
    }
}

/// States of small models decode fastest while they stay in the processor's cache together.
const CACHED_STATES: u64 = 24 << 20;
/// States that cannot stay there share the weights' way from memory: few sequences gain most of that.
const STREAMED_SLOTS: usize = 8;

impl Backend for CpuBackend {
    fn device(&self) -> &DeviceInfo {
        &self.shared.device
    }

    fn weight_type(&self) -> WeightType {
        match self.shared.model.weights {
            AnyWeights::F32(_) => WeightType::F32,
            AnyWeights::F16(_) => WeightType::F16,
        }
    }

    fn weight_bytes(&self) -> u64 {
        match &self.shared.model.weights {
            AnyWeights::F32(weights) => weights.bytes(),
            AnyWeights::F16(weights) => weights.bytes(),
        }
    }

    fn host_weights(&self, weights: &Weights) -> Weights {
        let CpuModel { geometry, weights: packed, .. } = &self.shared.model;
        match packed {
            AnyWeights::F32(packed) => packed.as_model(weights, geometry),
            AnyWeights::F16(packed) => packed.as_model(weights, geometry),
        }
    }

    fn preferred_slots(&self, state_bytes: u64) -> usize {
        match (CACHED_STATES / state_bytes.max(1)) as usize {
            0 => STREAMED_SLOTS,
            cached => cached,
        }
    }

    fn chunk_tokens(&self) -> usize {
        chunk::CHUNK_TOKENS
    }

    fn create_slots(&self, count: usize) -> Result<Box<dyn Slots>, BackendError> {
        Ok(Box::new(CpuSlots::new(self.shared.clone(), count)?))
    }

    fn create_beams(&self, count: usize) -> Result<Box<dyn Beams>, BackendError> {
        Ok(Box::new(CpuBeams::new(self.shared.clone(), count)?))
    }

    fn stages(&self) -> &dyn stage::Stages {
        self
    }

    fn beam_stages(&self) -> &dyn BeamStages {
        self
    }

    fn prefill_stages(&self) -> &dyn PrefillStages {
        self
    }
}

/// A slot's sampler.
struct SlotSampler {
    params: SamplerParams,
    counts: Vec<u32>,
    control: SamplerState,
    sampler: Sampler,
}

impl SlotSampler {
    /// A sampler that draws nothing until it is given options.
    fn new(vocab: usize) -> Self {
        Self {
            params: bytemuck::Zeroable::zeroed(),
            counts: vec![0; vocab],
            control: SamplerState::default(),
            sampler: Sampler::new(),
        }
    }

    /// Draws a token and records it.
    fn draw(&mut self, logits: &[f32]) {
        let outcome = self.sampler.sample(logits, &mut self.counts, &self.params, self.control.generated);
        self.control.record(&outcome);
    }

    /// The token of the last draw, or [`NO_TOKEN`] if it failed.
    fn drawn(&self) -> u32 {
        match self.control.status() {
            Some(Status::Running | Status::Eos) => self.control.token,
            _ => NO_TOKEN,
        }
    }
}

struct CpuSlots {
    shared: Arc<Shared>,
    /// `[slots][layers]`
    memory: Vec<Vec<LayerMemory<Pages<f32>>>>,
    samplers: Vec<Mutex<SlotSampler>>,
    /// `[slots]`, each `[V]`.
    logits: Vec<Mutex<Vec<f32>>>,
    workers: Vec<Mutex<Worker>>,
    exchange: Exchange,
    /// Made when first needed.
    chunks: Option<ChunkReader>,
}

/// Locks a mutex; a panic elsewhere does not make its contents unusable here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CpuSlots {
    fn new(shared: Arc<Shared>, count: usize) -> Result<Self, BackendError> {
        let g = &shared.model.geometry;
        let layer = |_| {
            Ok(LayerMemory {
                state: Pages::zeroed(g.layer_state(), "a sequence's state")?,
                rotated: Pages::zeroed(g.all_neurons() * WINDOW, "a sequence's window")?,
            })
        };
        // All of it at once first: piece by piece, systems promise more than they have.
        let numbers = (g.layer_state() + g.all_neurons() * WINDOW).saturating_mul(g.layers).saturating_mul(count);
        drop(Pages::<f32>::zeroed(numbers, "the sequences' states")?);
        let memory = (0..count).map(|_| (0..g.layers).map(layer).collect()).collect::<Result<_, BackendError>>()?;
        let threads = shared.pool.current_num_threads();
        let workers = worker::share_out(g, threads);
        let exchange = Exchange::new(g, &workers, count);
        Ok(Self {
            memory,
            samplers: (0..count).map(|_| Mutex::new(SlotSampler::new(g.vocab))).collect(),
            logits: (0..count).map(|_| Mutex::new(vec![0.0; g.vocab])).collect(),
            workers: workers.into_iter().map(|share| Mutex::new(Worker::new(g, share, count))).collect(),
            exchange,
            chunks: None,
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
        self.workers.iter().for_each(|own| lock(own).recent_of(slot).fill(0.0));
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
        for own in &self.workers {
            let mut own = lock(own);
            let source = own.recent_of(from).to_vec();
            own.recent_of(to).copy_from_slice(&source);
        }
        let source = lock(&self.logits[from]).clone();
        lock(&self.logits[to]).copy_from_slice(&source);
        let (source, mut target) = (lock(&self.samplers[from]), lock(&self.samplers[to]));
        target.params = source.params;
        target.control = source.control;
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
        sampler.control = SamplerState { token: sampler.control.token, generated, ..SamplerState::default() };
        Ok(())
    }

    fn run(&mut self, plan: &Plan) -> Result<RunOutput, BackendError> {
        let shared = self.shared.clone();
        let g = &shared.model.geometry;
        let job = worker::Job {
            plan,
            model: &shared.model,
            level: shared.level,
            streams: (self.memory.len() * g.layers * g.layer_state() * 4) as u64 > CACHED_STATES,
            exchange: &self.exchange,
            samplers: &self.samplers,
            logits: &self.logits,
            output: Mutex::new(RunOutput::default()),
        };
        each_thread(&shared, &self.workers, &mut self.memory, |worker, memory| {
            let _guard = self.exchange.barrier.guard();
            worker.run(&job, memory);
        });
        let mut output = job.output.into_inner().unwrap_or_else(PoisonError::into_inner);
        output.control = self.samplers.iter().map(|sampler| lock(sampler).control).collect();
        Ok(output)
    }

    fn profile(&mut self, plan: &Plan) -> Result<Profile, BackendError> {
        self.workers.iter().for_each(|own| lock(own).probe = Some(Box::new(Probe::start())));
        let run = self.run(plan);
        let probes: Vec<Probe> = self.workers.iter().filter_map(|own| lock(own).probe.take()).map(|p| *p).collect();
        run.map(|_| Probe::merge(&probes))
    }

    fn prefill(&mut self, slot: usize, chunk: &Chunk) -> Result<Vec<f32>, BackendError> {
        self.settle(slot);
        let reader = match &mut self.chunks {
            Some(reader) => reader,
            none => none.insert(ChunkReader::new(&self.shared)?),
        };
        let logits = reader.read(&self.shared, &mut self.memory[slot], &self.exchange.barrier, chunk);
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
        let size = WINDOW * g.row;
        let recent = lock(&self.workers[0]).recent_of(slot)[layer * size..][..size].to_vec();
        Memory {
            state: g.unpad(state, g.row, g.width),
            rotated: g.unpad(rotated, WINDOW, WINDOW),
            recent: recent.chunks_exact(g.row).flat_map(|row| &row[..g.width]).copied().collect(),
        }
    }

    fn write_memory(&mut self, slot: usize, layer: usize, memory: &Memory) {
        let g = &self.shared.model.geometry;
        let LayerMemory { state, rotated } = &mut self.memory[slot][layer];
        g.pad(&memory.state, g.width, state, g.row);
        g.pad(&memory.rotated, WINDOW, rotated, WINDOW);
        let size = WINDOW * g.row;
        for own in &self.workers {
            let mut own = lock(own);
            let rows = own.recent_of(slot)[layer * size..][..size].chunks_exact_mut(g.row);
            for (row, from) in rows.zip(memory.recent.chunks_exact(g.width)) {
                row[..g.width].copy_from_slice(from);
            }
        }
    }

    /// A sequence's window enters its state.
    fn settle(&mut self, slot: usize) {
        let shared = self.shared.clone();
        each_thread(&shared, &self.workers, &mut self.memory, |worker, memory| {
            worker.settle(shared.level, &shared.model.geometry, slot, &mut memory[slot]);
        });
    }
}

/// Runs something on every thread, with its worker and its part of the memory.
fn each_thread(
    shared: &Shared,
    workers: &[Mutex<Worker>],
    memory: &mut [Vec<LayerMemory<Pages<f32>>>],
    run: impl Fn(&mut Worker, &mut OwnMemory) + Sync,
) {
    let _turn = lock(&shared.turn);
    let shares: Vec<usize> = workers.iter().map(|own| lock(own).share.blocks.len()).collect();
    let parts = worker::split_memory(memory, &shared.model.geometry, &shares);
    let parts: Vec<Mutex<OwnMemory>> = parts.into_iter().map(Mutex::new).collect();
    shared.pool.broadcast(|thread| run(&mut lock(&workers[thread.index()]), &mut lock(&parts[thread.index()])));
}

/// Twin of `shaders/rescale.wgsl`: multiplies a state by a factor.
fn rescale(state: &mut [f32], factor: f32) {
    state.iter_mut().for_each(|x| *x *= factor);
}

/// Whether a sampler still runs.
fn running(control: &SamplerState) -> bool {
    control.status == Status::Running as u32
}

const _: () = assert!(LANES == 16, "rows are padded to whole vectors");
