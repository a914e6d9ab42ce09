//! Host side of `shaders/settle.wgsl`.

use super::kernels::{Binding, KernelSpec};

/// Mirrors `SettleParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct SettleParams {
    pub slot_begin: u32,
    pub slot_stride: u32,
    pub recent_begin: u32,
    pub padding: u32,
}

/// Windows into states.
pub(super) const KERNEL: KernelSpec = KernelSpec {
    name: "settle",
    entry: "main",
    sources: &[
        include_str!("../../../shaders/step.wgsl"),
        include_str!("../../../shaders/vectors.wgsl"),
        include_str!("../../../shaders/memory.wgsl"),
        include_str!("../../../shaders/fold_workgroup.wgsl"),
        include_str!("../../../shaders/fold_subgroup.wgsl"),
        include_str!("../../../shaders/fold.wgsl"),
        include_str!("../../../shaders/settle.wgsl"),
    ],
    bindings: &[Binding::Uniform, Binding::ReadStep, Binding::Read, Binding::WriteFloats],
};
