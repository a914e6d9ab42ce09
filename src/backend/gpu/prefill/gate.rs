//! Host side of `shaders/prefill/gate.wgsl`: attention output to gates.
//!
//! Experiments: `docs/performance/prefill.md#prefillgate`.

use crate::backend::BackendError;
use crate::backend::gpu::binding::Resource;
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Canary, Kernel, Phase, neuron_block, usual_workgroup};
use crate::backend::gpu::prefill::buffers::ChunkBuffers;
use crate::backend::gpu::prefill::shape::Shape;
use crate::backend::gpu::recording::{Bound, GroupId};
use crate::backend::gpu::weights::Weights;

pub static KERNEL: Kernel = Kernel {
    name: "prefill/gate",
    phase: Phase::Prefill,
    shader: "prefill/gate",
    workgroup: usual_workgroup,
    block: neuron_block,
    tiled: false,
    dynamic: &[],
    canary: Canary { right: "u * relu(vec4(sum)).x", wrong: "u * vec4(sum).x" },
    cost: None,
};

/// Binds the kernel for a segment.
pub fn bind<'a>(
    binder: &mut Binder<'a>,
    weights: &'a Weights,
    buffers: &'a ChunkBuffers,
    segment: usize,
) -> Result<GroupId, BackendError> {
    let resources = [
        ("params", buffers.params(segment)),
        ("attention", Resource::whole(&buffers.attention)),
        ("value_rows", weights.encoder_v[segment].resource()),
        ("activations", Resource::whole(&buffers.activations[segment])),
    ];
    binder.bind(&KERNEL, &resources)
}

/// One invocation per tile of tokens and its neurons of a block.
pub fn dispatch(shape: Shape, groups: &[GroupId]) -> Bound {
    let invocations = shape.tiles() * shape.layout.geometry.block / shape.layout.chunk.gate_neurons;
    shape.blocks(&KERNEL, groups, invocations)
}
