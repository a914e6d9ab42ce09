//! Host side of `shaders/sample.wgsl`; its parameters are [`crate::sampling::SamplerParams`].

use super::kernels::{Binding, KernelSpec};

/// Logits to a token, for every slot.
pub(super) const KERNEL: KernelSpec = KernelSpec {
    name: "sample",
    entry: "main",
    sources: &[include_str!("../../../shaders/penalties.wgsl"), include_str!("../../../shaders/sample.wgsl")],
    bindings: &[
        Binding::Read,
        Binding::Read,
        Binding::Write,
        Binding::Write,
        Binding::ReadStep,
        Binding::WriteStep,
        Binding::Uniform,
    ],
};
