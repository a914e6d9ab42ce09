//! Host side of `shaders/rescale.wgsl`.

use super::kernels::{Binding, KernelSpec};

/// Mirrors `RescaleParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct RescaleParams {
    pub slot_begin: u32,
    pub block_count: u32,
    pub stripes: u32,
    pub recent_begin: u32,
    pub slot_stride: u32,
    pub padding: [u32; 3],
}

/// Workgroups that share `size` vectors of a slot's part of a page.
pub(super) fn stripes(size: u32, workgroup: u32) -> u32 {
    size.div_ceil(workgroup).clamp(1, 1024)
}

/// Multiplies states and the windows' residuals by the forgetting's factors.
pub(super) const KERNEL: KernelSpec = KernelSpec {
    name: "rescale",
    entry: "main",
    sources: &[
        include_str!("../../../shaders/step.wgsl"),
        include_str!("../../../shaders/memory.wgsl"),
        include_str!("../../../shaders/rescale.wgsl"),
    ],
    bindings: &[Binding::Uniform, Binding::ReadStep, Binding::Read, Binding::WriteFloats],
};
