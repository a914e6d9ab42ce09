//! Host side of `shaders/decode/embed.wgsl`: the first layer.
//!
//! Experiments: `docs/performance/decode.md#decodeembed`.

use crate::backend::BackendError;
use crate::backend::gpu::activations::Activations;
use crate::backend::gpu::binding::Resource;
use crate::backend::gpu::cost::{Access, Cost, Dispatch};
use crate::backend::gpu::decode::encode::{self, Layer};
use crate::backend::gpu::fragment_costs::NORM_BARRIERS;
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Canary, Kernel, Phase, neuron_block, usual_workgroup};
use crate::backend::gpu::recording::Bound;
use crate::backend::gpu::weights::Weights;

pub static KERNEL: Kernel = Kernel {
    name: "embed",
    phase: Phase::Decode,
    shader: "decode/embed",
    workgroup: usual_workgroup,
    block: neuron_block,
    tiled: true,
    dynamic: &["steps"],
    canary: Canary {
        right: "load_columns(i, at)));\n",
        wrong: "load_columns(i, at)));\n    for (var c = i; c < ROW4; c += W) {\n        rows[at + c] *= 1.01;\n    }\n",
    },
    cost: Some(cost),
};

/// The token's id, then its row, in every workgroup.
fn cost(d: &Dispatch) -> Cost {
    let [tiles, blocks, _] = d.workgroups;
    let (slots, of_a_group) = (d.slots_of(tiles), d.slots_of(1));
    let row = slots * d.embedding_row_bytes();
    let embedding = Access::memory("embedding", row).repeated(row * f64::from(blocks), row).rounds(2.0 * of_a_group);
    let start = Cost::default().access(embedding).barriers(of_a_group * f64::from(NORM_BARRIERS));
    encode::cost_from(d, start)
}

/// Binds the kernel, which starts from the tokens' embeddings.
pub fn bind<'a>(
    binder: &mut Binder<'a>,
    weights: &'a Weights,
    activations: &'a Activations,
    layer: Layer<'a>,
) -> Result<Bound, BackendError> {
    encode::bind_to(binder, &KERNEL, Some(("embedding", Resource::whole(&weights.embed))), weights, activations, layer)
}
