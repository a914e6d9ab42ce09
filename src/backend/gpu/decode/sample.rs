//! Host side of `shaders/decode/sample.wgsl`; its parameters are
//! [`crate::sampling::SamplerParams`].
//!
//! Experiments: `docs/performance/decode.md#decodesample`.

use crate::backend::BackendError;
use crate::backend::gpu::activations::Activations;
use crate::backend::gpu::binding::Resource;
use crate::backend::gpu::cost::{Access, Cost, Dispatch};
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Canary, Kernel, Phase, neuron_block};
use crate::backend::gpu::layout::Layout;
use crate::backend::gpu::recording::{Bound, Part};
use crate::backend::gpu::weights::Weights;

pub static KERNEL: Kernel = Kernel {
    name: "sample",
    phase: Phase::Decode,
    shader: "decode/sample",
    workgroup: Layout::sample_workgroup,
    block: neuron_block,
    tiled: false,
    dynamic: &["steps", "ring"],
    canary: Canary { right: "samplers[slot].token =", wrong: "samplers[slot].token = 1u ^" },
    cost: Some(cost),
};

/// A draw from all tokens, without biases, top-k or top-p.
fn cost(d: &Dispatch) -> Cost {
    let slots = d.slots_of(d.workgroups[0]);
    let own_tokens = d.layout.geometry.vocab.div_ceil(d.invocations) as f64;
    let numbers = slots * (d.layout.geometry.vocab * 8) as f64;
    Cost::default()
        .access(Access::cached("sampler and options", slots * 128.0, slots * 128.0).rounds(2.0))
        .access(Access::cached("logits and counts", numbers, numbers).rounds(own_tokens))
        .access(Access::cached("token and record", slots * 64.0, slots * 64.0).rounds(2.0))
        // Messages, and a prefix sum over the invocations.
        .barriers(12 + d.invocations.ilog2())
}

/// Options, token counts, biases and the ring of drawn tokens.
#[derive(Clone, Copy)]
pub struct SamplerBuffers<'a> {
    /// `[slots]`
    pub params: &'a wgpu::Buffer,
    /// `[slots, V]`
    pub counts: &'a wgpu::Buffer,
    /// `[slots, V]`, for options with biases
    pub biases: &'a wgpu::Buffer,
    /// Drawn tokens, one per slot and step.
    pub ring: &'a wgpu::Buffer,
}

/// Binds the kernel: logits to one token per slot.
pub fn bind<'a>(
    binder: &mut Binder<'a>,
    weights: &'a Weights,
    activations: &'a Activations,
    sampler: SamplerBuffers<'a>,
) -> Result<Bound, BackendError> {
    let slots = activations.count as u32;
    let resources = [
        ("logits", Resource::whole(&activations.logits)),
        ("params", Resource::whole(sampler.params)),
        ("counts", Resource::whole(sampler.counts)),
        ("samplers", Resource::whole(&activations.samplers)),
        ("steps", activations.step()),
        ("ring", Resource::entry(sampler.ring, u64::from(slots) * 4)),
        ("tables", Resource::whole(&weights.tables)),
        ("biases", Resource::whole(sampler.biases)),
    ];
    let group = binder.bind(&KERNEL, &resources)?;
    Ok(Bound { kernel: &KERNEL, parts: [Part { group, workgroups: [slots, 1, 1] }].into() })
}
