//! The GPU backend: a model opened on an adapter.

use super::allowance::Allowance;
use super::beam::beams::GpuBeams;
use super::device::{self, AdapterChoice, Gpu};
use super::kernel::{CompileOptions, Kernel, Rewrite};
use super::layout::Layout;
use super::pipeline::Pipelines;
use super::registry::{self, KERNELS};
use super::schedule;
use super::shared::Shared;
use super::slots::GpuSlots;
use super::store::{self, Store};
use super::weights::Weights;
use crate::backend::beams::{BeamStages, Beams};
use crate::backend::pack::Scales;
use crate::backend::prefill::PrefillStages;
use crate::backend::{Backend, BackendError, DeviceInfo, DeviceKind, Slots, StateType, WeightType, pack, stage};
use crate::model::{Model, rotary::Rotary};
use maybe_async::maybe_async;
use std::sync::Arc;

/// Options for an adapter. Beside the type of the states, the defaults suit everything but tests.
#[derive(Clone, Debug, Default)]
pub struct GpuOptions {
    /// Type of the states.
    pub state: StateType,
    /// Keep the bounds checks that wgpu adds to shaders.
    pub checked: bool,
    /// Pretend that a storage binding cannot be larger than this many bytes.
    pub max_binding: Option<u64>,
    /// Open the adapter with the base limits of WebGPU and without optional features.
    pub base_limits: bool,
    /// Use the hardware layout on a software adapter: tests then cover it everywhere.
    pub hardware_layout: bool,
    /// Invocations per workgroup, a power of two from 8 to 256.
    pub workgroup: Option<u32>,
    /// Allow neurons to be watched, which costs a decode step a store of every gate.
    pub watchable: bool,
    /// Rewrite the kernels' texts, for tests.
    pub rewrite: Option<Rewrite>,
    /// Break this kernel on purpose (see [`super::kernel_names`]): a self-test of the verification.
    pub corrupt: Option<String>,
}

/// A model's weights on a GPU.
pub struct GpuBackend {
    pub(super) shared: Arc<Shared>,
}

#[maybe_async]
impl GpuBackend {
    /// Uploads a model to an adapter.
    ///
    /// # Errors
    /// [`BackendError`] if there is no such adapter, the model does not fit it, or its driver
    /// fails.
    pub async fn new(model: &Model, weight_type: WeightType, choice: &AdapterChoice) -> Result<Self, BackendError> {
        Self::with_options(model, weight_type, choice, GpuOptions::default()).await
    }

    /// As [`GpuBackend::new`], with options.
    ///
    /// # Errors
    /// As [`GpuBackend::new`].
    pub async fn with_options(
        model: &Model,
        weight_type: WeightType,
        choice: &AdapterChoice,
        options: GpuOptions,
    ) -> Result<Self, BackendError> {
        pack::check_range(model, weight_type)?;
        let gpu = Gpu::open(&device::choose(choice).await?, options.base_limits).await?;
        Self::on(gpu, model, weight_type, options).await
    }

    /// Uploads a model to an open device.
    pub(super) async fn on(
        gpu: Gpu,
        model: &Model,
        weight_type: WeightType,
        options: GpuOptions,
    ) -> Result<Self, BackendError> {
        let allowance = allowance(&gpu, &options);
        let layout = Layout {
            clamped: model.clamped().next().is_some(),
            ..Layout::new(&model.config, weight_type, options.state, allowance, options.workgroup)?
        };
        let rotary = Rotary::new(&model.weights.freqs);
        let weights = match weight_type {
            WeightType::F32 => Weights::upload::<f32, f32>(model, &rotary, &gpu, &layout).await?,
            WeightType::F16 => Weights::upload::<u16, u16>(model, &rotary, &gpu, &layout).await?,
            WeightType::I8 => Weights::upload::<i8, u16>(model, &rotary, &gpu, &layout).await?,
        };
        // Flush now, so upload errors surface here.
        gpu.wait(gpu.queue.submit([])).await?;
        let pipelines = Pipelines::new(CompileOptions {
            checked: options.checked,
            corrupt: options.corrupt.as_deref().and_then(registry::find),
            paired: rotary.paired(),
            watched: options.watchable,
            rewrite: options.rewrite,
        });
        let scales = weight_type == WeightType::I8 && options.watchable;
        let gate_scales = if scales { gate_scales(model, &layout) } else { Vec::new() };
        Ok(Self { shared: Arc::new(Shared { gpu, layout, weights, gate_scales, pipelines }) })
    }

    /// Allocates sequences for the whole model.
    pub(super) async fn slots(&self, count: usize) -> Result<GpuSlots, BackendError> {
        let layers = self.shared.layout.geometry.layers;
        GpuSlots::new(self.shared.clone(), count, &schedule::layers(layers), self.shared.layout.sums_once(count)).await
    }

    /// The path of every kernel's shader, below `shaders/` and without extension, and the whole
    /// WGSL text that this adapter gets if `sequences` sequences run together.
    pub fn shader_texts(&self, sequences: usize) -> Vec<(&'static str, String)> {
        let Shared { layout, pipelines, .. } = &*self.shared;
        let slot_tile = layout.slot_tile(sequences);
        let text = |kernel: &Kernel| kernel.text(layout, slot_tile, pipelines.options()).wgsl;
        KERNELS.iter().map(|kernel| (kernel.shader, text(kernel))).collect()
    }
}

/// The decoder's scales, which the kernels multiply gates by, `[blocks][block]`.
fn gate_scales(model: &Model, layout: &Layout) -> Vec<f32> {
    let g = &layout.geometry;
    Scales::of(&model.weights.decoder, g.heads, g.padded_neurons()).scales
}

/// The adapter's limits, as far as the layout is concerned.
fn allowance(gpu: &Gpu, options: &GpuOptions) -> Allowance {
    let limits = &gpu.limits;
    let software = gpu.info.kind == DeviceKind::SoftwareGpu && !options.hardware_layout;
    let images = software && gpu.images;
    // A segment of weights or states must fit one image.
    let largest_image = match images {
        true => store::ROW_BYTES * limits.max_texture_dimension_2d as u64,
        false => u64::MAX,
    };
    Allowance {
        device: gpu.info.name.clone(),
        software,
        images,
        subgroup: gpu.subgroup.filter(|_| software),
        max_binding: limits
            .max_storage_buffer_binding_size
            .min(limits.max_buffer_size)
            .min(largest_image)
            .min(options.max_binding.unwrap_or(u64::MAX)),
        workgroup_memory: limits.max_compute_workgroup_storage_size as u64,
        invocations: limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x),
        workgroups: limits.max_compute_workgroups_per_dimension as u64,
    }
}

/// Number of sequences that saturate a GPU.
const FULL: usize = 64;
/// Most bytes of states that decode together, unless the caller asks for more.
const STATE_BYTES: u64 = 2 << 30;

#[maybe_async(?Send)]
impl Backend for GpuBackend {
    fn device(&self) -> &DeviceInfo {
        &self.shared.gpu.info
    }

    fn is_watchable(&self) -> bool {
        self.shared.pipelines.options().watched
    }

    fn weight_type(&self) -> WeightType {
        self.shared.layout.weight_type
    }

    fn state_type(&self) -> StateType {
        self.shared.layout.state_type
    }

    fn weight_bytes(&self) -> u64 {
        let w = &self.shared.weights;
        let buffers = [&w.encoder, &w.encoder_v, &w.decoder, &w.lm_head].into_iter().flatten();
        buffers.map(Store::size).sum::<u64>() + w.embed.size()
    }

    fn preferred_slots(&self, state_bytes: u64) -> usize {
        FULL.min((STATE_BYTES / state_bytes.max(1)) as usize).max(1)
    }

    fn chunk_tokens(&self) -> usize {
        self.shared.layout.chunk.tokens.max(1)
    }

    async fn create_slots(&self, count: usize) -> Result<Box<dyn Slots>, BackendError> {
        Ok(Box::new(self.slots(count).await?))
    }

    async fn create_beams(&self, count: usize) -> Result<Box<dyn Beams>, BackendError> {
        let layers = self.shared.layout.geometry.layers;
        Ok(Box::new(GpuBeams::new(self.shared.clone(), count, &schedule::layers(layers)).await?))
    }

    fn close(&self) {
        self.shared.gpu.close();
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
