//! Host side of `shaders/beam/fold.wgsl`: nodes folded into the base state.
//!
//! Experiments: `docs/performance/beams.md#beamfold`.

use crate::backend::BackendError;
use crate::backend::gpu::beam::buffers::BeamBuffers;
use crate::backend::gpu::binding::Resource;
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Canary, Kernel, Phase, neuron_block};
use crate::backend::gpu::layout::Layout;
use crate::backend::gpu::pages::Page;
use crate::backend::gpu::recording::{Bound, Part};
use crate::host_struct::host_struct;

host_struct!("BeamFoldParams");

/// Most nodes folded by one dispatch: llvmpipe ends an invocation's loops after 65,535 iterations.
pub const MOST_FOLDS: usize = 4;

pub static KERNEL: Kernel = Kernel {
    name: "beam/fold",
    phase: Phase::Beam,
    shader: "beam/fold",
    workgroup: Layout::search_workgroup,
    block: neuron_block,
    tiled: false,
    dynamic: &["folds"],
    canary: Canary { right: "][n % 4u], x)", wrong: "][(n + 1u) % 4u], x)" },
    cost: None,
};

/// Binds the kernel for a layer of states, one part per page of the base state.
pub fn bind<'a>(
    binder: &mut Binder<'a>,
    buffers: &'a BeamBuffers,
    nodes: &'a wgpu::Buffer,
    base: &'a [Page],
) -> Result<Bound, BackendError> {
    let part = |page: &'a Page| {
        let params = BeamFoldParams { block_begin: page.segment.start as u32 };
        let resources =
            [("folds", buffers.fold_group()), ("nodes", Resource::whole(nodes)), ("memory", page.store.resource())];
        let group = binder.with_params(&KERNEL, params, &resources)?;
        Ok(Part { group, workgroups: [page.segment.len() as u32, 1, 1] })
    };
    Ok(Bound { kernel: &KERNEL, parts: base.iter().map(part).collect::<Result<_, BackendError>>()? })
}
