//! Numbers that threads exchange, and the run that they have in common.
//!
//! Every layer is a phase of two tasks per block: *attend* (activations and the block's share of
//! the attention) and *project* (gates and the block's share of the decoder output). A block can
//! project as soon as all blocks of its head have attended. Shares are added in block order, so it
//! does not matter which thread has computed them.

use super::Shared;
use super::decode::sample::SlotSampler;
use super::padded::Padded;
use super::probe::{Phase, Probe};
use super::rows::RowList;
use super::share::Share;
use super::simd::Level;
use super::stream::{StepPhases, Stream};
use super::team::{Task, Team};
use super::watch::Watch;
use super::weights::CpuModel;
use crate::backend::pack::Geometry;
use crate::backend::{Plan, RunOutput};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Results of all blocks. Threads write and read an entry at different times, but for the shared
/// reading of attention outputs, so the locks never block.
pub struct Exchange {
    /// The threads.
    pub team: Team,
    /// The threads' shares.
    pub shares: Vec<Share>,
    /// The part of the step that every block reads; written between the phases.
    pub stream: Padded<RwLock<Stream>>,
    /// `[blocks]`
    pub blocks: Vec<Padded<BlockResults>>,
    /// `[threads]`
    pub scratch: Vec<Padded<Mutex<Scratch>>>,
    /// Blocks of each head that have attended in the open phase.
    attended: Vec<Padded<AtomicUsize>>,
    blocks_per_head: usize,
}

/// Results of a block.
pub struct BlockResults {
    /// Activations, `[slots][block]`; gates after `project`.
    pub u: Mutex<Vec<f32>>,
    /// Partial attention outputs, `[slots][row]`.
    pub attention: RwLock<Vec<f32>>,
    /// Partial decoder outputs, `[slots][row]`.
    pub update: RwLock<Vec<f32>>,
}

/// Scratch memory of a thread.
#[derive(Default)]
pub struct Scratch {
    /// Active neurons of the current block.
    pub list: RowList,
    /// Attention output of one head, `[slots][row]`.
    pub y: Vec<f32>,
    /// Two rows of a state, `[2][row]`.
    pub rows: Vec<f32>,
    /// Rotary phases of the step.
    pub phases: StepPhases,
    /// For sliding windows; none before the first.
    pub leaving: Option<Box<LeavingScratch>>,
    /// Measures the run if it is profiled.
    pub probe: Option<Box<Probe>>,
    /// Sees the neurons of the run if it is watched.
    pub watch: Option<Box<Watch>>,
}

/// Scratch memory for the tokens that leave sliding windows.
pub struct LeavingScratch {
    /// Their activations, `[block]`.
    pub u: Vec<f32>,
    /// Their active neurons in the current block.
    pub list: RowList,
    /// Their rotary phases.
    pub phases: StepPhases,
}

impl LeavingScratch {
    /// Scratch memory for `slots` sequences.
    pub fn new(g: &Geometry, slots: usize) -> Self {
        Self { u: vec![0.0; g.block], list: RowList::default(), phases: StepPhases::new(g, slots) }
    }
}

/// A task of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerTask {
    /// Activations and attention of a block.
    Attend(usize),
    /// Gates and decoder output of a block.
    Project(usize),
}

impl Exchange {
    /// Room for the results of `slots` sequences.
    pub fn new(g: &Geometry, shares: Vec<Share>, slots: usize) -> Self {
        let results = |_| {
            Padded(BlockResults {
                u: Mutex::new(vec![0.0; slots * g.block]),
                attention: RwLock::new(vec![0.0; slots * g.row]),
                update: RwLock::new(vec![0.0; slots * g.row]),
            })
        };
        Self {
            team: Team::new(shares.len()),
            stream: Padded(RwLock::new(Stream::new(g, slots))),
            blocks: (0..g.blocks()).map(results).collect(),
            scratch: shares.iter().map(|_| Padded(Mutex::new(Scratch::new(g, slots)))).collect(),
            attended: (0..g.heads).map(|_| Padded::default()).collect(),
            blocks_per_head: g.blocks_per_head,
            shares,
        }
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.shares.len()
    }

    /// Prepares a layer's phase.
    pub fn start_layer(&self) {
        self.attended.iter().for_each(|count| count.store(0, Ordering::Relaxed));
    }

    /// Number of a layer's tasks in a thread's queue: all its blocks attend, then all project.
    pub fn layer_tasks(&self, queue: usize) -> usize {
        2 * self.shares[queue].blocks.len()
    }

    /// A task of a layer.
    pub fn layer_task(&self, task: Task) -> LayerTask {
        let own = &self.shares[task.queue].blocks;
        match task.index.checked_sub(own.len()) {
            None => LayerTask::Attend(own.start + task.index),
            Some(index) => LayerTask::Project(own.start + index),
        }
    }

    /// Whether a task of a layer may start. No answer for tasks that the layer does not have.
    pub fn layer_ready(&self, task: Task) -> bool {
        match self.layer_task(task) {
            LayerTask::Attend(_) => true,
            LayerTask::Project(block) => {
                let attended = self.attended.get(block / self.blocks_per_head);
                attended.is_some_and(|count| count.load(Ordering::Acquire) == self.blocks_per_head)
            }
        }
    }

    /// Counts a block that has attended.
    pub fn has_attended(&self, block: usize) {
        if self.attended[block / self.blocks_per_head].fetch_add(1, Ordering::AcqRel) + 1 == self.blocks_per_head {
            self.team.ring();
        }
    }
}

impl Scratch {
    /// Scratch memory for `slots` sequences.
    pub fn new(g: &Geometry, slots: usize) -> Self {
        Self {
            y: vec![0.0; slots * g.row],
            rows: vec![0.0; 2 * g.row],
            phases: StepPhases::new(g, slots),
            ..Self::default()
        }
    }

    /// Charges the time since the last lap to `phase`, if the run is profiled.
    pub fn lap(&mut self, phase: Phase) {
        if let Some(probe) = &mut self.probe {
            probe.lap(phase);
        }
    }
}

/// Locks for reading and ignores poison: after a panic the run ends.
pub fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Locks for writing and ignores poison.
pub fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
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
