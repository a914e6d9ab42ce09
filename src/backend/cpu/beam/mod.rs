//! Beam search: the kernels that it adds to decode, and the threads that run them.
//!
//! All threads read one base state and one set of nodes, which is kept by block.

mod attend;
mod counts;
mod encode;
mod fold;
mod merge;
mod nodes;
mod select;
mod stages;
mod worker;

use super::exchange::{Exchange, Job};
use super::share::share_out;
use super::slots::{CpuSlots, by_block};
use super::team::{OnePhase, Task};
use super::weights::on_weights;
use super::{Shared, lock};
use crate::backend::beams::{BeamFold, BeamSelection, BeamStep, Beams};
use crate::backend::{BackendError, Plan, Slots};
use crate::sampling::SamplerParams;
use counts::reorder;
use maybe_async::maybe_async;
use merge::merge;
use select::{Best, Tables, select};
use std::sync::{Arc, Mutex};
use worker::{Run, SearchNodes};

/// See [`Beams`].
pub(super) struct CpuBeams {
    shared: Arc<Shared>,
    base: CpuSlots,
    nodes: SearchNodes,
    exchange: Exchange,
    /// Options of all beams.
    params: SamplerParams,
    /// `[V]`, for options with biases.
    biases: Vec<f32>,
    /// `[beams]`, each `[V]`.
    counts: Vec<Vec<u32>>,
    /// `[beams]`, each `[V]`.
    logits: Vec<Mutex<Vec<f32>>>,
    /// `[beams]`
    best: Vec<Mutex<Best>>,
}

impl CpuBeams {
    /// Allocates an empty base state and `count` beams.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`] if the base state does not fit.
    pub fn new(shared: Arc<Shared>, count: usize) -> Result<Self, BackendError> {
        let g = &shared.model.geometry;
        let shares = share_out(g, shared.threads.count());
        let exchange = Exchange::new(g, shares, count);
        Ok(Self {
            base: CpuSlots::new(shared.clone(), 1)?,
            nodes: SearchNodes::new(g),
            exchange,
            params: bytemuck::Zeroable::zeroed(),
            biases: Vec::new(),
            counts: vec![vec![0; g.vocab]; count],
            logits: (0..count).map(|_| Mutex::new(vec![0.0; g.vocab])).collect(),
            best: vec![(); count].into_iter().map(|()| Mutex::default()).collect(),
            shared,
        })
    }
}

#[maybe_async(?Send)]
impl Beams for CpuBeams {
    fn count(&self) -> usize {
        self.counts.len()
    }

    async fn base(&mut self) -> Result<&mut dyn Slots, BackendError> {
        Ok(&mut self.base)
    }

    async fn start(&mut self, params: &SamplerParams, counts: &[u32]) -> Result<(), BackendError> {
        // Beams attend to the base state only, so its window must be empty.
        self.base.settle(0);
        self.params = *params;
        self.counts.iter_mut().for_each(|own| own.copy_from_slice(counts));
        Ok(())
    }

    async fn set_biases(&mut self, biases: &[f32]) -> Result<(), BackendError> {
        self.biases = biases.to_vec();
        Ok(())
    }

    async fn fold(&mut self, folds: &[BeamFold]) -> Result<(), BackendError> {
        let shared = self.shared.clone();
        let _running = lock(&shared.run_lock);
        let memory = by_block(&mut self.base.memory, &shared.model.geometry);
        let plan = Plan::default();
        let job = Job::new(&shared, &plan, &self.exchange, &self.logits, true);
        let blocks = |queue: usize| self.exchange.shares[queue].blocks.clone();
        let perform = |task: Task| {
            let block = blocks(task.queue).start + task.index;
            self.nodes.fold(&job, folds, block, &mut lock(&memory[block])[0]);
        };
        self.exchange.team.run(&shared.threads, &OnePhase::new(|queue| blocks(queue).len(), perform));
        Ok(())
    }

    async fn step(&mut self, step: &BeamStep) -> Result<BeamSelection, BackendError> {
        let shared = self.shared.clone();
        let _running = lock(&shared.run_lock);
        if let Some(parents) = &step.parents {
            let tokens = (0..parents.len()).map(|beam| step.reads[step.read_of(beam)].token);
            self.counts = reorder(&self.counts, parents, tokens);
        }
        let plan = Plan::default();
        let job = Job::new(&shared, &plan, &self.exchange, &self.logits, true);
        let select = |beam: usize| {
            let logits = lock(&self.logits[step.read_of(beam)]).clone();
            let (counts, score) = (&self.counts[beam], step.scores[beam]);
            let best = &mut lock(&self.best[beam]);
            let tables = Tables { counts, biases: &self.biases };
            select(&logits, tables, &self.params, step.generated, score, step.candidates, best);
        };
        let base = &self.base.memory[0];
        on_weights!(&shared.model.weights, weights => {
            let run = Run::new(&job, weights, step, &self.nodes, base, self.counts.len(), select);
            self.exchange.team.run(&shared.threads, &run);
        });
        let best: Vec<_> = self.best.iter().map(lock).collect();
        Ok(BeamSelection {
            candidates: merge(best.iter().map(|best| &**best), step.candidates),
            status: best.iter().map(|best| best.status).collect(),
        })
    }

    fn state_bytes(&self) -> u64 {
        self.base.state_bytes() + self.nodes.bytes()
    }
}
