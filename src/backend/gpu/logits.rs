//! Host side of `shaders/logits.wgsl`.

use super::kernels::{Binding, KernelSpec};

/// Mirrors `LogitsParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct LogitsParams {
    pub block_begin: u32,
    pub parity: u32,
    pub slot_end: u32,
    pub padding: u32,
}

/// Residual stream to logits.
pub(super) const KERNEL: KernelSpec = KernelSpec {
    name: "logits",
    entry: "main",
    sources: &[
        include_str!("../../../shaders/step.wgsl"),
        include_str!("../../../shaders/vectors.wgsl"),
        include_str!("../../../shaders/exchange_workgroup.wgsl"),
        include_str!("../../../shaders/exchange_subgroup.wgsl"),
        include_str!("../../../shaders/norm.wgsl"),
        include_str!("../../../shaders/gather.wgsl"),
        include_str!("../../../shaders/residual.wgsl"),
        include_str!("../../../shaders/dense.wgsl"),
        include_str!("../../../shaders/logits.wgsl"),
    ],
    bindings: &[
        Binding::Uniform,
        Binding::ReadStep,
        Binding::Read,
        Binding::ReadFloats,
        Binding::Read,
        Binding::Weights,
        Binding::Write,
    ],
};
