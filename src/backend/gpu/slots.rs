//! A set of sequences on the device.

use super::activations::{Activations, READBACK, STORAGE};
use super::decode::sample::SamplerBuffers;
use super::decode::step::{Buffers, Decode, MAX_STEPS, Readback, ring_stride};
use super::draws::Draws;
use super::groups::{Binder, Groups};
use super::pages::{self, Page};
use super::prefill::chunk::Prefill;
use super::recording::BufferId;
use super::schedule::ScheduledLayer;
use super::shared::Shared;
use super::steps::Step;
use crate::backend::{BackendError, Input, Plan, RunOutput, SlotStep};
use crate::sampling::{SamplerParams, SamplerState};
use maybe_async::maybe_async;
use std::sync::Arc;

/// See [`crate::backend::Slots`].
pub(super) struct GpuSlots {
    pub shared: Arc<Shared>,
    pub activations: Activations,
    /// `[layers][segments × pages]`
    pub states: Vec<Vec<Page>>,
    pub params: wgpu::Buffer,
    pub counts: wgpu::Buffer,
    pub biases: wgpu::Buffer,
    /// Receives the ring, followed by the samplers' records.
    pub staging: wgpu::Buffer,
    /// Receives traced logits; created on first use.
    pub trace: Option<(BufferId, wgpu::Buffer)>,
    pub groups: Groups,
    pub decode: Decode,
    /// Whether a slot's window is known to be empty: if so, it need not settle before a chunk.
    pub window_empty: Vec<bool>,
    /// Tokens that each slot's sampler has drawn, as far as the host knows.
    pub draws: Draws,
    /// Created by the first prefill.
    pub prefill: Option<Prefill>,
}

#[maybe_async]
impl GpuSlots {
    /// Allocates `count` empty sequences for a schedule of layers, with kernels that sum `once`
    /// per slot or in every workgroup. Both kinds give the same numbers.
    pub async fn new(
        shared: Arc<Shared>,
        count: usize,
        schedule: &[ScheduledLayer],
        once: bool,
    ) -> Result<Self, BackendError> {
        let (gpu, layout) = (&shared.gpu, &shared.layout);
        layout.check_slots(count)?;
        let slots = count as u64;
        let layers = schedule.iter().map(|layer| layer.state + 1).max().unwrap_or(0);
        let states: Vec<_> = (0..layers).map(|_| pages::allocate(gpu, layout, count)).collect::<Result<_, _>>()?;
        let activations = Activations::new(gpu, layout, count, MAX_STEPS)?;
        let params = gpu.buffer("the sampling options", slots * size_of::<SamplerParams>() as u64, STORAGE)?;
        let counts = gpu.buffer("the token counts", slots * layout.geometry.vocab as u64 * 4, STORAGE)?;
        let biases = gpu.buffer("the tokens' biases", slots * layout.geometry.vocab as u64 * 4, STORAGE)?;
        let ring_bytes = ring_stride(count) * MAX_STEPS as u64;
        let ring = gpu.buffer("the token ring", ring_bytes, STORAGE)?;
        let staging_bytes = ring_bytes + slots * size_of::<SamplerState>() as u64;
        let staging = gpu.buffer("the staging ring", staging_bytes, READBACK)?;

        let mut groups = Groups::default();
        let readback = Readback {
            logits: groups.buffer(&activations.logits),
            samplers: groups.buffer(&activations.samplers),
            ring: groups.buffer(&ring),
            staging: groups.buffer(&staging),
        };
        let mut binder = Binder::new(&shared, activations.slot_tile, &groups);
        let sampler = SamplerBuffers { params: &params, counts: &counts, biases: &biases, ring: &ring };
        let bound = Buffers { activations: &activations, states: &states, sampler };
        let decode = Decode::bind(&mut binder, &shared, schedule, once, bound, readback)?;
        binder.finish(&mut groups).await?;
        Ok(Self {
            window_empty: vec![true; count],
            draws: Draws::new(count),
            prefill: None,
            trace: None,
            activations,
            states,
            params,
            counts,
            biases,
            staging,
            groups,
            decode,
            shared,
        })
    }

    /// Uploads the step table of a submission.
    pub async fn write_steps(&self, steps: &[Vec<SlotStep>]) -> Result<(), BackendError> {
        let steps: Vec<Vec<Step>> = steps.iter().map(|step| step.iter().map(Step::from).collect()).collect();
        self.activations.write_steps(&self.shared.gpu, &steps).await
    }

    /// Refuses draws that no device can have made.
    pub fn check_draws(&mut self, output: &RunOutput) -> Result<(), BackendError> {
        let device = &self.shared.gpu.info.name;
        self.draws.check(output).map_err(|message| BackendError::Garbage { device: device.clone(), message })
    }

    /// Marks the windows that a plan's steps write to as not empty.
    pub fn windows_fill(&mut self, plan: &Plan) {
        for step in &plan.steps {
            for (empty, slot) in self.window_empty.iter_mut().zip(step) {
                *empty &= slot.input == Input::Idle;
            }
        }
    }
}
