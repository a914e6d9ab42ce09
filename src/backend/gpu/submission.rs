//! Steps of a set of sequences, recorded, submitted and read back.

use super::dispatch::{GpuStep, floats, record};
use super::slots::GpuSlots;
use crate::backend::{BackendError, Input, Output, RunOutput, SlotStep};
use crate::sampling::{NO_TOKEN, SamplerState};
use wgpu::BufferUsages;

/// Most steps in one submission.
pub(super) const MAX_STEPS: usize = 64;
/// Most bytes of logits that one submission hands back.
const TRACE_BYTES: u64 = 32 << 20;

impl GpuSlots {
    /// Multiplies the states by the steps' factors.
    pub fn rescale(&self, step: Vec<SlotStep>) -> Result<(), BackendError> {
        self.write_steps(&[step])?;
        self.execute(|encoder| self.record_rescale(&mut encoder.begin_compute_pass(&Default::default()), 0))
    }

    /// Uploads the step table of a submission.
    pub fn write_steps(&self, steps: &[Vec<SlotStep>]) -> Result<(), BackendError> {
        let mut table = Vec::with_capacity(steps.len() * self.step_stride as usize);
        for (index, step) in steps.iter().enumerate() {
            let entries: Vec<GpuStep> = step.iter().map(GpuStep::from).collect();
            table.extend_from_slice(bytemuck::cast_slice(&entries));
            table.resize((index + 1) * self.step_stride as usize, 0);
        }
        self.shared.gpu.upload(&self.steps, 0, &table)
    }

    /// Offset of a step in the step table.
    fn step_offset(&self, step: usize) -> u32 {
        (step as u64 * self.step_stride) as u32
    }

    /// Records a layer's encode kernel.
    pub fn record_encode(&self, pass: &mut wgpu::ComputePass, layer: usize, step: usize) {
        let layer = &self.layers[layer];
        let pipeline = if layer.first { &self.pipelines.first } else { &self.pipelines.encode };
        record(pass, pipeline, &layer.encode, &[self.step_offset(step)]);
    }

    /// Records the project kernel.
    pub fn record_project(&self, pass: &mut wgpu::ComputePass, step: usize) {
        record(pass, &self.pipelines.project, &self.project, &[self.step_offset(step)]);
    }

    /// Records the logits kernel.
    pub fn record_logits(&self, pass: &mut wgpu::ComputePass, step: usize) {
        record(pass, &self.pipelines.logits, &self.head, &[self.step_offset(step)]);
    }

    /// Records the sampling kernel.
    pub fn record_sample(&self, pass: &mut wgpu::ComputePass, step: usize) {
        let offsets = [self.step_offset(step), (step as u64 * self.ring_stride) as u32];
        record(pass, &self.pipelines.sample, std::slice::from_ref(&self.sample), &offsets);
    }

    /// Records the rescale kernel.
    pub fn record_rescale(&self, pass: &mut wgpu::ComputePass, step: usize) {
        record(pass, &self.pipelines.rescale, &self.rescale, &[self.step_offset(step)]);
    }

    /// Records the settle kernel for the slots that take part in a step.
    pub fn record_settle(&self, pass: &mut wgpu::ComputePass, step: usize) {
        record(pass, &self.pipelines.settle, &self.settle, &[self.step_offset(step)]);
    }

    /// Brings a slot's window into its state.
    pub fn settle(&self, slot: usize) -> Result<(), BackendError> {
        let mut step = vec![SlotStep::IDLE; self.count];
        step[slot].input = Input::Token(0);
        self.write_steps(&[step])?;
        self.execute(|encoder| self.record_settle(&mut encoder.begin_compute_pass(&Default::default()), 0))
    }

    /// Records one step of the whole model.
    fn record_step(&self, pass: &mut wgpu::ComputePass, step: usize, plan: &[SlotStep]) {
        if plan.iter().any(|slot| slot.rescale.is_some()) {
            self.record_rescale(pass, step);
        }
        for layer in 0..self.layers.len() {
            self.record_encode(pass, layer, step);
            self.record_project(pass, step);
        }
        if plan.iter().any(|slot| slot.output >= Output::Logits) {
            self.record_logits(pass, step);
        }
        if plan.iter().any(|slot| slot.output == Output::Token) {
            self.record_sample(pass, step);
        }
    }

    fn logits_bytes(&self) -> u64 {
        self.count as u64 * self.shared.layout.padded_vocab() as u64 * 4
    }

    /// Steps in one submission.
    pub fn submission_steps(&self, trace: bool) -> usize {
        match trace {
            true => ((TRACE_BYTES / self.logits_bytes()) as usize).clamp(1, MAX_STEPS),
            false => MAX_STEPS,
        }
    }

    /// Runs some steps in one submission.
    pub fn submit(&mut self, steps: &[Vec<SlotStep>], trace: bool, output: &mut RunOutput) -> Result<(), BackendError> {
        let _compiling = self.pipelines.first_run.enter();
        self.write_steps(steps)?;
        let shared = self.shared.clone();
        let gpu = &shared.gpu;
        let logits_bytes = self.logits_bytes();
        if trace && self.trace.is_none() {
            let bytes = logits_bytes * self.submission_steps(true) as u64;
            self.trace = Some(gpu.buffer("traced logits", bytes, BufferUsages::MAP_READ | BufferUsages::COPY_DST)?);
        }
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let mut traced = 0;
        let per_pass = if trace { 1 } else { steps.len() };
        for first in (0..steps.len()).step_by(per_pass) {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for (step, plan) in steps.iter().enumerate().skip(first).take(per_pass) {
                self.record_step(&mut pass, step, plan);
            }
            drop(pass);
            if let Some(buffer) = self.trace.as_ref().filter(|_| trace) {
                encoder.copy_buffer_to_buffer(&self.logits, 0, buffer, traced * logits_bytes, logits_bytes);
                traced += 1;
            }
        }
        let ring_bytes = self.ring_stride * steps.len() as u64;
        let control_bytes = (self.count * size_of::<SamplerState>()) as u64;
        encoder.copy_buffer_to_buffer(&self.ring, 0, &self.staging, 0, ring_bytes);
        encoder.copy_buffer_to_buffer(&self.control, 0, &self.staging, ring_bytes, control_bytes);
        let submission = gpu.queue.submit([encoder.finish()]);
        let staged = gpu.map(&self.staging, ring_bytes + control_bytes, submission.clone())?;
        let (ring, control) = staged.split_at(ring_bytes as usize);
        for (plan, row) in steps.iter().zip(ring.chunks_exact(self.ring_stride as usize)) {
            let token = |(slot, step): (usize, &SlotStep)| match (step.input, step.output) {
                (Input::Idle, _) | (_, Output::State | Output::Logits) => NO_TOKEN,
                _ => bytemuck::pod_read_unaligned(&row[4 * slot..4 * slot + 4]),
            };
            output.tokens.push(plan.iter().enumerate().map(token).collect());
        }
        output.control = control.chunks_exact(size_of::<SamplerState>()).map(bytemuck::pod_read_unaligned).collect();
        if let Some(buffer) = self.trace.as_ref().filter(|_| trace) {
            let logits = gpu.map(buffer, traced * logits_bytes, submission)?;
            for (plan, rows) in steps.iter().zip(logits.chunks_exact(logits_bytes as usize)) {
                let row = (logits_bytes / self.count as u64) as usize;
                let slot = |(slot, step): (usize, &SlotStep)| {
                    if step.input == Input::Idle || step.output < Output::Logits {
                        return Vec::new();
                    }
                    floats(&rows[slot * row..][..4 * shared.layout.geometry.vocab])
                };
                output.logits.push(plan.iter().enumerate().map(slot).collect());
            }
        }
        Ok(())
    }

    /// Runs commands that are not a step, and waits for them.
    pub fn execute(&self, record: impl FnOnce(&mut wgpu::CommandEncoder)) -> Result<(), BackendError> {
        let gpu = &self.shared.gpu;
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        record(&mut encoder);
        gpu.wait(gpu.queue.submit([encoder.finish()]))
    }
}
