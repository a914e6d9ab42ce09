//! Host side of `shaders/decode/logits.wgsl`. Beam search runs it too.
//!
//! Experiments: `docs/performance/decode.md#decodelogits`.

use crate::backend::BackendError;
use crate::backend::gpu::activations::Activations;
use crate::backend::gpu::binding::Resource;
use crate::backend::gpu::cost::{Access, Cost, Dispatch};
use crate::backend::gpu::fragment_costs::{dense, finish_residual};
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Canary, Kernel, Phase, usual_workgroup, vocab_block};
use crate::backend::gpu::layout::Layout;
use crate::backend::gpu::recording::{Bound, Part};
use crate::backend::gpu::weights::Weights;
use crate::host_struct::host_struct;
use std::ops::Range;

host_struct!("LogitsParams");

pub static KERNEL: Kernel = Kernel {
    name: "logits",
    phase: Phase::Decode,
    shader: "decode/logits",
    workgroup: usual_workgroup,
    block: vocab_block,
    tiled: true,
    dynamic: &["steps"],
    canary: Canary { right: "products[s * (BLOCK / 4u) + p];", wrong: "products[s * (BLOCK / 4u) + p].yxzw;" },
    cost: Some(cost),
};

fn cost(d: &Dispatch) -> Cost {
    let [tiles, blocks, _] = d.workgroups;
    let slots = d.slots_of(tiles);
    let start = finish_residual(d, slots, blocks.into()).barriers(1);
    let logits = slots * f64::from(blocks) * (d.layout.vocab_block * 4) as f64;
    dense(d, "LM head", start, d.layout.block_of_logits()).access(Access::cached("logits", logits, logits).rounds(1.0))
}

/// Binds the kernel that follows a schedule of `layers` layers: residual stream to logits, one part
/// per segment of the LM head.
pub fn bind<'a>(
    binder: &mut Binder<'a>,
    layout: &Layout,
    weights: &'a Weights,
    activations: &'a Activations,
    layers: usize,
) -> Result<Bound, BackendError> {
    let part = |(index, segment): (usize, &Range<usize>)| {
        let params = LogitsParams {
            block_begin: segment.start as u32,
            parity: (layers as u32 + 1) % 2,
            slot_end: activations.count as u32,
        };
        let resources = [
            ("steps", activations.step()),
            ("samplers", Resource::whole(&activations.samplers)),
            ("partials", activations.updates.resource()),
            ("residual", Resource::whole(&activations.residual)),
            ("dense_weights", weights.lm_head[index].resource()),
            ("logits", Resource::whole(&activations.logits)),
        ];
        let group = binder.with_params(&KERNEL, params, &resources)?;
        Ok(Part { group, workgroups: [activations.tiles(activations.count), segment.len() as u32, 1] })
    };
    let parts = layout.lm_head_segments.iter().enumerate().map(part);
    Ok(Bound { kernel: &KERNEL, parts: parts.collect::<Result<_, BackendError>>()? })
}
