//! The beam search kernels one at a time, on one thread.

use super::counts::reorder;
use super::fold::Fold;
use super::merge::merge;
use super::select::{Best, select};
use super::worker::BeamWorker;
use crate::backend::beams::{
    BeamAttendInput, BeamEncodeInput, BeamEncodeOutput, BeamFold, BeamSelectInput, BeamSelection, BeamStages, BeamStep,
    Nodes,
};
use crate::backend::cpu::CpuBackend;
use crate::backend::cpu::decode::stages::Bench;
use crate::backend::cpu::exchange::{Exchange, Job};
use crate::backend::cpu::share::share_out;
use crate::backend::cpu::weights::{Weight, Weights, on_weights};
use crate::backend::memory::Memory;
use crate::backend::stage::EncodeInput;
use crate::backend::{BackendError, Input, Plan, SlotStep};

impl CpuBackend {
    /// One thread that owns all blocks, with its exchange.
    fn beam_bench(&self, slots: usize) -> (BeamWorker, Exchange) {
        let mut shares = share_out(&self.shared.model.geometry, 1);
        let exchange = Exchange::new(&self.shared.model.geometry, &shares, slots);
        (BeamWorker::new(&self.shared, shares.remove(0), slots), exchange)
    }

    /// Writes nodes, starting from the first.
    fn write_nodes(&self, bench: &mut BeamWorker, nodes: &Nodes) {
        let g = &self.shared.model.geometry;
        let rotated = nodes.rotated.chunks_exact(g.heads * g.neurons);
        for (node, (from_q, from_x)) in rotated.zip(nodes.residual.chunks_exact(g.width)).enumerate() {
            bench.nodes.make_room(node);
            let (q, x) = bench.nodes.get_mut(node, 0);
            g.pad(from_q, 1, q, 1);
            x[..g.width].copy_from_slice(from_x);
        }
    }

    /// Pads a layer's state `[H, N, D]`.
    fn pad_state(&self, state: &[f32]) -> Vec<f32> {
        let g = &self.shared.model.geometry;
        let mut padded = vec![0.0; g.layer_state()];
        g.pad(state, g.width, &mut padded, g.row);
        padded
    }

    fn beam_encode_typed<E: Weight>(&self, weights: &Weights<E>, input: &BeamEncodeInput) -> BeamEncodeOutput {
        let g = &self.shared.model.geometry;
        let slots = input.tokens.len();
        let mut residual = Bench::new(self, slots);
        let step = |token: &Option<u32>| SlotStep {
            input: token.map_or(Input::Previous, Input::Token),
            position: input.position,
            ..SlotStep::IDLE
        };
        let steps = input.tokens.iter().map(step).collect();
        let (x, update) = (input.residual.clone(), input.update.clone());
        residual
            .residual(weights, &EncodeInput { steps, residual: x, update, finished: None, memory: Memory::default() });
        let (mut bench, exchange) = self.beam_bench(slots);
        bench.worker = residual.worker;
        (0..slots).for_each(|node| bench.nodes.make_room(node));
        let plan = Plan::default();
        let nodes: Vec<usize> = (0..slots).collect();
        bench.encode(&Job::new(&self.shared, &plan, &exchange, &[], true), weights, &nodes, 0);
        let mut output = BeamEncodeOutput { activations: g.unpad(&bench.worker.u, 1, 1), nodes: Nodes::default() };
        for node in nodes {
            let (q, x) = bench.nodes.get(node, 0);
            output.nodes.rotated.extend(g.unpad(q, 1, 1));
            output.nodes.residual.extend_from_slice(&x[..g.width]);
        }
        output
    }
}

impl BeamStages for CpuBackend {
    fn beam_encode(&self, input: &BeamEncodeInput) -> Result<BeamEncodeOutput, BackendError> {
        Ok(on_weights!(&self.shared.model.weights, weights => self.beam_encode_typed(weights, input)))
    }

    fn beam_attend(&self, input: &BeamAttendInput) -> Result<Vec<f32>, BackendError> {
        let g = &self.shared.model.geometry;
        let slots = input.reads.len();
        let (mut bench, exchange) = self.beam_bench(slots);
        self.write_nodes(&mut bench, &input.nodes);
        bench.worker.active = (0..slots).collect();
        let plan = Plan::default();
        let job = Job::new(&self.shared, &plan, &exchange, &[], true);
        let step = BeamStep {
            position: 0,
            read_scale: input.read_scale,
            reads: input.reads.clone(),
            scores: Vec::new(),
            parents: None,
            generated: 0,
            candidates: 0,
        };
        bench.attend(&job, &step, 0, &self.pad_state(&input.state));
        bench.worker.gather_attention(&job);
        let mut attention = Vec::new();
        for slot in 0..slots {
            for head in 0..g.heads {
                attention.extend_from_slice(&bench.worker.attention[(head * slots + slot) * g.row..][..g.width]);
            }
        }
        Ok(attention)
    }

    fn beam_fold(&self, state: &[f32], nodes: &Nodes, folds: &[BeamFold]) -> Result<Vec<f32>, BackendError> {
        let g = &self.shared.model.geometry;
        let (mut bench, _) = self.beam_bench(1);
        self.write_nodes(&mut bench, nodes);
        let mut padded = self.pad_state(state);
        let mut scaled_x = vec![0.0; g.row];
        for fold in folds {
            let (q, x) = bench.nodes.get(fold.node, 0);
            let (state, scaled_x) = (padded.as_mut_slice(), scaled_x.as_mut_slice());
            self.shared.level.run(Fold { q, x, write_scale: fold.write_scale, state, scaled_x });
        }
        Ok(g.unpad(&padded, g.row, g.width))
    }

    fn beam_select(&self, input: &BeamSelectInput) -> Result<BeamSelection, BackendError> {
        let vocab = self.shared.model.geometry.vocab;
        let rows: Vec<&[f32]> = input.logits.chunks_exact(vocab).collect();
        let mut best = vec![Best::default(); input.scores.len()];
        for (beam, best) in best.iter_mut().enumerate() {
            let logits = rows[beam.min(rows.len() - 1)];
            let counts = &input.counts[beam * vocab..][..vocab];
            let (score, k) = (input.scores[beam], input.candidates);
            select(logits, counts, &input.params, input.generated, score, k, best);
        }
        Ok(BeamSelection {
            candidates: merge(best.iter(), input.candidates),
            status: best.iter().map(|best| best.status).collect(),
        })
    }

    fn beam_counts(&self, counts: &[u32], parents: &[usize], tokens: &[u32]) -> Result<Vec<u32>, BackendError> {
        let vocab = self.shared.model.geometry.vocab;
        let rows: Vec<Vec<u32>> = counts.chunks_exact(vocab).map(<[u32]>::to_vec).collect();
        Ok(reorder(&rows, parents, tokens.iter().copied()).concat())
    }
}
