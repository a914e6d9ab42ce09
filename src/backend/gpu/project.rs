//! Host side of `shaders/project.wgsl`.

use super::kernels::{Binding, KernelSpec};

/// Mirrors `ProjectParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct ProjectParams {
    pub block_begin: u32,
    pub padding: [u32; 3],
}

/// Attention output to decoder output.
pub(super) const KERNEL: KernelSpec = KernelSpec {
    name: "project",
    entry: "main",
    sources: &[
        include_str!("../../../shaders/step.wgsl"),
        include_str!("../../../shaders/vectors.wgsl"),
        include_str!("../../../shaders/exchange_workgroup.wgsl"),
        include_str!("../../../shaders/exchange_subgroup.wgsl"),
        include_str!("../../../shaders/norm.wgsl"),
        include_str!("../../../shaders/gather.wgsl"),
        include_str!("../../../shaders/compact_workgroup.wgsl"),
        include_str!("../../../shaders/compact_subgroup.wgsl"),
        include_str!("../../../shaders/ask_subgroup.wgsl"),
        include_str!("../../../shaders/project.wgsl"),
        include_str!("../../../shaders/project_workgroup.wgsl"),
        include_str!("../../../shaders/project_subgroup.wgsl"),
    ],
    bindings: &[
        Binding::Uniform,
        Binding::ReadStep,
        Binding::Read,
        Binding::ReadFloats,
        Binding::Weights,
        Binding::Weights,
        Binding::WriteFloats,
    ],
};
