//! Host side of `shaders/encode.wgsl`.

use super::kernels::{Binding, KernelSpec};

/// Mirrors `EncodeParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct EncodeParams {
    pub slot_begin: u32,
    pub slot_end: u32,
    pub block_begin: u32,
    pub slot_stride: u32,
    pub parity: u32,
    pub recent_begin: u32,
    pub padding: [u32; 2],
}

const SOURCES: &[&str] = &[
    include_str!("../../../shaders/step.wgsl"),
    include_str!("../../../shaders/vectors.wgsl"),
    include_str!("../../../shaders/exchange_workgroup.wgsl"),
    include_str!("../../../shaders/exchange_subgroup.wgsl"),
    include_str!("../../../shaders/norm.wgsl"),
    include_str!("../../../shaders/gather.wgsl"),
    include_str!("../../../shaders/residual.wgsl"),
    include_str!("../../../shaders/dense.wgsl"),
    include_str!("../../../shaders/compact_workgroup.wgsl"),
    include_str!("../../../shaders/compact_subgroup.wgsl"),
    include_str!("../../../shaders/rotary.wgsl"),
    include_str!("../../../shaders/memory.wgsl"),
    include_str!("../../../shaders/ask_subgroup.wgsl"),
    include_str!("../../../shaders/fold_workgroup.wgsl"),
    include_str!("../../../shaders/fold_subgroup.wgsl"),
    include_str!("../../../shaders/fold.wgsl"),
    include_str!("../../../shaders/activate.wgsl"),
    include_str!("../../../shaders/encode.wgsl"),
    include_str!("../../../shaders/attend_workgroup.wgsl"),
    include_str!("../../../shaders/attend_subgroup.wgsl"),
];

/// Bindings of a kernel that encodes, which starts from embeddings or from updates: `beam_encode` binds nodes where this one
/// binds states.
pub(super) const fn bindings(source: Binding, memory: Binding) -> [Binding; 9] {
    [
        Binding::Uniform,
        Binding::ReadStep,
        Binding::Read,
        source,
        Binding::Write,
        Binding::Weights,
        Binding::Read,
        memory,
        Binding::WriteFloats,
    ]
}

/// The first layer: starts from the token's embedding.
pub(super) const FIRST: KernelSpec = KernelSpec {
    name: "embed",
    entry: "first",
    sources: SOURCES,
    bindings: &bindings(Binding::Read, Binding::WriteFloats),
};

/// Every other layer: finishes the one before.
pub(super) const KERNEL: KernelSpec = KernelSpec {
    name: "encode",
    entry: "main",
    sources: SOURCES,
    bindings: &bindings(Binding::ReadFloats, Binding::WriteFloats),
};
