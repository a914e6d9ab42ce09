//! Reading a chunk of tokens: its buffers and the schedule of its kernels.
//!
//! A layer runs `finish` (or `embed`), `encode`, `rotate`, `scores`, `read`, `attend`, `write`, `gate` and `decode`; a last
//! `finish` and `logits` follow where they are asked for. Memory is that of the longest chunk, whatever the
//! length of a prompt.

use super::Shared;
use super::chunk_kernels::{ChunkParams, ChunkPipelines, GpuChunkToken};
use super::chunk_layout::ChunkLayout;
use super::dispatch::{ALIGNMENT, ParamTable, floats, whole};
use super::kernels::{Bound, Pipeline};
use super::store::{Store, Use};
use crate::backend::{BackendError, Chunk};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wgpu::BufferUsages;

/// A submission should take about this long: no driver's watchdog fires then.
const SUBMISSION: Duration = Duration::from_millis(40);
/// Most dispatches in one submission.
const MOST_DISPATCHES: usize = 1 << 12;

/// One dispatch.
pub(super) struct Op<'a> {
    pipeline: &'a Pipeline,
    group: &'a wgpu::BindGroup,
    workgroups: [u32; 3],
}

/// Bindings of the kernels that meet a slot's state, `[layers][segments]`.
struct StateGroups {
    read: Vec<Vec<wgpu::BindGroup>>,
    write: Vec<Vec<wgpu::BindGroup>>,
}

/// Bindings of all other kernels; those of several are `[segments]`.
struct Groups {
    embed: wgpu::BindGroup,
    finish: wgpu::BindGroup,
    encode: Vec<wgpu::BindGroup>,
    rotate: Vec<wgpu::BindGroup>,
    scores: Vec<wgpu::BindGroup>,
    attend: wgpu::BindGroup,
    gate: Vec<wgpu::BindGroup>,
    decode: Vec<wgpu::BindGroup>,
    logits: Vec<wgpu::BindGroup>,
}

/// Reads chunks, for any slot of a set.
pub(super) struct ChunkReader {
    shared: Arc<Shared>,
    pipelines: Arc<ChunkPipelines>,
    pub layout: ChunkLayout,
    params: wgpu::Buffer,
    tokens: wgpu::Buffer,
    pub residual: Store,
    /// Per segment.
    pub activations: Vec<wgpu::Buffer>,
    pub rotated: Vec<wgpu::Buffer>,
    /// The blocks' shares of y.
    attention_shares: wgpu::Buffer,
    pub attention: wgpu::Buffer,
    pub updates: wgpu::Buffer,
    pub logits: wgpu::Buffer,
    groups: Groups,
    /// By slot; made when first needed.
    states: Vec<Option<StateGroups>>,
    /// Where in its page the bound slot's memory starts, in vec4, by segment.
    state_begins: Vec<u32>,
    /// Tokens of the chunk that is read.
    count: usize,
    /// Dispatches in the next submission.
    burst: usize,
}

impl ChunkReader {
    /// Allocates what the longest chunk needs.
    pub fn new(shared: Arc<Shared>) -> Result<Self, BackendError> {
        let pipelines = shared.chunk_pipelines()?;
        let (gpu, model, weights) = (&shared.gpu, &shared.layout, &shared.weights);
        let (g, layout) = (&model.geometry, model.chunk.clone());
        let storage = BufferUsages::STORAGE | BufferUsages::COPY_DST | BufferUsages::COPY_SRC;
        let buffer = |what, numbers: usize| gpu.buffer(what, 4 * numbers as u64 * layout.tokens as u64, storage);
        let per_segment = |what| -> Result<Vec<wgpu::Buffer>, BackendError> {
            model.segments.iter().map(|segment| buffer(what, segment.len() * g.block)).collect()
        };
        let residual_bytes = 4 * (2 * g.row * layout.tokens) as u64;
        let residual = Store::new(gpu, "a chunk's residual stream", residual_bytes, Use::Floats, model.images)?;
        let activations = per_segment("a chunk's activations")?;
        let rotated = per_segment("a chunk's rotated activations")?;
        let scores = buffer("a chunk's scores", g.blocks() * layout.tokens)?;
        let attention_shares = buffer("a chunk's partial attention outputs", g.blocks() * g.row)?;
        let attention = buffer("a chunk's attention outputs", g.heads * g.row)?;
        let updates = buffer("a chunk's updates", layout.all_parts() * g.row)?;
        let logits = buffer("a chunk's logits", model.padded_vocab())?;
        let tokens = buffer("a chunk's tokens", size_of::<GpuChunkToken>() / 4)?;
        let entries = (model.segments.len() + model.head_segments.len()) as u64;
        let params =
            gpu.buffer("the chunk's parameters", entries * ALIGNMENT, BufferUsages::UNIFORM | BufferUsages::COPY_DST)?;

        let entry = |index: usize| uniform(&params, index);
        let bind = |pipeline: &Pipeline, bound: &[Bound]| pipeline.bind(gpu, bound);
        let groups = Groups {
            embed: bind(&pipelines.embed, &[entry(0), whole(&tokens), whole(&weights.embed), residual.bound()]),
            finish: bind(&pipelines.finish, &[entry(0), whole(&tokens), whole(&updates), residual.bound()]),
            encode: each(&shared, &params, &pipelines.encode, |s| {
                [residual.bound(), weights.encoder[s].bound(), whole(&activations[s])]
            }),
            rotate: each(&shared, &params, &pipelines.rotate, |s| {
                [whole(&weights.turns), whole(&activations[s]), whole(&rotated[s])]
            }),
            scores: each(&shared, &params, &pipelines.scores, |s| [whole(&rotated[s]), whole(&scores)]),
            attend: bind(
                &pipelines.attend,
                &[
                    entry(0),
                    whole(&tokens),
                    residual.bound(),
                    whole(&scores),
                    whole(&attention_shares),
                    whole(&attention),
                ],
            ),
            gate: each(&shared, &params, &pipelines.gate, |s| {
                [whole(&attention), weights.encoder_v[s].bound(), whole(&activations[s])]
            }),
            decode: each(&shared, &params, &pipelines.decode, |s| {
                [whole(&activations[s]), weights.decoder[s].bound(), whole(&updates)]
            }),
            logits: (0..model.head_segments.len())
                .map(|segment| {
                    let params = entry(model.segments.len() + segment);
                    bind(&pipelines.logits, &[params, residual.bound(), weights.head[segment].bound(), whole(&logits)])
                })
                .collect(),
        };
        gpu.check()?;
        Ok(Self {
            pipelines,
            layout,
            params,
            tokens,
            residual,
            activations,
            rotated,
            attention_shares,
            attention,
            updates,
            logits,
            groups,
            states: Vec::new(),
            state_begins: vec![0; shared.layout.segments.len()],
            count: 0,
            burst: 4,
            shared,
        })
    }

    /// Uploads a chunk's tokens and the kernels' parameters.
    ///
    /// # Panics
    /// If there are more tokens than a chunk may have.
    pub fn start(&mut self, chunk: &Chunk) -> Result<&mut Self, BackendError> {
        let count = chunk.tokens.len();
        assert!(count <= self.layout.tokens, "a chunk of {count} tokens, at most {}", self.layout.tokens);
        self.count = count;
        let (gpu, model) = (&self.shared.gpu, &self.shared.layout);
        let common = ChunkParams {
            tokens: count as u32,
            tiles: count.div_ceil(self.layout.tile) as u32,
            position: chunk.position,
            block_begin: 0,
            block_count: 0,
            part_begin: 0,
            state_begin: 0,
            padding: 0,
        };
        let mut table = ParamTable { bytes: Vec::new() };
        for ((segment, parts), &state_begin) in model.segments.iter().zip(&self.layout.parts).zip(&self.state_begins) {
            table.push(ChunkParams {
                block_begin: segment.start as u32,
                block_count: segment.len() as u32,
                part_begin: parts.start as u32,
                state_begin,
                ..common
            });
        }
        for segment in &model.head_segments {
            table.push(ChunkParams { block_begin: segment.start as u32, block_count: segment.len() as u32, ..common });
        }
        gpu.upload(&self.params, 0, &table.bytes)?;
        let token = |token: &crate::backend::ChunkToken| GpuChunkToken {
            token: token.token,
            read_scale: token.read_scale,
            write_scale: token.write_scale,
            pad: 0,
        };
        let tokens: Vec<GpuChunkToken> = chunk.tokens.iter().map(token).collect();
        gpu.upload(&self.tokens, 0, bytemuck::cast_slice(&tokens))?;
        Ok(self)
    }

    /// Binds the pages of a slot's state, `[layers · segments]`, each with the offset of the slot's memory in bytes.
    pub fn bind_state(&mut self, slot: usize, state: &[(Bound, u64)]) {
        let begins = state.iter().take(self.state_begins.len()).map(|(_, offset)| (offset / 16) as u32);
        self.state_begins = begins.collect();
        if self.states.len() <= slot {
            self.states.resize_with(slot + 1, || None);
        }
        if self.states[slot].is_some() {
            return;
        }
        let gpu = &self.shared.gpu;
        let read = |(segment, &(rows, _)): (usize, &(Bound, u64))| {
            let bound =
                [uniform(&self.params, segment), whole(&self.rotated[segment]), rows, whole(&self.attention_shares)];
            self.pipelines.read.bind(gpu, &bound)
        };
        let write = |(segment, &(rows, _)): (usize, &(Bound, u64))| {
            let bound = [uniform(&self.params, segment), whole(&self.rotated[segment]), self.residual.bound(), rows];
            self.pipelines.write.bind(gpu, &bound)
        };
        let layers = || state.chunks_exact(self.shared.layout.segments.len());
        self.states[slot] = Some(StateGroups {
            read: layers().map(|layer| layer.iter().enumerate().map(read).collect()).collect(),
            write: layers().map(|layer| layer.iter().enumerate().map(write).collect()).collect(),
        });
    }

    /// Reads the chunk that was started, in the state of a slot that was bound. Returns the logits `[T, V]`
    /// where they are asked for.
    pub fn read(&mut self, slot: usize, logits: bool) -> Result<Vec<f32>, BackendError> {
        let _compiling = self.pipelines.first_run.enter();
        let model = &self.shared.layout;
        let mut ops = Vec::new();
        for layer in 0..model.geometry.layers {
            ops.push(if layer == 0 { self.embed() } else { self.finish() });
            ops.extend(self.encode());
            ops.extend(self.rotate());
            ops.extend(self.scores());
            ops.extend(self.read_state(slot, layer));
            ops.push(self.attend());
            ops.extend(self.write_state(slot, layer));
            ops.extend(self.gate());
            ops.extend(self.decode());
        }
        if logits {
            ops.push(self.finish());
            ops.extend(self.head());
        }
        self.burst = self.execute(&ops)?;
        if !logits {
            return Ok(Vec::new());
        }
        self.read_logits()
    }

    /// The logits of the chunk's tokens, `[T, V]`.
    pub fn read_logits(&self) -> Result<Vec<f32>, BackendError> {
        let model = &self.shared.layout;
        let row = 4 * model.padded_vocab();
        let bytes = self.shared.gpu.download(&self.logits, 0, (self.count * row) as u64)?;
        Ok(bytes.chunks_exact(row).flat_map(|row| floats(&row[..4 * model.geometry.vocab])).collect())
    }

    /// Runs dispatches in submissions of a fitting length and returns the number that fits now.
    pub fn execute(&self, ops: &[Op]) -> Result<usize, BackendError> {
        let gpu = &self.shared.gpu;
        let (mut rest, mut burst) = (ops, self.burst);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(burst.min(rest.len()));
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for Op { pipeline, group, workgroups: [x, y, z] } in now {
                pass.set_pipeline(&pipeline.pipeline);
                pass.set_bind_group(0, *group, &[]);
                pass.dispatch_workgroups(*x, *y, *z);
            }
            drop(pass);
            let start = Instant::now();
            gpu.wait(gpu.queue.submit([encoder.finish()]))?;
            let taken = start.elapsed();
            if taken > SUBMISSION {
                burst = (burst / 2).max(1);
            } else if taken < SUBMISSION / 4 && now.len() == burst {
                burst = (2 * burst).min(MOST_DISPATCHES);
            }
            rest = later;
        }
        Ok(burst)
    }

    /// x of the first layer.
    pub fn embed(&self) -> Op<'_> {
        self.op(&self.pipelines.embed, &self.groups.embed, [self.padded_tokens(), 1, 1])
    }

    /// x of a later layer.
    pub fn finish(&self) -> Op<'_> {
        self.op(&self.pipelines.finish, &self.groups.finish, [self.padded_tokens(), 1, 1])
    }

    /// u.
    pub fn encode(&self) -> Vec<Op<'_>> {
        let jobs = self.tiles() * self.shared.layout.geometry.block / (4 * self.layout.columns);
        self.blocks(&self.pipelines.encode, &self.groups.encode, jobs)
    }

    /// q.
    pub fn rotate(&self) -> Vec<Op<'_>> {
        let fours = |blocks: usize| blocks * self.shared.layout.geometry.block / 4;
        let segments = self.shared.layout.segments.iter().zip(&self.groups.rotate);
        let op = |(segment, group): (&std::ops::Range<usize>, _)| {
            let workgroups = [self.workgroups(fours(segment.len())), self.padded_tokens(), 1];
            self.op(&self.pipelines.rotate, group, workgroups)
        };
        segments.map(op).collect()
    }

    /// What the tokens are to each other.
    pub fn scores(&self) -> Vec<Op<'_>> {
        let jobs = self.tiles() * (self.tiles() + 1) / 2;
        self.blocks(&self.pipelines.scores, &self.groups.scores, jobs)
    }

    /// What a slot's state in a layer is to the tokens.
    pub fn read_state(&self, slot: usize, layer: usize) -> Vec<Op<'_>> {
        self.blocks(&self.pipelines.read, &self.state(slot).read[layer], self.tiles() * self.row_share())
    }

    /// y.
    pub fn attend(&self) -> Op<'_> {
        let heads = self.shared.layout.geometry.heads as u32;
        self.op(&self.pipelines.attend, &self.groups.attend, [self.count as u32, heads, 1])
    }

    /// The tokens enter a slot's state in a layer.
    pub fn write_state(&self, slot: usize, layer: usize) -> Vec<Op<'_>> {
        let jobs = self.shared.layout.geometry.block / self.layout.tile * self.row_share();
        self.blocks(&self.pipelines.write, &self.state(slot).write[layer], jobs)
    }

    /// g, in place of u.
    pub fn gate(&self) -> Vec<Op<'_>> {
        let jobs = self.tiles() * self.shared.layout.geometry.block / (4 * self.layout.columns);
        self.blocks(&self.pipelines.gate, &self.groups.gate, jobs)
    }

    /// The layer's update.
    pub fn decode(&self) -> Vec<Op<'_>> {
        let parts = self.layout.parts.iter().zip(&self.groups.decode);
        let op = |(parts, group): (&std::ops::Range<usize>, _)| {
            self.op(&self.pipelines.decode, group, [self.count as u32, parts.len() as u32, 1])
        };
        parts.map(op).collect()
    }

    /// Logits.
    pub fn head(&self) -> Vec<Op<'_>> {
        let jobs = self.tiles() * self.shared.layout.vocab_block / (4 * self.layout.columns);
        let segments = self.shared.layout.head_segments.iter().zip(&self.groups.logits);
        let op = |(segment, group): (&std::ops::Range<usize>, _)| {
            self.op(&self.pipelines.logits, group, [self.workgroups(jobs), segment.len() as u32, 1])
        };
        segments.map(op).collect()
    }

    /// Bytes of a token's row in the buffer of logits.
    pub fn logits_row(&self) -> u64 {
        4 * self.shared.layout.padded_vocab() as u64
    }

    fn op<'a>(&self, pipeline: &'a Pipeline, group: &'a wgpu::BindGroup, workgroups: [u32; 3]) -> Op<'a> {
        Op { pipeline, group, workgroups }
    }

    /// A dispatch per segment, of `jobs` invocations for each block.
    fn blocks<'a>(&'a self, pipeline: &'a Pipeline, groups: &'a [wgpu::BindGroup], jobs: usize) -> Vec<Op<'a>> {
        let segments = self.shared.layout.segments.iter().zip(groups);
        segments
            .map(|(segment, group)| self.op(pipeline, group, [self.workgroups(jobs), segment.len() as u32, 1]))
            .collect()
    }

    fn workgroups(&self, invocations: usize) -> u32 {
        (invocations as u32).div_ceil(self.shared.layout.workgroup)
    }

    fn tiles(&self) -> usize {
        self.count.div_ceil(self.layout.tile)
    }

    fn padded_tokens(&self) -> u32 {
        (self.tiles() * self.layout.tile) as u32
    }

    /// Invocations that share a row of the state.
    fn row_share(&self) -> usize {
        (self.shared.layout.geometry.row / 4).div_ceil(self.layout.columns)
    }

    fn state(&self, slot: usize) -> &StateGroups {
        self.states[slot].as_ref().expect("the slot's state is bound")
    }
}

/// A segment's parameters.
fn uniform(params: &wgpu::Buffer, index: usize) -> Bound<'_> {
    Bound::Buffer(params, index as u64 * ALIGNMENT, Some(size_of::<ChunkParams>() as u64))
}

/// A kernel's bindings for every segment: its parameters, then what `bound` gives.
fn each<'a, const N: usize>(
    shared: &Shared,
    params: &wgpu::Buffer,
    pipeline: &Pipeline,
    bound: impl Fn(usize) -> [Bound<'a>; N],
) -> Vec<wgpu::BindGroup> {
    let group = |segment| {
        let bound: Vec<Bound> = std::iter::once(uniform(params, segment)).chain(bound(segment)).collect();
        pipeline.bind(&shared.gpu, &bound)
    };
    (0..shared.layout.segments.len()).map(group).collect()
}
