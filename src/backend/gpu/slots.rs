//! A set of sequences on the device: its buffers, the schedule of a step, and readback.

use super::Shared;
use super::chunk::ChunkReader;
use super::encode::EncodeParams;
use super::kernels::{Bound, Pipeline, Pipelines};
use super::logits::LogitsParams;
use super::project::ProjectParams;
use super::rescale::{self, RescaleParams};
use super::settle::SettleParams;
use super::store::{Store, Use};
use crate::backend::memory::{self, Memory, WINDOW};
use crate::backend::profile::Profile;
use crate::backend::{BackendError, Chunk, Input, Output, Plan, RunOutput, SlotStep, Slots};
use crate::sampling::{Control, NO_TOKEN, SamplerParams};
use std::ops::Range;
use std::sync::Arc;
use wgpu::BufferUsages;

/// Most steps in one submission.
const MAX_STEPS: usize = 64;
/// Most bytes of logits that one submission hands back.
const TRACE_BYTES: u64 = 32 << 20;
/// Dynamic offsets and the entries of the parameter buffer are multiples of this.
pub(super) const ALIGNMENT: u64 = 256;

/// Mirrors `Step` of the shaders.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct GpuStep {
    pub input: u32,
    pub position: u32,
    pub read_scale: f32,
    pub write_scale: f32,
    pub sample: u32,
    pub logits: u32,
    pub rescale: f32,
    pub node: u32,
}

pub(super) const INPUT_IDLE: u32 = u32::MAX;
pub(super) const INPUT_PREVIOUS: u32 = u32::MAX - 1;

impl From<&SlotStep> for GpuStep {
    fn from(step: &SlotStep) -> Self {
        Self {
            input: match step.input {
                Input::Idle => INPUT_IDLE,
                Input::Token(token) => token,
                Input::Previous => INPUT_PREVIOUS,
            },
            position: step.position,
            read_scale: step.read_scale,
            write_scale: step.write_scale,
            sample: (step.output == Output::Token) as u32,
            logits: (step.output >= Output::Logits) as u32,
            rescale: step.rescale.unwrap_or(1.0),
            node: 0,
        }
    }
}

/// Which kernel starts a layer, and whose state it uses.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScheduledLayer {
    /// Start from the token's embedding instead of the layer before.
    pub first: bool,
    /// Index of the layer's state.
    pub state: usize,
}

/// The schedule of a whole model.
pub(super) fn layer_schedule(layers: usize) -> Vec<ScheduledLayer> {
    (0..layers).map(|state| ScheduledLayer { first: state == 0, state }).collect()
}

/// A dispatch that every step repeats: its bindings and its size.
pub(super) struct Dispatch {
    pub group: wgpu::BindGroup,
    pub workgroups: [u32; 3],
}

/// One layer's part of a step.
struct LayerDispatches {
    first: bool,
    encode: Vec<Dispatch>,
}

/// States and windows of some slots in one segment of one layer.
pub(super) struct Page {
    pub segment: Range<usize>,
    pub slots: Range<usize>,
    pub store: Store,
}

/// See [`Slots`].
pub(super) struct GpuSlots {
    pub shared: Arc<Shared>,
    pub count: usize,
    pipelines: Arc<Pipelines>,
    /// `[layers][segments × pages]`
    pub states: Vec<Vec<Page>>,
    steps: wgpu::Buffer,
    step_stride: u64,
    pub residual: wgpu::Buffer,
    pub neurons: wgpu::Buffer,
    pub updates: wgpu::Buffer,
    pub logits: wgpu::Buffer,
    pub params: wgpu::Buffer,
    pub counts: wgpu::Buffer,
    pub control: wgpu::Buffer,
    ring: wgpu::Buffer,
    ring_stride: u64,
    /// Receives the ring and, after it, the control records.
    staging: wgpu::Buffer,
    /// Receives logits; made when first asked for.
    trace: Option<wgpu::Buffer>,
    layers: Vec<LayerDispatches>,
    project: Vec<Dispatch>,
    head: Vec<Dispatch>,
    sample: Dispatch,
    rescale: Vec<Dispatch>,
    settle: Vec<Dispatch>,
    /// Made when a chunk is first read.
    pub chunks: Option<ChunkReader>,
}

/// Kernel parameters, each in an entry of its own of one uniform buffer.
pub(super) struct ParamTable {
    pub bytes: Vec<u8>,
}

impl ParamTable {
    pub fn push<P: bytemuck::Pod>(&mut self, params: P) -> u64 {
        let offset = self.bytes.len() as u64;
        self.bytes.extend_from_slice(bytemuck::bytes_of(&params));
        self.bytes.resize((offset + ALIGNMENT) as usize, 0);
        offset
    }
}

pub(super) fn whole(buffer: &wgpu::Buffer) -> Bound<'_> {
    Bound::Buffer(buffer, 0, None)
}

impl GpuSlots {
    /// Allocates `count` empty sequences for a schedule of layers.
    pub fn new(shared: Arc<Shared>, count: usize, schedule: &[ScheduledLayer]) -> Result<Self, BackendError> {
        let (gpu, layout) = (&shared.gpu, &shared.layout);
        let g = &layout.geometry;
        layout.check_slots(count)?;
        let slot_tile = layout.slot_tile(count);
        let pipelines = shared.pipelines(slot_tile)?;
        let storage = BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC;
        let buffer = |what, bytes: u64| gpu.buffer(what, bytes, storage);
        let slots = count as u64;
        let step_stride = (slots * size_of::<GpuStep>() as u64).next_multiple_of(ALIGNMENT);
        let ring_stride = (slots * 4).next_multiple_of(ALIGNMENT);
        let ring_bytes = ring_stride * MAX_STEPS as u64;
        let control_bytes = slots * size_of::<Control>() as u64;

        let layers = schedule.iter().map(|layer| layer.state + 1).max().unwrap_or(0);
        let mut states = Vec::with_capacity(layers);
        for _ in 0..layers {
            let mut pages = Vec::new();
            for segment in &layout.segments {
                for slots in layout.pages(segment, count) {
                    let bytes = layout.state_bytes(segment) * slots.len() as u64;
                    let store = Store::new(gpu, "the sequences' state", bytes, Use::State, layout.images)?;
                    pages.push(Page { segment: segment.clone(), slots, store });
                }
            }
            states.push(pages);
        }

        let steps = buffer("the step table", step_stride * MAX_STEPS as u64)?;
        let residual = buffer("the residual stream", slots * layout.slot_residual_bytes())?;
        let neurons = buffer("the activations", slots * layout.slot_neuron_bytes())?;
        let updates = buffer("the layers' updates", slots * layout.slot_update_bytes())?;
        let scratch = Store::scratch(gpu, layout, count)?;
        let logits = buffer("the logits", slots * layout.padded_vocab() as u64 * 4)?;
        let params = buffer("the sampling options", slots * size_of::<SamplerParams>() as u64)?;
        let counts = buffer("the token counts", slots * g.vocab as u64 * 4)?;
        let control = buffer("the samplers", control_bytes)?;
        let ring = buffer("the token ring", ring_bytes)?;
        let staging = gpu.buffer(
            "the staging ring",
            ring_bytes + control_bytes,
            BufferUsages::MAP_READ | BufferUsages::COPY_DST,
        )?;

        let mut table = ParamTable { bytes: Vec::new() };
        let tiles = |slots: usize| slots.div_ceil(slot_tile) as u32;
        let segment_index = |page: &Page| {
            layout.segments.iter().position(|segment| *segment == page.segment).expect("a page lies in a segment")
        };

        let slot_stride = |page: &Page| (layout.state_bytes(&page.segment) / 16) as u32;
        let recent_begin = |page: &Page| (layout.recent_begin(&page.segment) / 16) as u32;

        // First every kernel's parameters, then, when their buffer exists, the bindings.
        let mut encode_params = Vec::new();
        for (index, layer) in schedule.iter().enumerate() {
            for page in &states[layer.state] {
                encode_params.push(table.push(EncodeParams {
                    slot_begin: page.slots.start as u32,
                    slot_end: page.slots.end as u32,
                    block_begin: page.segment.start as u32,
                    slot_stride: slot_stride(page),
                    parity: index as u32 % 2,
                    recent_begin: recent_begin(page),
                    padding: [0; 2],
                }));
            }
        }
        let project_params: Vec<u64> = layout
            .segments
            .iter()
            .map(|segment| table.push(ProjectParams { block_begin: segment.start as u32, padding: [0; 3] }))
            .collect();
        let logits_params: Vec<u64> = layout
            .head_segments
            .iter()
            .map(|segment| {
                table.push(LogitsParams {
                    block_begin: segment.start as u32,
                    parity: (schedule.len() as u32 + 1) % 2,
                    slot_end: count as u32,
                    padding: 0,
                })
            })
            .collect();
        let page_stripes =
            |page: &Page| rescale::stripes((page.segment.len() * g.block * g.row / 4) as u32, layout.workgroup);
        let mut memory_params = Vec::new();
        for page in states.iter().flatten() {
            let (slot_begin, block_count) = (page.slots.start as u32, page.segment.len() as u32);
            let (slot_stride, recent_begin) = (slot_stride(page), recent_begin(page));
            let rescale = table.push(RescaleParams {
                slot_begin,
                block_count,
                stripes: page_stripes(page),
                recent_begin,
                slot_stride,
                padding: [0; 3],
            });
            let settle = table.push(SettleParams { slot_begin, slot_stride, recent_begin, padding: 0 });
            memory_params.push((rescale, settle));
        }
        let uniforms = gpu.buffer(
            "the kernels' parameters",
            table.bytes.len() as u64,
            BufferUsages::UNIFORM | BufferUsages::COPY_DST,
        )?;
        gpu.upload(&uniforms, 0, &table.bytes)?;
        let uniform = |offset: u64| Bound::Buffer(&uniforms, offset, Some(32.min(ALIGNMENT)));

        let group = |pipeline: &Pipeline, bound: &[Bound]| pipeline.bind(gpu, bound);
        let with_scratch = |pipeline: &Pipeline, bound: &[Bound]| pipeline.bind_with(gpu, bound, scratch.as_ref());
        let step_table = Bound::Buffer(&steps, 0, Some(slots * size_of::<GpuStep>() as u64));
        let weights = &shared.weights;

        let mut offsets = encode_params.into_iter();
        let mut layer_dispatches = Vec::new();
        for layer in schedule {
            let pipeline = if layer.first { &pipelines.first } else { &pipelines.encode };
            let source = if layer.first { &weights.embed } else { &updates };
            let encode = states[layer.state]
                .iter()
                .zip(&mut offsets)
                .map(|(page, offset)| Dispatch {
                    group: with_scratch(
                        pipeline,
                        &[
                            uniform(offset),
                            step_table,
                            whole(&control),
                            whole(source),
                            whole(&residual),
                            weights.encoder[segment_index(page)].bound(),
                            whole(&weights.turns),
                            page.store.bound(),
                            whole(&neurons),
                        ],
                    ),
                    workgroups: [tiles(page.slots.len()), page.segment.len() as u32, 1],
                })
                .collect();
            layer_dispatches.push(LayerDispatches { first: layer.first, encode });
        }
        let project = layout
            .segments
            .iter()
            .zip(project_params)
            .enumerate()
            .map(|(index, (segment, offset))| Dispatch {
                group: with_scratch(
                    &pipelines.project,
                    &[
                        uniform(offset),
                        step_table,
                        whole(&control),
                        whole(&neurons),
                        weights.encoder_v[index].bound(),
                        weights.decoder[index].bound(),
                        whole(&updates),
                    ],
                ),
                workgroups: [count as u32, segment.len() as u32, 1],
            })
            .collect();
        let head = layout
            .head_segments
            .iter()
            .zip(logits_params)
            .enumerate()
            .map(|(index, (segment, offset))| Dispatch {
                group: group(
                    &pipelines.logits,
                    &[
                        uniform(offset),
                        step_table,
                        whole(&control),
                        whole(&updates),
                        whole(&residual),
                        weights.head[index].bound(),
                        whole(&logits),
                    ],
                ),
                workgroups: [tiles(count), segment.len() as u32, 1],
            })
            .collect();
        let sample = Dispatch {
            group: group(
                &pipelines.sample,
                &[
                    whole(&logits),
                    whole(&params),
                    whole(&counts),
                    whole(&control),
                    step_table,
                    Bound::Buffer(&ring, 0, Some(slots * 4)),
                    whole(&weights.tables),
                ],
            ),
            workgroups: [count as u32, 1, 1],
        };
        let (mut rescale, mut settle) = (Vec::new(), Vec::new());
        for (page, (rescale_params, settle_params)) in states.iter().flatten().zip(memory_params) {
            let memory = page.store.bound();
            let slots = page.slots.len() as u32;
            rescale.push(Dispatch {
                group: group(&pipelines.rescale, &[uniform(rescale_params), step_table, whole(&control), memory]),
                workgroups: [page_stripes(page), slots, 1],
            });
            settle.push(Dispatch {
                group: group(&pipelines.settle, &[uniform(settle_params), step_table, whole(&control), memory]),
                workgroups: [slots, page.segment.len() as u32, 1],
            });
        }
        gpu.check()?;

        Ok(Self {
            count,
            pipelines,
            states,
            steps,
            step_stride,
            residual,
            neurons,
            updates,
            logits,
            params,
            counts,
            control,
            ring,
            ring_stride,
            staging,
            trace: None,
            layers: layer_dispatches,
            project,
            head,
            sample,
            rescale,
            settle,
            chunks: None,
            shared,
        })
    }

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

    fn dispatch(&self, pass: &mut wgpu::ComputePass, pipeline: &Pipeline, dispatches: &[Dispatch], offsets: &[u32]) {
        pass.set_pipeline(&pipeline.pipeline);
        for dispatch in dispatches {
            let [x, y, z] = dispatch.workgroups;
            pass.set_bind_group(0, &dispatch.group, offsets);
            pass.dispatch_workgroups(x, y, z);
        }
    }

    /// Offset of a step in the step table.
    fn step_offset(&self, step: usize) -> u32 {
        (step as u64 * self.step_stride) as u32
    }

    /// Records a layer's encode kernel.
    pub fn record_encode(&self, pass: &mut wgpu::ComputePass, layer: usize, step: usize) {
        let layer = &self.layers[layer];
        let pipeline = if layer.first { &self.pipelines.first } else { &self.pipelines.encode };
        self.dispatch(pass, pipeline, &layer.encode, &[self.step_offset(step)]);
    }

    /// Records the project kernel.
    pub fn record_project(&self, pass: &mut wgpu::ComputePass, step: usize) {
        self.dispatch(pass, &self.pipelines.project, &self.project, &[self.step_offset(step)]);
    }

    /// Records the logits kernel.
    pub fn record_logits(&self, pass: &mut wgpu::ComputePass, step: usize) {
        self.dispatch(pass, &self.pipelines.logits, &self.head, &[self.step_offset(step)]);
    }

    /// Records the sampling kernel.
    pub fn record_sample(&self, pass: &mut wgpu::ComputePass, step: usize) {
        let offsets = [self.step_offset(step), (step as u64 * self.ring_stride) as u32];
        self.dispatch(pass, &self.pipelines.sample, std::slice::from_ref(&self.sample), &offsets);
    }

    /// Records the rescale kernel.
    pub fn record_rescale(&self, pass: &mut wgpu::ComputePass, step: usize) {
        self.dispatch(pass, &self.pipelines.rescale, &self.rescale, &[self.step_offset(step)]);
    }

    /// Records the settle kernel for the slots that take part in a step.
    pub fn record_settle(&self, pass: &mut wgpu::ComputePass, step: usize) {
        self.dispatch(pass, &self.pipelines.settle, &self.settle, &[self.step_offset(step)]);
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
    fn submission_steps(&self, trace: bool) -> usize {
        match trace {
            true => ((TRACE_BYTES / self.logits_bytes()) as usize).clamp(1, MAX_STEPS),
            false => MAX_STEPS,
        }
    }

    /// Runs some steps in one submission.
    fn submit(&mut self, steps: &[Vec<SlotStep>], trace: bool, output: &mut RunOutput) -> Result<(), BackendError> {
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
        let control_bytes = (self.count * size_of::<Control>()) as u64;
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
        output.control = control.chunks_exact(size_of::<Control>()).map(bytemuck::pod_read_unaligned).collect();
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

/// Little-endian floats.
pub(super) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect()
}

impl Slots for GpuSlots {
    fn profile(&mut self, plan: &Plan) -> Result<Profile, BackendError> {
        self.profile_plan(plan)
    }

    fn read_chunk(&mut self, slot: usize, chunk: &Chunk) -> Result<Vec<f32>, BackendError> {
        self.read_tokens(slot, chunk)
    }

    fn count(&self) -> usize {
        self.count
    }

    fn clear(&mut self, slot: usize) -> Result<(), BackendError> {
        let wanted = self.slot_pages(slot).map(|(page, ..)| page.store.zeros_wanted()).max().unwrap_or(0);
        let zeros = self.shared.gpu.buffer("zeros", wanted, BufferUsages::COPY_SRC)?;
        self.execute(|encoder| {
            for (page, offset, bytes) in self.slot_pages(slot) {
                page.store.clear(encoder, offset, bytes, &zeros);
            }
        })
    }

    fn copy(&mut self, from: usize, to: usize) -> Result<(), BackendError> {
        if from == to {
            return Ok(());
        }
        let layout = &self.shared.layout;
        let pages: Vec<_> = self.slot_pages(from).zip(self.slot_pages(to)).collect();
        let mut copies = Vec::new();
        let rows = [
            (&self.logits, layout.padded_vocab() * 4),
            (&self.params, size_of::<SamplerParams>()),
            (&self.counts, layout.geometry.vocab * 4),
            (&self.control, size_of::<Control>()),
        ];
        for (buffer, bytes) in rows {
            copies.push((buffer, (from * bytes) as u64, (to * bytes) as u64, bytes as u64));
        }
        // A copy within a buffer or an image goes through another one.
        let sizes = pages.iter().map(|page| page.0.2).chain(copies.iter().map(|copy| copy.3));
        let largest = sizes.max().unwrap_or(0);
        let between =
            self.shared.gpu.buffer("a copy of a state", largest, BufferUsages::COPY_SRC | BufferUsages::COPY_DST)?;
        self.execute(|encoder| {
            for ((source, at, bytes), (target, to, _)) in pages {
                source.store.copy_out(encoder, at, bytes, &between);
                target.store.copy_in(encoder, to, bytes, &between);
            }
            for (buffer, at, to, bytes) in copies {
                encoder.copy_buffer_to_buffer(buffer, at, &between, 0, bytes);
                encoder.copy_buffer_to_buffer(&between, 0, buffer, to, bytes);
            }
        })
    }

    fn set_sampler(
        &mut self,
        slot: usize,
        params: &SamplerParams,
        counts: &[u32],
        generated: u32,
    ) -> Result<(), BackendError> {
        let gpu = &self.shared.gpu;
        gpu.upload(&self.params, (slot * size_of::<SamplerParams>()) as u64, bytemuck::bytes_of(params))?;
        gpu.upload(&self.counts, (slot * counts.len() * 4) as u64, bytemuck::cast_slice(counts))?;
        let control = Control { generated, ..Control::default() };
        // All but the token, which stays what it was.
        let record = &bytemuck::bytes_of(&control)[4..];
        gpu.upload(&self.control, (slot * size_of::<Control>() + 4) as u64, record)
    }

    fn run(&mut self, plan: &Plan) -> Result<RunOutput, BackendError> {
        let mut output = RunOutput::default();
        for steps in plan.steps.chunks(self.submission_steps(plan.trace_logits)) {
            self.submit(steps, plan.trace_logits, &mut output)?;
        }
        if plan.steps.is_empty() {
            self.submit(&[], false, &mut output)?;
        }
        Ok(output)
    }

    fn logits(&mut self, slot: usize) -> Result<Vec<f32>, BackendError> {
        let layout = &self.shared.layout;
        let row = (layout.padded_vocab() * 4) as u64;
        let bytes = self.shared.gpu.download(&self.logits, slot as u64 * row, (layout.geometry.vocab * 4) as u64)?;
        Ok(floats(&bytes))
    }

    fn read_state(&mut self, slot: usize) -> Result<Vec<f32>, BackendError> {
        let mut state = Vec::new();
        for layer in 0..self.states.len() {
            state.extend(self.read_memory(layer, slot)?.settled(1));
        }
        Ok(state)
    }

    fn write_state(&mut self, slot: usize, state: &[f32]) -> Result<(), BackendError> {
        let size = state.len() / self.states.len().max(1);
        for (layer, state) in state.chunks_exact(size).enumerate() {
            self.write_layer(layer, slot, state)?;
        }
        Ok(())
    }

    fn snapshot(&mut self, slot: usize) -> Result<Vec<f32>, BackendError> {
        let mut numbers = Vec::new();
        for layer in 0..self.states.len() {
            let Memory { state, rotated, recent } = self.read_memory(layer, slot)?;
            [state, rotated, recent].iter().for_each(|part| numbers.extend_from_slice(part));
        }
        Ok(numbers)
    }

    fn restore(&mut self, slot: usize, memory: &[f32]) -> Result<(), BackendError> {
        let g = &self.shared.layout.geometry;
        let neurons = g.heads * g.neurons;
        for (layer, numbers) in memory.chunks_exact(memory::layer_len(neurons, g.width)).enumerate() {
            let (state, window) = numbers.split_at(neurons * g.width);
            let (rotated, recent) = window.split_at(neurons * WINDOW);
            let memory = Memory { state: state.into(), rotated: rotated.into(), recent: recent.into() };
            self.write_memory(layer, slot, &memory)?;
        }
        Ok(())
    }
}
