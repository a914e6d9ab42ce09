//! Host side of `shaders/prefill/scores.wgsl`: products between the chunk's tokens.
//!
//! Experiments: `docs/performance/prefill.md#prefillscores`.

use crate::backend::BackendError;
use crate::backend::gpu::binding::Resource;
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Canary, Kernel, Phase, neuron_block, usual_workgroup};
use crate::backend::gpu::prefill::buffers::ChunkBuffers;
use crate::backend::gpu::prefill::shape::Shape;
use crate::backend::gpu::recording::{Bound, GroupId};

pub static KERNEL: Kernel = Kernel {
    name: "prefill/scores",
    phase: Phase::Prefill,
    shader: "prefill/scores",
    workgroup: usual_workgroup,
    block: neuron_block,
    tiled: false,
    dynamic: &[],
    canary: Canary { right: "sums[t][s] += dot(q, keys[s])", wrong: "sums[t][s] += dot(q.yxzw, keys[s])" },
    cost: None,
};

/// Binds the kernel for a segment.
pub fn bind<'a>(binder: &mut Binder<'a>, buffers: &'a ChunkBuffers, segment: usize) -> Result<GroupId, BackendError> {
    let resources = [
        ("params", buffers.params(segment)),
        ("rotated", Resource::whole(&buffers.rotated[segment])),
        ("scores", Resource::whole(&buffers.scores)),
    ];
    binder.bind(&KERNEL, &resources)
}

/// One invocation per pair of tiles on or below the diagonal.
pub fn dispatch(shape: Shape, groups: &[GroupId]) -> Bound {
    shape.blocks(&KERNEL, groups, shape.tiles() * (shape.tiles() + 1) / 2)
}
