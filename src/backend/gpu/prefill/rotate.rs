//! Host side of `shaders/prefill/rotate.wgsl`: activations to rotated activations.
//!
//! Experiments: `docs/performance/prefill.md#prefillrotate`.

use crate::backend::BackendError;
use crate::backend::gpu::binding::Resource;
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Canary, Kernel, Phase, neuron_block, usual_workgroup};
use crate::backend::gpu::prefill::buffers::ChunkBuffers;
use crate::backend::gpu::prefill::shape::Shape;
use crate::backend::gpu::recording::{Bound, GroupId};
use crate::backend::gpu::weights::Weights;

pub static KERNEL: Kernel = Kernel {
    name: "prefill/rotate",
    phase: Phase::Prefill,
    shader: "prefill/rotate",
    workgroup: usual_workgroup,
    block: neuron_block,
    tiled: false,
    dynamic: &[],
    canary: Canary { right: "params.position + group.y", wrong: "params.position + group.y + 1u" },
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
        ("turns", Resource::whole(&weights.turns)),
        ("activations", Resource::whole(&buffers.activations[segment])),
        ("rotated", Resource::whole(&buffers.rotated[segment])),
    ];
    binder.bind(&KERNEL, &resources)
}

/// One invocation per four neurons of a token.
pub fn dispatch(shape: Shape, groups: &[GroupId]) -> Bound {
    let fours = |blocks: usize| blocks * shape.layout.geometry.block / 4;
    shape.each(&KERNEL, groups, &shape.layout.segments, |segment| {
        [shape.workgroups(fours(segment.len())), shape.padded_tokens(), 1]
    })
}
