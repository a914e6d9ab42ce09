//! Partial results that threads exchange, and the run that they have in common.

use super::Shared;
use super::barrier::Barrier;
use super::decode::sample::SlotSampler;
use super::share::Share;
use super::simd::Level;
use super::weights::CpuModel;
use crate::backend::pack::Geometry;
use crate::backend::{Plan, RunOutput};
use std::ops::Range;
use std::sync::{Mutex, PoisonError, RwLock, RwLockWriteGuard};

/// Partial results of all threads. Each thread writes only its own entry, and only between barriers
/// while no other thread reads it, so the locks never block.
pub struct Exchange {
    /// Barrier of all threads.
    pub barrier: Barrier,
    /// The threads' block ranges.
    blocks: Vec<Range<usize>>,
    /// Whether the blocks of some head belong to more than one thread.
    heads_split: bool,
    /// Partial attention outputs, per thread `[own blocks][slots][row]`.
    pub attention: Vec<RwLock<Vec<f32>>>,
    /// Partial decoder outputs, alternating by layer, per thread `[own blocks][slots][row]`.
    pub update: [Vec<RwLock<Vec<f32>>>; 2],
}

impl Exchange {
    /// Room for the partial results of `slots` sequences.
    pub fn new(g: &Geometry, shares: &[Share], slots: usize) -> Self {
        let buffers = || shares.iter().map(|s| RwLock::new(vec![0.0; s.blocks.len() * slots * g.row])).collect();
        Self {
            barrier: Barrier::new(shares.len()),
            blocks: shares.iter().map(|s| s.blocks.clone()).collect(),
            heads_split: shares.iter().any(|s| !s.blocks.start.is_multiple_of(g.blocks_per_head)),
            attention: buffers(),
            update: [buffers(), buffers()],
        }
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.blocks.len()
    }

    /// Whether threads must meet before they add up attention outputs.
    pub fn heads_split(&self) -> bool {
        self.heads_split
    }

    /// Calls `add` with each block in `wanted`, in order, and its partial results, `size` =
    /// slots · row numbers.
    pub fn for_each_block(
        &self,
        partials: &[RwLock<Vec<f32>>],
        wanted: Range<usize>,
        size: usize,
        mut add: impl FnMut(usize, &[f32]),
    ) {
        for (own, partial) in self.blocks.iter().zip(partials) {
            let range = own.start.max(wanted.start)..own.end.min(wanted.end);
            if range.is_empty() {
                continue;
            }
            let partial = partial.read().unwrap_or_else(PoisonError::into_inner);
            for block in range {
                add(block, &partial[(block - own.start) * size..][..size]);
            }
        }
    }
}

/// Locks a thread's own entry of an [`Exchange`].
pub fn write(lock: &RwLock<Vec<f32>>) -> RwLockWriteGuard<'_, Vec<f32>> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// A run, as all its threads see it.
pub struct Job<'a> {
    /// The steps to run.
    pub plan: &'a Plan,
    /// The weights.
    pub model: &'a CpuModel,
    /// The instruction set in use.
    pub level: Level,
    /// Whether the states exceed the caches and stream from memory.
    pub streams: bool,
    /// Partial results.
    pub exchange: &'a Exchange,
    /// `[slots]`
    pub samplers: &'a [Mutex<SlotSampler>],
    /// `[slots]`, each `[V]`.
    pub logits: &'a [Mutex<Vec<f32>>],
    /// Results of the run.
    pub output: Mutex<RunOutput>,
}

impl<'a> Job<'a> {
    /// A job without samplers, for single kernels and for beams.
    pub(super) fn new(
        shared: &'a Shared,
        plan: &'a Plan,
        exchange: &'a Exchange,
        logits: &'a [Mutex<Vec<f32>>],
        streams: bool,
    ) -> Self {
        Self {
            plan,
            model: &shared.model,
            level: shared.level,
            streams,
            exchange,
            samplers: &[],
            logits,
            output: Mutex::new(RunOutput::default()),
        }
    }
}
