//! Host side of `shaders/beam/select.wgsl`: every beam's best candidates.
//!
//! Experiments: `docs/performance/beams.md#beamselect`.

use crate::backend::BackendError;
use crate::backend::gpu::activations::Activations;
use crate::backend::gpu::beam::buffers::BeamBuffers;
use crate::backend::gpu::binding::Resource;
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Canary, Kernel, Phase, neuron_block};
use crate::backend::gpu::layout::Layout;
use crate::backend::gpu::recording::{Bound, Part};

pub static KERNEL: Kernel = Kernel {
    name: "beam/select",
    phase: Phase::Beam,
    shader: "beam/select",
    workgroup: Layout::select_workgroup,
    block: neuron_block,
    tiled: false,
    dynamic: &[],
    canary: Canary { right: "a.y < b.y", wrong: "a.y > b.y" },
    cost: None,
};

/// Binds the kernel; token counts are on `side`.
pub fn bind<'a>(
    binder: &mut Binder<'a>,
    activations: &'a Activations,
    buffers: &'a BeamBuffers,
    side: usize,
) -> Result<Bound, BackendError> {
    bind_to(binder, &KERNEL, activations, buffers, side, buffers.count as u32)
}

/// Binds a selecting kernel, `beam/select` or `beam/merge`, in `workgroups` workgroups.
pub fn bind_to<'a>(
    binder: &mut Binder<'a>,
    kernel: &'static Kernel,
    activations: &'a Activations,
    buffers: &'a BeamBuffers,
    side: usize,
    workgroups: u32,
) -> Result<Bound, BackendError> {
    let resources = [
        ("selection", Resource::whole(&buffers.selection)),
        ("params", Resource::whole(&buffers.params)),
        ("beams", Resource::whole(&buffers.records)),
        ("logits", Resource::whole(&activations.logits)),
        ("counts", Resource::whole(&buffers.counts[side])),
        ("candidates", Resource::whole(&buffers.candidates)),
        ("selected", Resource::whole(&buffers.selected)),
        ("biases", Resource::whole(&buffers.biases)),
    ];
    let group = binder.bind(kernel, &resources)?;
    Ok(Bound { kernel, parts: [Part { group, workgroups: [workgroups, 1, 1] }].into() })
}
