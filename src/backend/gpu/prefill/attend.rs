//! Host side of `shaders/prefill/attend.wgsl`: both shares of the attention output, added and
//! normalised.
//!
//! Experiments: `docs/performance/prefill.md#prefillattend`.

use crate::backend::BackendError;
use crate::backend::gpu::binding::Resource;
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Canary, Kernel, Phase, neuron_block, usual_workgroup};
use crate::backend::gpu::prefill::buffers::ChunkBuffers;
use crate::backend::gpu::prefill::shape::Shape;
use crate::backend::gpu::recording::{Bound, GroupId};

pub static KERNEL: Kernel = Kernel {
    name: "prefill/attend",
    phase: Phase::Prefill,
    shader: "prefill/attend",
    workgroup: usual_workgroup,
    block: neuron_block,
    tiled: false,
    dynamic: &[],
    canary: Canary { right: "s < t; s++", wrong: "s <= t; s++" },
    cost: None,
};

/// Binds the kernel.
pub fn bind<'a>(binder: &mut Binder<'a>, buffers: &'a ChunkBuffers) -> Result<GroupId, BackendError> {
    let resources = [
        ("params", buffers.params(0)),
        ("tokens", Resource::whole(&buffers.tokens)),
        ("chunk_residual", buffers.residual.resource()),
        ("scores", Resource::whole(&buffers.scores)),
        ("partials", Resource::whole(&buffers.attention_shares)),
        ("attention", Resource::whole(&buffers.attention)),
    ];
    binder.bind(&KERNEL, &resources)
}

/// One workgroup per token and head.
pub fn dispatch(shape: Shape, group: GroupId) -> Bound {
    shape.one(&KERNEL, group, [shape.tokens as u32, shape.layout.geometry.heads as u32, 1])
}
