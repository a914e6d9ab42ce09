//! Host side of `shaders/decode/rescale.wgsl`: forgetting's renormalisation.
//!
//! Experiments: `docs/performance/decode.md#decoderescale`.

use crate::backend::BackendError;
use crate::backend::gpu::activations::Activations;
use crate::backend::gpu::binding::Resource;
use crate::backend::gpu::cost::{Access, Cost, Dispatch, rounds};
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Canary, Kernel, Phase, neuron_block, usual_workgroup};
use crate::backend::gpu::layout::Layout;
use crate::backend::gpu::pages::Page;
use crate::backend::gpu::recording::{Bound, Part};
use crate::host_struct::host_struct;

host_struct!("RescaleParams");

pub static KERNEL: Kernel = Kernel {
    name: "rescale",
    phase: Phase::Decode,
    shader: "decode/rescale",
    workgroup: usual_workgroup,
    block: neuron_block,
    tiled: false,
    dynamic: &["steps"],
    canary: Canary { right: "load_floats(at) * factor", wrong: "load_floats(at) * 1.01 * factor" },
    cost: Some(cost),
};

/// Every state, read and written, if all slots ask for it.
fn cost(d: &Dispatch) -> Cost {
    let [stripes, slots, _] = d.workgroups;
    let vectors = (d.layout.geometry.all_neurons() / d.layout.geometry.block * rescaled(d.layout)) as f64;
    let own = rounds(vectors, stripes as usize * d.invocations);
    Cost::default().access(Access::memory("states", f64::from(slots) * vectors * 32.0).rounds(own))
}

/// Binds the kernel: states and the windows' residuals times forgetting's factors, one part per
/// page.
pub fn bind<'a>(
    binder: &mut Binder<'a>,
    layout: &Layout,
    activations: &'a Activations,
    pages: impl Iterator<Item = &'a Page>,
) -> Result<Bound, BackendError> {
    let part = |page: &'a Page| {
        let stripes = stripes(layout, page);
        let params = RescaleParams {
            slot_begin: page.slots.start as u32,
            block_count: page.segment.len() as u32,
            stripes,
            recent_begin: page.recent_begin(layout),
            slot_stride: page.slot_stride(layout),
        };
        let resources = [
            ("steps", activations.step()),
            ("samplers", Resource::whole(&activations.samplers)),
            ("memory", page.store.resource()),
        ];
        let group = binder.with_params(&KERNEL, params, &resources)?;
        Ok(Part { group, workgroups: [stripes, page.slots.len() as u32, 1] })
    };
    Ok(Bound { kernel: &KERNEL, parts: pages.map(part).collect::<Result<_, BackendError>>()? })
}

/// Vectors of a block that change: its rows, or their scales.
fn rescaled(layout: &Layout) -> usize {
    let g = &layout.geometry;
    match layout.pack() {
        1 => g.block * g.row / 4,
        _ => g.block / 4,
    }
}

/// Workgroups that share a slot's part of a page.
fn stripes(layout: &Layout, page: &Page) -> u32 {
    let vectors = (page.segment.len() * rescaled(layout)) as u32;
    vectors.div_ceil(layout.workgroup).clamp(1, 1024)
}
