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

impl GpuBackend {
    /// Slots with the kernels of a batch, or of a single sequence.
    fn bench(&self, slots: usize, batch: bool) -> Result<GpuSlots, BackendError> {
        GpuSlots::new(self.shared.clone(), slots, &BOTH, batch)
    }

    /// Writes every slot's memory.
    fn write_memories(&self, bench: &GpuSlots, memory: &Memory) -> Result<(), BackendError> {
        fn part(numbers: &[f32], slot: usize, slots: usize) -> Vec<f32> {
            let size = numbers.len() / slots;
            numbers[slot * size..][..size].to_vec()
        }
        for slot in 0..bench.activations.count {
            let part = |numbers: &[f32]| part(numbers, slot, bench.activations.count);
            let [state, rotated, recent] = [&memory.state, &memory.rotated, &memory.recent].map(|all| part(all));
            bench.write_memory(0, slot, &Memory { state, rotated, recent })?;
        }
        Ok(())
    }

    /// Reads every slot's memory.
    fn read_memories(&self, bench: &GpuSlots) -> Result<Memory, BackendError> {
        let mut all = Memory::default();
        for slot in 0..bench.activations.count {
            let Memory { state, rotated, recent } = bench.read_memory(0, slot)?;
            all.state.extend(state);
            all.rotated.extend(rotated);
            all.recent.extend(recent);
        }
        Ok(all)
    }
}

impl Stages for GpuBackend {
    fn encode(&self, input: &EncodeInput) -> Result<EncodeOutput, BackendError> {
        let g = &self.shared.layout.geometry;
        let gpu = &self.shared.gpu;
        let slots = input.steps.len();
        let bench = self.bench(slots, input.finished.is_some())?;
        match &input.finished {
            Some(x) => self.write_finished(&bench.activations, x)?,
            None => self.write_residual(&bench.activations, &input.residual, &input.update)?,
        }
        self.write_memories(&bench, &input.memory)?;
        // One step for the slots that start from a token, one for those that continue.
        let only = |wanted: fn(&Input) -> bool| -> Vec<SlotStep> {
            input.steps.iter().map(|step| if wanted(&step.input) { *step } else { SlotStep::IDLE }).collect()
        };
        bench.write_steps(&[
            only(|input| matches!(input, Input::Token(_))),
            only(|input| matches!(input, Input::Previous)),
        ])?;
        bench.execute(&[bench.decode.encode(0, 0), bench.decode.encode(1, 1)])?;

        let residual = floats(&gpu.download(&bench.activations.residual, 0, bench.activations.residual.size())?);
        let neurons = floats(&bench.activations.neurons.download(gpu, 0, bench.activations.neurons.size())?);
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
        output.memory = self.read_memories(&bench)?;
        Ok(output)
    }

    fn finish(&self, residual: &[f32], update: &[f32]) -> Result<Vec<f32>, BackendError> {
        let g = &self.shared.layout.geometry;
        let bench = self.bench(residual.len() / g.width, true)?;
        self.write_residual(&bench.activations, residual, update)?;
        let slots = bench.activations.count;
        bench.write_steps(&[vec![SlotStep { input: Input::Previous, ..SlotStep::IDLE }; slots]])?;
        bench.execute(&Vec::from_iter(bench.decode.finish(0, 1)))?;
        let residual = self.shared.gpu.download(&bench.activations.residual, 0, bench.activations.residual.size())?;
        let rows = floats(&residual);
        // The second half of each slot belongs to the second layer.
        Ok(rows.chunks_exact(g.row).skip(1).step_by(2).flat_map(|row| &row[..g.width]).copied().collect())
    }

    fn collect(&self, attention: &[f32]) -> Result<Vec<f32>, BackendError> {
        let g = &self.shared.layout.geometry;
        let slots = attention.len() / (g.heads * g.width);
        let bench = self.bench(slots, true)?;
        let activations = vec![0.0; slots * g.heads * g.neurons];
        self.write_activations(&bench.activations, &activations, attention, |slot| slot % g.blocks_per_head)?;
        bench.write_steps(&[vec![SlotStep { input: Input::Previous, ..SlotStep::IDLE }; slots]])?;
        bench.execute(&Vec::from_iter(bench.decode.collect(0)))?;
        let store = &bench.activations.neurons;
        let neurons = floats(&store.download(&self.shared.gpu, 0, store.size())?);
        let mut collected = Vec::with_capacity(attention.len());
        for slot in neurons.chunks_exact(self.slot_neurons()).take(slots) {
            for head in slot[g.all_neurons()..].chunks_exact(g.blocks_per_head * g.row) {
                collected.extend_from_slice(&head[..g.width]);
            }
        }
        Ok(collected)
    }

    fn project(&self, input: &ProjectInput) -> Result<ProjectOutput, BackendError> {
        let g = &self.shared.layout.geometry;
        let gpu = &self.shared.gpu;
        let slots = input.attention.len() / (g.heads * g.width);
        let bench = self.bench(slots, input.collected.is_some())?;
        match &input.collected {
            Some(y) => self.write_activations(&bench.activations, &input.activations, y, |_| 0)?,
            None => {
                let block = |slot| slot % g.blocks_per_head;
                self.write_activations(&bench.activations, &input.activations, &input.attention, block)?;
            }
        }
        bench.write_steps(&[vec![SlotStep { input: Input::Previous, ..SlotStep::IDLE }; slots]])?;
        bench.execute(&[bench.decode.project(0)])?;
        let updates = floats(&bench.activations.updates.download(gpu, 0, bench.activations.updates.size())?);
        let mut update = Vec::with_capacity(slots * g.width);
        for blocks in updates.chunks_exact(g.blocks() * g.row).take(slots) {
            let sum = |d: usize| blocks.chunks_exact(g.row).map(|block| block[d]).sum::<f32>();
            update.extend((0..g.width).map(sum));
        }
        Ok(ProjectOutput { update, gates: None })
    }

    fn logits(&self, input: &LogitsInput) -> Result<Vec<f32>, BackendError> {
        let layout = &self.shared.layout;
        let slots = input.residual.len() / layout.geometry.width;
        // A schedule of one layer reads the residual where `write_residual` puts it.
        let bench = GpuSlots::new(self.shared.clone(), slots, &BOTH[..1], false)?;
        self.write_residual(&bench.activations, &input.residual, &input.update)?;
        let step = SlotStep { input: Input::Previous, output: Output::Logits, ..SlotStep::IDLE };
        bench.write_steps(&[vec![step; slots]])?;
        bench.execute(&[bench.decode.logits(0)])?;
        let logits =
            floats(&self.shared.gpu.download(&bench.activations.logits, 0, bench.activations.logits.size())?);
        let rows = logits.chunks_exact(layout.padded_vocab()).take(slots);
        Ok(rows.flat_map(|row| &row[..layout.geometry.vocab]).copied().collect())
    }

    fn sample(&self, input: &SampleInput) -> Result<SampleOutput, BackendError> {
        let layout = &self.shared.layout;
        let (gpu, vocab) = (&self.shared.gpu, layout.geometry.vocab);
        let slots = input.params.len();
        let bench = self.bench(slots, false)?;
        let mut logits = vec![0f32; slots * layout.padded_vocab()];
        for (to, from) in logits.chunks_exact_mut(layout.padded_vocab()).zip(input.logits.chunks_exact(vocab)) {
            to[..vocab].copy_from_slice(from);
        }
        gpu.upload(&bench.activations.logits, 0, bytemuck::cast_slice(&logits))?;
        let sampler = |&generated: &u32| SamplerState { generated, ..SamplerState::default() };
        let samplers: Vec<SamplerState> = input.generated.iter().map(sampler).collect();
        gpu.upload(&bench.params, 0, bytemuck::cast_slice(&input.params))?;
        gpu.upload(&bench.counts, 0, bytemuck::cast_slice(&input.counts))?;
        gpu.upload(&bench.biases, 0, bytemuck::cast_slice(&input.biases))?;
        gpu.upload(&bench.activations.samplers, 0, bytemuck::cast_slice(&samplers))?;
        let step = SlotStep { input: Input::Previous, output: Output::Token, ..SlotStep::IDLE };
        bench.write_steps(&[vec![step; slots]])?;
        bench.execute(&[bench.decode.sample(0)])?;
        let size = size_of::<SamplerState>();
        let samplers = gpu.download(&bench.activations.samplers, 0, (slots * size) as u64)?;
        let counts = gpu.download(&bench.counts, 0, (slots * vocab * 4) as u64)?;
        Ok(SampleOutput {
            samplers: samplers.chunks_exact(size).map(bytemuck::pod_read_unaligned).collect(),
            counts: counts.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect(),
        })
    }

    fn rescale(&self, memory: &Memory, factors: &[f32]) -> Result<Memory, BackendError> {
        let bench = self.bench(factors.len(), false)?;
        self.write_memories(&bench, memory)?;
        let step = |&factor: &f32| SlotStep { input: Input::Previous, rescale: Some(factor), ..SlotStep::IDLE };
        bench.write_steps(&[factors.iter().map(step).collect()])?;
        bench.execute(&[bench.decode.rescale(0)])?;
        self.read_memories(&bench)
    }

    fn settle(&self, memory: &Memory, sequence: usize, sequences: usize) -> Result<Memory, BackendError> {
        let bench = self.bench(sequences, false)?;
        self.write_memories(&bench, memory)?;
        bench.settle(sequence)?;
        self.read_memories(&bench)
    }
}
