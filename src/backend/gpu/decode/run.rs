//! Runs decode steps and reads their results back.

use crate::backend::gpu::activations::{READBACK, floats};
use crate::backend::gpu::decode::step::{MAX_STEPS, ring_stride};
use crate::backend::gpu::profile::Stopwatch;
use crate::backend::gpu::recording::Op;
use crate::backend::gpu::slots::GpuSlots;
use crate::backend::gpu::submission;
use crate::backend::profile::Profile;
use crate::backend::{BackendError, Input, Output, Plan, RunOutput, SlotStep};
use crate::sampling::{NO_TOKEN, SamplerState};

/// Most bytes of traced logits in one submission.
const TRACE_BYTES: u64 = 32 << 20;

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

    /// Runs `steps` in one submission.
    pub fn submit(&mut self, steps: &[Vec<SlotStep>], trace: bool, output: &mut RunOutput) -> Result<(), BackendError> {
        self.write_steps(steps)?;
        if trace && self.trace.is_none() {
            let bytes = self.logits_bytes() * self.submission_steps(true) as u64;
            let buffer = self.shared.gpu.buffer("traced logits", bytes, READBACK)?;
            self.trace = Some((self.groups.buffer(&buffer), buffer));
        }
        let ops = self.record(steps, trace);
        let _compiling = self.groups.enter_first_runs(&ops);
        let gpu = &self.shared.gpu;
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        submission::encode(&self.groups, &ops, &mut encoder);
        let submission = gpu.queue.submit([encoder.finish()]);
        let count = self.activations.count;
        let ring_bytes = ring_stride(count) * steps.len() as u64;
        let bytes = ring_bytes + (count * size_of::<SamplerState>()) as u64;
        let staged = gpu.map(&self.staging, bytes, submission.clone())?;
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
            let logits = gpu.map(buffer, bytes * steps.len() as u64, submission)?;
            for (plan, rows) in steps.iter().zip(logits.chunks_exact(bytes as usize)) {
                output.logits.push(self.traced(plan, rows));
            }
        }
        Ok(())
    }

    /// The operations of a submission.
    fn record(&self, steps: &[Vec<SlotStep>], trace: bool) -> Vec<Op> {
        let mut ops = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            ops.extend(self.decode.step(index, step));
            let trace = self.trace.as_ref().filter(|_| trace);
            ops.extend(trace.map(|(id, _)| self.decode.trace(*id, index, self.logits_bytes())));
        }
        ops.extend(self.decode.readback(steps.len()));
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
    pub fn profile_plan(&mut self, plan: &Plan) -> Result<Profile, BackendError> {
        let stopwatch = Stopwatch::new(&self.shared.gpu)?;
        let mut profile = Profile::default();
        for step in &plan.steps {
            self.write_steps(std::slice::from_ref(step))?;
            stopwatch.time(&self.shared.gpu, &self.groups, &self.decode.step(0, step), &mut profile)?;
        }
        Ok(profile)
    }

    /// Runs operations that are not a step and waits for them.
    pub fn execute(&self, ops: &[Op]) -> Result<(), BackendError> {
        let _compiling = self.groups.enter_first_runs(ops);
        self.shared.execute(|encoder| submission::encode(&self.groups, ops, encoder))
    }

    /// Multiplies the states by a step's factors.
    pub fn rescale(&self, step: Vec<SlotStep>) -> Result<(), BackendError> {
        self.write_steps(&[step])?;
        self.execute(&[self.decode.rescale(0)])
    }

    /// Settles a slot's window into its state.
    pub fn settle(&self, slot: usize) -> Result<(), BackendError> {
        let mut step = vec![SlotStep::IDLE; self.activations.count];
        step[slot].input = Input::Token(0);
        self.write_steps(&[step])?;
        self.execute(&[self.decode.settle(0)])
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
