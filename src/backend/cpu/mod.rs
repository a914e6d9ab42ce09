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
mod dense;
mod encode;
mod project;
mod residual;
pub mod simd;
mod stages;
mod weights;
mod worker;

use super::beams::{BeamStages, Beams};
use super::{Backend, BackendError, DeviceInfo, DeviceKind, Plan, RunOutput, Slots, WeightType, stage};
use crate::model::Model;
use crate::sampling::{Control, NO_TOKEN, Sampler, SamplerParams, Status};
use beams::CpuBeams;
use simd::{LANES, Level};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use weights::{AnyWeights, CpuModel};
use worker::{Exchange, Worker};

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
        let model = CpuModel::new(model, weight_type);
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

    fn preferred_slots(&self, state_bytes: u64) -> usize {
        match (CACHED_STATES / state_bytes.max(1)) as usize {
            0 => STREAMED_SLOTS,
            cached => cached,
        }
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
}

/// A slot's sampler.
struct SlotSampler {
    params: SamplerParams,
    counts: Vec<u32>,
    control: Control,
    sampler: Sampler,
}

impl SlotSampler {
    /// A sampler that draws nothing until it is given options.
    fn new(vocab: usize) -> Self {
        Self {
            params: bytemuck::Zeroable::zeroed(),
            counts: vec![0; vocab],
            control: Control::default(),
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
    /// `[slots][layers]`, each `[neurons][row]`.
    states: Vec<Vec<Vec<f32>>>,
    samplers: Vec<Mutex<SlotSampler>>,
    /// `[slots]`, each `[V]`.
    logits: Vec<Mutex<Vec<f32>>>,
    workers: Vec<Mutex<Worker>>,
    exchange: Exchange,
}

/// Locks a mutex; a panic elsewhere does not make its contents unusable here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CpuSlots {
    fn new(shared: Arc<Shared>, count: usize) -> Result<Self, BackendError> {
        let g = &shared.model.geometry;
        let states = (0..count)
            .map(|_| (0..g.layers).map(|_| zeros(g.layer_state(), "a sequence's state")).collect())
            .collect::<Result<_, _>>()?;
        let threads = shared.pool.current_num_threads();
        let workers = worker::share_out(g, threads);
        let exchange = Exchange::new(g, &workers, count);
        Ok(Self {
            states,
            samplers: (0..count).map(|_| Mutex::new(SlotSampler::new(g.vocab))).collect(),
            logits: (0..count).map(|_| Mutex::new(vec![0.0; g.vocab])).collect(),
            workers: workers.into_iter().map(|share| Mutex::new(Worker::new(g, share, count))).collect(),
            exchange,
            shared,
        })
    }
}

/// Zeroed numbers, or an error instead of an abort where memory does not suffice.
fn zeros(len: usize, what: &'static str) -> Result<Vec<f32>, BackendError> {
    let mut numbers: Vec<f32> = Vec::new();
    numbers.try_reserve_exact(len).map_err(|_| BackendError::OutOfMemory {
        device: "CPU".into(),
        what,
        bytes: 4 * len as u64,
    })?;
    drop(numbers);
    // Zeroed pages are taken only when they are touched.
    Ok(vec![0.0; len])
}

impl Slots for CpuSlots {
    fn count(&self) -> usize {
        self.states.len()
    }

    fn clear(&mut self, slot: usize) -> Result<(), BackendError> {
        self.states[slot].iter_mut().for_each(|layer| layer.fill(0.0));
        Ok(())
    }

    fn copy(&mut self, from: usize, to: usize) -> Result<(), BackendError> {
        if from == to {
            return Ok(());
        }
        let [source, target] = self.states.get_disjoint_mut([from, to]).expect("two different slots");
        for (source, target) in source.iter().zip(target) {
            target.copy_from_slice(source);
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
        sampler.control = Control { token: sampler.control.token, generated, ..Control::default() };
        Ok(())
    }

    fn run(&mut self, plan: &Plan) -> Result<RunOutput, BackendError> {
        let shared = self.shared.clone();
        let _turn = lock(&shared.turn);
        let shares: Vec<usize> = self.workers.iter().map(|own| lock(own).share.blocks.len()).collect();
        let mut states = worker::split_states(&mut self.states, &shared.model.geometry, &shares);
        let states: Vec<Mutex<_>> = states.drain(..).map(Mutex::new).collect();
        let job = worker::Job {
            plan,
            model: &shared.model,
            level: shared.level,
            exchange: &self.exchange,
            samplers: &self.samplers,
            logits: &self.logits,
            output: Mutex::new(RunOutput::default()),
        };
        shared.pool.broadcast(|thread| {
            let _guard = self.exchange.barrier.guard();
            let worker = &mut *lock(&self.workers[thread.index()]);
            worker.run(&job, &mut lock(&states[thread.index()]));
        });
        let mut output = job.output.into_inner().unwrap_or_else(PoisonError::into_inner);
        output.control = self.samplers.iter().map(|sampler| lock(sampler).control).collect();
        Ok(output)
    }

    fn logits(&mut self, slot: usize) -> Result<Vec<f32>, BackendError> {
        Ok(lock(&self.logits[slot]).clone())
    }

    fn read_state(&mut self, slot: usize) -> Result<Vec<f32>, BackendError> {
        let g = &self.shared.model.geometry;
        let mut state = Vec::with_capacity(g.layers * g.heads * g.neurons * g.width);
        for layer in &self.states[slot] {
            for head in layer.chunks_exact(g.padded_neurons() * g.row) {
                for row in head.chunks_exact(g.row).take(g.neurons) {
                    state.extend_from_slice(&row[..g.width]);
                }
            }
        }
        Ok(state)
    }

    fn write_state(&mut self, slot: usize, state: &[f32]) -> Result<(), BackendError> {
        let g = &self.shared.model.geometry;
        let mut rows = state.chunks_exact(g.width);
        for layer in &mut self.states[slot] {
            for head in layer.chunks_exact_mut(g.padded_neurons() * g.row) {
                for row in head.chunks_exact_mut(g.row).take(g.neurons) {
                    row[..g.width].copy_from_slice(rows.next().expect("a whole state"));
                }
            }
        }
        Ok(())
    }

    fn snapshot(&mut self, slot: usize) -> Result<Vec<f32>, BackendError> {
        self.read_state(slot)
    }

    fn restore(&mut self, slot: usize, memory: &[f32]) -> Result<(), BackendError> {
        self.write_state(slot, memory)
    }
}

/// Twin of `shaders/rescale.wgsl`: multiplies a state by a factor.
fn rescale(state: &mut [f32], factor: f32) {
    state.iter_mut().for_each(|x| *x *= factor);
}

/// Whether a sampler still runs.
fn running(control: &Control) -> bool {
    control.status == Status::Running as u32
}

const _: () = assert!(LANES == 16, "rows are padded to whole vectors");
