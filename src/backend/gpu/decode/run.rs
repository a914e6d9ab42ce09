//! Runs decode steps and reads their results back.

use crate::backend::gpu::activations::{READBACK, floats};
use crate::backend::gpu::compiling::Compiling;
use crate::backend::gpu::decode::step::{MAX_STEPS, ring_stride};
use crate::backend::gpu::profile::Stopwatch;
use crate::backend::gpu::recording::Op;
use crate::backend::gpu::slots::GpuSlots;
use crate::backend::gpu::submission;
use crate::backend::profile::Profile;
use crate::backend::{BackendError, Input, Output, Plan, RunOutput, SlotStep};
use crate::sampling::{NO_TOKEN, SamplerState};
use maybe_async::maybe_async;
use std::ops::Range;

/// Most bytes of traced logits in one submission.
const TRACE_BYTES: u64 = 32 << 20;
/// Steps that are recorded while the device has nothing to do; every further piece has twice as
/// many, and is recorded while the device runs the one before.
const FIRST_PIECE: usize = 4;

#[maybe_async]
impl GpuSlots {
    /// Bytes of the logits of all slots.
    fn logits_bytes(&self) -> u64 {
        self.activations.count as u64 * self.shared.layout.padded_vocab() as u64 * 4
    }

    /// Most steps in one submission.
    pub fn submission_steps(&self, trace: bool) -> usize {
        match trace {
            true => ((TRACE_BYTES / self.logits_bytes()) as usize).clamp(1, MAX_STEPS),
            false => MAX_STEPS,
        }
    }

    /// Runs `steps`, at most [`GpuSlots::submission_steps`], and waits for them once.
    pub async fn submit(
        &mut self,
        steps: &[Vec<SlotStep>],
        trace: bool,
        output: &mut RunOutput,
    ) -> Result<(), BackendError> {
        self.write_steps(steps).await?;
        self.prepare_trace(trace)?;
        let (submission, _compiling) = self.submit_pieces(steps, trace);
        self.collect(steps, trace, submission, output).await
    }

    /// Runs what is left of a single step after its last layer, and waits for it.
    pub async fn submit_end(
        &mut self,
        step: &Vec<SlotStep>,
        trace: bool,
        output: &mut RunOutput,
    ) -> Result<(), BackendError> {
        self.prepare_trace(trace)?;
        let mut ops = self.decode.end(0, step);
        ops.extend(self.trace_op(0, trace));
        ops.extend(self.decode.readback(1));
        let (submission, _compiling) = self.submit_ops(&ops);
        self.collect(std::slice::from_ref(step), trace, submission, output).await
    }

    /// Makes room for traced logits.
    fn prepare_trace(&mut self, trace: bool) -> Result<(), BackendError> {
        if trace && self.trace.is_none() {
            let bytes = self.logits_bytes() * self.submission_steps(true) as u64;
            let buffer = self.shared.gpu.buffer("traced logits", bytes, READBACK)?;
            self.trace = Some((self.groups.buffer(&buffer), buffer));
        }
        Ok(())
    }

    /// The copy of a step's logits, if they are traced.
    fn trace_op(&self, index: usize, trace: bool) -> Option<Op> {
        let trace = self.trace.as_ref().filter(|_| trace);
        trace.map(|(id, _)| self.decode.trace(*id, index, self.logits_bytes()))
    }

    /// Waits for a submission and reads the results of its steps.
    async fn collect(
        &self,
        steps: &[Vec<SlotStep>],
        trace: bool,
        submission: wgpu::SubmissionIndex,
        output: &mut RunOutput,
    ) -> Result<(), BackendError> {
        let gpu = &self.shared.gpu;
        let count = self.activations.count;
        let ring_bytes = ring_stride(count) * steps.len() as u64;
        let bytes = ring_bytes + (count * size_of::<SamplerState>()) as u64;
        let staged = gpu.map(&self.staging, bytes, submission.clone()).await?;
        let (ring, samplers) = staged.split_at(ring_bytes as usize);
        for (plan, row) in steps.iter().zip(ring.chunks_exact(ring_stride(count) as usize)) {
            let tokens = tokens(plan, row);
            for &token in tokens.iter().filter(|&&token| token != NO_TOKEN) {
                self.shared.check_token(token)?;
            }
            output.tokens.push(tokens);
        }
        output.samplers = samplers.chunks_exact(size_of::<SamplerState>()).map(bytemuck::pod_read_unaligned).collect();
        if let Some((_, buffer)) = self.trace.as_ref().filter(|_| trace) {
            let bytes = self.logits_bytes();
            let logits = gpu.map(buffer, bytes * steps.len() as u64, submission).await?;
            for (plan, rows) in steps.iter().zip(logits.chunks_exact(bytes as usize)) {
                output.logits.push(self.traced(plan, rows));
            }
        }
        Ok(())
    }

    /// Submits `steps` in pieces, and then the copies for the host. Returns the last submission, and
    /// guards to hold until it is done.
    fn submit_pieces(&self, steps: &[Vec<SlotStep>], trace: bool) -> (wgpu::SubmissionIndex, Vec<Compiling>) {
        let mut compiling = Vec::new();
        let (mut first, mut piece) = (0, FIRST_PIECE);
        loop {
            let last = (first + piece).min(steps.len());
            let mut ops = self.record(steps, first..last, trace);
            if last == steps.len() {
                ops.extend(self.decode.readback(steps.len()));
            }
            let (submission, first_runs) = self.submit_ops(&ops);
            compiling.extend(first_runs);
            if last == steps.len() {
                return (submission, compiling);
            }
            (first, piece) = (last, 2 * piece);
        }
    }

    /// Submits operations. Returns the submission, and guards to hold until it is done.
    fn submit_ops(&self, ops: &[Op]) -> (wgpu::SubmissionIndex, Vec<Compiling>) {
        let compiling = self.groups.enter_first_runs(ops);
        let mut encoder = self.shared.gpu.device.create_command_encoder(&Default::default());
        submission::encode(&self.groups, ops, &mut encoder);
        (self.shared.gpu.queue.submit([encoder.finish()]), compiling)
    }

    /// The operations of some steps.
    fn record(&self, steps: &[Vec<SlotStep>], range: Range<usize>, trace: bool) -> Vec<Op> {
        let mut ops = Vec::new();
        for index in range {
            ops.extend(self.decode.step(index, &steps[index]));
            ops.extend(self.trace_op(index, trace));
        }
        ops
    }

    /// A step's traced logits, by slot.
    fn traced(&self, step: &[SlotStep], rows: &[u8]) -> Vec<Vec<f32>> {
        let layout = &self.shared.layout;
        let slot = |(slot, step): (usize, &SlotStep)| {
            if step.input == Input::Idle || step.output < Output::Logits {
                return Vec::new();
            }
            floats(&rows[slot * layout.padded_vocab() * 4..][..4 * layout.geometry.vocab])
        };
        step.iter().enumerate().map(slot).collect()
    }

    /// Runs a plan with every kernel in its own pass; see [`crate::backend::Slots::profile`].
    pub async fn profile_plan(&mut self, plan: &Plan) -> Result<Profile, BackendError> {
        let stopwatch = Stopwatch::new(&self.shared.gpu)?;
        let mut profile = Profile::default();
        for step in &plan.steps {
            self.write_steps(std::slice::from_ref(step)).await?;
            stopwatch.time(&self.shared.gpu, &self.groups, &self.decode.step(0, step), &mut profile).await?;
        }
        Ok(profile)
    }

    /// Runs operations that are not a step and waits for them.
    pub async fn execute(&self, ops: &[Op]) -> Result<(), BackendError> {
        let _compiling = self.groups.enter_first_runs(ops);
        self.shared.execute(|encoder| submission::encode(&self.groups, ops, encoder)).await
    }

    /// Multiplies the states by a step's factors.
    pub async fn rescale(&self, step: Vec<SlotStep>) -> Result<(), BackendError> {
        self.write_steps(&[step]).await?;
        self.execute(&[self.decode.rescale(0)]).await
    }

    /// Settles a slot's window into its state.
    pub async fn settle(&self, slot: usize) -> Result<(), BackendError> {
        let mut step = vec![SlotStep::IDLE; self.activations.count];
        step[slot].input = Input::Token(0);
        self.write_steps(&[step]).await?;
        self.execute(&[self.decode.settle(0)]).await
    }
}

/// The tokens that a step drew, by slot, from the step's row of the ring.
fn tokens(step: &[SlotStep], row: &[u8]) -> Vec<u32> {
    let token = |(slot, step): (usize, &SlotStep)| match (step.input, step.output) {
        (Input::Idle, _) | (_, Output::State | Output::Logits) => NO_TOKEN,
        _ => bytemuck::pod_read_unaligned(&row[4 * slot..4 * slot + 4]),
    };
    step.iter().enumerate().map(token).collect()
}
