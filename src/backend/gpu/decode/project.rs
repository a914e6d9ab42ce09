//! Host side of `shaders/decode/project.wgsl`: attention output to decoder output.
//!
//! Experiments: `docs/performance/decode.md#decodeproject`.

use crate::backend::BackendError;
use crate::backend::gpu::activations::Activations;
use crate::backend::gpu::binding::Resource;
use crate::backend::gpu::cost::{Access, Cost, Dispatch, rounds, share_of_any};
use crate::backend::gpu::fragment_costs::{COMPACT_BARRIERS, NORM_BARRIERS, gather, poolings};
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Canary, Kernel, Phase, neuron_block, usual_workgroup};
use crate::backend::gpu::layout::Layout;
use crate::backend::gpu::recording::{Bound, Part};
use crate::backend::gpu::weights::Weights;
use crate::host_struct::host_struct;
use std::ops::Range;

host_struct!("ProjectParams");

pub static KERNEL: Kernel = Kernel {
    name: "project",
    phase: Phase::Decode,
    shader: "decode/project",
    workgroup: usual_workgroup,
    block: neuron_block,
    tiled: false,
    dynamic: &["steps"],
    canary: Canary { right: "relu(vec4(sum)).x", wrong: "vec4(sum).x" },
    cost: Some(cost),
};

fn cost(d: &Dispatch) -> Cost {
    let g = &d.layout.geometry;
    let [slots, blocks, _] = d.workgroups.map(f64::from);
    let partials = slots * blocks * d.row_bytes();
    cost_from(d, gather(d, slots, blocks, g.blocks_per_head, partials).barriers(NORM_BARRIERS))
}

/// The cost of a projecting kernel, given that of its start.
pub fn cost_from(d: &Dispatch, start: Cost) -> Cost {
    let g = &d.layout.geometry;
    let [slots, blocks, _] = d.workgroups.map(f64::from);
    let of_a_block = d.block_bytes(d.layout.block_of_neurons());
    // Slots share rows; workgroups of one block run side by side.
    let rows = |what, of_one: f64| {
        let of_any = share_of_any(of_one, slots);
        let bytes = blocks * of_a_block;
        Access::memory(what, of_any * bytes).repeated((slots * of_one - of_any) * bytes, of_a_block)
    };
    let vectors = d.weight_vectors();
    let lanes = d.layout.row_lanes as usize;
    let gate_rounds = rounds(d.density.u * g.block as f64, d.invocations / lanes * d.layout.team_rows);
    let decoder_lanes = vectors.min(d.invocations);
    let share = vectors.div_ceil(decoder_lanes).min(4);
    let at_once = 4 / share * (d.invocations / decoder_lanes);
    let stripes = vectors.div_ceil(share * decoder_lanes) as f64;

    let partials = slots * blocks * d.row_bytes();
    let neurons = slots * blocks * (g.block * 4) as f64;
    start
        .barriers(2 * COMPACT_BARRIERS)
        .access(Access::cached("activations", neurons, neurons).rounds(1.0))
        .access(rows("encoder_v", d.density.u).rounds(gate_rounds * vectors.div_ceil(lanes) as f64))
        .access(rows("decoder", d.density.g).rounds(stripes * rounds(d.density.g * g.block as f64, at_once)))
        .access(Access::cached("updates", partials, 0.0).rounds(1.0))
        .barriers(2.0 * gate_rounds + 2.0 * poolings(d.layout.block_of_neurons()))
}

/// Binds the kernel.
pub fn bind<'a>(
    binder: &mut Binder<'a>,
    layout: &Layout,
    weights: &'a Weights,
    activations: &'a Activations,
) -> Result<Bound, BackendError> {
    bind_to(binder, &KERNEL, layout, weights, activations)
}

/// Binds a projecting kernel, `project` or `project_collected`, one part per segment.
pub fn bind_to<'a>(
    binder: &mut Binder<'a>,
    kernel: &'static Kernel,
    layout: &Layout,
    weights: &'a Weights,
    activations: &'a Activations,
) -> Result<Bound, BackendError> {
    let part = |(index, segment): (usize, &Range<usize>)| {
        let params = ProjectParams { block_begin: segment.start as u32 };
        let resources = [
            ("steps", activations.step()),
            ("samplers", Resource::whole(&activations.samplers)),
            ("partials", activations.neurons.resource()),
            ("value_rows", weights.encoder_v[index].resource()),
            ("decoder_rows", weights.decoder[index].resource()),
            ("updates", activations.updates.resource()),
        ];
        let group = binder.with_params(kernel, params, &resources)?;
        Ok(Part { group, workgroups: [activations.count as u32, segment.len() as u32, 1] })
    };
    let parts = layout.segments.iter().enumerate().map(part);
    Ok(Bound { kernel, parts: parts.collect::<Result<_, BackendError>>()? })
}
