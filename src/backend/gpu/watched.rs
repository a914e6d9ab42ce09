//! Runs that show the neurons: the same kernels one after another, with copies between them.

use super::activations::floats;
use super::slots::GpuSlots;
use crate::backend::watch::{Fired, TokenNeurons, unscale};
use crate::backend::{BackendError, Chunk, Input, Plan, RunOutput, SlotStep, Slots};
use crate::sampling::{SamplerState, Status};
use maybe_async::maybe_async;

#[maybe_async]
impl GpuSlots {
    /// See [`Slots::run_watched`].
    pub async fn watch_plan(&mut self, plan: &Plan) -> Result<(RunOutput, Vec<Vec<TokenNeurons>>), BackendError> {
        self.check_watchable()?;
        self.windows_fill(plan);
        let mut output = RunOutput::default();
        let mut neurons = Vec::with_capacity(plan.steps.len());
        for step in &plan.steps {
            neurons.push(self.watch_step(step, plan.trace_logits, &mut output).await?);
        }
        self.check_draws(&output)?;
        Ok((output, neurons))
    }

    /// See [`Slots::prefill_watched`].
    pub async fn watch_chunk(
        &mut self,
        slot: usize,
        chunk: &Chunk,
    ) -> Result<(Vec<f32>, Vec<TokenNeurons>), BackendError> {
        self.check_watchable()?;
        if self.shared.layout.chunk.tokens == 0 {
            let (output, steps) = self.run_watched(&self.plan_of_chunk(slot, chunk)).await?;
            self.settle(slot).await?;
            let neurons = steps.into_iter().map(|mut slots| std::mem::take(&mut slots[slot])).collect();
            return Ok((output.logits.into_iter().flatten().flatten().collect(), neurons));
        }
        self.prepare(slot, chunk).await?;
        let prefill = self.prefill_of(slot).await?;
        prefill.start(chunk).await?;
        let (kernels, shape, state) = (&prefill.kernels, prefill.shape(), prefill.state(slot));
        let mut neurons = vec![TokenNeurons::new(); chunk.tokens.len()];
        for layer in 0..prefill.shared.layout.geometry.layers {
            let [gate, decode] = kernels.project(shape);
            prefill.execute(&kernels.attended(shape, state, layer)).await?;
            let u = prefill.read_activations().await?;
            prefill.execute(&[gate]).await?;
            let g = prefill.read_activations().await?;
            prefill.execute(&[decode]).await?;
            for (token, (u, g)) in neurons.iter_mut().zip(u.iter().zip(&g)) {
                token.push(Fired::of_padded(&prefill.shared.layout.geometry, u, g));
            }
        }
        if chunk.logits {
            prefill.execute(&kernels.end(shape)).await?;
        }
        Ok((self.chunk_logits(slot, chunk).await?, neurons))
    }

    fn check_watchable(&self) -> Result<(), BackendError> {
        if self.shared.pipelines.options().watched {
            return Ok(());
        }
        Err(BackendError::NotWatchable { device: self.shared.gpu.info.name.clone() })
    }

    /// Runs a step, and returns every slot's neurons, nothing for idle ones.
    async fn watch_step(
        &mut self,
        step: &Vec<SlotStep>,
        trace: bool,
        output: &mut RunOutput,
    ) -> Result<Vec<TokenNeurons>, BackendError> {
        let active = self.active_slots(step).await?;
        let mut neurons = vec![TokenNeurons::new(); step.len()];
        self.write_steps(std::slice::from_ref(step)).await?;
        if let Some(begin) = self.decode.begin(0, step) {
            self.execute(&[begin]).await?;
        }
        for layer in 0..self.decode.layers() {
            self.execute(&self.decode.attended(0, layer)).await?;
            let u = self.read_neurons(&active).await?;
            self.execute(&[self.decode.project(0)]).await?;
            let g = self.read_neurons(&active).await?;
            for ((&slot, u), mut g) in active.iter().zip(&u).zip(g) {
                unscale(&mut g, &self.shared.gate_scales);
                neurons[slot].push(Fired::of_padded(&self.shared.layout.geometry, u, &g));
            }
        }
        self.submit_end(step, trace, output).await?;
        Ok(neurons)
    }

    /// The slots that take part in a step: the samplers that have stopped give no more tokens.
    async fn active_slots(&self, step: &[SlotStep]) -> Result<Vec<usize>, BackendError> {
        let size = size_of::<SamplerState>();
        let records = self.shared.gpu.download(&self.activations.samplers, 0, (step.len() * size) as u64).await?;
        let samplers = records.chunks_exact(size).map(bytemuck::pod_read_unaligned::<SamplerState>);
        let takes_part = |(step, sampler): &(&SlotStep, SamplerState)| match step.input {
            Input::Idle => false,
            Input::Token(_) => true,
            Input::Previous => sampler.status() == Some(Status::Running),
        };
        let slots = step.iter().zip(samplers).enumerate().filter(|(_, slot)| takes_part(slot));
        Ok(slots.map(|(slot, _)| slot).collect())
    }

    /// The activations, or the gates once they are in their place: `[slots][blocks · block]`.
    async fn read_neurons(&self, slots: &[usize]) -> Result<Vec<Vec<f32>>, BackendError> {
        let layout = &self.shared.layout;
        let (stride, own) = (layout.slot_neuron_bytes() as usize, 4 * layout.geometry.all_neurons());
        let all = (self.activations.count * stride) as u64;
        let bytes = self.activations.neurons.download(&self.shared.gpu, 0, all).await?;
        Ok(slots.iter().map(|slot| floats(&bytes[slot * stride..][..own])).collect())
    }
}
