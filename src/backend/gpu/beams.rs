//! Beams on the device: one base state, nodes, the schedule of a step, and readback.

use super::Shared;
use super::beam_attend::BeamAttendParams;
use super::beam_counts::{self, BeamCountsParams};
use super::beam_fold::{BeamFoldParams, MOST_FOLDS};
use super::beam_select::{BeamRecord, BeamSelectParams, SELECTED};
use super::dispatch::{ALIGNMENT, Dispatch, GpuStep, INPUT_IDLE, ParamTable, ScheduledLayer, record, whole};
use super::encode::EncodeParams;
use super::kernels::{BeamPipelines, Bound, Pipeline};
use super::logits::LogitsParams;
use super::project::ProjectParams;
use super::slots::GpuSlots;
use super::store::{Store, Use};
use crate::backend::beams::{BeamCandidate, BeamFold, BeamSelection, BeamStep, Beams};
use crate::backend::{BackendError, Input, SlotStep, Slots};
use crate::sampling::{NO_TOKEN, SamplerParams, SamplerState, Status};
use std::sync::Arc;
use wgpu::BufferUsages;

/// Most folds that wait for a submission, in dispatches.
const FOLD_GROUPS: usize = 16;
/// Steps that the step table holds: a search needs one, the stages two.
const STEPS: u64 = 2;

/// See [`Beams`].
pub(super) struct GpuBeams {
    pub shared: Arc<Shared>,
    pub count: usize,
    pub base: GpuSlots,
    pipelines: Arc<BeamPipelines>,
    schedule: Vec<ScheduledLayer>,
    slot_tile: usize,
    /// Per layer of states, [`GpuBeams::node_room`] nodes each.
    pub nodes: Vec<wgpu::Buffer>,
    node_room: usize,
    steps: wgpu::Buffer,
    step_stride: u64,
    control: wgpu::Buffer,
    pub residual: wgpu::Buffer,
    pub neurons: Store,
    pub updates: Store,
    pub logits: wgpu::Buffer,
    /// Of paths, in entries.
    path_room: usize,
    paths: wgpu::Buffer,
    records: wgpu::Buffer,
    params: wgpu::Buffer,
    /// Before and after a reordering, in turns; `counts[side]` holds the present ones.
    pub counts: [wgpu::Buffer; 2],
    pub side: usize,
    /// Of candidates, K.
    candidate_room: usize,
    candidates: wgpu::Buffer,
    selected: wgpu::Buffer,
    staging: wgpu::Buffer,
    selection: wgpu::Buffer,
    uniforms: wgpu::Buffer,
    offsets: ParamOffsets,
    folds: wgpu::Buffer,
    /// Folds that the next submission starts with, a dispatch each.
    pending: Vec<Vec<BeamFold>>,
    dispatches: Dispatches,
}

/// Where each kernel's parameters lie.
#[derive(Default)]
struct ParamOffsets {
    /// `[schedule][segments]`
    encode: Vec<Vec<u64>>,
    /// `[segments]`, for `attend`, `fold` and `project` alike.
    segments: Vec<u64>,
    /// `[segments of the head]`
    logits: Vec<u64>,
    counts: u64,
}

/// Everything a step may dispatch.
#[derive(Default)]
struct Dispatches {
    /// `[schedule]`
    encode: Vec<Vec<Dispatch>>,
    /// `[layers of states]`
    attend: Vec<Vec<Dispatch>>,
    fold: Vec<Vec<Dispatch>>,
    project: Vec<Dispatch>,
    head: Vec<Dispatch>,
    /// By the side that the counts are on before.
    counts: Vec<Dispatch>,
    select: Vec<Dispatch>,
    merge: Vec<Dispatch>,
}

// One set of parameters serves three kernels.
const _: () = assert!(
    size_of::<BeamAttendParams>() == size_of::<ProjectParams>()
        && size_of::<BeamFoldParams>() == size_of::<ProjectParams>()
);

const STORAGE: BufferUsages = BufferUsages::STORAGE.union(BufferUsages::COPY_DST).union(BufferUsages::COPY_SRC);
const READBACK: BufferUsages = BufferUsages::MAP_READ.union(BufferUsages::COPY_DST);

impl GpuBeams {
    /// Allocates an empty base state and room for `count` beams.
    pub fn new(shared: Arc<Shared>, count: usize, schedule: &[ScheduledLayer]) -> Result<Self, BackendError> {
        let (gpu, layout) = (&shared.gpu, &shared.layout);
        let g = &layout.geometry;
        layout.check_slots(count)?;
        layout.check_beams(count, 1)?;
        let slot_tile = layout.slot_tile(count);
        let pipelines = shared.beam_pipelines(slot_tile)?;
        let base = GpuSlots::new(shared.clone(), 1, schedule)?;
        let buffer = |what, bytes: u64| gpu.buffer(what, bytes, STORAGE);
        let floats = |what, bytes: u64| Store::new(gpu, what, bytes, Use::Floats, layout.images);
        let beams = count as u64;
        let step_stride = (beams * size_of::<GpuStep>() as u64).next_multiple_of(ALIGNMENT);
        let counts = || buffer("the beams' token counts", beams * g.vocab as u64 * 4);
        let (uniforms, offsets) = upload_params(&shared, count, schedule)?;
        let mut this = Self {
            steps: buffer("the beams' step table", step_stride * STEPS)?,
            step_stride,
            control: buffer("the beams' records", beams * size_of::<SamplerState>() as u64)?,
            residual: buffer("the beams' residual stream", beams * 2 * g.row as u64 * 4)?,
            neurons: floats("the beams' activations", beams * layout.slot_neuron_bytes())?,
            updates: floats("the beams' updates", beams * layout.slot_update_bytes())?,
            logits: buffer("the beams' logits", beams * layout.padded_vocab() as u64 * 4)?,
            records: buffer("the beams", beams * size_of::<BeamRecord>() as u64)?,
            params: buffer("the beams' options", size_of::<SamplerParams>() as u64)?,
            counts: [counts()?, counts()?],
            side: 0,
            selection: gpu.buffer(
                "the beams' selection",
                size_of::<BeamSelectParams>() as u64,
                BufferUsages::UNIFORM | BufferUsages::COPY_DST,
            )?,
            folds: buffer("the folds", ALIGNMENT * FOLD_GROUPS as u64)?,
            pending: Vec::new(),
            // Grown as needed; a buffer is never empty.
            nodes: base.states.iter().map(|_| buffer("the beams' tokens", 16)).collect::<Result<_, _>>()?,
            node_room: 0,
            paths: buffer("the beams' paths", 16)?,
            path_room: 0,
            candidates: buffer("the beams' candidates", 16)?,
            selected: buffer("the best candidates", 16)?,
            staging: gpu.buffer("the staged candidates", 16, READBACK)?,
            candidate_room: 0,
            uniforms,
            offsets,
            dispatches: Dispatches::default(),
            schedule: schedule.to_vec(),
            pipelines,
            slot_tile,
            base,
            count,
            shared: shared.clone(),
        };
        this.make_room(2 * count, 2 * count, 2 * count)?;
        Ok(this)
    }

    /// Makes room for nodes, entries of paths and candidates, keeping the nodes there are.
    pub fn make_room(&mut self, nodes: usize, path_entries: usize, candidates: usize) -> Result<(), BackendError> {
        let shared = self.shared.clone();
        let (gpu, layout) = (&shared.gpu, &shared.layout);
        let mut changed = false;
        if nodes > self.node_room {
            let most = layout.most_nodes();
            if nodes as u64 > most {
                return Err(BackendError::Limit {
                    device: gpu.info.name.clone(),
                    what: "bytes in one binding for the tokens that beams do not share",
                    needed: nodes as u64 * 4 * layout.node_size() as u64,
                    allowed: most * 4 * layout.node_size() as u64,
                });
            }
            // Room for half as much again, so that growing is rare and little is left empty.
            let room = nodes.max((self.node_room + self.node_room / 2).min(most as usize));
            let bytes = room as u64 * 4 * layout.node_size() as u64;
            let kept = self.node_room as u64 * 4 * layout.node_size() as u64;
            for layer in &mut self.nodes {
                let grown = gpu.buffer("the beams' tokens", bytes, STORAGE)?;
                if kept > 0 {
                    let mut encoder = gpu.device.create_command_encoder(&Default::default());
                    encoder.copy_buffer_to_buffer(layer, 0, &grown, 0, kept);
                    gpu.queue.submit([encoder.finish()]);
                }
                *layer = grown;
            }
            self.node_room = room;
            changed = true;
        }
        if path_entries > self.path_room {
            let room = path_entries.next_power_of_two();
            self.paths = gpu.buffer("the beams' paths", 8 * (self.count + room) as u64, STORAGE)?;
            self.path_room = room;
            changed = true;
        }
        if candidates > self.candidate_room {
            layout.check_beams(self.count, candidates)?;
            self.candidates = gpu.buffer("the beams' candidates", 8 * (self.count * candidates) as u64, STORAGE)?;
            let bytes = 4 * (SELECTED * (candidates + self.count)) as u64;
            self.selected = gpu.buffer("the best candidates", bytes, STORAGE)?;
            self.staging = gpu.buffer("the staged candidates", bytes, READBACK)?;
            self.candidate_room = candidates;
            changed = true;
        }
        if changed {
            self.dispatches = self.bind();
        }
        gpu.check()
    }

    /// Binds every kernel to the buffers as they are now.
    fn bind(&self) -> Dispatches {
        let shared = &self.shared;
        let (gpu, layout, weights, pipelines) = (&shared.gpu, &shared.layout, &shared.weights, &self.pipelines);
        let uniform = |offset: u64| Bound::Buffer(&self.uniforms, offset, Some(32));
        let steps = Bound::Buffer(&self.steps, 0, Some((self.count * size_of::<GpuStep>()) as u64));
        let control = whole(&self.control);
        let count = self.count as u32;
        let tiles = self.count.div_ceil(self.slot_tile) as u32;
        // The base has one slot, so that its pages are the segments.
        let segments = || layout.segments.iter().map(|segment| segment.len() as u32).enumerate();

        let encode = self.schedule.iter().zip(&self.offsets.encode).map(|(layer, offsets)| {
            let (pipeline, source) = match layer.first {
                true => (&pipelines.first, whole(&weights.embed)),
                false => (&pipelines.encode, self.updates.bound()),
            };
            let dispatch = |(index, blocks): (usize, u32)| Dispatch {
                group: pipeline.bind(
                    gpu,
                    &[
                        uniform(offsets[index]),
                        steps,
                        control,
                        source,
                        whole(&self.residual),
                        weights.encoder[index].bound(),
                        whole(&weights.turns),
                        whole(&self.nodes[layer.state]),
                        self.neurons.bound(),
                    ],
                ),
                workgroups: [tiles, blocks, 1],
            };
            segments().map(dispatch).collect()
        });
        let attend = self.nodes.iter().zip(&self.base.states).map(|(nodes, pages)| {
            let dispatch = |(index, blocks): (usize, u32)| Dispatch {
                group: pipelines.attend.bind(
                    gpu,
                    &[
                        uniform(self.offsets.segments[index]),
                        steps,
                        control,
                        whole(&self.paths),
                        whole(nodes),
                        pages[index].store.bound(),
                        self.neurons.bound(),
                    ],
                ),
                workgroups: [count, blocks, 1],
            };
            segments().map(dispatch).collect()
        });
        let fold = self.nodes.iter().zip(&self.base.states).map(|(nodes, pages)| {
            let dispatch = |(index, blocks): (usize, u32)| Dispatch {
                group: pipelines.fold.bind(
                    gpu,
                    &[
                        uniform(self.offsets.segments[index]),
                        Bound::Buffer(&self.folds, 0, Some(ALIGNMENT)),
                        whole(nodes),
                        pages[index].store.bound(),
                    ],
                ),
                workgroups: [blocks, 1, 1],
            };
            segments().map(dispatch).collect()
        });
        let project = segments().map(|(index, blocks)| Dispatch {
            group: pipelines.project.bind(
                gpu,
                &[
                    uniform(self.offsets.segments[index]),
                    steps,
                    control,
                    self.neurons.bound(),
                    weights.encoder_v[index].bound(),
                    weights.decoder[index].bound(),
                    self.updates.bound(),
                ],
            ),
            workgroups: [count, blocks, 1],
        });
        let head = layout.head_segments.iter().enumerate().map(|(index, segment)| Dispatch {
            group: pipelines.logits.bind(
                gpu,
                &[
                    uniform(self.offsets.logits[index]),
                    steps,
                    control,
                    self.updates.bound(),
                    whole(&self.residual),
                    weights.head[index].bound(),
                    whole(&self.logits),
                ],
            ),
            workgroups: [tiles, segment.len() as u32, 1],
        });
        let [here, there] = &self.counts;
        let stripes = beam_counts::stripes(layout.geometry.vocab, layout.workgroup);
        let counts = [(here, there), (there, here)].into_iter().map(|(before, after)| Dispatch {
            group: pipelines
                .counts
                .bind(gpu, &[uniform(self.offsets.counts), whole(&self.records), whole(before), whole(after)]),
            workgroups: [stripes, count, 1],
        });
        let select = |pipeline: &Pipeline, counts, groups| Dispatch {
            group: pipeline.bind(
                gpu,
                &[
                    whole(&self.selection),
                    whole(&self.params),
                    whole(&self.records),
                    whole(&self.logits),
                    whole(counts),
                    whole(&self.candidates),
                    whole(&self.selected),
                ],
            ),
            workgroups: [groups, 1, 1],
        };
        Dispatches {
            encode: encode.collect(),
            attend: attend.collect(),
            fold: fold.collect(),
            project: project.collect(),
            head: head.collect(),
            counts: counts.collect(),
            select: self.counts.iter().map(|side| select(&pipelines.select, side, count)).collect(),
            merge: self.counts.iter().map(|side| select(&pipelines.merge, side, 1)).collect(),
        }
    }

    fn step_offset(&self, step: usize) -> u32 {
        (step as u64 * self.step_stride) as u32
    }

    /// Records the encode kernel of a layer of the schedule.
    pub fn record_encode(&self, pass: &mut wgpu::ComputePass, layer: usize, step: usize) {
        let pipeline = if self.schedule[layer].first { &self.pipelines.first } else { &self.pipelines.encode };
        record(pass, pipeline, &self.dispatches.encode[layer], &[self.step_offset(step)]);
    }

    /// Records the attend kernel of a layer of states.
    pub fn record_attend(&self, pass: &mut wgpu::ComputePass, state: usize) {
        record(pass, &self.pipelines.attend, &self.dispatches.attend[state], &[0]);
    }

    /// Records the kernel that reorders counts; they are on the other side afterwards.
    pub fn record_counts(&mut self, pass: &mut wgpu::ComputePass) {
        let dispatch = &self.dispatches.counts[self.side..=self.side];
        record(pass, &self.pipelines.counts, dispatch, &[]);
        self.side = 1 - self.side;
    }

    /// Records the selection of candidates.
    pub fn record_select(&self, pass: &mut wgpu::ComputePass) {
        let side = self.side..=self.side;
        record(pass, &self.pipelines.select, &self.dispatches.select[side.clone()], &[]);
        record(pass, &self.pipelines.merge, &self.dispatches.merge[side], &[]);
    }

    /// Uploads what the beams read: steps, one table after another.
    pub fn write_steps(&self, steps: &[Vec<GpuStep>]) -> Result<(), BackendError> {
        let mut table = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            let mut step = step.clone();
            step.resize(self.count, GpuStep { input: INPUT_IDLE, ..GpuStep::from(&SlotStep::IDLE) });
            table.resize(index * self.step_stride as usize, 0);
            table.extend_from_slice(bytemuck::cast_slice(&step));
        }
        self.shared.gpu.upload(&self.steps, 0, &table)
    }

    /// The step table's entries for a step.
    pub fn gpu_steps(step: &BeamStep) -> Vec<GpuStep> {
        let read = |read: &crate::backend::beams::BeamRead| GpuStep {
            input: read.token,
            position: step.position,
            read_scale: step.read_scale,
            write_scale: 1.0,
            sample: 0,
            logits: 1,
            rescale: 1.0,
            node: read.node as u32,
        };
        step.reads.iter().map(read).collect()
    }

    /// Uploads the paths of a step; there is room for them.
    pub fn write_paths(&self, step: &BeamStep) -> Result<(), BackendError> {
        let mut heads = Vec::with_capacity(self.count);
        let mut entries: Vec<[u32; 2]> = Vec::new();
        for read in &step.reads {
            heads.push([(self.count + entries.len()) as u32, read.path.len() as u32]);
            entries.extend(read.path.iter().map(|entry| [entry.node as u32, entry.weight.to_bits()]));
        }
        heads.resize(self.count, [0, 0]);
        heads.extend(entries);
        self.shared.gpu.upload(&self.paths, 0, bytemuck::cast_slice(&heads))
    }

    /// Uploads the beams of a step and how to select among them.
    pub fn write_beams(&self, step: &BeamStep) -> Result<(), BackendError> {
        let record = |(beam, &score): (usize, &f32)| {
            let slot = step.read_of(beam);
            let parent = step.parents.as_ref().map_or(beam, |parents| parents[beam]) as u32;
            BeamRecord { parent, token: step.reads[slot].token, score, slot: slot as u32 }
        };
        let records: Vec<BeamRecord> = step.scores.iter().enumerate().map(record).collect();
        let (beams, candidates) = (self.count as u32, step.candidates as u32);
        let selection = BeamSelectParams { beams, candidates, generated: step.generated, padding: 0 };
        let gpu = &self.shared.gpu;
        gpu.upload(&self.records, 0, bytemuck::cast_slice(&records))?;
        gpu.upload(&self.selection, 0, bytemuck::bytes_of(&selection))
    }

    /// Gives every beam its own counts, `[beams][V]`.
    pub fn write_counts(&mut self, params: &SamplerParams, counts: &[u32]) -> Result<(), BackendError> {
        self.side = 0;
        let gpu = &self.shared.gpu;
        gpu.upload(&self.params, 0, bytemuck::bytes_of(params))?;
        gpu.upload(&self.counts[0], 0, bytemuck::cast_slice(counts))
    }

    /// Uploads the folds that wait.
    fn write_folds(&self) -> Result<(), BackendError> {
        let mut table: Vec<[u32; 2]> = Vec::new();
        for (index, group) in self.pending.iter().enumerate() {
            table.resize(index * ALIGNMENT as usize / 8, [0, 0]);
            table.push([group.len() as u32, 0]);
            table.extend(group.iter().map(|fold| [fold.node as u32, fold.write_scale.to_bits()]));
        }
        self.shared.gpu.upload(&self.folds, 0, bytemuck::cast_slice(&table))
    }

    /// Records the folds that wait, in order.
    fn record_folds(&self, pass: &mut wgpu::ComputePass) {
        for group in 0..self.pending.len() {
            for layer in &self.dispatches.fold {
                record(pass, &self.pipelines.fold, layer, &[(group as u64 * ALIGNMENT) as u32]);
            }
        }
    }

    /// Brings the base state up to date.
    pub fn flush(&mut self) -> Result<(), BackendError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.write_folds()?;
        self.base.execute(|encoder| self.record_folds(&mut encoder.begin_compute_pass(&Default::default())))?;
        self.pending.clear();
        Ok(())
    }

    /// Reads back what a submission selects: `record` fills its pass.
    pub fn select(
        &mut self,
        candidates: usize,
        record: impl FnOnce(&mut Self, &mut wgpu::ComputePass),
    ) -> Result<BeamSelection, BackendError> {
        let shared = self.shared.clone();
        let _compiling = self.pipelines.first_run.enter();
        let gpu = &shared.gpu;
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        record(self, &mut encoder.begin_compute_pass(&Default::default()));
        let bytes = 4 * (SELECTED * (candidates + self.count)) as u64;
        encoder.copy_buffer_to_buffer(&self.selected, 0, &self.staging, 0, bytes);
        let submission = gpu.queue.submit([encoder.finish()]);
        let staged = gpu.map(&self.staging, bytes, submission)?;
        let words: Vec<u32> = staged.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect();
        let (found, status) = words.split_at(SELECTED * candidates);
        let candidate =
            |entry: &[u32]| BeamCandidate { score: f32::from_bits(entry[0]), beam: entry[1] as usize, token: entry[2] };
        let found = found.chunks_exact(SELECTED).take_while(|entry| entry[2] != NO_TOKEN);
        Ok(BeamSelection {
            candidates: found.map(candidate).collect(),
            status: status.chunks_exact(SELECTED).map(|entry| Status::from_word(entry[0])).collect(),
        })
    }
}

/// Every kernel's parameters in one buffer.
fn upload_params(
    shared: &Shared,
    count: usize,
    schedule: &[ScheduledLayer],
) -> Result<(wgpu::Buffer, ParamOffsets), BackendError> {
    let layout = &shared.layout;
    let mut table = ParamTable { bytes: Vec::new() };
    let mut offsets = ParamOffsets::default();
    for index in 0..schedule.len() {
        let params = layout.segments.iter().map(|segment| {
            table.push(EncodeParams {
                slot_begin: 0,
                slot_end: count as u32,
                block_begin: segment.start as u32,
                slot_stride: 0,
                parity: index as u32 % 2,
                recent_begin: 0,
                padding: [0; 2],
            })
        });
        offsets.encode.push(params.collect());
    }
    for segment in &layout.segments {
        offsets.segments.push(table.push(ProjectParams { block_begin: segment.start as u32, padding: [0; 3] }));
    }
    for segment in &layout.head_segments {
        offsets.logits.push(table.push(LogitsParams {
            block_begin: segment.start as u32,
            parity: (schedule.len() as u32 + 1) % 2,
            slot_end: count as u32,
            padding: 0,
        }));
    }
    let stripes = beam_counts::stripes(layout.geometry.vocab, layout.workgroup);
    offsets.counts = table.push(BeamCountsParams { stripes, padding: [0; 3] });
    let usage = BufferUsages::UNIFORM | BufferUsages::COPY_DST;
    let uniforms = shared.gpu.buffer("the beam kernels' parameters", table.bytes.len() as u64, usage)?;
    shared.gpu.upload(&uniforms, 0, &table.bytes)?;
    Ok((uniforms, offsets))
}

impl Beams for GpuBeams {
    fn count(&self) -> usize {
        self.count
    }

    fn base(&mut self) -> Result<&mut dyn Slots, BackendError> {
        self.flush()?;
        Ok(&mut self.base)
    }

    fn start(&mut self, params: &SamplerParams, counts: &[u32]) -> Result<(), BackendError> {
        // Folds and paths know the state alone.
        self.base.settle(0)?;
        self.write_counts(params, &counts.repeat(self.count))
    }

    fn fold(&mut self, folds: &[BeamFold]) -> Result<(), BackendError> {
        for fold in folds {
            if let Some(factor) = fold.rescale {
                self.flush()?;
                self.base.rescale(vec![SlotStep {
                    input: Input::Previous,
                    rescale: Some(factor),
                    ..SlotStep::IDLE
                }])?;
            }
            match self.pending.last_mut() {
                Some(group) if group.len() < MOST_FOLDS => group.push(*fold),
                _ => {
                    if self.pending.len() == FOLD_GROUPS {
                        self.flush()?;
                    }
                    self.pending.push(vec![*fold]);
                }
            }
        }
        Ok(())
    }

    fn step(&mut self, step: &BeamStep) -> Result<BeamSelection, BackendError> {
        let nodes = step.reads.iter().map(|read| read.node + 1).max().unwrap_or(0);
        let entries = step.reads.iter().map(|read| read.path.len()).sum();
        self.make_room(nodes, entries, step.candidates)?;
        self.write_folds()?;
        self.write_steps(&[Self::gpu_steps(step)])?;
        self.write_paths(step)?;
        self.write_beams(step)?;
        self.select(step.candidates, |this, pass| {
            this.record_folds(pass);
            this.pending.clear();
            if step.parents.is_some() {
                this.record_counts(pass);
            }
            for layer in 0..this.schedule.len() {
                this.record_encode(pass, layer, 0);
                this.record_attend(pass, this.schedule[layer].state);
                record(pass, &this.pipelines.project, &this.dispatches.project, &[0]);
            }
            record(pass, &this.pipelines.logits, &this.dispatches.head, &[0]);
            this.record_select(pass);
        })
    }

    fn state_bytes(&self) -> u64 {
        let states = self.base.states.iter().flatten().map(|page| page.store.size());
        states.chain(self.nodes.iter().map(|nodes| nodes.size())).sum()
    }
}
