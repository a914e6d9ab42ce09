//! Host side of `shaders/beam/merge.wgsl`: the best candidates of all beams.
//!
//! Experiments: `docs/performance/beams.md#beammerge`.

use crate::backend::BackendError;
use crate::backend::gpu::activations::Activations;
use crate::backend::gpu::beam::buffers::BeamBuffers;
use crate::backend::gpu::beam::select;
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Canary, Kernel, Phase, neuron_block};
use crate::backend::gpu::layout::Layout;
use crate::backend::gpu::recording::Bound;

pub static KERNEL: Kernel = Kernel {
    name: "beam/merge",
    phase: Phase::Beam,
    shader: "beam/merge",
    workgroup: Layout::select_workgroup,
    block: neuron_block,
    tiled: false,
    dynamic: &[],
    canary: Canary { right: "candidates[best.y].y, 0u)", wrong: "candidates[best.y].y ^ 1u, 0u)" },
    cost: None,
};

/// Binds the kernel; token counts are on `side`.
pub fn bind<'a>(
    binder: &mut Binder<'a>,
    activations: &'a Activations,
    buffers: &'a BeamBuffers,
    side: usize,
) -> Result<Bound, BackendError> {
    select::bind_to(binder, &KERNEL, activations, buffers, side, 1)
}
