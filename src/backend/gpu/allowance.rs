//! The limits of an adapter that matter to the layout.

/// Limits of an adapter, as far as the layout is concerned.
#[derive(Clone, Debug)]
pub(super) struct Allowance {
    /// Name for error messages.
    pub device: String,
    /// Whether the adapter runs on the CPU.
    pub software: bool,
    /// Whether weights and states should lie in images.
    pub images: bool,
    /// Invocations of every subgroup, if kernels can rely on the number.
    pub subgroup: Option<u32>,
    /// Largest storage binding and buffer, bytes.
    pub max_binding: u64,
    /// Workgroup memory, bytes.
    pub workgroup_memory: u64,
    /// Most invocations in a workgroup.
    pub invocations: u32,
    /// Most workgroups in one dimension of a dispatch.
    pub workgroups: u64,
}
