//! Host side of `shaders/prefill/finish.wgsl`: the residual stream of a later layer.
//!
//! Experiments: `docs/performance/prefill.md#prefillfinish`.

use crate::backend::BackendError;
use crate::backend::gpu::binding::Resource;
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Canary, Kernel, Phase, neuron_block, usual_workgroup};
use crate::backend::gpu::prefill::buffers::ChunkBuffers;
use crate::backend::gpu::prefill::shape::Shape;
use crate::backend::gpu::recording::{Bound, GroupId};

pub static KERNEL: Kernel = Kernel {
    name: "prefill/finish",
    phase: Phase::Prefill,
    shader: "prefill/finish",
    workgroup: usual_workgroup,
    block: neuron_block,
    tiled: false,
    dynamic: &[],
    canary: Canary {
        right: "columns[k] += load_chunk_residual(t * ROW4 + c);",
        wrong: "columns[k] += 0.99 * load_chunk_residual(t * ROW4 + c);",
    },
    cost: None,
};

/// Binds the kernel.
pub fn bind<'a>(binder: &mut Binder<'a>, buffers: &'a ChunkBuffers) -> Result<GroupId, BackendError> {
    let resources = [
        ("params", buffers.params(0)),
        ("tokens", Resource::whole(&buffers.tokens)),
        ("partials", Resource::whole(&buffers.updates)),
        ("chunk_residual", buffers.residual.resource()),
    ];
    binder.bind(&KERNEL, &resources)
}

/// One workgroup per token of the tiles.
pub fn dispatch(shape: Shape, group: GroupId) -> Bound {
    shape.one(&KERNEL, group, [shape.padded_tokens(), 1, 1])
}
