//! Host side of `shaders/beam_fold.wgsl`.

use super::kernels::{Binding, KernelSpec};

/// Most nodes that one dispatch folds: llvmpipe ends an invocation's loops after 65,535 turns.
pub(super) const MOST_FOLDS: usize = 4;

/// Mirrors `BeamFoldParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct BeamFoldParams {
    pub block_begin: u32,
    pub padding: [u32; 3],
}

/// Nodes into the base state.
pub(super) const KERNEL: KernelSpec = KernelSpec {
    name: "beam/fold",
    entry: "main",
    sources: &[
        include_str!("../../../shaders/vectors.wgsl"),
        include_str!("../../../shaders/compact_workgroup.wgsl"),
        include_str!("../../../shaders/compact_subgroup.wgsl"),
        include_str!("../../../shaders/memory.wgsl"),
        include_str!("../../../shaders/beam_fold.wgsl"),
    ],
    bindings: &[Binding::Uniform, Binding::ReadStep, Binding::Read, Binding::WriteFloats],
};
