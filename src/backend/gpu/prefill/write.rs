//! Host side of `shaders/prefill/write.wgsl`: the tokens enter the state.
//!
//! Experiments: `docs/performance/prefill.md#prefillwrite`.

use crate::backend::BackendError;
use crate::backend::gpu::binding::Resource;
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Canary, Kernel, Phase, neuron_block, usual_workgroup};
use crate::backend::gpu::layout::Layout;
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
        ("memory", page.store.resource()),
    ];
    binder.bind(&KERNEL, &resources)
}

/// One invocation per tile of neurons and its columns of a row.
pub fn dispatch(shape: Shape, groups: &[GroupId]) -> Bound {
    let layout = shape.layout;
    let tiles = layout.geometry.block / layout.chunk.written_neurons;
    let (lanes, busy) = lanes(layout);
    shape.each(&KERNEL, groups, &layout.segments, |segment| {
        [(tiles * lanes).div_ceil(busy) as u32, segment.len() as u32, 1]
    })
}

/// Invocations that share a row of the state, and those of a workgroup that have work: `ROW_SHARE`
/// and `BUSY` of the shader.
fn lanes(layout: &Layout) -> (usize, usize) {
    let (columns, workgroup) = (layout.geometry.row / 4, layout.workgroup as usize);
    match layout.pack() {
        1 => (columns.div_ceil(layout.chunk.columns), workgroup),
        pack => {
            let own = layout.chunk.columns.max(columns.div_ceil(workgroup)).next_multiple_of(pack);
            let lanes = columns.div_ceil(own);
            (lanes, workgroup / lanes * lanes)
        }
    }
}
