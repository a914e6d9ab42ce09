//! Kernels compiled for a device.

use super::assemble::{Binding, BindingKind, Text};
use super::compiling::{Compiling, FirstRun};
use super::device::Gpu;
use super::kernel::{CompileOptions, Kernel};
use super::layout::Layout;
use crate::backend::BackendError;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A compiled kernel.
pub(super) struct Pipeline {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
    /// Bindings that its text declares, by index.
    pub bindings: Vec<Binding>,
    pub first_run: FirstRun,
}

/// A model's compiled kernels, by name and slots per tile; compiled on first use.
pub(super) struct Pipelines {
    options: CompileOptions,
    compiled: Mutex<HashMap<(&'static str, usize), Arc<Pipeline>>>,
}

impl Pipelines {
    pub fn new(options: CompileOptions) -> Self {
        Self { options, compiled: Mutex::default() }
    }

    /// How the kernels are compiled.
    pub fn options(&self) -> &CompileOptions {
        &self.options
    }

    /// A kernel, compiled for a layout and a number of slots per tile.
    pub fn get(
        &self,
        gpu: &Gpu,
        layout: &Layout,
        kernel: &'static Kernel,
        slot_tile: usize,
    ) -> Result<Arc<Pipeline>, BackendError> {
        let key = (kernel.name, kernel.slot_tile(slot_tile));
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = compiled.get(&key) {
            return Ok(pipeline.clone());
        }
        let _compiling = Compiling::start();
        let text = kernel.text(layout, slot_tile, &self.options);
        let pipeline = Arc::new(compile(gpu, kernel, text, self.options.checked, layout.images)?);
        compiled.insert(key, pipeline.clone());
        Ok(pipeline)
    }
}

#[allow(unsafe_code, reason = "shaders without bounds checks at run time")]
fn compile(gpu: &Gpu, kernel: &Kernel, text: Text, checked: bool, images: bool) -> Result<Pipeline, BackendError> {
    let device = &gpu.device;
    let label = Some(kernel.name);
    let descriptor = wgpu::ShaderModuleDescriptor { label, source: wgpu::ShaderSource::Wgsl(text.wgsl.into()) };
    let module = if checked {
        device.create_shader_module(descriptor)
    } else {
        // SAFETY: the kernels index only within the bounds that `layout` computes and their loops
        // end; the tests run all of them in checked mode too and compare the results.
        unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
    };
    let entries: Vec<_> = text.bindings.iter().map(|binding| entry(kernel, binding, images)).collect();
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label,
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label,
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions {
            // Workgroup memory is written before it is read.
            zero_initialize_workgroup_memory: false,
            ..Default::default()
        },
        cache: None,
    });
    gpu.check_allocation("a compiled kernel", 0)?;
    Ok(Pipeline { pipeline, layout, bindings: text.bindings, first_run: FirstRun::default() })
}

fn entry(kernel: &Kernel, binding: &Binding, images: bool) -> wgpu::BindGroupLayoutEntry {
    let has_dynamic_offset = kernel.dynamic.contains(&binding.name.as_str());
    let buffer = |ty| wgpu::BindingType::Buffer { ty, has_dynamic_offset, min_binding_size: None };
    let storage = |write: bool| buffer(wgpu::BufferBindingType::Storage { read_only: !write });
    let ty = match binding.kind {
        BindingKind::Uniform => buffer(wgpu::BufferBindingType::Uniform),
        BindingKind::Storage { write } => storage(write),
        BindingKind::Store { purpose, write } if images => wgpu::BindingType::StorageTexture {
            access: match write {
                true => wgpu::StorageTextureAccess::ReadWrite,
                false => wgpu::StorageTextureAccess::ReadOnly,
            },
            format: purpose.format(),
            view_dimension: wgpu::TextureViewDimension::D2,
        },
        BindingKind::Store { write, .. } => storage(write),
    };
    wgpu::BindGroupLayoutEntry { binding: binding.index, visibility: wgpu::ShaderStages::COMPUTE, ty, count: None }
}
