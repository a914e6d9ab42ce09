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
    include_str!("../../../shaders/gather.wgsl"),
    include_str!("../../../shaders/residual.wgsl"),
    include_str!("../../../shaders/dense.wgsl"),
    include_str!("../../../shaders/compact.wgsl"),
    include_str!("../../../shaders/rotary.wgsl"),
    include_str!("../../../shaders/memory.wgsl"),
    include_str!("../../../shaders/fold.wgsl"),
    include_str!("../../../shaders/activate.wgsl"),
    include_str!("../../../shaders/encode.wgsl"),
    include_str!("../../../shaders/scratch.wgsl"),
    include_str!("../../../shaders/attend_buffers.wgsl"),
    include_str!("../../../shaders/attend_images.wgsl"),
];

/// Bindings of a kernel that encodes: `beam_encode` binds nodes where this one binds states, and has no scratch.
pub(super) const fn bindings(memory: Binding) -> [Binding; 9] {
    [
        Binding::Uniform,
        Binding::ReadStep,
        Binding::Read,
        Binding::Read,
        Binding::Write,
        Binding::Weights,
        Binding::Read,
        memory,
        Binding::Write,
    ]
}

const fn with_scratch(bindings: [Binding; 9]) -> [Binding; 10] {
    let [a, b, c, d, e, f, g, h, i] = bindings;
    [a, b, c, d, e, f, g, h, i, Binding::Scratch]
}

const BINDINGS: &[Binding] = &with_scratch(bindings(Binding::WriteState));

/// The first layer: starts from the token's embedding.
pub(super) const FIRST: KernelSpec = KernelSpec { name: "embed", entry: "first", sources: SOURCES, bindings: BINDINGS };

/// Every other layer: finishes the one before.
pub(super) const KERNEL: KernelSpec =
    KernelSpec { name: "encode", entry: "main", sources: SOURCES, bindings: BINDINGS };
