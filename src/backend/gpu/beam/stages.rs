//! Runs the beam search's kernels one at a time.

use crate::backend::beams::{
    BeamAttendInput, BeamEncodeInput, BeamEncodeOutput, BeamFold, BeamRead, BeamSelectInput, BeamSelection, BeamStages,
    BeamStep, Beams, Nodes,
};
use crate::backend::gpu::activations::floats;
use crate::backend::gpu::backend::GpuBackend;
use crate::backend::gpu::beam::beams::{self, GpuBeams};
use crate::backend::gpu::schedule::BOTH;
use crate::backend::gpu::steps::{INPUT_IDLE, INPUT_PREVIOUS, Step};
use crate::backend::{BackendError, SlotStep};
use maybe_async::maybe_async;

/// A step that reads tokens whose values do not matter.
fn step(reads: Vec<BeamRead>, scores: Vec<f32>) -> BeamStep {
    BeamStep { position: 0, read_scale: 1.0, reads, scores, parents: None, generated: 0, candidates: 1 }
}

fn read(token: u32, node: usize) -> BeamRead {
    BeamRead { token, node, path: Vec::new() }
}

#[maybe_async]
impl GpuBackend {
    async fn beam_bench(&self, beams: usize) -> Result<GpuBeams, BackendError> {
        GpuBeams::new(self.shared.clone(), beams, &BOTH).await
    }

    /// Writes nodes, from the first on.
    async fn write_nodes(&self, bench: &mut GpuBeams, nodes: &Nodes) -> Result<(), BackendError> {
        let g = &self.shared.layout.geometry;
        let count = nodes.residual.len() / g.width;
        bench.make_room(count, 0, 0).await?;
        let mut packed = Vec::with_capacity(count * self.shared.layout.node_size());
        let rotated = nodes.rotated.chunks_exact(g.heads * g.neurons);
        for (q, x) in rotated.zip(nodes.residual.chunks_exact(g.width)) {
            for head in q.chunks_exact(g.neurons) {
                packed.extend_from_slice(head);
                packed.resize(packed.len() + g.padded_neurons() - g.neurons, 0.0);
            }
            packed.extend(self.pad(x));
        }
        self.shared.gpu.upload(&bench.buffers.nodes[0], 0, bytemuck::cast_slice(&packed)).await
    }

    /// A slot's attention output, `[H, D]`: the sums over each head's blocks in `neurons`.
    fn attention(&self, neurons: &[f32], slot: usize) -> Vec<f32> {
        let g = &self.shared.layout.geometry;
        let (_, y) = neurons[slot * self.slot_neurons()..][..self.slot_neurons()].split_at(g.all_neurons());
        let heads = y.chunks_exact(g.blocks_per_head * g.row);
        let sum = |head: &[f32], d: usize| head.chunks_exact(g.row).map(|block| block[d]).sum::<f32>();
        heads.flat_map(|head| (0..g.width).map(move |d| sum(head, d))).collect()
    }

    /// The first N neurons of every head: drops the padding.
    fn unpad_neurons(&self, neurons: &[f32]) -> Vec<f32> {
        let g = &self.shared.layout.geometry;
        neurons.chunks_exact(g.padded_neurons()).flat_map(|head| &head[..g.neurons]).copied().collect()
    }
}

#[maybe_async(?Send)]
impl BeamStages for GpuBackend {
    async fn beam_encode(&self, input: &BeamEncodeInput) -> Result<BeamEncodeOutput, BackendError> {
        let g = &self.shared.layout.geometry;
        let gpu = &self.shared.gpu;
        let bench = self.beam_bench(input.tokens.len()).await?;
        self.write_residual(&bench.activations, &input.residual, &input.update).await?;
        // One step for the beams that start from a token, one for those that continue.
        let entry = |(node, &token): (usize, &Option<u32>), first: bool| Step {
            input: match token {
                Some(token) if first => token,
                None if !first => INPUT_PREVIOUS,
                _ => INPUT_IDLE,
            },
            position: input.position,
            node: node as u32,
            ..Step::from(&SlotStep::IDLE)
        };
        let steps = [true, false].map(|first| input.tokens.iter().enumerate().map(|at| entry(at, first)).collect());
        bench.activations.write_steps(gpu, &steps).await?;
        let mut ops = vec![bench.search.encode(0, 0)];
        ops.extend(bench.search.finish(1, 1));
        ops.push(bench.search.encode(1, 1));
        bench.execute(&ops).await?;
        let neurons = floats(&bench.activations.neurons.download(gpu, 0, bench.activations.neurons.size()).await?);
        let size = self.shared.layout.node_size();
        let nodes = floats(&gpu.download(&bench.buffers.nodes[0], 0, (4 * size * input.tokens.len()) as u64).await?);
        let mut output = BeamEncodeOutput { activations: Vec::new(), nodes: Nodes::default() };
        for (slot, node) in nodes.chunks_exact(size).enumerate() {
            output.activations.extend(self.unpad_neurons(&neurons[slot * self.slot_neurons()..][..g.all_neurons()]));
            let (q, x) = node.split_at(g.all_neurons());
            output.nodes.rotated.extend(self.unpad_neurons(q));
            output.nodes.residual.extend_from_slice(&x[..g.width]);
        }
        Ok(output)
    }

    async fn beam_attend(&self, input: &BeamAttendInput) -> Result<Vec<f32>, BackendError> {
        let mut bench = self.beam_bench(input.reads.len()).await?;
        self.write_nodes(&mut bench, &input.nodes).await?;
        bench.make_room(0, input.reads.iter().map(|read| read.path.len()).sum(), 0).await?;
        bench.base.write_numbers(0, 0, &input.state).await?;
        let step = BeamStep { read_scale: input.read_scale, ..step(input.reads.clone(), Vec::new()) };
        bench.activations.write_steps(&self.shared.gpu, &[beams::table(&step)]).await?;
        bench.write_paths(&step).await?;
        bench.execute(&[bench.search.attend(0)]).await?;
        let neurons =
            floats(&bench.activations.neurons.download(&self.shared.gpu, 0, bench.activations.neurons.size()).await?);
        Ok((0..input.reads.len()).flat_map(|slot| self.attention(&neurons, slot)).collect())
    }

    async fn beam_fold(&self, state: &[f32], nodes: &Nodes, folds: &[BeamFold]) -> Result<Vec<f32>, BackendError> {
        let mut bench = self.beam_bench(1).await?;
        self.write_nodes(&mut bench, nodes).await?;
        bench.base.write_numbers(0, 0, state).await?;
        bench.fold(folds).await?;
        bench.base().await?.read_state(0).await
    }

    async fn beam_select(&self, input: &BeamSelectInput) -> Result<BeamSelection, BackendError> {
        let layout = &self.shared.layout;
        let vocab = layout.geometry.vocab;
        let mut bench = self.beam_bench(input.scores.len()).await?;
        bench.make_room(0, 0, input.candidates).await?;
        let mut logits = Vec::new();
        for row in input.logits.chunks_exact(vocab) {
            logits.extend_from_slice(row);
            logits.resize(logits.len() + layout.padded_vocab() - vocab, 0.0);
        }
        self.shared.gpu.upload(&bench.activations.logits, 0, bytemuck::cast_slice(&logits)).await?;
        bench.write_counts(&input.params, &input.counts).await?;
        bench.set_biases(&input.biases).await?;
        let rows = input.logits.len() / vocab;
        bench
            .write_beams(&BeamStep {
                generated: input.generated,
                candidates: input.candidates,
                ..step((0..rows).map(|row| read(0, row)).collect(), input.scores.clone())
            })
            .await?;
        let bytes = bench.buffers.selected_bytes(input.candidates);
        bench.select(input.candidates, &bench.search.select(bench.side, bytes)).await
    }

    async fn beam_counts(&self, counts: &[u32], parents: &[usize], tokens: &[u32]) -> Result<Vec<u32>, BackendError> {
        let mut bench = self.beam_bench(parents.len()).await?;
        bench.write_counts(&bytemuck::Zeroable::zeroed(), counts).await?;
        let reads = tokens.iter().enumerate().map(|(node, &token)| read(token, node)).collect();
        let step = BeamStep { parents: Some(parents.to_vec()), ..step(reads, vec![0.0; parents.len()]) };
        bench.write_beams(&step).await?;
        bench.execute(&[bench.search.counts(0)]).await?;
        let bytes = self.shared.gpu.download(&bench.buffers.counts[1], 0, 4 * counts.len() as u64).await?;
        Ok(bytes.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect())
    }
}
