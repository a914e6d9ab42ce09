//! Host side of `shaders/prefill/logits.wgsl`: residual stream to logits.
//!
//! Experiments: `docs/performance/prefill.md#prefilllogits`.

use crate::backend::BackendError;
use crate::backend::gpu::binding::Resource;
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Canary, Kernel, Phase, usual_workgroup, vocab_block};
use crate::backend::gpu::prefill::buffers::ChunkBuffers;
use crate::backend::gpu::prefill::shape::Shape;
use crate::backend::gpu::recording::{Bound, GroupId};
use crate::backend::gpu::weights::Weights;

pub static KERNEL: Kernel = Kernel {
    name: "prefill/logits",
    phase: Phase::Prefill,
    shader: "prefill/logits",
    workgroup: usual_workgroup,
    block: vocab_block,
    tiled: false,
    dynamic: &[],
    canary: Canary { right: "column] = sum;", wrong: "column] = sum.yxzw;" },
    cost: None,
};

/// Binds the kernel for a segment of the LM head, with the `params`-th set of parameters.
pub fn bind<'a>(
    binder: &mut Binder<'a>,
    weights: &'a Weights,
    buffers: &'a ChunkBuffers,
    params: usize,
    segment: usize,
) -> Result<GroupId, BackendError> {
    let resources = [
        ("params", buffers.params(params)),
        ("chunk_residual", buffers.residual.resource()),
        ("dense_weights", weights.lm_head[segment].resource()),
        ("results", Resource::whole(&buffers.logits)),
    ];
    binder.bind(&KERNEL, &resources)
}

/// One invocation per tile of tokens and its columns of a block.
pub fn dispatch(shape: Shape, groups: &[GroupId]) -> Bound {
    let invocations = shape.tiles() * shape.layout.vocab_block / (4 * shape.layout.chunk.columns);
    shape.each(&KERNEL, groups, &shape.layout.lm_head_segments, |segment| {
        [shape.workgroups(invocations), segment.len() as u32, 1]
    })
}
