//! Host side of `shaders/decode/encode.wgsl`: every layer but the first.
//!
//! Experiments: `docs/performance/decode.md#decodeencode`.

use crate::backend::BackendError;
use crate::backend::gpu::activations::Activations;
use crate::backend::gpu::binding::Resource;
use crate::backend::gpu::cost::{Cost, Dispatch};
use crate::backend::gpu::decode::attend;
use crate::backend::gpu::fragment_costs::{dense, finish_residual};
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Canary, Kernel, Phase, neuron_block, usual_workgroup};
use crate::backend::gpu::layout::Layout;
use crate::backend::gpu::pages::Page;
use crate::backend::gpu::recording::{Bound, Part};
use crate::backend::gpu::weights::Weights;
use crate::host_struct::host_struct;

host_struct!("EncodeParams");

pub static KERNEL: Kernel = Kernel {
    name: "encode",
    phase: Phase::Decode,
    shader: "decode/encode",
    workgroup: usual_workgroup,
    block: neuron_block,
    tiled: true,
    dynamic: &["steps"],
    canary: Canary { right: "four.zw, pair % 2u == 1u", wrong: "four.zw, pair % 4u == 1u" },
    cost: Some(cost),
};

fn cost(d: &Dispatch) -> Cost {
    let [tiles, blocks, _] = d.workgroups;
    cost_from(d, finish_residual(d, d.slots_of(tiles), blocks.into()))
}

/// The cost of an encoding kernel, given that of its start.
pub fn cost_from(d: &Dispatch, start: Cost) -> Cost {
    attend::cost(d, dense(d, "encoder", start.barriers(1), d.layout.block_of_neurons()))
}

/// A layer of the schedule and its states.
#[derive(Clone, Copy)]
pub struct Layer<'a> {
    pub layout: &'a Layout,
    /// Index in the schedule.
    pub index: usize,
    pub pages: &'a [Page],
}

/// Binds the kernel, which finishes the previous layer.
pub fn bind<'a>(
    binder: &mut Binder<'a>,
    weights: &'a Weights,
    activations: &'a Activations,
    layer: Layer<'a>,
) -> Result<Bound, BackendError> {
    bind_to(binder, &KERNEL, Some(("partials", activations.updates.resource())), weights, activations, layer)
}

/// Binds an encoding kernel. `source` is what its residual stream starts from, besides `residual`.
pub fn bind_to<'a>(
    binder: &mut Binder<'a>,
    kernel: &'static Kernel,
    source: Option<(&'static str, Resource<'a>)>,
    weights: &'a Weights,
    activations: &'a Activations,
    Layer { layout, index, pages }: Layer<'a>,
) -> Result<Bound, BackendError> {
    let part = |page: &'a Page| {
        let params = EncodeParams {
            slot_begin: page.slots.start as u32,
            slot_end: page.slots.end as u32,
            block_begin: page.segment.start as u32,
            slot_stride: page.slot_stride(layout),
            parity: index as u32 % 2,
            recent_begin: page.recent_begin(layout),
        };
        let mut resources = vec![
            ("steps", activations.step()),
            ("samplers", Resource::whole(&activations.samplers)),
            ("residual", Resource::whole(&activations.residual)),
            ("dense_weights", weights.encoder[page.index].resource()),
            ("turns", Resource::whole(&weights.turns)),
            ("memory", page.store.resource()),
            ("neurons", activations.neurons.resource()),
        ];
        resources.extend(source);
        let group = binder.with_params(kernel, params, &resources)?;
        Ok(Part { group, workgroups: [activations.tiles(page.slots.len()), page.segment.len() as u32, 1] })
    };
    Ok(Bound { kernel, parts: pages.iter().map(part).collect::<Result<_, BackendError>>()? })
}
