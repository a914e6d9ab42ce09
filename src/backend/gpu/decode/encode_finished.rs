//! Host side of `shaders/decode/encode_finished.wgsl`: every layer but the first, in a
//! batch on hardware.
//!
//! Experiments: `docs/performance/decode.md#decodefinish`.

use crate::backend::BackendError;
use crate::backend::gpu::activations::Activations;
use crate::backend::gpu::cost::{Access, Cost, Dispatch};
use crate::backend::gpu::decode::encode::{self, Layer};
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Canary, Kernel, Phase, neuron_block, usual_workgroup};
use crate::backend::gpu::recording::Bound;
use crate::backend::gpu::weights::Weights;

pub static KERNEL: Kernel = Kernel {
    name: "encode_finished",
    phase: Phase::Decode,
    shader: "decode/encode_finished",
    workgroup: usual_workgroup,
    block: neuron_block,
    tiled: true,
    dynamic: &["steps"],
    canary: Canary {
        right: "rows[at + c] = residual[(slot * 2u + params.parity)",
        wrong: "rows[at + c] = residual[(slot * 2u + 1u - params.parity)",
    },
    cost: Some(cost),
};

fn cost(d: &Dispatch) -> Cost {
    let [tiles, blocks, _] = d.workgroups;
    let rows = d.slots_of(tiles) * d.row_bytes();
    let x = Access::cached("residual stream", rows * f64::from(blocks), rows).rounds(d.slots_of(1));
    encode::cost_from(d, Cost::default().access(x))
}

/// Binds the kernel, which starts from the residual stream that `finish` left.
pub fn bind<'a>(
    binder: &mut Binder<'a>,
    weights: &'a Weights,
    activations: &'a Activations,
    layer: Layer<'a>,
) -> Result<Bound, BackendError> {
    encode::bind_to(binder, &KERNEL, None, weights, activations, layer)
}
