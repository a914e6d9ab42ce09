//! Runs the steps of a beam search and reads the selection back.

use crate::backend::beams::{BeamCandidate, BeamFold, BeamSelection, BeamStep, Beams};
use crate::backend::gpu::beam::beams::{self, GpuBeams};
use crate::backend::gpu::beam::buffers::{FOLD_GROUPS, SELECTED};
use crate::backend::gpu::beam::fold::MOST_FOLDS;
use crate::backend::gpu::profile::Stopwatch;
use crate::backend::gpu::recording::Op;
use crate::backend::gpu::submission;
use crate::backend::profile::Profile;
use crate::backend::{BackendError, Input, SlotStep, Slots};
use crate::sampling::{NO_TOKEN, SamplerParams, Status};
use maybe_async::maybe_async;

#[maybe_async]
impl GpuBeams {
    /// Applies the pending folds to the base state.
    pub async fn flush(&mut self) -> Result<(), BackendError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.write_folds().await?;
        self.execute(&self.search.folds(self.pending.len())).await?;
        self.pending.clear();
        Ok(())
    }

    /// Runs operations and waits for them.
    pub async fn execute(&self, ops: &[Op]) -> Result<(), BackendError> {
        let groups = &self.search.groups;
        let _compiling = groups.enter_first_runs(ops);
        self.shared.execute(|encoder| submission::encode(groups, ops, encoder)).await
    }

    /// Runs operations that end with a selection and reads it back.
    pub async fn select(&self, candidates: usize, ops: &[Op]) -> Result<BeamSelection, BackendError> {
        let (gpu, groups) = (&self.shared.gpu, &self.search.groups);
        let _compiling = groups.enter_first_runs(ops);
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        submission::encode(groups, ops, &mut encoder);
        let submission = gpu.queue.submit([encoder.finish()]);
        let staged = gpu.map(&self.buffers.staging, self.buffers.selected_bytes(candidates), submission).await?;
        Ok(selection(candidates, &staged))
    }

    /// Checks the candidates that the device returned.
    fn check(&self, selection: &BeamSelection) -> Result<(), BackendError> {
        let beams = self.buffers.count;
        for candidate in &selection.candidates {
            self.shared.check_token(candidate.token)?;
            if candidate.beam >= beams {
                let message = format!("it selected beam {} of {beams}", candidate.beam);
                return Err(BackendError::Garbage { device: self.shared.gpu.info.name.clone(), message });
            }
        }
        Ok(())
    }

    /// Uploads a step and returns its operations, after which the counts may be on the other side.
    async fn prepare(&mut self, step: &BeamStep) -> Result<Vec<Op>, BackendError> {
        let nodes = step.reads.iter().map(|read| read.node + 1).max().unwrap_or(0);
        let entries = step.reads.iter().map(|read| read.path.len()).sum();
        self.make_room(nodes, entries, step.candidates).await?;
        self.write_folds().await?;
        self.activations.write_steps(&self.shared.gpu, &[beams::table(step)]).await?;
        self.write_paths(step).await?;
        self.write_beams(step).await?;
        let (reorder, bytes) = (step.parents.is_some(), self.buffers.selected_bytes(step.candidates));
        let ops = self.search.step(self.pending.len(), reorder, self.side, bytes);
        self.pending.clear();
        if reorder {
            self.side = 1 - self.side;
        }
        Ok(ops)
    }
}

/// Parses a selection as the device wrote it.
fn selection(candidates: usize, staged: &[u8]) -> BeamSelection {
    let words: Vec<u32> = staged.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect();
    let (found, status) = words.split_at(SELECTED * candidates);
    let candidate =
        |entry: &[u32]| BeamCandidate { score: f32::from_bits(entry[0]), beam: entry[1] as usize, token: entry[2] };
    let found = found.chunks_exact(SELECTED).take_while(|entry| entry[2] != NO_TOKEN);
    BeamSelection {
        candidates: found.map(candidate).collect(),
        status: status.chunks_exact(SELECTED).map(|entry| Status::from_word(entry[0])).collect(),
    }
}

#[maybe_async(?Send)]
impl Beams for GpuBeams {
    fn count(&self) -> usize {
        self.buffers.count
    }

    async fn base(&mut self) -> Result<&mut dyn Slots, BackendError> {
        self.flush().await?;
        Ok(&mut self.base)
    }

    async fn start(&mut self, params: &SamplerParams, counts: &[u32]) -> Result<(), BackendError> {
        // Folds and paths see the state only, so the window must settle first.
        self.base.settle(0).await?;
        self.write_counts(params, &counts.repeat(self.buffers.count)).await
    }

    async fn set_biases(&mut self, biases: &[f32]) -> Result<(), BackendError> {
        self.shared.gpu.upload(&self.buffers.biases, 0, bytemuck::cast_slice(biases)).await
    }

    async fn fold(&mut self, folds: &[BeamFold]) -> Result<(), BackendError> {
        for fold in folds {
            if let Some(factor) = fold.rescale {
                self.flush().await?;
                self.base
                    .rescale(vec![SlotStep { input: Input::Previous, rescale: Some(factor), ..SlotStep::IDLE }])
                    .await?;
            }
            match self.pending.last_mut() {
                Some(group) if group.len() < MOST_FOLDS => group.push(*fold),
                _ => {
                    if self.pending.len() == FOLD_GROUPS {
                        self.flush().await?;
                    }
                    self.pending.push(vec![*fold]);
                }
            }
        }
        Ok(())
    }

    async fn step(&mut self, step: &BeamStep) -> Result<BeamSelection, BackendError> {
        let ops = self.prepare(step).await?;
        let selection = self.select(step.candidates, &ops).await?;
        self.check(&selection)?;
        Ok(selection)
    }

    async fn profile_step(&mut self, step: &BeamStep) -> Result<(BeamSelection, Profile), BackendError> {
        let stopwatch = Stopwatch::new(&self.shared.gpu)?;
        let ops = self.prepare(step).await?;
        let mut profile = Profile::default();
        stopwatch.time(&self.shared.gpu, &self.search.groups, &ops, &mut profile).await?;
        let selection = self.select(step.candidates, &[]).await?;
        Ok((selection, profile))
    }

    fn state_bytes(&self) -> u64 {
        let states = self.base.states.iter().flatten().map(|page| page.store.size());
        states.chain(self.buffers.nodes.iter().map(|nodes| nodes.size())).sum()
    }
}
