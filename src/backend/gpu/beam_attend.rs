//! Host side of `shaders/beam_attend.wgsl`.

use super::kernels::{Binding, KernelSpec};

/// Mirrors `BeamAttendParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct BeamAttendParams {
    pub block_begin: u32,
    pub padding: [u32; 3],
}

/// Base state and path to attention output.
pub(super) const KERNEL: KernelSpec = KernelSpec {
    name: "beam/attend",
    entry: "main",
    sources: &[
        include_str!("../../../shaders/step.wgsl"),
        include_str!("../../../shaders/vectors.wgsl"),
        include_str!("../../../shaders/compact_workgroup.wgsl"),
        include_str!("../../../shaders/compact_subgroup.wgsl"),
        include_str!("../../../shaders/memory.wgsl"),
        include_str!("../../../shaders/beam_attend.wgsl"),
    ],
    bindings: &[
        Binding::Uniform,
        Binding::ReadStep,
        Binding::Read,
        Binding::Read,
        Binding::Read,
        Binding::ReadFloats,
        Binding::WriteFloats,
    ],
};
