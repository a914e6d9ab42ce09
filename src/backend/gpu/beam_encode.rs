//! Host side of `shaders/beam_encode.wgsl`; its parameters are [`super::encode::EncodeParams`].

use super::encode;
use super::kernels::{Binding, KernelSpec};

const SOURCES: &[&str] = &[
    include_str!("../../../shaders/step.wgsl"),
    include_str!("../../../shaders/vectors.wgsl"),
    include_str!("../../../shaders/exchange_workgroup.wgsl"),
    include_str!("../../../shaders/exchange_subgroup.wgsl"),
    include_str!("../../../shaders/norm.wgsl"),
    include_str!("../../../shaders/gather.wgsl"),
    include_str!("../../../shaders/residual.wgsl"),
    include_str!("../../../shaders/dense.wgsl"),
    include_str!("../../../shaders/rotary.wgsl"),
    include_str!("../../../shaders/activate.wgsl"),
    include_str!("../../../shaders/beam_encode.wgsl"),
];

/// The first layer: starts from the token's embedding.
pub(super) const FIRST: KernelSpec = KernelSpec {
    name: "beam/embed",
    entry: encode::FIRST.entry,
    sources: SOURCES,
    bindings: &encode::bindings(Binding::Read, Binding::Write),
};

/// Every other layer: finishes the one before.
pub(super) const KERNEL: KernelSpec = KernelSpec {
    name: "beam/encode",
    entry: encode::KERNEL.entry,
    sources: SOURCES,
    bindings: &encode::bindings(Binding::ReadFloats, Binding::Write),
};
