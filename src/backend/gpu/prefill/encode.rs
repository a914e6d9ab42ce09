//! Host side of `shaders/prefill/encode.wgsl`: residual stream to activations.
//!
//! Experiments: `docs/performance/prefill.md#prefillencode`.

use crate::backend::BackendError;
use crate::backend::gpu::binding::Resource;
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Canary, Kernel, Phase, neuron_block, usual_workgroup};
use crate::backend::gpu::prefill::buffers::ChunkBuffers;
use crate::backend::gpu::prefill::shape::Shape;
use crate::backend::gpu::recording::{Bound, GroupId};
use crate::backend::gpu::weights::Weights;

pub static KERNEL: Kernel = Kernel {
    name: "prefill/encode",
    phase: Phase::Prefill,
    shader: "prefill/encode",
    workgroup: usual_workgroup,
    block: neuron_block,
    tiled: false,
    dynamic: &[],
    canary: Canary { right: "column] = relu(sum)", wrong: "column] = relu(sum.yxzw)" },
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
        ("chunk_residual", buffers.residual.resource()),
        ("dense_weights", weights.encoder[segment].resource()),
        ("results", Resource::whole(&buffers.activations[segment])),
    ];
    binder.bind(&KERNEL, &resources)
}

/// One invocation per tile of tokens and its columns of a block.
pub fn dispatch(shape: Shape, groups: &[GroupId]) -> Bound {
    let invocations = shape.tiles() * shape.layout.geometry.block / (4 * shape.layout.chunk.columns);
    shape.blocks(&KERNEL, groups, invocations)
}
