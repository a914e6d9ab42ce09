//! Runs decode's kernels one at a time.

use crate::backend::gpu::activations::floats;
use crate::backend::gpu::backend::GpuBackend;
use crate::backend::gpu::schedule::BOTH;
use crate::backend::gpu::slots::GpuSlots;
use crate::backend::memory::Memory;
use crate::backend::stage::{
    EncodeInput, EncodeOutput, LogitsInput, ProjectInput, ProjectOutput, SampleInput, SampleOutput, Stages,
};
use crate::backend::{BackendError, Input, Output, SlotStep};
use crate::sampling::SamplerState;
use maybe_async::maybe_async;

#[maybe_async]
impl GpuBackend {
    /// Slots with the kernels of a batch, or of a single sequence.
    async fn bench(&self, slots: usize, batch: bool) -> Result<GpuSlots, BackendError> {
        GpuSlots::new(self.shared.clone(), slots, &BOTH, batch).await
    }

    /// Writes every slot's memory.
    async fn write_memories(&self, bench: &GpuSlots, memory: &Memory) -> Result<(), BackendError> {
        fn part(numbers: &[f32], slot: usize, slots: usize) -> Vec<f32> {
            let size = numbers.len() / slots;
            numbers[slot * size..][..size].to_vec()
        }
        for slot in 0..bench.activations.count {
            let part = |numbers: &[f32]| part(numbers, slot, bench.activations.count);
            let [state, rotated, recent] = [&memory.state, &memory.rotated, &memory.recent].map(|all| part(all));
            bench.write_memory(0, slot, &Memory { state, rotated, recent }).await?;
        }
        Ok(())
    }

    /// Reads every slot's memory.
    async fn read_memories(&self, bench: &GpuSlots) -> Result<Memory, BackendError> {
        let mut all = Memory::default();
        for slot in 0..bench.activations.count {
            let Memory { state, rotated, recent } = bench.read_memory(0, slot).await?;
            all.state.extend(state);
            all.rotated.extend(rotated);
            all.recent.extend(recent);
        }
        Ok(all)
    }
}

#[maybe_async(?Send)]
impl Stages for GpuBackend {
    async fn encode(&self, input: &EncodeInput) -> Result<EncodeOutput, BackendError> {
        let g = &self.shared.layout.geometry;
        let gpu = &self.shared.gpu;
        let slots = input.steps.len();
        let bench = self.bench(slots, input.finished.is_some()).await?;
        match &input.finished {
            Some(x) => self.write_finished(&bench.activations, x).await?,
            None => self.write_residual(&bench.activations, &input.residual, &input.update).await?,
        }
        self.write_memories(&bench, &input.memory).await?;
        // One step for the slots that start from a token, one for those that continue.
        let only = |wanted: fn(&Input) -> bool| -> Vec<SlotStep> {
            input.steps.iter().map(|step| if wanted(&step.input) { *step } else { SlotStep::IDLE }).collect()
        };
        bench
            .write_steps(&[
                only(|input| matches!(input, Input::Token(_))),
                only(|input| matches!(input, Input::Previous)),
            ])
            .await?;
        bench.execute(&[bench.decode.encode(0, 0), bench.decode.encode(1, 1)]).await?;

        let residual = floats(&gpu.download(&bench.activations.residual, 0, bench.activations.residual.size()).await?);
        let neurons = floats(&bench.activations.neurons.download(gpu, 0, bench.activations.neurons.size()).await?);
        let mut output = EncodeOutput {
            residual: Vec::new(),
            activations: Vec::new(),
            attention: Vec::new(),
            memory: Memory::default(),
        };
        for (slot, step) in input.steps.iter().enumerate() {
            let parity = (step.input == Input::Previous) as usize;
            let row = match step.input {
                Input::Idle => vec![0.0; g.width],
                _ => residual[(2 * slot + parity) * g.row..][..g.width].to_vec(),
            };
            output.residual.extend(row);
            let (u, y) = neurons[slot * self.slot_neurons()..][..self.slot_neurons()].split_at(g.all_neurons());
            for head in u.chunks_exact(g.padded_neurons()) {
                output.activations.extend_from_slice(&head[..g.neurons]);
            }
            for head in y.chunks_exact(g.blocks_per_head * g.row) {
                let sum = |d: usize| head.chunks_exact(g.row).map(|block| block[d]).sum::<f32>();
                output.attention.extend((0..g.width).map(sum));
            }
        }
        output.memory = self.read_memories(&bench).await?;
        Ok(output)
    }

    async fn finish(&self, residual: &[f32], update: &[f32]) -> Result<Vec<f32>, BackendError> {
        let g = &self.shared.layout.geometry;
        let bench = self.bench(residual.len() / g.width, true).await?;
        self.write_residual(&bench.activations, residual, update).await?;
        let slots = bench.activations.count;
        bench.write_steps(&[vec![SlotStep { input: Input::Previous, ..SlotStep::IDLE }; slots]]).await?;
        bench.execute(&Vec::from_iter(bench.decode.finish(0, 1))).await?;
        let residual =
            self.shared.gpu.download(&bench.activations.residual, 0, bench.activations.residual.size()).await?;
        let rows = floats(&residual);
        // The second half of each slot belongs to the second layer.
        Ok(rows.chunks_exact(g.row).skip(1).step_by(2).flat_map(|row| &row[..g.width]).copied().collect())
    }

    async fn collect(&self, attention: &[f32]) -> Result<Vec<f32>, BackendError> {
        let g = &self.shared.layout.geometry;
        let slots = attention.len() / (g.heads * g.width);
        let bench = self.bench(slots, true).await?;
        let activations = vec![0.0; slots * g.heads * g.neurons];
        self.write_activations(&bench.activations, &activations, attention, |slot| slot % g.blocks_per_head).await?;
        bench.write_steps(&[vec![SlotStep { input: Input::Previous, ..SlotStep::IDLE }; slots]]).await?;
        bench.execute(&Vec::from_iter(bench.decode.collect(0))).await?;
        let store = &bench.activations.neurons;
        let neurons = floats(&store.download(&self.shared.gpu, 0, store.size()).await?);
        let mut collected = Vec::with_capacity(attention.len());
        for slot in neurons.chunks_exact(self.slot_neurons()).take(slots) {
            for head in slot[g.all_neurons()..].chunks_exact(g.blocks_per_head * g.row) {
                collected.extend_from_slice(&head[..g.width]);
            }
        }
        Ok(collected)
    }

    async fn project(&self, input: &ProjectInput) -> Result<ProjectOutput, BackendError> {
        let g = &self.shared.layout.geometry;
        let gpu = &self.shared.gpu;
        let slots = input.attention.len() / (g.heads * g.width);
        let bench = self.bench(slots, input.collected.is_some()).await?;
        match &input.collected {
            Some(y) => self.write_activations(&bench.activations, &input.activations, y, |_| 0).await?,
            None => {
                let block = |slot| slot % g.blocks_per_head;
                self.write_activations(&bench.activations, &input.activations, &input.attention, block).await?;
            }
        }
        bench.write_steps(&[vec![SlotStep { input: Input::Previous, ..SlotStep::IDLE }; slots]]).await?;
        bench.execute(&[bench.decode.project(0)]).await?;
        let updates = floats(&bench.activations.updates.download(gpu, 0, bench.activations.updates.size()).await?);
        let mut update = Vec::with_capacity(slots * g.width);
        for blocks in updates.chunks_exact(g.blocks() * g.row).take(slots) {
            let sum = |d: usize| blocks.chunks_exact(g.row).map(|block| block[d]).sum::<f32>();
            update.extend((0..g.width).map(sum));
        }
        Ok(ProjectOutput { update, gates: None })
    }

    async fn logits(&self, input: &LogitsInput) -> Result<Vec<f32>, BackendError> {
        let layout = &self.shared.layout;
        let slots = input.residual.len() / layout.geometry.width;
        // A schedule of one layer reads the residual where `write_residual` puts it.
        let bench = GpuSlots::new(self.shared.clone(), slots, &BOTH[..1], false).await?;
        self.write_residual(&bench.activations, &input.residual, &input.update).await?;
        let step = SlotStep { input: Input::Previous, output: Output::Logits, ..SlotStep::IDLE };
        bench.write_steps(&[vec![step; slots]]).await?;
        bench.execute(&[bench.decode.logits(0)]).await?;
        let logits =
            floats(&self.shared.gpu.download(&bench.activations.logits, 0, bench.activations.logits.size()).await?);
        let rows = logits.chunks_exact(layout.padded_vocab()).take(slots);
        Ok(rows.flat_map(|row| &row[..layout.geometry.vocab]).copied().collect())
    }

    async fn sample(&self, input: &SampleInput) -> Result<SampleOutput, BackendError> {
        let layout = &self.shared.layout;
        let (gpu, vocab) = (&self.shared.gpu, layout.geometry.vocab);
        let slots = input.params.len();
        let bench = self.bench(slots, false).await?;
        let mut logits = vec![0f32; slots * layout.padded_vocab()];
        for (to, from) in logits.chunks_exact_mut(layout.padded_vocab()).zip(input.logits.chunks_exact(vocab)) {
            to[..vocab].copy_from_slice(from);
        }
        gpu.upload(&bench.activations.logits, 0, bytemuck::cast_slice(&logits)).await?;
        let sampler = |&generated: &u32| SamplerState { generated, ..SamplerState::default() };
        let samplers: Vec<SamplerState> = input.generated.iter().map(sampler).collect();
        gpu.upload(&bench.params, 0, bytemuck::cast_slice(&input.params)).await?;
        gpu.upload(&bench.counts, 0, bytemuck::cast_slice(&input.counts)).await?;
        gpu.upload(&bench.biases, 0, bytemuck::cast_slice(&input.biases)).await?;
        gpu.upload(&bench.activations.samplers, 0, bytemuck::cast_slice(&samplers)).await?;
        let step = SlotStep { input: Input::Previous, output: Output::Token, ..SlotStep::IDLE };
        bench.write_steps(&[vec![step; slots]]).await?;
        bench.execute(&[bench.decode.sample(0)]).await?;
        let size = size_of::<SamplerState>();
        let samplers = gpu.download(&bench.activations.samplers, 0, (slots * size) as u64).await?;
        let counts = gpu.download(&bench.counts, 0, (slots * vocab * 4) as u64).await?;
        Ok(SampleOutput {
            samplers: samplers.chunks_exact(size).map(bytemuck::pod_read_unaligned).collect(),
            counts: counts.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect(),
        })
    }

    async fn rescale(&self, memory: &Memory, factors: &[f32]) -> Result<Memory, BackendError> {
        let bench = self.bench(factors.len(), false).await?;
        self.write_memories(&bench, memory).await?;
        let step = |&factor: &f32| SlotStep { input: Input::Previous, rescale: Some(factor), ..SlotStep::IDLE };
        bench.write_steps(&[factors.iter().map(step).collect()]).await?;
        bench.execute(&[bench.decode.rescale(0)]).await?;
        self.read_memories(&bench).await
    }

    async fn settle(&self, memory: &Memory, sequence: usize, sequences: usize) -> Result<Memory, BackendError> {
        let bench = self.bench(sequences, false).await?;
        self.write_memories(&bench, memory).await?;
        bench.settle(sequence).await?;
        self.read_memories(&bench).await
    }
}
