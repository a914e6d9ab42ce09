//! One thread's share of a beam search step.

use super::attend::Attend;
use super::encode::RotateAll;
use super::fold::Fold;
use super::nodes::OwnNodes;
use crate::backend::beams::{BeamFold, BeamStep};
use crate::backend::cpu::Shared;
use crate::backend::cpu::decode::embed::Embed;
use crate::backend::cpu::decode::encode::activate;
use crate::backend::cpu::decode::rescale::rescale;
use crate::backend::cpu::dense::{Tile, block_tiles};
use crate::backend::cpu::exchange::{Job, write};
use crate::backend::cpu::pages::Pages;
use crate::backend::cpu::share::{LayerMemory, Share};
use crate::backend::cpu::weights::{Weight, Weights, on_weights};
use crate::backend::cpu::worker::Worker;
use crate::backend::{Output, SlotStep};

/// One thread's share of the blocks and of the nodes.
pub struct BeamWorker {
    /// The thread's share of the blocks.
    pub worker: Worker,
    /// The thread's part of the nodes.
    pub nodes: OwnNodes,
    /// Scratch, `[row]`.
    scaled_x: Vec<f32>,
}

impl BeamWorker {
    /// A worker for `count` beams, without nodes.
    pub(in crate::backend::cpu) fn new(shared: &Shared, share: Share, count: usize) -> Self {
        let g = &shared.model.geometry;
        let nodes = OwnNodes::new(g.layers, share.blocks.len() * g.block, g.row);
        Self { worker: Worker::new(g, share, count), nodes, scaled_x: vec![0.0; g.row] }
    }

    /// Runs this thread's share of a step up to the logits.
    pub fn run(&mut self, job: &Job, step: &BeamStep, base: &[LayerMemory<Pages<f32>>]) {
        on_weights!(&job.model.weights, weights => self.run_typed(job, weights, step, base));
    }

    fn run_typed<E: Weight>(
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

    /// Activations of the own blocks; stores q and x in a node for every active slot.
    pub fn encode<E: Weight>(&mut self, job: &Job, weights: &Weights<E>, nodes: &[usize], layer: usize) {
        let g = &job.model.geometry;
        let Worker { share, active, x, u, cosines, sines, .. } = &mut self.worker;
        let stride = share.blocks.len() * g.block;
        for (own, block) in share.blocks.clone().enumerate() {
            let tiles = Tile::range(&weights.encoder, g.width, block_tiles(g, block), job.exchange.threads());
            let offset = own * g.block;
            activate(job.level, tiles, x, g.row, active, u, stride, offset);
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

    /// Attention of the own blocks to the paths and to a layer's base state, `[neurons][row]` over
    /// all blocks.
    pub fn attend(&mut self, job: &Job, step: &BeamStep, layer: usize, state: &[f32]) {
        let g = &job.model.geometry;
        let worker = &mut self.worker;
        let mut attention = write(&job.exchange.attention[worker.share.index]);
        for (own, block) in worker.share.blocks.clone().enumerate() {
            for (slot, read) in step.reads.iter().enumerate() {
                job.level.run(Attend {
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

    /// Folds nodes into this thread's rows of the base state, `[layers]`, whose window is empty.
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
