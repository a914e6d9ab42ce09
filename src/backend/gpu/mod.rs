//! The engine on a GPU: hand-written WGSL on wgpu. Nothing outside this folder knows wgpu.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `device` | adapters, the open device, its faults |
//! | `compiling` | whether kernels are being compiled |
//! | `store` | buffers or images that kernels address as a line |
//! | `layout` | how a model lies in an adapter's memory |
//! | `kernels` | sources, bindings and pipelines |
//! | `encode`, `project`, `logits`, `sample`, `rescale`, `settle` | the host side of each kernel |
//! | `memory` | a sequence's memory between the device's layout and the host's |
//! | `slots` | buffers of a set of sequences |
//! | `dispatch`, `submission` | what a step is made of; steps submitted and read back |
//! | `beam_encode`, `beam_attend`, `beam_fold`, `beam_select`, `beam_counts` | the same for the beam search |
//! | `beams` | beams: one base state, nodes, the schedule of a step |
//! | `chunk`, `chunk_kernels`, `chunk_layout`, `chunk_slots` | tokens of a prompt that are read together |
//! | `profile` | time per kernel |
//! | `stages`, `beam_stages`, `prefill_stages` | the kernels one at a time |

mod beam_attend;
mod beam_counts;
mod beam_encode;
mod beam_fold;
mod beam_select;
mod beam_stages;
mod beams;
mod chunk;
mod chunk_kernels;
mod chunk_layout;
mod chunk_slots;
mod chunk_stages;
mod compiling;
mod device;
mod dispatch;
mod encode;
mod kernels;
mod layout;
mod logits;
mod memory;
mod profile;
mod project;
mod rescale;
mod sample;
mod settle;
mod slots;
mod stages;
mod store;
mod submission;

pub use compiling::compiling;
pub use device::{AdapterChoice, AdapterSummary, list_adapters};

use super::beams::{BeamStages, Beams};
use super::pack::{self, Element};
use super::prefill::PrefillStages;
use super::{Backend, BackendError, DeviceInfo, DeviceKind, Slots, WeightType, stage};
use crate::model::{Model, rotary::Rotary};
use beams::GpuBeams;
use chunk_kernels::{CHUNK_KERNELS, ChunkPipelines};
use compiling::Compiling;
use device::Gpu;
pub use kernels::Rewrite;
use kernels::{BEAM_KERNELS, BeamPipelines, CompileOptions, KERNELS, Pipelines};
use layout::{Allowance, Layout};
use slots::GpuSlots;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use store::Store;

/// How to use an adapter; the default is right for everything but tests.
#[derive(Clone, Debug, Default)]
pub struct GpuOptions {
    /// Keep the bounds checks that wgpu adds to shaders.
    pub checked: bool,
    /// Pretend that a storage binding cannot be larger than this many bytes.
    pub max_binding: Option<u64>,
    /// Open the adapter with the base limits of WebGPU and without optional features.
    pub base_limits: bool,
    /// Lay a software adapter's work out as on a hardware one: that layout then has its tests everywhere.
    pub hardware_layout: bool,
    /// Invocations per workgroup, a power of two from 8 to 256.
    pub workgroup: Option<u32>,
    /// Run other kernels than these: what a test makes of their texts.
    pub rewrite: Option<Rewrite>,
    /// Break this kernel on purpose (of [`kernel_names`], [`beam_kernel_names`] or [`chunk_kernel_names`]): a self-test of the verification.
    pub corrupt: Option<String>,
}

/// Names of all kernels, in the order in which a step runs them.
pub fn kernel_names() -> Vec<&'static str> {
    KERNELS.iter().map(|kernel| kernel.name).collect()
}

/// Names of the kernels that only a beam search runs, in its order.
pub fn beam_kernel_names() -> Vec<&'static str> {
    BEAM_KERNELS.iter().map(|kernel| kernel.name).collect()
}

/// Names of the kernels that read a chunk of tokens, in its order.
pub fn chunk_kernel_names() -> Vec<&'static str> {
    CHUNK_KERNELS.iter().map(|kernel| kernel.name).collect()
}

/// A model's weights on a GPU.
pub struct GpuBackend {
    shared: Arc<Shared>,
}

/// What all slot sets of a backend share.
struct Shared {
    gpu: Gpu,
    layout: Layout,
    weights: Weights,
    options: CompileOptions,
    /// Compiled kernels by slots per tile.
    pipelines: Mutex<HashMap<usize, Arc<Pipelines>>>,
    /// The same for beam search.
    beam_pipelines: Mutex<HashMap<usize, Arc<BeamPipelines>>>,
    /// The same for chunks.
    chunk_pipelines: Mutex<Option<Arc<ChunkPipelines>>>,
}

/// Weights and tables on the device.
struct Weights {
    embed: wgpu::Buffer,
    /// Per segment.
    encoder: Vec<Store>,
    encoder_v: Vec<Store>,
    decoder: Vec<Store>,
    /// Per segment of the vocabulary.
    head: Vec<Store>,
    /// Rotary frequencies.
    turns: wgpu::Buffer,
    /// Tables of the sampling kernel.
    tables: wgpu::Buffer,
}

impl GpuBackend {
    /// Uploads a model to an adapter.
    ///
    /// # Errors
    /// [`BackendError`] where there is no such adapter, the model does not fit it, or its driver fails.
    pub fn new(model: &Model, weight_type: WeightType, choice: &AdapterChoice) -> Result<Self, BackendError> {
        Self::with_options(model, weight_type, choice, GpuOptions::default())
    }

    /// As [`GpuBackend::new`], with options.
    ///
    /// # Errors
    /// As [`GpuBackend::new`].
    pub fn with_options(
        model: &Model,
        weight_type: WeightType,
        choice: &AdapterChoice,
        options: GpuOptions,
    ) -> Result<Self, BackendError> {
        pack::check_range(model, weight_type)?;
        let gpu = Gpu::open(&device::choose(choice)?, options.base_limits)?;
        let software = gpu.info.kind == DeviceKind::SoftwareGpu && !options.hardware_layout;
        let images = software && gpu.images;
        // Where weights and states lie in images, a segment of them must fit one.
        let largest_image = match images {
            true => store::ROW_BYTES * gpu.limits.max_texture_dimension_2d as u64,
            false => u64::MAX,
        };
        let allowance = Allowance {
            device: gpu.info.name.clone(),
            software,
            images,
            subgroup: gpu.subgroup.filter(|_| software),
            max_binding: gpu
                .limits
                .max_storage_buffer_binding_size
                .min(gpu.limits.max_buffer_size)
                .min(largest_image)
                .min(options.max_binding.unwrap_or(u64::MAX)),
            workgroup_memory: gpu.limits.max_compute_workgroup_storage_size as u64,
            invocations: gpu.limits.max_compute_invocations_per_workgroup.min(gpu.limits.max_compute_workgroup_size_x),
            workgroups: gpu.limits.max_compute_workgroups_per_dimension as u64,
        };
        let layout = Layout::new(&model.config, weight_type, allowance, options.workgroup)?;
        let rotary = Rotary::new(&model.weights.freqs);
        let weights = match weight_type {
            WeightType::F32 => Weights::upload::<f32>(model, &rotary, &gpu, &layout)?,
            WeightType::F16 => Weights::upload::<u16>(model, &rotary, &gpu, &layout)?,
        };
        // What does not arrive is to be known now.
        gpu.wait(gpu.queue.submit([]))?;
        let options = CompileOptions {
            checked: options.checked,
            corrupt: options.corrupt,
            paired: rotary.paired(),
            rewrite: options.rewrite,
        };
        let shared = Shared {
            gpu,
            layout,
            weights,
            options,
            pipelines: Mutex::default(),
            beam_pipelines: Mutex::default(),
            chunk_pipelines: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Every kernel's name and whole WGSL text as this adapter gets it, where that many sequences run together.
    pub fn shader_sources(&self, sequences: usize) -> Vec<(&'static str, String)> {
        let shared = &self.shared;
        let slot_tile = shared.layout.slot_tile(sequences);
        let kernels = KERNELS.iter().chain(&BEAM_KERNELS).chain(&CHUNK_KERNELS);
        kernels.map(|spec| (spec.name, kernels::source(spec, &shared.layout, slot_tile, &shared.options))).collect()
    }
}

impl Shared {
    /// The kernels for a number of slots per tile, compiled when first needed.
    fn pipelines(&self, slot_tile: usize) -> Result<Arc<Pipelines>, BackendError> {
        let mut compiled = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipelines) = compiled.get(&slot_tile) {
            return Ok(pipelines.clone());
        }
        let _compiling = Compiling::start();
        let pipelines = Arc::new(Pipelines::compile(&self.gpu, &self.layout, slot_tile, &self.options)?);
        compiled.insert(slot_tile, pipelines.clone());
        Ok(pipelines)
    }

    /// The kernels of a beam search for a number of slots per tile, compiled when first needed.
    fn beam_pipelines(&self, slot_tile: usize) -> Result<Arc<BeamPipelines>, BackendError> {
        let mut compiled = self.beam_pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipelines) = compiled.get(&slot_tile) {
            return Ok(pipelines.clone());
        }
        let _compiling = Compiling::start();
        let pipelines = Arc::new(BeamPipelines::compile(&self.gpu, &self.layout, slot_tile, &self.options)?);
        compiled.insert(slot_tile, pipelines.clone());
        Ok(pipelines)
    }

    /// The kernels that read a chunk, compiled when first needed.
    fn chunk_pipelines(&self) -> Result<Arc<ChunkPipelines>, BackendError> {
        let mut compiled = self.chunk_pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipelines) = &*compiled {
            return Ok(pipelines.clone());
        }
        let _compiling = Compiling::start();
        let pipelines = Arc::new(ChunkPipelines::compile(&self.gpu, &self.layout, &self.options)?);
        *compiled = Some(pipelines.clone());
        Ok(pipelines)
    }
}

impl Weights {
    fn upload<E: Element + bytemuck::Pod>(
        model: &Model,
        rotary: &Rotary,
        gpu: &Gpu,
        layout: &Layout,
    ) -> Result<Self, BackendError> {
        let (g, w) = (&layout.geometry, &model.weights);
        let padded = g.padded_neurons();
        let block = g.block * g.row;
        let split = |what, packed: Vec<E>| -> Result<Vec<_>, BackendError> {
            let part = |s: &std::ops::Range<usize>| bytemuck::cast_slice(&packed[s.start * block..s.end * block]);
            layout.segments.iter().map(|segment| Store::weights(gpu, what, part(segment), layout.images)).collect()
        };
        let head = pack::tiles::<E>(g.head_of(&w.lm_head), g.row, layout.padded_vocab(), layout.vocab_block);
        let head_block = layout.vocab_block * g.row;
        let head_part =
            |s: &std::ops::Range<usize>| bytemuck::cast_slice(&head[s.start * head_block..s.end * head_block]);
        let mut turns: Vec<[u32; 2]> =
            rotary.turns().iter().map(|&turns| [turns as u32, (turns >> 32) as u32]).collect();
        turns.resize(padded, [0, 0]);
        let embed = pack::rows::<E>(&w.embed, 1, g.vocab, g.width, g.vocab, g.row);
        let tables = gpu.buffer(
            "the sampling tables",
            4 * crate::sampling::TABLE_LEN as u64,
            wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
        )?;
        gpu.upload(&tables, 0, bytemuck::cast_slice(crate::sampling::tables().as_slice()))?;
        Ok(Self {
            embed: gpu.filled("the embedding", bytemuck::cast_slice(&embed))?,
            encoder: split("the encoder", pack::tiles(g.heads_of(&w.encoder), g.row, padded, g.block))?,
            encoder_v: split("encoder_v", pack::columns_as_rows(g.heads_of(&w.encoder_v), padded, g.row))?,
            decoder: split("the decoder", pack::rows(&w.decoder, g.heads, g.neurons, g.width, padded, g.row))?,
            head: layout
                .head_segments
                .iter()
                .map(|segment| Store::weights(gpu, "the head", head_part(segment), layout.images))
                .collect::<Result<_, _>>()?,
            turns: gpu.filled("the rotary frequencies", bytemuck::cast_slice(&turns))?,
            tables,
        })
    }
}

/// Sequences that fill a GPU.
const FULL: usize = 64;
/// Most bytes of states that decode together unless the caller asks for more.
const STATE_BYTES: u64 = 2 << 30;

impl Backend for GpuBackend {
    fn device(&self) -> &DeviceInfo {
        &self.shared.gpu.info
    }

    fn weight_type(&self) -> WeightType {
        self.shared.layout.weight_type
    }

    fn weight_bytes(&self) -> u64 {
        let w = &self.shared.weights;
        let buffers = [&w.encoder, &w.encoder_v, &w.decoder, &w.head].into_iter().flatten();
        buffers.map(Store::size).sum::<u64>() + w.embed.size()
    }

    fn preferred_slots(&self, state_bytes: u64) -> usize {
        FULL.min((STATE_BYTES / state_bytes.max(1)) as usize).max(1)
    }

    fn chunk_tokens(&self) -> usize {
        self.shared.layout.chunk.tokens.max(1)
    }

    fn create_slots(&self, count: usize) -> Result<Box<dyn Slots>, BackendError> {
        let layers = self.shared.layout.geometry.layers;
        Ok(Box::new(GpuSlots::new(self.shared.clone(), count, &dispatch::layer_schedule(layers))?))
    }

    fn create_beams(&self, count: usize) -> Result<Box<dyn Beams>, BackendError> {
        let layers = self.shared.layout.geometry.layers;
        Ok(Box::new(GpuBeams::new(self.shared.clone(), count, &dispatch::layer_schedule(layers))?))
    }

    fn stages(&self) -> &dyn stage::Stages {
        self
    }

    fn beam_stages(&self) -> &dyn BeamStages {
        self
    }

    fn prefill_stages(&self) -> &dyn PrefillStages {
        self
    }
}
