//! Beams on the device: one base state, the nodes, and the uploads of a step.

use crate::backend::beams::{BeamFold, BeamRead, BeamStep};
use crate::backend::gpu::activations::Activations;
use crate::backend::gpu::beam::buffers::{BeamBuffers, BeamRecord, BeamSelectParams};
use crate::backend::gpu::beam::step::Search;
use crate::backend::gpu::groups::ALIGNMENT;
use crate::backend::gpu::schedule::ScheduledLayer;
use crate::backend::gpu::shared::Shared;
use crate::backend::gpu::slots::GpuSlots;
use crate::backend::gpu::steps::Step;
use crate::backend::{BackendError, SlotStep};
use crate::sampling::SamplerParams;
use maybe_async::maybe_async;
use std::sync::Arc;

/// Steps in the step table: a search needs one, single stages two.
const STEPS: usize = 2;

/// See [`crate::backend::beams::Beams`].
pub struct GpuBeams {
    pub shared: Arc<Shared>,
    pub base: GpuSlots,
    pub activations: Activations,
    pub buffers: BeamBuffers,
    pub search: Search,
    schedule: Vec<ScheduledLayer>,
    /// Side of the counts that is current.
    pub side: usize,
    /// Folds that the next submission starts with, grouped by dispatch.
    pub pending: Vec<Vec<BeamFold>>,
}

#[maybe_async]
impl GpuBeams {
    /// Allocates an empty base state and buffers for `count` beams.
    pub async fn new(shared: Arc<Shared>, count: usize, schedule: &[ScheduledLayer]) -> Result<Self, BackendError> {
        let layout = &shared.layout;
        layout.check_slots(count)?;
        layout.check_beams(count, 1)?;
        let base = GpuSlots::new(shared.clone(), 1, schedule, false).await?;
        let activations = Activations::new(&shared.gpu, layout, count, STEPS)?;
        let mut buffers = BeamBuffers::new(&shared, count, base.states.len())?;
        buffers.make_room(&shared, 2 * count, 2 * count, 2 * count)?;
        let search = Search::bind(&shared, schedule, &activations, &buffers, &base.states).await?;
        let (schedule, pending) = (schedule.to_vec(), Vec::new());
        Ok(Self { base, activations, buffers, search, schedule, side: 0, pending, shared })
    }

    /// Makes room for nodes, path entries and candidates. Keeps the existing nodes.
    pub async fn make_room(
        &mut self,
        nodes: usize,
        path_entries: usize,
        candidates: usize,
    ) -> Result<(), BackendError> {
        let Self { shared, base, activations, buffers, schedule, .. } = self;
        if buffers.make_room(shared, nodes, path_entries, candidates)? {
            self.search = Search::bind(shared, schedule, activations, buffers, &base.states).await?;
        }
        self.shared.gpu.check()
    }

    /// Uploads the paths of a step; the buffer must have room for them.
    pub async fn write_paths(&self, step: &BeamStep) -> Result<(), BackendError> {
        let count = self.buffers.count;
        let mut heads = Vec::with_capacity(count);
        let mut entries: Vec<[u32; 2]> = Vec::new();
        for read in &step.reads {
            heads.push([(count + entries.len()) as u32, read.path.len() as u32]);
            entries.extend(read.path.iter().map(|entry| [entry.node as u32, entry.weight.to_bits()]));
        }
        heads.resize(count, [0, 0]);
        heads.extend(entries);
        self.shared.gpu.upload(&self.buffers.paths, 0, bytemuck::cast_slice(&heads)).await
    }

    /// Uploads the beams of a step and the parameters of its selection.
    pub async fn write_beams(&self, step: &BeamStep) -> Result<(), BackendError> {
        let record = |(beam, &score): (usize, &f32)| {
            let slot = step.read_of(beam);
            let parent = step.parents.as_ref().map_or(beam, |parents| parents[beam]) as u32;
            BeamRecord { parent, token: step.reads[slot].token, score, slot: slot as u32 }
        };
        let records: Vec<BeamRecord> = step.scores.iter().enumerate().map(record).collect();
        let (beams, candidates) = (self.buffers.count as u32, step.candidates as u32);
        let selection = BeamSelectParams { beams, candidates, generated: step.generated };
        let gpu = &self.shared.gpu;
        gpu.upload(&self.buffers.records, 0, bytemuck::cast_slice(&records)).await?;
        gpu.upload(&self.buffers.selection, 0, bytemuck::bytes_of(&selection)).await
    }

    /// Gives every beam its own counts, `[beams][V]`.
    pub async fn write_counts(&mut self, params: &SamplerParams, counts: &[u32]) -> Result<(), BackendError> {
        self.side = 0;
        let gpu = &self.shared.gpu;
        gpu.upload(&self.buffers.params, 0, bytemuck::bytes_of(params)).await?;
        gpu.upload(&self.buffers.counts[0], 0, bytemuck::cast_slice(counts)).await
    }

    /// Uploads the pending folds.
    pub async fn write_folds(&self) -> Result<(), BackendError> {
        let mut table: Vec<[u32; 2]> = Vec::new();
        for (index, group) in self.pending.iter().enumerate() {
            table.resize(index * ALIGNMENT as usize / 8, [0, 0]);
            table.push([group.len() as u32, 0]);
            table.extend(group.iter().map(|fold| [fold.node as u32, fold.write_scale.to_bits()]));
        }
        self.shared.gpu.upload(&self.buffers.folds, 0, bytemuck::cast_slice(&table)).await
    }
}

/// A step's entries in the step table.
pub fn table(step: &BeamStep) -> Vec<Step> {
    let read = |read: &BeamRead| Step {
        input: read.token,
        position: step.position,
        read_scale: step.read_scale,
        logits: 1,
        node: read.node as u32,
        ..Step::from(&SlotStep::IDLE)
    };
    step.reads.iter().map(read).collect()
}
