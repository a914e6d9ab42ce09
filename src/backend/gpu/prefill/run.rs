//! Prefill on a set of sequences: the window settles first, then a chunk's kernels run.

use crate::backend::gpu::prefill::chunk::Prefill;
use crate::backend::gpu::profile::Stopwatch;
use crate::backend::gpu::recording::Op;
use crate::backend::gpu::slots::GpuSlots;
use crate::backend::gpu::submission;
use crate::backend::profile::Profile;
use crate::backend::{BackendError, Chunk, ChunkToken, Input, Output, Plan, SlotStep, Slots};
use maybe_async::maybe_async;
use std::time::Duration;
use web_time::Instant;

/// Target duration of a submission, short enough for every driver's watchdog.
const SUBMISSION: Duration = Duration::from_millis(40);
/// Most dispatches in one submission.
const MOST_DISPATCHES: usize = 1 << 12;

#[maybe_async]
impl GpuSlots {
    /// See [`Slots::prefill`].
    pub async fn prefill_chunk(&mut self, slot: usize, chunk: &Chunk) -> Result<Vec<f32>, BackendError> {
        if self.shared.layout.chunk.tokens == 0 {
            return self.prefill_one_by_one(slot, chunk).await;
        }
        self.prepare(slot, chunk).await?;
        let prefill = self.prefill_of(slot).await?;
        prefill.start(chunk).await?;
        let ops = prefill.kernels.chunk(prefill.shape(), prefill.state(slot), chunk.logits);
        prefill.burst = prefill.execute(&ops).await?;
        self.chunk_logits(slot, chunk).await
    }

    /// The logits of a chunk that has run, if it asks for them; the last ones become the slot's.
    pub async fn chunk_logits(&mut self, slot: usize, chunk: &Chunk) -> Result<Vec<f32>, BackendError> {
        if !chunk.logits {
            return Ok(Vec::new());
        }
        let prefill = self.prefill_of(slot).await?;
        let logits = prefill.read_logits().await?;
        let row = prefill.logits_row();
        let (all, last) = (prefill.buffers.logits.clone(), (chunk.tokens.len() as u64 - 1) * row);
        let own = &self.activations.logits;
        self.shared.execute(|encoder| encoder.copy_buffer_to_buffer(&all, last, own, slot as u64 * row, row)).await?;
        Ok(logits)
    }

    /// See [`Slots::profile_prefill`].
    pub async fn profile_chunk(&mut self, slot: usize, chunk: &Chunk) -> Result<Profile, BackendError> {
        let stopwatch = Stopwatch::new(&self.shared.gpu)?;
        self.prepare(slot, chunk).await?;
        let prefill = self.prefill_of(slot).await?;
        prefill.start(chunk).await?;
        let ops = prefill.kernels.chunk(prefill.shape(), prefill.state(slot), chunk.logits);
        let mut profile = Profile::default();
        stopwatch.time(&prefill.shared.gpu, &prefill.groups, &ops, &mut profile).await?;
        Ok(profile)
    }

    /// Prepares a slot's memory for prefill: empties the window and applies forgetting's factor.
    pub async fn prepare(&mut self, slot: usize, chunk: &Chunk) -> Result<(), BackendError> {
        if !self.window_empty[slot] {
            self.settle(slot).await?;
            self.window_empty[slot] = true;
        }
        if chunk.rescale.is_some() {
            let mut steps = vec![SlotStep::IDLE; self.activations.count];
            steps[slot] = SlotStep { input: Input::Token(0), rescale: chunk.rescale, ..SlotStep::IDLE };
            self.rescale(steps).await?;
        }
        Ok(())
    }

    /// A chunk step by step, for devices whose bindings do not fit a tile of tokens.
    pub fn plan_of_chunk(&self, slot: usize, chunk: &Chunk) -> Plan {
        let step = |(t, token): (usize, &ChunkToken)| {
            let mut steps = vec![SlotStep::IDLE; self.activations.count];
            steps[slot] = SlotStep {
                input: Input::Token(token.token),
                output: if chunk.logits { Output::Logits } else { Output::State },
                position: chunk.position.wrapping_add(t as u32),
                read_scale: token.read_scale,
                write_scale: token.write_scale,
                rescale: chunk.rescale.filter(|_| t == 0),
            };
            steps
        };
        let steps = chunk.tokens.iter().enumerate().map(step).collect();
        Plan { steps, trace_logits: chunk.logits }
    }

    async fn prefill_one_by_one(&mut self, slot: usize, chunk: &Chunk) -> Result<Vec<f32>, BackendError> {
        let output = self.run(&self.plan_of_chunk(slot, chunk)).await?;
        self.settle(slot).await?;
        Ok(output.logits.into_iter().flatten().flatten().collect())
    }

    /// Prefill, with a slot's state bound.
    pub async fn prefill_of(&mut self, slot: usize) -> Result<&mut Prefill, BackendError> {
        let mut prefill = match self.prefill.take() {
            Some(prefill) => prefill,
            None => Prefill::new(self.shared.clone()).await?,
        };
        let pages: Vec<_> = self.slot_pages(slot).map(|(page, offset, _)| (page, offset)).collect();
        prefill.select(slot, &pages).await?;
        Ok(self.prefill.insert(prefill))
    }
}

#[maybe_async]
impl Prefill {
    /// Runs operations in submissions of suitable length. Returns how many dispatches fit one now.
    pub async fn execute(&self, ops: &[Op]) -> Result<usize, BackendError> {
        let gpu = &self.shared.gpu;
        let _compiling = self.groups.enter_first_runs(ops);
        let (mut rest, mut burst) = (ops, self.burst);
        while !rest.is_empty() {
            let (count, dispatches) = fitting(rest, burst);
            let (now, later) = rest.split_at(count);
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            submission::encode(&self.groups, now, &mut encoder);
            let start = Instant::now();
            gpu.wait(gpu.queue.submit([encoder.finish()])).await?;
            let taken = start.elapsed();
            if taken > SUBMISSION {
                burst = (burst / 2).max(1);
            } else if taken < SUBMISSION / 4 && dispatches >= burst {
                burst = (2 * burst).min(MOST_DISPATCHES);
            }
            rest = later;
        }
        Ok(burst)
    }
}

/// The number of leading operations that fit `burst` dispatches, at least one, and of their
/// dispatches.
fn fitting(ops: &[Op], burst: usize) -> (usize, usize) {
    let mut dispatches = 0;
    for (index, op) in ops.iter().enumerate() {
        if index > 0 && dispatches + op.dispatches() > burst {
            return (index, dispatches);
        }
        dispatches += op.dispatches();
    }
    (ops.len(), dispatches)
}
