//! Host side of `shaders/beam/counts.wgsl`: token counts follow their beams.
//!
//! Experiments: `docs/performance/beams.md#beamcounts`.

use crate::backend::BackendError;
use crate::backend::gpu::beam::buffers::BeamBuffers;
use crate::backend::gpu::binding::Resource;
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Canary, Kernel, Phase, neuron_block};
use crate::backend::gpu::layout::Layout;
use crate::backend::gpu::recording::{Bound, Part};
use crate::host_struct::host_struct;

host_struct!("BeamCountsParams");

pub static KERNEL: Kernel = Kernel {
    name: "beam/counts",
    phase: Phase::Beam,
    shader: "beam/counts",
    workgroup: Layout::search_workgroup,
    block: neuron_block,
    tiled: false,
    dynamic: &[],
    canary: Canary { right: "beams[beam].parent * V", wrong: "beam * V" },
    cost: None,
};

/// Binds the kernel that copies from side `before` to the other side.
pub fn bind<'a>(
    binder: &mut Binder<'a>,
    layout: &Layout,
    buffers: &'a BeamBuffers,
    before: usize,
) -> Result<Bound, BackendError> {
    // Workgroups that share a beam's counts.
    let stripes = (layout.geometry.vocab as u32).div_ceil(8 * layout.workgroup).clamp(1, 1024);
    let resources = [
        ("beams", Resource::whole(&buffers.records)),
        ("counts", Resource::whole(&buffers.counts[before])),
        ("new_counts", Resource::whole(&buffers.counts[1 - before])),
    ];
    let group = binder.with_params(&KERNEL, BeamCountsParams { stripes }, &resources)?;
    let part = Part { group, workgroups: [stripes, buffers.count as u32, 1] };
    Ok(Bound { kernel: &KERNEL, parts: [part].into() })
}
