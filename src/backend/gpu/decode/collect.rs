//! Host side of `shaders/decode/collect.wgsl`: every head's attention output, once per slot. Beam
//! search runs it too.
//!
//! Experiments: `docs/performance/decode.md#decodecollect`.

use crate::backend::BackendError;
use crate::backend::gpu::activations::Activations;
use crate::backend::gpu::binding::Resource;
use crate::backend::gpu::cost::{Access, Cost, Dispatch};
use crate::backend::gpu::fragment_costs::{NORM_BARRIERS, gather};
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Canary, Kernel, Phase, neuron_block, usual_workgroup};
use crate::backend::gpu::layout::Layout;
use crate::backend::gpu::recording::{Bound, Part};

pub static KERNEL: Kernel = Kernel {
    name: "collect",
    phase: Phase::Decode,
    shader: "decode/collect",
    workgroup: usual_workgroup,
    block: neuron_block,
    tiled: false,
    dynamic: &["steps"],
    canary: Canary { right: "k * W, y[k])", wrong: "k * W, 1.01 * y[k])" },
    cost: Some(cost),
};

fn cost(d: &Dispatch) -> Cost {
    let [slots, heads, _] = d.workgroups.map(f64::from);
    let g = &d.layout.geometry;
    let partials = slots * heads * g.blocks_per_head as f64 * d.row_bytes();
    gather(d, slots, heads, g.blocks_per_head, partials)
        .barriers(NORM_BARRIERS)
        .access(Access::cached("attention output", slots * heads * d.row_bytes(), 0.0).rounds(1.0))
}

/// Binds the kernel.
pub fn bind<'a>(binder: &mut Binder<'a>, layout: &Layout, activations: &'a Activations) -> Result<Bound, BackendError> {
    let resources = [
        ("steps", activations.step()),
        ("samplers", Resource::whole(&activations.samplers)),
        ("partials", activations.neurons.resource()),
    ];
    let group = binder.bind(&KERNEL, &resources)?;
    let part = Part { group, workgroups: [activations.count as u32, layout.geometry.heads as u32, 1] };
    Ok(Bound { kernel: &KERNEL, parts: [part].into() })
}
