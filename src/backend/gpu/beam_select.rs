//! Host side of `shaders/beam_select.wgsl`.

use super::kernels::{Binding, KernelSpec};

/// Mirrors `BeamSelectParams`.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct BeamSelectParams {
    pub beams: u32,
    pub candidates: u32,
    pub generated: u32,
    pub padding: u32,
}

/// Mirrors `Beam`.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct BeamRecord {
    pub parent: u32,
    pub token: u32,
    pub score: f32,
    pub slot: u32,
}

/// Numbers in an entry of the selection that is read back: mirrors its vec4.
pub(super) const SELECTED: usize = 4;

const SOURCES: &[&str] = &[
    include_str!("../../../shaders/vectors.wgsl"),
    include_str!("../../../shaders/exchange_workgroup.wgsl"),
    include_str!("../../../shaders/exchange_subgroup.wgsl"),
    include_str!("../../../shaders/penalties.wgsl"),
    include_str!("../../../shaders/beam_select.wgsl"),
];

const BINDINGS: &[Binding] =
    &[Binding::Uniform, Binding::Read, Binding::Read, Binding::Read, Binding::Read, Binding::Write, Binding::Write];

/// A beam's best candidates.
pub(super) const KERNEL: KernelSpec =
    KernelSpec { name: "beam/select", entry: "main", sources: SOURCES, bindings: BINDINGS };

/// The best of all beams.
pub(super) const MERGE: KernelSpec =
    KernelSpec { name: "beam/merge", entry: "merge", sources: SOURCES, bindings: BINDINGS };
