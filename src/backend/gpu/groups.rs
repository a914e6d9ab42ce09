//! Bind groups and buffers of one set of sequences, which recordings name by number.

use super::binding::Resource;
use super::compiling::Compiling;
use super::kernel::Kernel;
use super::pipeline::Pipeline;
use super::recording::{BufferId, GroupId, Op};
use super::shared::Shared;
use crate::backend::BackendError;
use maybe_async::maybe_async;
use std::sync::Arc;
use wgpu::BufferUsages;

/// Alignment of kernels' parameters and of table entries with dynamic offsets, in bytes.
pub(super) const ALIGNMENT: u64 = 256;
/// Bytes of a kernel's parameter binding.
const PARAMS_BYTES: u64 = 32;

/// A kernel with its bind group.
pub(super) struct Group {
    pub pipeline: Arc<Pipeline>,
    pub group: wgpu::BindGroup,
}

/// Bind groups and buffers, by number.
#[derive(Default)]
pub(super) struct Groups {
    pub groups: Vec<Group>,
    pub buffers: Vec<wgpu::Buffer>,
}

impl Groups {
    /// Adds a buffer that recordings copy from or to.
    pub fn buffer(&mut self, buffer: &wgpu::Buffer) -> BufferId {
        self.buffers.push(buffer.clone());
        BufferId(self.buffers.len() - 1)
    }

    /// Guards to hold while operations run, one for each of their kernels that runs for the first time.
    pub fn enter_first_runs(&self, ops: &[Op]) -> Vec<Compiling> {
        let runs = ops.iter().filter_map(|op| match op {
            Op::Run(bound, _) => bound.parts.first(),
            Op::Copy { .. } => None,
        });
        runs.filter_map(|part| self.groups[part.group.0].pipeline.first_run.enter()).collect()
    }
}

/// Binds kernels to buffers by the names of the bindings in their shaders.
pub(super) struct Binder<'a> {
    shared: &'a Shared,
    /// Slots per workgroup of a dense product.
    slot_tile: usize,
    /// Number of groups that exist already.
    first: usize,
    pending: Vec<Pending<'a>>,
    /// All parameters, each at a multiple of [`ALIGNMENT`].
    params: Vec<u8>,
}

/// A bind group to create.
struct Pending<'a> {
    kernel: &'static Kernel,
    pipeline: Arc<Pipeline>,
    /// Offset of its parameters, if the binder holds them.
    params: Option<u64>,
    resources: Vec<(&'static str, Resource<'a>)>,
}

#[maybe_async]
impl<'a> Binder<'a> {
    /// A binder of kernels compiled for `slot_tile` slots. Its groups follow those of `groups`.
    pub fn new(shared: &'a Shared, slot_tile: usize, groups: &Groups) -> Self {
        Self { shared, slot_tile, first: groups.groups.len(), pending: Vec::new(), params: Vec::new() }
    }

    /// Binds a kernel with constant `params`.
    pub fn with_params<P: bytemuck::Pod>(
        &mut self,
        kernel: &'static Kernel,
        params: P,
        resources: &[(&'static str, Resource<'a>)],
    ) -> Result<GroupId, BackendError> {
        let offset = self.params.len() as u64;
        self.params.extend_from_slice(bytemuck::bytes_of(&params));
        self.params.resize((offset + ALIGNMENT) as usize, 0);
        self.push(kernel, Some(offset), resources)
    }

    /// Binds a kernel to all resources that its shader names.
    pub fn bind(
        &mut self,
        kernel: &'static Kernel,
        resources: &[(&'static str, Resource<'a>)],
    ) -> Result<GroupId, BackendError> {
        self.push(kernel, None, resources)
    }

    fn push(
        &mut self,
        kernel: &'static Kernel,
        params: Option<u64>,
        resources: &[(&'static str, Resource<'a>)],
    ) -> Result<GroupId, BackendError> {
        let pipeline = self.shared.pipeline(kernel, self.slot_tile)?;
        self.pending.push(Pending { kernel, pipeline, params, resources: resources.to_vec() });
        Ok(GroupId(self.first + self.pending.len() - 1))
    }

    /// Uploads the parameters and creates the bind groups.
    pub async fn finish(self, groups: &mut Groups) -> Result<(), BackendError> {
        let gpu = &self.shared.gpu;
        if !gpu.stores_data {
            return gpu.check();
        }
        let usage = BufferUsages::UNIFORM | BufferUsages::COPY_DST;
        let params = gpu.buffer("the kernels' parameters", self.params.len() as u64, usage)?;
        gpu.upload(&params, 0, &self.params).await?;
        for Pending { kernel, pipeline, params: offset, mut resources } in self.pending {
            let own = offset.map(|offset| ("params", Resource::Buffer(&params, offset, Some(PARAMS_BYTES))));
            resources.extend(own);
            let group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(kernel.name),
                layout: &pipeline.layout,
                entries: &entries(kernel, &pipeline, &resources),
            });
            groups.groups.push(Group { pipeline, group });
        }
        gpu.check()
    }
}

/// A bind group's entries.
///
/// # Panics
/// If the names are not exactly those that the shader declares.
fn entries<'a>(
    kernel: &Kernel,
    pipeline: &Pipeline,
    resources: &[(&'static str, Resource<'a>)],
) -> Vec<wgpu::BindGroupEntry<'a>> {
    let declared = &pipeline.bindings;
    assert_eq!(declared.len(), resources.len(), "{}: {declared:?}", kernel.name);
    let entry = |&(name, resource): &(&'static str, Resource<'a>)| {
        let binding = declared.iter().find(|binding| binding.name == name);
        let binding = binding.unwrap_or_else(|| panic!("the shader of {} binds no {name:?}", kernel.name)).index;
        wgpu::BindGroupEntry { binding, resource: resource.bound() }
    };
    resources.iter().map(entry).collect()
}
