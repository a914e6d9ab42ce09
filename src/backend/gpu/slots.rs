//! A set of sequences on the device: its buffers, and the dispatches that are bound to them.

use super::Shared;
use super::chunk::ChunkReader;
use super::dispatch::{ALIGNMENT, Dispatch, GpuStep, ParamTable, ScheduledLayer, floats, whole};
use super::encode::EncodeParams;
use super::kernels::{Bound, Pipeline, Pipelines};
use super::layout::Layout;
use super::logits::LogitsParams;
use super::project::ProjectParams;
use super::rescale::{self, RescaleParams};
use super::settle::SettleParams;
use super::store::{Store, Use};
use super::submission::MAX_STEPS;
use crate::backend::memory::{self, Memory, WINDOW};
use crate::backend::profile::Profile;
use crate::backend::{BackendError, Chunk, Plan, RunOutput, Slots};
use crate::sampling::{SamplerParams, SamplerState};
use std::ops::Range;
use std::sync::Arc;
use wgpu::BufferUsages;

/// One layer's part of a step.
pub(super) struct LayerDispatches {
    pub first: bool,
    pub encode: Vec<Dispatch>,
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
    pub pipelines: Arc<Pipelines>,
    /// `[layers][segments × pages]`
    pub states: Vec<Vec<Page>>,
    pub steps: wgpu::Buffer,
    pub step_stride: u64,
    pub residual: wgpu::Buffer,
    pub neurons: Store,
    pub updates: Store,
    pub logits: wgpu::Buffer,
    pub params: wgpu::Buffer,
    pub counts: wgpu::Buffer,
    pub control: wgpu::Buffer,
    pub ring: wgpu::Buffer,
    pub ring_stride: u64,
    /// Receives the ring and, after it, the control records.
    pub staging: wgpu::Buffer,
    /// Receives logits; made when first asked for.
    pub trace: Option<wgpu::Buffer>,
    pub layers: Vec<LayerDispatches>,
    pub project: Vec<Dispatch>,
    pub head: Vec<Dispatch>,
    pub sample: Dispatch,
    pub rescale: Vec<Dispatch>,
    pub settle: Vec<Dispatch>,
    /// Whether a slot's window is known to be empty, so that it need not enter the state before a chunk.
    pub window_empty: Vec<bool>,
    /// Made when a chunk is first read.
    pub chunks: Option<ChunkReader>,
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
        let control_bytes = slots * size_of::<SamplerState>() as u64;

        let layers = schedule.iter().map(|layer| layer.state + 1).max().unwrap_or(0);
        let mut states = Vec::with_capacity(layers);
        for _ in 0..layers {
            let mut pages = Vec::new();
            for segment in &layout.segments {
                for slots in layout.pages(segment, count) {
                    let bytes = layout.state_bytes(segment) * slots.len() as u64;
                    let store = Store::new(gpu, "the sequences' state", bytes, Use::Floats, layout.images)?;
                    pages.push(Page { segment: segment.clone(), slots, store });
                }
            }
            states.push(pages);
        }

        let steps = buffer("the step table", step_stride * MAX_STEPS as u64)?;
        let residual = buffer("the residual stream", slots * layout.slot_residual_bytes())?;
        let floats = |what, bytes: u64| Store::new(gpu, what, bytes, Use::Floats, layout.images);
        let neurons = floats("the activations", slots * layout.slot_neuron_bytes())?;
        let updates = floats("the layers' updates", slots * layout.slot_update_bytes())?;
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

        let tiles = |slots: usize| slots.div_ceil(slot_tile) as u32;
        let segment_index = |page: &Page| {
            layout.segments.iter().position(|segment| *segment == page.segment).expect("a page lies in a segment")
        };
        let (uniforms, offsets) = upload_params(&shared, count, schedule, &states)?;
        let uniform = |offset: u64| Bound::Buffer(&uniforms, offset, Some(32.min(ALIGNMENT)));

        let group = |pipeline: &Pipeline, bound: &[Bound]| pipeline.bind(gpu, bound);
        let step_table = Bound::Buffer(&steps, 0, Some(slots * size_of::<GpuStep>() as u64));
        let weights = &shared.weights;

        let mut encode_params = offsets.encode.into_iter();
        let mut layer_dispatches = Vec::new();
        for layer in schedule {
            let pipeline = if layer.first { &pipelines.first } else { &pipelines.encode };
            let source = if layer.first { whole(&weights.embed) } else { updates.bound() };
            let encode = states[layer.state]
                .iter()
                .zip(&mut encode_params)
                .map(|(page, offset)| Dispatch {
                    group: group(
                        pipeline,
                        &[
                            uniform(offset),
                            step_table,
                            whole(&control),
                            source,
                            whole(&residual),
                            weights.encoder[segment_index(page)].bound(),
                            whole(&weights.turns),
                            page.store.bound(),
                            neurons.bound(),
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
            .zip(offsets.project)
            .enumerate()
            .map(|(index, (segment, offset))| Dispatch {
                group: group(
                    &pipelines.project,
                    &[
                        uniform(offset),
                        step_table,
                        whole(&control),
                        neurons.bound(),
                        weights.encoder_v[index].bound(),
                        weights.decoder[index].bound(),
                        updates.bound(),
                    ],
                ),
                workgroups: [count as u32, segment.len() as u32, 1],
            })
            .collect();
        let head = layout
            .head_segments
            .iter()
            .zip(offsets.logits)
            .enumerate()
            .map(|(index, (segment, offset))| Dispatch {
                group: group(
                    &pipelines.logits,
                    &[
                        uniform(offset),
                        step_table,
                        whole(&control),
                        updates.bound(),
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
        for (page, (rescale_params, settle_params)) in states.iter().flatten().zip(offsets.memory) {
            let memory = page.store.bound();
            let slots = page.slots.len() as u32;
            rescale.push(Dispatch {
                group: group(&pipelines.rescale, &[uniform(rescale_params), step_table, whole(&control), memory]),
                workgroups: [page_stripes(layout, page), slots, 1],
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
            window_empty: vec![true; count],
            chunks: None,
            shared,
        })
    }
}

/// Where in the uniform buffer the parameters of every dispatch are.
struct ParamOffsets {
    /// `[layers of the schedule][pages]`
    encode: Vec<u64>,
    /// `[segments]`
    project: Vec<u64>,
    /// `[segments of the head]`
    logits: Vec<u64>,
    /// Of rescale and of settle, `[layers][pages]`.
    memory: Vec<(u64, u64)>,
}

/// Workgroups that share a slot's part of a page where its states are rescaled.
fn page_stripes(layout: &Layout, page: &Page) -> u32 {
    let g = &layout.geometry;
    rescale::stripes((page.segment.len() * g.block * g.row / 4) as u32, layout.workgroup)
}

/// Uploads the parameters of every dispatch.
fn upload_params(
    shared: &Shared,
    count: usize,
    schedule: &[ScheduledLayer],
    states: &[Vec<Page>],
) -> Result<(wgpu::Buffer, ParamOffsets), BackendError> {
    let (gpu, layout) = (&shared.gpu, &shared.layout);
    let mut table = ParamTable { bytes: Vec::new() };
    let slot_stride = |page: &Page| (layout.state_bytes(&page.segment) / 16) as u32;
    let recent_begin = |page: &Page| (layout.recent_begin(&page.segment) / 16) as u32;
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
    let mut memory_params = Vec::new();
    for page in states.iter().flatten() {
        let (slot_begin, block_count) = (page.slots.start as u32, page.segment.len() as u32);
        let (slot_stride, recent_begin) = (slot_stride(page), recent_begin(page));
        let rescale = table.push(RescaleParams {
            slot_begin,
            block_count,
            stripes: page_stripes(layout, page),
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
    let offsets =
        ParamOffsets { encode: encode_params, project: project_params, logits: logits_params, memory: memory_params };
    Ok((uniforms, offsets))
}

impl Slots for GpuSlots {
    fn profile(&mut self, plan: &Plan) -> Result<Profile, BackendError> {
        self.windows_fill(plan);
        self.profile_plan(plan)
    }

    fn prefill(&mut self, slot: usize, chunk: &Chunk) -> Result<Vec<f32>, BackendError> {
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
        })?;
        self.window_empty[slot] = true;
        Ok(())
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
            (&self.control, size_of::<SamplerState>()),
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
        })?;
        self.window_empty[to] = self.window_empty[from];
        Ok(())
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
        let control = SamplerState { generated, ..SamplerState::default() };
        // All but the token, which stays what it was.
        let record = &bytemuck::bytes_of(&control)[4..];
        gpu.upload(&self.control, (slot * size_of::<SamplerState>() + 4) as u64, record)
    }

    fn run(&mut self, plan: &Plan) -> Result<RunOutput, BackendError> {
        self.windows_fill(plan);
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
            self.window_empty[slot] = false;
            self.write_memory(layer, slot, &memory)?;
        }
        Ok(())
    }
}
