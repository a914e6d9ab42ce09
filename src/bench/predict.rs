//! The time of a decode step on a graphics card that is not here, from the costs of its recording.
//!
//! A dispatch takes its gap, and the longer of two times:
//!
//! - its bytes at the rates of memory and cache, and what they do not hide of the latencies: of
//!   every kind of data the part of its rounds that is longer than its bytes take, and the
//!   barriers, shared by the workgroups that run side by side on a compute unit;
//! - a workgroup's chain of rounds and barriers, once per turn if not all workgroups run at once.
//!
//! Data that is loaded repeatedly comes from the cache if it fits there, and so does everything if
//! model and states fit.

use super::measure::measured_density;
use super::{BenchError, BenchOptions, Density, Machine};
use crate::backend::gpu::{DispatchCost, GpuBackend};
use crate::backend::memory::SavedMemory;
use crate::backend::{StateType, WeightType};
use crate::generation::Bdh;
use crate::model::Model;

/// A step on one card.
#[derive(Clone, Debug)]
pub struct Prediction {
    /// The card.
    pub machine: String,
    /// Type of the states.
    pub state: StateType,
    /// Sequences that run together.
    pub batch: usize,
    /// Shares of the neurons that fire, measured on the CPU.
    pub density: Density,
    /// By kernel, in the order of the step.
    pub kernels: Vec<KernelPrediction>,
}

/// One kernel's dispatches in a step.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelPrediction {
    /// Name of the kernel.
    pub kernel: &'static str,
    /// Dispatches.
    pub dispatches: usize,
    /// Workgroups in all of them.
    pub workgroups: u64,
    /// Bytes that move between memory and the card.
    pub memory_bytes: f64,
    /// Bytes that workgroups load although others just have: a cache's, if it holds them.
    pub repeated_bytes: f64,
    /// Loads that wait for one another, a workgroup of each dispatch after the other.
    pub rounds: f64,
    /// Barriers in the same chain.
    pub barriers: f64,
    /// Time of that chain, in µs.
    pub chain_us: f64,
    /// Time of the bytes alone, in µs.
    pub bytes_us: f64,
    /// Time, in µs.
    pub time_us: f64,
}

/// Predicts a step for every machine, type of states and batch. What fires is counted on the CPU,
/// which holds the model, at the first depth.
///
/// # Errors
/// [`BenchError`] for options that make no sense, and if the model does not fit.
pub fn predict(
    cpu: &Bdh,
    options: &BenchOptions,
    states: &[StateType],
    machines: &[Machine],
) -> Result<Vec<Prediction>, BenchError> {
    options.validate()?;
    let density = measured_density(cpu, options.depths[0])?;
    let mut predictions = Vec::new();
    for machine in machines {
        for &state in states {
            let types = (cpu.backend().weight_type(), state);
            for &batch in &options.batches {
                predictions.push(predict_at(cpu.model(), types, density, batch, machine)?);
            }
        }
    }
    Ok(predictions)
}

/// Predicts a step of `batch` sequences that fire at a density, for types of weights and states.
///
/// # Errors
/// [`BenchError`] if the model does not fit.
pub fn predict_at(
    model: &Model,
    (weights, state): (WeightType, StateType),
    density: Density,
    batch: usize,
    machine: &Machine,
) -> Result<Prediction, BenchError> {
    let recorder = GpuBackend::without_device(model, weights, state, machine.binding)?;
    let held = weights.bytes() * model.config.parameters() + 4 * batch * SavedMemory::len(&model.config, state);
    let rates = Rates { machine, all_cached: held as f64 <= machine.cache_bytes };
    let mut kernels: Vec<KernelPrediction> = Vec::new();
    for dispatch in recorder.step_costs(batch, density)? {
        let one = rates.dispatch(&dispatch);
        match kernels.iter_mut().find(|kernel| kernel.kernel == one.kernel) {
            Some(kernel) => kernel.add(&one),
            None => kernels.push(one),
        }
    }
    Ok(Prediction { machine: machine.name.clone(), state, batch, density, kernels })
}

impl Prediction {
    /// All kernels together.
    pub fn step(&self) -> KernelPrediction {
        let mut step = KernelPrediction::none("step");
        self.kernels.iter().for_each(|kernel| step.add(kernel));
        step
    }

    /// Tokens of all sequences per second, if a step takes `microseconds`.
    pub fn rate(&self, microseconds: f64) -> f64 {
        1e6 * self.batch as f64 / microseconds
    }
}

impl KernelPrediction {
    fn none(kernel: &'static str) -> Self {
        Self {
            kernel,
            dispatches: 0,
            workgroups: 0,
            memory_bytes: 0.0,
            repeated_bytes: 0.0,
            rounds: 0.0,
            barriers: 0.0,
            chain_us: 0.0,
            bytes_us: 0.0,
            time_us: 0.0,
        }
    }

    fn add(&mut self, other: &Self) {
        self.dispatches += other.dispatches;
        self.workgroups += other.workgroups;
        self.memory_bytes += other.memory_bytes;
        self.repeated_bytes += other.repeated_bytes;
        self.rounds += other.rounds;
        self.barriers += other.barriers;
        self.chain_us += other.chain_us;
        self.bytes_us += other.bytes_us;
        self.time_us += other.time_us;
    }
}

/// Rates and latencies for one model.
struct Rates<'a> {
    machine: &'a Machine,
    /// Whether the cache holds model and states.
    all_cached: bool,
}

impl Rates<'_> {
    fn dispatch(&self, DispatchCost { kernel, workgroups, cost }: &DispatchCost) -> KernelPrediction {
        let m = self.machine;
        let groups = *workgroups as f64;
        // Workgroups on a compute unit at once, and turns until all have run.
        let beside = (groups / m.units).clamp(1.0, m.resident);
        let turns = (groups / (m.units * m.resident)).max(1.0);
        let barriers_us = cost.barriers * m.barrier_us;
        let (mut bytes_us, mut hidden, mut chain_us) = (0.0, 0.0, barriers_us);
        let mut total = KernelPrediction { dispatches: 1, workgroups: *workgroups, ..KernelPrediction::none(kernel) };
        for access in &cost.accesses {
            let fits = self.all_cached || access.distinct <= m.cache_bytes;
            let from_memory = !self.all_cached && access.memory > 0.0 || !fits;
            let rounds_us = access.rounds * if from_memory { m.memory_us } else { m.cache_us };
            let memory_gbs = if self.all_cached { m.cache_gbs } else { m.memory_gbs };
            let repeated_gbs = if fits { m.cache_gbs } else { m.memory_gbs };
            let own_us = (access.memory / memory_gbs + access.repeated / repeated_gbs) / 1e3;
            bytes_us += own_us;
            hidden += own_us.min(turns * rounds_us);
            chain_us += rounds_us;
            total.memory_bytes += access.memory;
            total.repeated_bytes += access.repeated;
            total.rounds += access.rounds;
        }
        let exposed = (turns * chain_us - hidden) / beside;
        KernelPrediction {
            barriers: cost.barriers,
            chain_us,
            bytes_us,
            time_us: m.dispatch_us + (bytes_us + exposed).max(turns * chain_us),
            ..total
        }
    }
}
