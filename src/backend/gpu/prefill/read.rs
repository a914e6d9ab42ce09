//! Host side of `shaders/prefill/read.wgsl`: the state's share of the attention output.
//!
//! Experiments: `docs/performance/prefill.md#prefillread`.

use crate::backend::BackendError;
use crate::backend::gpu::binding::Resource;
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Canary, Kernel, Phase, neuron_block, usual_workgroup};
use crate::backend::gpu::pages::Page;
use crate::backend::gpu::prefill::buffers::ChunkBuffers;
use crate::backend::gpu::prefill::shape::Shape;
use crate::backend::gpu::recording::{Bound, GroupId};

pub static KERNEL: Kernel = Kernel {
    name: "prefill/read",
    phase: Phase::Prefill,
    shader: "prefill/read",
    workgroup: usual_workgroup,
    block: neuron_block,
    tiled: false,
    dynamic: &[],
    canary: Canary {
        right: "sums[t][c] = add_scaled(sum, q.w, r3[c])",
        wrong: "sums[t][c] = add_scaled(sum, q.w, r2[c])",
    },
    cost: None,
};

/// Binds the kernel to a page of a slot's state.
pub fn bind<'a>(
    binder: &mut Binder<'a>,
    buffers: &'a ChunkBuffers,
    page: &'a Page,
    segment: usize,
) -> Result<GroupId, BackendError> {
    let resources = [
        ("params", buffers.params(segment)),
        ("rotated", Resource::whole(&buffers.rotated[segment])),
        ("memory", page.store.resource()),
        ("attention", Resource::whole(&buffers.attention_shares)),
    ];
    binder.bind(&KERNEL, &resources)
}

/// One invocation per tile of tokens and its columns of a row.
pub fn dispatch(shape: Shape, groups: &[GroupId]) -> Bound {
    shape.blocks(&KERNEL, groups, shape.tiles() * shape.row_share())
}
