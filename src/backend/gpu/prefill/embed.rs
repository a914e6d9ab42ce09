//! Host side of `shaders/prefill/embed.wgsl`: the first layer's residual stream.
//!
//! Experiments: `docs/performance/prefill.md#prefillembed`.

use crate::backend::BackendError;
use crate::backend::gpu::binding::Resource;
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Canary, Kernel, Phase, neuron_block, usual_workgroup};
use crate::backend::gpu::prefill::buffers::ChunkBuffers;
use crate::backend::gpu::prefill::shape::Shape;
use crate::backend::gpu::recording::{Bound, GroupId};
use crate::backend::gpu::weights::Weights;

pub static KERNEL: Kernel = Kernel {
    name: "prefill/embed",
    phase: Phase::Prefill,
    shader: "prefill/embed",
    workgroup: usual_workgroup,
    block: neuron_block,
    tiled: false,
    dynamic: &[],
    canary: Canary { right: "scaled = x * tokens[t].write_scale", wrong: "scaled = x" },
    cost: None,
};

/// Binds the kernel.
pub fn bind<'a>(
    binder: &mut Binder<'a>,
    weights: &'a Weights,
    buffers: &'a ChunkBuffers,
) -> Result<GroupId, BackendError> {
    let resources = [
        ("params", buffers.params(0)),
        ("tokens", Resource::whole(&buffers.tokens)),
        ("embedding", Resource::whole(&weights.embed)),
        ("chunk_residual", buffers.residual.resource()),
    ];
    binder.bind(&KERNEL, &resources)
}

/// One workgroup per token of the tiles.
pub fn dispatch(shape: Shape, group: GroupId) -> Bound {
    shape.one(&KERNEL, group, [shape.padded_tokens(), 1, 1])
}
