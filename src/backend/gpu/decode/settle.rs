//! Host side of `shaders/decode/settle.wgsl`; it runs between steps.
//!
//! Experiments: `docs/performance/decode.md#decodesettle`.

use crate::backend::BackendError;
use crate::backend::gpu::activations::Activations;
use crate::backend::gpu::binding::Resource;
use crate::backend::gpu::cost::{Cost, Dispatch};
use crate::backend::gpu::fragment_costs::{recent, settle};
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Canary, Kernel, Phase, neuron_block, usual_workgroup};
use crate::backend::gpu::layout::Layout;
use crate::backend::gpu::pages::Page;
use crate::backend::gpu::recording::{Bound, Part};
use crate::backend::memory::WINDOW;
use crate::host_struct::host_struct;

host_struct!("SettleParams");

pub static KERNEL: Kernel = Kernel {
    name: "settle",
    phase: Phase::Decode,
    shader: "decode/settle",
    workgroup: usual_workgroup,
    block: neuron_block,
    tiled: false,
    dynamic: &["steps"],
    canary: Canary { right: "WINDOW) % RECENT_ROWS;", wrong: "WINDOW + 1u) % RECENT_ROWS;" },
    cost: Some(cost),
};

fn cost(d: &Dispatch) -> Cost {
    let [slots, blocks, _] = d.workgroups;
    let slots = d.slots_of(slots);
    let slot_blocks = slots * f64::from(blocks);
    // Every window slot in turn.
    let recent = recent(d, slots, slot_blocks, WINDOW as f64, WINDOW as f64);
    settle(d, Cost::default().access(recent), slot_blocks, d.layout.geometry.block / 2)
}

/// Binds the kernel: windows settle into states, one part per page.
pub fn bind<'a>(
    binder: &mut Binder<'a>,
    layout: &Layout,
    activations: &'a Activations,
    pages: impl Iterator<Item = &'a Page>,
) -> Result<Bound, BackendError> {
    let part = |page: &'a Page| {
        let params = SettleParams {
            slot_begin: page.slots.start as u32,
            slot_stride: page.slot_stride(layout),
            recent_begin: page.recent_begin(layout),
        };
        let resources = [
            ("steps", activations.step()),
            ("samplers", Resource::whole(&activations.samplers)),
            ("memory", page.store.resource()),
        ];
        let group = binder.with_params(&KERNEL, params, &resources)?;
        Ok(Part { group, workgroups: [page.slots.len() as u32, page.segment.len() as u32, 1] })
    };
    Ok(Bound { kernel: &KERNEL, parts: pages.map(part).collect::<Result<_, BackendError>>()? })
}
