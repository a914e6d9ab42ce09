//! [`Slots`] on a device.

use super::activations::floats;
use super::memory::LayerMemory;
use super::slots::GpuSlots;
use crate::backend::memory::SavedMemory;
use crate::backend::profile::Profile;
use crate::backend::watch::TokenNeurons;
use crate::backend::{BackendError, Chunk, Plan, RunOutput, Slots};
use crate::sampling::{SamplerParams, SamplerState};
use maybe_async::maybe_async;
use wgpu::BufferUsages;

#[maybe_async(?Send)]
impl Slots for GpuSlots {
    async fn profile(&mut self, plan: &Plan) -> Result<Profile, BackendError> {
        self.windows_fill(plan);
        self.draws.forget();
        self.profile_plan(plan).await
    }

    async fn prefill(&mut self, slot: usize, chunk: &Chunk) -> Result<Vec<f32>, BackendError> {
        self.prefill_chunk(slot, chunk).await
    }

    async fn profile_prefill(&mut self, slot: usize, chunk: &Chunk) -> Result<Profile, BackendError> {
        self.profile_chunk(slot, chunk).await
    }

    fn count(&self) -> usize {
        self.activations.count
    }

    async fn set_reach(&mut self, slot: usize, reach: Option<u32>) -> Result<(), BackendError> {
        match reach {
            None => self.clear(slot).await,
            Some(_) => Err(BackendError::NoSlidingWindow { device: self.shared.gpu.info.name.clone() }),
        }
    }

    async fn clear(&mut self, slot: usize) -> Result<(), BackendError> {
        let wanted = self.slot_pages(slot).map(|(page, ..)| page.store.zeros_wanted()).max().unwrap_or(0);
        let zeros = self.shared.gpu.buffer("zeros", wanted, BufferUsages::COPY_SRC)?;
        self.shared
            .execute(|encoder| {
                for (page, offset, bytes) in self.slot_pages(slot) {
                    page.store.clear(encoder, offset, bytes, &zeros);
                }
            })
            .await?;
        self.window_empty[slot] = true;
        Ok(())
    }

    async fn copy(&mut self, from: usize, to: usize) -> Result<(), BackendError> {
        if from == to {
            return Ok(());
        }
        let layout = &self.shared.layout;
        let pages: Vec<_> = self.slot_pages(from).zip(self.slot_pages(to)).collect();
        let mut copies = Vec::new();
        let rows = [
            (&self.activations.logits, layout.padded_vocab() * 4),
            (&self.params, size_of::<SamplerParams>()),
            (&self.counts, layout.geometry.vocab * 4),
            (&self.biases, layout.geometry.vocab * 4),
            (&self.activations.samplers, size_of::<SamplerState>()),
        ];
        for (buffer, bytes) in rows {
            copies.push((buffer, (from * bytes) as u64, (to * bytes) as u64, bytes as u64));
        }
        // A copy within one buffer or image goes through another buffer.
        let sizes = pages.iter().map(|page| page.0.2).chain(copies.iter().map(|copy| copy.3));
        let largest = sizes.max().unwrap_or(0);
        let between =
            self.shared.gpu.buffer("a copy of a state", largest, BufferUsages::COPY_SRC | BufferUsages::COPY_DST)?;
        self.shared
            .execute(|encoder| {
                for ((source, at, bytes), (target, to, _)) in pages {
                    source.store.copy_out(encoder, at, bytes, &between);
                    target.store.copy_in(encoder, to, bytes, &between);
                }
                for (buffer, at, to, bytes) in copies {
                    encoder.copy_buffer_to_buffer(buffer, at, &between, 0, bytes);
                    encoder.copy_buffer_to_buffer(&between, 0, buffer, to, bytes);
                }
            })
            .await?;
        self.window_empty[to] = self.window_empty[from];
        self.draws.copy(from, to);
        Ok(())
    }

    async fn set_sampler(
        &mut self,
        slot: usize,
        params: &SamplerParams,
        counts: &[u32],
        generated: u32,
    ) -> Result<(), BackendError> {
        let gpu = &self.shared.gpu;
        gpu.upload(&self.params, (slot * size_of::<SamplerParams>()) as u64, bytemuck::bytes_of(params)).await?;
        gpu.upload(&self.counts, (slot * counts.len() * 4) as u64, bytemuck::cast_slice(counts)).await?;
        let sampler = SamplerState { generated, ..SamplerState::default() };
        self.draws.set(slot, generated);
        // The whole record but the token, which stays.
        let record = &bytemuck::bytes_of(&sampler)[4..];
        gpu.upload(&self.activations.samplers, (slot * size_of::<SamplerState>() + 4) as u64, record).await
    }

    async fn set_biases(&mut self, slot: usize, biases: &[f32]) -> Result<(), BackendError> {
        self.shared.gpu.upload(&self.biases, (slot * biases.len() * 4) as u64, bytemuck::cast_slice(biases)).await
    }

    async fn run(&mut self, plan: &Plan) -> Result<RunOutput, BackendError> {
        self.windows_fill(plan);
        let mut output = RunOutput::default();
        for steps in plan.steps.chunks(self.submission_steps(plan.trace_logits)) {
            self.submit(steps, plan.trace_logits, &mut output).await?;
        }
        if plan.steps.is_empty() {
            self.submit(&[], false, &mut output).await?;
        }
        self.check_draws(&output)?;
        Ok(output)
    }

    async fn run_watched(&mut self, plan: &Plan) -> Result<(RunOutput, Vec<Vec<TokenNeurons>>), BackendError> {
        self.watch_plan(plan).await
    }

    async fn prefill_watched(
        &mut self,
        slot: usize,
        chunk: &Chunk,
    ) -> Result<(Vec<f32>, Vec<TokenNeurons>), BackendError> {
        self.watch_chunk(slot, chunk).await
    }

    async fn logits(&mut self, slot: usize) -> Result<Vec<f32>, BackendError> {
        let layout = &self.shared.layout;
        let row = (layout.padded_vocab() * 4) as u64;
        let bytes = self
            .shared
            .gpu
            .download(&self.activations.logits, slot as u64 * row, (layout.geometry.vocab * 4) as u64)
            .await?;
        Ok(floats(&bytes))
    }

    async fn read_state(&mut self, slot: usize) -> Result<Vec<f32>, BackendError> {
        let mut state = Vec::new();
        for layer in 0..self.states.len() {
            state.extend(self.read_memory(layer, slot).await?.settled(1));
        }
        Ok(state)
    }

    async fn write_state(&mut self, slot: usize, state: &[f32]) -> Result<(), BackendError> {
        let size = state.len() / self.states.len().max(1);
        for (layer, state) in state.chunks_exact(size).enumerate() {
            self.write_numbers(layer, slot, state).await?;
        }
        Ok(())
    }

    async fn snapshot(&mut self, slot: usize) -> Result<SavedMemory, BackendError> {
        let mut saved = SavedMemory::empty(self.shared.layout.state_type);
        for layer in 0..self.states.len() {
            let LayerMemory { state, rotated, recent } = self.read_layer(layer, slot).await?;
            saved.push_state(state.as_saved());
            [rotated, recent].iter().for_each(|part| saved.push(part));
        }
        Ok(saved)
    }

    async fn restore(&mut self, slot: usize, memory: &SavedMemory) -> Result<(), BackendError> {
        let g = &self.shared.layout.geometry;
        let neurons = g.heads * g.neurons;
        for (layer, saved) in memory.layers(neurons, g.width).enumerate() {
            self.window_empty[slot] = false;
            self.write_layer(layer, slot, saved).await?;
        }
        Ok(())
    }
}
