//! Beams on the CPU: one base state that all threads only read, and each thread's part of the nodes.

use super::beam_attend::BeamAttend;
use super::beam_encode::{OwnNodes, RotateAll};
use super::beam_fold::Fold;
use super::beam_select::{self, BeamBest};
use super::dense::{Tile, block_tiles};
use super::encode;
use super::pages::Pages;
use super::residual::Embed;
use super::weights::{AnyWeights, Half, Weights};
use super::worker::{self, Exchange, Job, LayerMemory, Worker, write};
use super::{CpuSlots, Shared, lock, rescale};
use crate::backend::beams::{BeamFold, BeamSelection, BeamStep, Beams};
use crate::backend::{BackendError, Output, Plan, RunOutput, SlotStep, Slots};
use crate::sampling::SamplerParams;
use std::sync::{Arc, Mutex};

/// One thread's share of the blocks and of the nodes.
pub(super) struct BeamWorker {
    pub worker: Worker,
    pub nodes: OwnNodes,
    scaled_x: Vec<f32>,
}

/// See [`Beams`].
pub(super) struct CpuBeams {
    shared: Arc<Shared>,
    base: CpuSlots,
    workers: Vec<Mutex<BeamWorker>>,
    exchange: Exchange,
    params: SamplerParams,
    /// `[beams]`, each `[V]`.
    counts: Vec<Vec<u32>>,
    logits: Vec<Mutex<Vec<f32>>>,
    best: Vec<Mutex<BeamBest>>,
}

impl CpuBeams {
    pub fn new(shared: Arc<Shared>, count: usize) -> Result<Self, BackendError> {
        let g = &shared.model.geometry;
        let shares = worker::share_out(g, shared.pool.current_num_threads());
        let exchange = Exchange::new(g, &shares, count);
        let workers = shares.into_iter().map(|share| Mutex::new(BeamWorker::new(&shared, share, count))).collect();
        Ok(Self {
            base: CpuSlots::new(shared.clone(), 1)?,
            workers,
            exchange,
            params: bytemuck::Zeroable::zeroed(),
            counts: vec![vec![0; g.vocab]; count],
            logits: (0..count).map(|_| Mutex::new(vec![0.0; g.vocab])).collect(),
            best: vec![(); count].into_iter().map(|()| Mutex::default()).collect(),
            shared,
        })
    }
}

impl BeamWorker {
    pub fn new(shared: &Shared, share: worker::Share, count: usize) -> Self {
        let g = &shared.model.geometry;
        let nodes = OwnNodes::new(g.layers, share.blocks.len() * g.block, g.row);
        Self { worker: Worker::new(g, share, count), nodes, scaled_x: vec![0.0; g.row] }
    }

    /// Runs this thread's share of a step up to the logits.
    fn run(&mut self, job: &Job, step: &BeamStep, base: &[LayerMemory<Pages<f32>>]) {
        match &job.model.weights {
            AnyWeights::F32(weights) => self.run_typed(job, weights, step, base),
            AnyWeights::F16(weights) => self.run_typed(job, weights, step, base),
        }
    }

    fn run_typed<E: Half>(
        &mut self,
        job: &Job,
        weights: &Weights<E>,
        step: &BeamStep,
        base: &[LayerMemory<Pages<f32>>],
    ) {
        let g = &job.model.geometry;
        self.worker.active = (0..step.reads.len()).collect();
        for (slot, read) in step.reads.iter().enumerate() {
            self.nodes.make_room(read.node);
            let embedding = &weights.embed[read.token as usize * g.row..][..g.row];
            let x = &mut self.worker.x[slot * g.row..][..g.row];
            job.level.run(Embed { embedding, width: g.width, x });
            self.worker.rotate(job, slot, step.position);
        }
        let nodes: Vec<usize> = step.reads.iter().map(|read| read.node).collect();
        for (layer, memory) in base.iter().enumerate() {
            self.encode(job, weights, &nodes, layer);
            self.attend(job, step, layer, &memory.state);
            if job.exchange.heads_split() {
                job.exchange.barrier.wait();
            }
            self.worker.project(job, weights, layer);
            job.exchange.barrier.wait();
            self.worker.finish(job, layer);
        }
        let slot_step = SlotStep { output: Output::Logits, ..SlotStep::IDLE };
        self.worker.logits(job, weights, &vec![slot_step; step.reads.len()]);
    }

    /// The own blocks fire, and become part of a node for every active slot.
    pub fn encode<E: Half>(&mut self, job: &Job, weights: &Weights<E>, nodes: &[usize], layer: usize) {
        let g = &job.model.geometry;
        let Worker { share, active, x, u, cosines, sines, .. } = &mut self.worker;
        let stride = share.blocks.len() * g.block;
        for (own, block) in share.blocks.clone().enumerate() {
            let tiles = Tile::range(&weights.encoder, g.width, block_tiles(g, block), job.exchange.threads());
            let offset = own * g.block;
            encode::activate(job.level, tiles, x, g.row, active, u, stride, offset);
            for &slot in active.iter() {
                let phases = slot * g.padded_neurons() + block % g.blocks_per_head * g.block;
                let (q, _) = self.nodes.get_mut(nodes[slot], layer);
                job.level.run(RotateAll {
                    u: &u[slot * stride + offset..][..g.block],
                    cosines: &cosines[phases..][..g.block],
                    sines: &sines[phases..][..g.block],
                    q: &mut q[offset..][..g.block],
                });
            }
        }
        for &slot in active.iter() {
            let (_, node_x) = self.nodes.get_mut(nodes[slot], layer);
            node_x.copy_from_slice(&x[slot * g.row..][..g.row]);
        }
    }

    /// The own blocks meet the base state of a layer, `[neurons][row]` of all blocks, and the paths.
    pub fn attend(&mut self, job: &Job, step: &BeamStep, layer: usize, state: &[f32]) {
        let g = &job.model.geometry;
        let worker = &mut self.worker;
        let mut attention = write(&job.exchange.attention[worker.share.index]);
        for (own, block) in worker.share.blocks.clone().enumerate() {
            for (slot, read) in step.reads.iter().enumerate() {
                job.level.run(BeamAttend {
                    nodes: &self.nodes,
                    layer,
                    node: read.node,
                    path: &read.path,
                    first: own * g.block,
                    state: &state[block * g.block * g.row..][..g.block * g.row],
                    read_scale: step.read_scale,
                    y: &mut attention[(own * worker.slots + slot) * g.row..][..g.row],
                    list: &mut worker.list,
                });
            }
        }
    }

    /// Nodes enter this thread's rows of the base state, `[layers]`, whose window is empty.
    pub fn fold(&mut self, job: &Job, folds: &[BeamFold], memory: &mut [LayerMemory<&mut [f32]>]) {
        for (layer, memory) in memory.iter_mut().enumerate() {
            for fold in folds {
                if let Some(factor) = fold.rescale {
                    rescale(memory.state, factor);
                }
                let (q, x) = self.nodes.get(fold.node, layer);
                let (write_scale, scaled_x) = (fold.write_scale, self.scaled_x.as_mut_slice());
                let state = &mut *memory.state;
                job.level.run(Fold { q, x, write_scale, state, scaled_x });
            }
        }
    }
}

impl Beams for CpuBeams {
    fn count(&self) -> usize {
        self.counts.len()
    }

    fn base(&mut self) -> Result<&mut dyn Slots, BackendError> {
        Ok(&mut self.base)
    }

    fn start(&mut self, params: &SamplerParams, counts: &[u32]) -> Result<(), BackendError> {
        // Beams share a base that is a state and nothing else.
        self.base.settle(0);
        self.params = *params;
        self.counts.iter_mut().for_each(|own| own.copy_from_slice(counts));
        Ok(())
    }

    fn fold(&mut self, folds: &[BeamFold]) -> Result<(), BackendError> {
        let shared = self.shared.clone();
        let _turn = lock(&shared.turn);
        let shares: Vec<usize> = self.workers.iter().map(|own| lock(own).worker.share.blocks.len()).collect();
        let parts = worker::split_memory(&mut self.base.memory, &shared.model.geometry, &shares);
        let parts: Vec<Mutex<_>> = parts.into_iter().map(Mutex::new).collect();
        let plan = Plan::default();
        let job = job(&shared, &plan, &self.exchange, &self.logits);
        shared.pool.broadcast(|thread| {
            let own = &mut *lock(&self.workers[thread.index()]);
            own.fold(&job, folds, &mut lock(&parts[thread.index()])[0]);
        });
        Ok(())
    }

    fn step(&mut self, step: &BeamStep) -> Result<BeamSelection, BackendError> {
        let shared = self.shared.clone();
        let _turn = lock(&shared.turn);
        if let Some(parents) = &step.parents {
            let tokens = (0..parents.len()).map(|beam| step.reads[step.read_of(beam)].token);
            self.counts = beam_select::reorder(&self.counts, parents, tokens);
        }
        let plan = Plan::default();
        let job = job(&shared, &plan, &self.exchange, &self.logits);
        let threads = self.workers.len();
        shared.pool.broadcast(|thread| {
            let _guard = self.exchange.barrier.guard();
            lock(&self.workers[thread.index()]).run(&job, step, &self.base.memory[0]);
            self.exchange.barrier.wait();
            for beam in (thread.index()..self.counts.len()).step_by(threads) {
                let logits = lock(&self.logits[step.read_of(beam)]).clone();
                let (counts, score) = (&self.counts[beam], step.scores[beam]);
                let best = &mut lock(&self.best[beam]);
                beam_select::select(&logits, counts, &self.params, step.generated, score, step.candidates, best);
            }
        });
        let best: Vec<_> = self.best.iter().map(lock).collect();
        Ok(BeamSelection {
            candidates: beam_select::merge(best.iter().map(|best| &**best), step.candidates),
            status: best.iter().map(|best| best.status).collect(),
        })
    }

    fn state_bytes(&self) -> u64 {
        let base: usize = self.base.memory.iter().flatten().map(|m| 4 * (m.state.len() + m.rotated.len())).sum();
        base as u64 + self.workers.iter().map(|own| lock(own).nodes.bytes()).sum::<u64>()
    }
}

/// What threads share that run no plan.
pub(super) fn job<'a>(
    shared: &'a Shared,
    plan: &'a Plan,
    exchange: &'a Exchange,
    logits: &'a [Mutex<Vec<f32>>],
) -> Job<'a> {
    Job {
        plan,
        model: &shared.model,
        level: shared.level,
        streams: true,
        exchange,
        samplers: &[],
        logits,
        output: Mutex::new(RunOutput::default()),
    }
}
