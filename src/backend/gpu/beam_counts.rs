//! Host side of `shaders/beam_counts.wgsl`.

use super::kernels::{Binding, KernelSpec};

/// Mirrors `BeamCountsParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct BeamCountsParams {
    pub stripes: u32,
    pub padding: [u32; 3],
}

/// Workgroups that share a beam's counts.
pub(super) fn stripes(vocab: usize, workgroup: u32) -> u32 {
    (vocab as u32).div_ceil(8 * workgroup).clamp(1, 1024)
}

/// Token counts follow their beam.
pub(super) const KERNEL: KernelSpec = KernelSpec {
    name: "beam/counts",
    entry: "main",
    sources: &[include_str!("../../../shaders/beam_counts.wgsl")],
    bindings: &[Binding::Uniform, Binding::Read, Binding::Read, Binding::Write],
};
