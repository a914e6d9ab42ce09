//! The beam search kernels one at a time, on one thread.

use super::counts::reorder;
use super::merge::merge;
use super::select::{Best, Tables, select};
use super::worker::SearchNodes;
use crate::backend::beams::{
    BeamAttendInput, BeamEncodeInput, BeamEncodeOutput, BeamFold, BeamSelectInput, BeamSelection, BeamStages, BeamStep,
    Nodes,
};
use crate::backend::cpu::CpuBackend;
use crate::backend::cpu::decode::stages::Bench;
use crate::backend::cpu::exchange::{Job, Scratch, read, write};
use crate::backend::cpu::lock;
use crate::backend::cpu::pages::Pages;
use crate::backend::cpu::share::LayerPages;
use crate::backend::cpu::slots::by_block;
use crate::backend::cpu::state::StatePages;
use crate::backend::cpu::stream::StepPhases;
use crate::backend::cpu::weights::{Weight, Weights, on_weights};
use crate::backend::memory::{Memory, SavedState, WINDOW};
use crate::backend::stage::EncodeInput;
use crate::backend::{BackendError, Input, Plan, SlotStep};
use maybe_async::maybe_async;

impl CpuBackend {
    /// Writes nodes, starting from the first.
    fn write_nodes(&self, nodes: &Nodes) -> SearchNodes {
        let g = &self.shared.model.geometry;
        let written = SearchNodes::new(g);
        let mut x = write(&written.x);
        let rotated = nodes.rotated.chunks_exact(g.heads * g.neurons);
        let mut padded = vec![0.0; g.all_neurons()];
        for (node, (from_q, from_x)) in rotated.zip(nodes.residual.chunks_exact(g.width)).enumerate() {
            g.pad(from_q, 1, &mut padded, 1);
            for (q, from) in written.q.iter().zip(padded.chunks_exact(g.block)) {
                let mut q = lock(q);
                q.make_room(node);
                q.get_mut(node, 0).copy_from_slice(from);
            }
            x.make_room(node);
            x.get_mut(node, 0)[..g.width].copy_from_slice(from_x);
        }
        drop(x);
        written
    }

    /// A layer's state `[H, N, D]` in the backend's type.
    pub(in crate::backend::cpu) fn state_of(&self, state: &[f32]) -> Result<StatePages, BackendError> {
        let g = &self.shared.model.geometry;
        let mut pages = StatePages::zeroed(self.shared.state_type, g)?;
        pages.load(g, SavedState::F32(state));
        Ok(pages)
    }

    fn beam_encode_typed<E: Weight>(&self, weights: &Weights<E>, input: &BeamEncodeInput) -> BeamEncodeOutput {
        let g = &self.shared.model.geometry;
        let slots = input.tokens.len();
        let mut bench = Bench::new(self, slots);
        let step = |token: &Option<u32>| SlotStep {
            input: token.map_or(Input::Previous, Input::Token),
            position: input.position,
            ..SlotStep::IDLE
        };
        let steps = input.tokens.iter().map(step).collect();
        let (x, update) = (input.residual.clone(), input.update.clone());
        let memory = Memory::default();
        bench.residual(weights, &EncodeInput { steps, residual: x, update, finished: None, memory });
        let nodes = SearchNodes::new(g);
        let plan = Plan::default();
        let job = Job::new(&self.shared, &plan, &bench.exchange, &[], true);
        let mut phases = StepPhases::new(g, slots);
        nodes.store_x(g, &bench.stream, 0..slots, 0);
        for block in 0..g.blocks() {
            job.encode(weights, &bench.stream, block);
            phases.prepare(&self.shared.model, self.shared.level, &bench.stream, block);
            nodes.rotate(&job, &phases, 0..slots, 0, block);
        }
        let mut output = BeamEncodeOutput { activations: bench.activations(), nodes: Nodes::default() };
        for node in 0..slots {
            let q: Vec<f32> = nodes.q.iter().flat_map(|q| lock(q).get(node, 0).to_vec()).collect();
            output.nodes.rotated.extend(g.unpad(&q, 1, 1));
            output.nodes.residual.extend_from_slice(&read(&nodes.x).get(node, 0)[..g.width]);
        }
        output
    }
}

#[maybe_async(?Send)]
impl BeamStages for CpuBackend {
    async fn beam_encode(&self, input: &BeamEncodeInput) -> Result<BeamEncodeOutput, BackendError> {
        Ok(on_weights!(&self.shared.model.weights, weights => self.beam_encode_typed(weights, input)))
    }

    async fn beam_attend(&self, input: &BeamAttendInput) -> Result<Vec<f32>, BackendError> {
        let g = &self.shared.model.geometry;
        let slots = input.reads.len();
        let nodes = self.write_nodes(&input.nodes);
        let mut bench = Bench::new(self, slots);
        let step = BeamStep {
            position: 0,
            read_scale: input.read_scale,
            reads: input.reads.clone(),
            scores: Vec::new(),
            parents: None,
            generated: 0,
            candidates: 0,
        };
        let state = self.state_of(&input.state)?;
        let plan = Plan::default();
        let job = Job::new(&self.shared, &plan, &bench.exchange, &[], true);
        let mut scratch = Scratch::new(g, slots);
        for block in 0..g.blocks() {
            nodes.attend(&job, &step, 0, block, &state, &mut scratch);
        }
        Ok(bench.attention())
    }

    async fn beam_fold(&self, state: &[f32], nodes: &Nodes, folds: &[BeamFold]) -> Result<Vec<f32>, BackendError> {
        let g = &self.shared.model.geometry;
        let nodes = self.write_nodes(nodes);
        let rotated = Pages::zeroed(g.all_neurons() * WINDOW, "a window")?;
        let mut memory = vec![vec![LayerPages::new(self.state_of(state)?, rotated)?]];
        let plan = Plan::default();
        let bench = Bench::new(self, 1);
        let job = Job::new(&self.shared, &plan, &bench.exchange, &[], true);
        for (block, memory) in by_block(&mut memory, g).iter().enumerate() {
            nodes.fold(&job, folds, block, &mut lock(memory)[0]);
        }
        Ok(memory[0][0].state.to_floats(g))
    }

    async fn beam_select(&self, input: &BeamSelectInput) -> Result<BeamSelection, BackendError> {
        let vocab = self.shared.model.geometry.vocab;
        let rows: Vec<&[f32]> = input.logits.chunks_exact(vocab).collect();
        let mut best = vec![Best::default(); input.scores.len()];
        for (beam, best) in best.iter_mut().enumerate() {
            let logits = rows[beam.min(rows.len() - 1)];
            let tables = Tables { counts: &input.counts[beam * vocab..][..vocab], biases: &input.biases };
            let (score, k) = (input.scores[beam], input.candidates);
            select(logits, tables, &input.params, input.generated, score, k, best);
        }
        Ok(BeamSelection {
            candidates: merge(best.iter(), input.candidates),
            status: best.iter().map(|best| best.status).collect(),
        })
    }

    async fn beam_counts(&self, counts: &[u32], parents: &[usize], tokens: &[u32]) -> Result<Vec<u32>, BackendError> {
        let vocab = self.shared.model.geometry.vocab;
        let rows: Vec<Vec<u32>> = counts.chunks_exact(vocab).map(<[u32]>::to_vec).collect();
        Ok(reorder(&rows, parents, tokens.iter().copied()).concat())
    }
}
