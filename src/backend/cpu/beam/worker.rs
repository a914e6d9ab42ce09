//! A step of a beam search, phase by phase: its layers, the logits, and each beam's selection.

use super::attend::Attend;
use super::encode::RotateAll;
use super::fold::Fold;
use super::nodes::Nodes;
use crate::backend::beams::{BeamFold, BeamStep};
use crate::backend::cpu::exchange::{Exchange, Job, LayerTask, Scratch, read, write};
use crate::backend::cpu::lock;
use crate::backend::cpu::share::{LayerPages, LayerPart};
use crate::backend::cpu::state::{StatePages, on_rows};
use crate::backend::cpu::stream::{StepPhases, Stream};
use crate::backend::cpu::team::{Claims, Task, Work};
use crate::backend::cpu::weights::{Weight, Weights};
use crate::backend::pack::Geometry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, RwLock};

/// The nodes of a search.
pub struct SearchNodes {
    /// x of every node.
    pub x: RwLock<Nodes>,
    /// q of every node, by block.
    pub q: Vec<Mutex<Nodes>>,
}

impl SearchNodes {
    /// No nodes.
    pub fn new(g: &Geometry) -> Self {
        Self {
            x: RwLock::new(Nodes::new(g.layers, g.row)),
            q: (0..g.blocks()).map(|_| Mutex::new(Nodes::new(g.layers, g.block))).collect(),
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        read(&self.x).bytes() + self.q.iter().map(|q| lock(q).bytes()).sum::<u64>()
    }

    /// Folds nodes into a block's rows of the base state, `[layers]`, whose window is empty.
    pub fn fold(&self, job: &Job, folds: &[BeamFold], block: usize, memory: &mut [LayerPart<'_>]) {
        let g = &job.model.geometry;
        let (x, q) = (read(&self.x), &*lock(&self.q[block]));
        let mut scratch = vec![0.0; g.row];
        for (layer, memory) in memory.iter_mut().enumerate() {
            let scaled =
                |fold: &BeamFold| x.get(fold.node, layer).iter().map(|x| x * fold.write_scale).collect::<Vec<_>>();
            let scaled_x: Vec<f32> = folds.iter().flat_map(scaled).collect();
            on_rows!(memory.state.part(0, g.block, g.row), state => job.level.run(Fold {
                folds,
                scaled_x: &scaled_x,
                q,
                layer,
                state,
                scratch: &mut scratch,
            }));
        }
    }

    /// Stores the residual streams of the active slots in their nodes.
    pub fn store_x(&self, g: &Geometry, stream: &Stream, nodes: impl Iterator<Item = usize>, layer: usize) {
        let mut x = write(&self.x);
        for (slot, node) in nodes.enumerate() {
            x.make_room(node);
            x.get_mut(node, layer).copy_from_slice(&stream.x[slot * g.row..][..g.row]);
        }
    }

    /// Rotates a block's activations for every slot's node.
    pub fn rotate(
        &self,
        job: &Job,
        phases: &StepPhases,
        nodes: impl Iterator<Item = usize>,
        layer: usize,
        block: usize,
    ) {
        let g = &job.model.geometry;
        let (u, mut q) = (lock(&job.exchange.blocks[block].u), lock(&self.q[block]));
        for (slot, node) in nodes.enumerate() {
            let [cosines, sines] = phases.of(g, slot, block);
            q.make_room(node);
            let (u, q) = (&u[slot * g.block..][..g.block], q.get_mut(node, layer));
            job.level.run(RotateAll { u, cosines, sines, q });
        }
    }

    /// Attention of a block to the paths and to its rows of a layer's base state.
    pub fn attend(
        &self,
        job: &Job,
        step: &BeamStep,
        layer: usize,
        block: usize,
        state: &StatePages,
        scratch: &mut Scratch,
    ) {
        let g = &job.model.geometry;
        let (x, q) = (&*read(&self.x), &*lock(&self.q[block]));
        let mut attention = write(&job.exchange.blocks[block].attention);
        for (slot, entry) in step.reads.iter().enumerate() {
            let (node, path) = (entry.node, entry.path.as_slice());
            let (read_scale, list) = (step.read_scale, &mut scratch.list);
            let y = &mut attention[slot * g.row..][..g.row];
            on_rows!(state, rows => {
                let state = &rows.numbers[block * g.block * g.row..][..g.block * g.row];
                // None for floats.
                let scales = rows.scales.get(block * g.block..(block + 1) * g.block).unwrap_or_default();
                job.level.run(Attend { x, q, layer, node, path, state, scales, read_scale, y, list });
            });
        }
    }
}

/// A step's run.
pub struct Run<'a, E: Weight, F> {
    job: &'a Job<'a>,
    weights: &'a Weights<E>,
    step: &'a BeamStep,
    nodes: &'a SearchNodes,
    /// The base state, `[layers]`.
    base: &'a [LayerPages],
    /// Number of beams.
    beams: usize,
    /// Selects a beam's continuations.
    select: F,
    /// Phases begun: the layers, the logits, the selection.
    begun: AtomicUsize,
}

/// A phase of a step.
enum Stage {
    Layer(usize),
    Logits,
    Select,
}

impl<'a, E: Weight, F: Fn(usize) + Sync> Run<'a, E, F> {
    /// A run that has not begun.
    pub fn new(
        job: &'a Job<'a>,
        weights: &'a Weights<E>,
        step: &'a BeamStep,
        nodes: &'a SearchNodes,
        base: &'a [LayerPages],
        beams: usize,
        select: F,
    ) -> Self {
        Self { job, weights, step, nodes, base, beams, select, begun: AtomicUsize::new(0) }
    }

    fn exchange(&self) -> &'a Exchange {
        self.job.exchange
    }

    fn stage(&self) -> Stage {
        let index = self.begun.load(Ordering::Relaxed).saturating_sub(1);
        match index.checked_sub(self.base.len()) {
            None => Stage::Layer(index),
            Some(0) => Stage::Logits,
            Some(_) => Stage::Select,
        }
    }

    /// The step's embeddings.
    fn embed(&self, stream: &mut Stream) {
        let (model, level) = (self.job.model, self.job.level);
        let slots = self.step.reads.len();
        stream.step += 1;
        stream.active = (0..slots).collect();
        stream.with_logits = (0..slots).collect();
        for (slot, read) in self.step.reads.iter().enumerate() {
            stream.embed(&model.geometry, level, self.weights, slot, read.token);
            stream.positions[slot] = self.step.position;
        }
    }

    fn step_nodes(&self) -> impl Iterator<Item = usize> {
        self.step.reads.iter().map(|read| read.node)
    }

    fn attend(&self, stream: &Stream, layer: usize, block: usize, scratch: &mut Scratch) {
        self.job.encode(self.weights, stream, block);
        scratch.phases.prepare(self.job.model, self.job.level, stream, block);
        self.nodes.rotate(self.job, &scratch.phases, self.step_nodes(), layer, block);
        self.nodes.attend(self.job, self.step, layer, block, &self.base[layer].state, scratch);
        self.exchange().has_attended(block);
    }
}

impl<E: Weight, F: Fn(usize) + Sync> Work for Run<'_, E, F> {
    fn next_phase(&self, _: usize) -> bool {
        let stream = &mut *write(&self.exchange().stream);
        let g = &self.job.model.geometry;
        match self.begun.fetch_add(1, Ordering::Relaxed) {
            0 => self.embed(stream),
            begun if begun <= self.base.len() => {
                self.job.gather_update(stream);
                stream.finish(g, self.job.level);
            }
            begun if begun == self.base.len() + 1 => {}
            _ => return false,
        }
        if let Stage::Layer(layer) = self.stage() {
            self.exchange().start_layer();
            self.nodes.store_x(g, stream, self.step_nodes(), layer);
        }
        true
    }

    fn tasks(&self, queue: usize) -> usize {
        match self.stage() {
            Stage::Layer(_) => self.exchange().layer_tasks(queue),
            Stage::Logits => self.exchange().shares[queue].lm_head_tiles.len(),
            Stage::Select => (queue..self.beams).step_by(self.exchange().threads()).count(),
        }
    }

    fn ready(&self, task: Task) -> bool {
        // A thread may still see an earlier phase; its claim fails.
        !matches!(self.stage(), Stage::Layer(_)) || self.exchange().layer_ready(task)
    }

    fn perform(&self, thread: usize, first: Task, claims: &mut Claims<Self>) {
        let scratch = &mut *lock(&self.exchange().scratch[thread]);
        let stream = &*read(&self.exchange().stream);
        let (stage, mut gathered) = (self.stage(), None);
        let mut next = Some(first);
        while let Some(task) = next {
            match stage {
                Stage::Layer(layer) => match self.exchange().layer_task(task) {
                    LayerTask::Attend(block) => self.attend(stream, layer, block, scratch),
                    LayerTask::Project(block) => {
                        self.job.project(self.weights, &stream.active, block, scratch, &mut gathered);
                    }
                },
                Stage::Logits => {
                    let tile = self.exchange().shares[task.queue].lm_head_tiles.start + task.index;
                    self.job.logits(self.weights, stream, tile);
                }
                Stage::Select => (self.select)(task.queue + task.index * self.exchange().threads()),
            }
            next = claims.next();
        }
    }
}
