//! Host side of `shaders/decode/project_collected.wgsl`: attention output to decoder output, in a
//! batch on hardware. Beam search runs it too.
//!
//! Experiments: `docs/performance/decode.md#decodecollect`.

use crate::backend::BackendError;
use crate::backend::gpu::activations::Activations;
use crate::backend::gpu::cost::{Access, Cost, Dispatch};
use crate::backend::gpu::decode::project;
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Kernel, Phase, neuron_block, usual_workgroup};
use crate::backend::gpu::layout::Layout;
use crate::backend::gpu::recording::Bound;
use crate::backend::gpu::weights::Weights;

pub static KERNEL: Kernel = Kernel {
    name: "project_collected",
    phase: Phase::Decode,
    shader: "decode/project_collected",
    workgroup: usual_workgroup,
    block: neuron_block,
    tiled: false,
    dynamic: &["steps"],
    canary: project::KERNEL.canary,
    cost: Some(cost),
};

fn cost(d: &Dispatch) -> Cost {
    let [slots, blocks, _] = d.workgroups.map(f64::from);
    let heads = d.layout.geometry.heads as f64;
    let y = Access::cached("attention output", slots * blocks * d.row_bytes(), slots * heads * d.row_bytes());
    project::cost_from(d, Cost::default().access(y.rounds(1.0)))
}

/// Binds the kernel, which starts from the attention output that `collect` left.
pub fn bind<'a>(
    binder: &mut Binder<'a>,
    layout: &Layout,
    weights: &'a Weights,
    activations: &'a Activations,
) -> Result<Bound, BackendError> {
    project::bind_to(binder, &KERNEL, layout, weights, activations)
}
