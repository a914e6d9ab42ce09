//! Host side of `shaders/prefill/write.wgsl`: the tokens enter the state.
//!
//! Experiments: `docs/performance/prefill.md#prefillwrite`.

use crate::backend::BackendError;
use crate::backend::gpu::binding::Resource;
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Canary, Kernel, Phase, neuron_block, usual_workgroup};
use crate::backend::gpu::pages::Page;
use crate::backend::gpu::prefill::buffers::ChunkBuffers;
use crate::backend::gpu::prefill::shape::Shape;
use crate::backend::gpu::recording::{Bound, GroupId};

pub static KERNEL: Kernel = Kernel {
    name: "prefill/write",
    phase: Phase::Prefill,
    shader: "prefill/write",
    workgroup: usual_workgroup,
    block: neuron_block,
    tiled: false,
    dynamic: &[],
    canary: Canary { right: "add_scaled(row, q1[k], x[1][c])", wrong: "add_scaled(row, -q1[k], x[1][c])" },
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
        ("chunk_residual", buffers.residual.resource()),
        ("state", page.store.resource()),
    ];
    binder.bind(&KERNEL, &resources)
}

/// One invocation per tile of neurons and its columns of a row.
pub fn dispatch(shape: Shape, groups: &[GroupId]) -> Bound {
    let tiles = shape.layout.geometry.block / shape.layout.chunk.written_neurons;
    shape.blocks(&KERNEL, groups, tiles * shape.row_share())
}
