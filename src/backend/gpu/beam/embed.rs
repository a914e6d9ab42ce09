//! Host side of `shaders/beam/embed.wgsl`: the first layer.
//!
//! Experiments: `docs/performance/beams.md#beamembed`.

use crate::backend::BackendError;
use crate::backend::gpu::activations::Activations;
use crate::backend::gpu::beam::encode::{self, Layer};
use crate::backend::gpu::binding::Resource;
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Canary, Kernel, Phase, neuron_block};
use crate::backend::gpu::layout::Layout;
use crate::backend::gpu::recording::Bound;
use crate::backend::gpu::weights::Weights;

pub static KERNEL: Kernel = Kernel {
    name: "beam/embed",
    phase: Phase::Beam,
    shader: "beam/embed",
    workgroup: Layout::search_workgroup,
    block: neuron_block,
    tiled: true,
    dynamic: &["steps"],
    canary: Canary { right: "steps[slot].node * NODE", wrong: "(steps[slot].node ^ 1u) * NODE" },
    cost: None,
};

/// Binds the kernel, which starts from the tokens' embeddings.
pub fn bind<'a>(
    binder: &mut Binder<'a>,
    weights: &'a Weights,
    activations: &'a Activations,
    layer: Layer<'a>,
) -> Result<Bound, BackendError> {
    encode::bind_to(binder, &KERNEL, Some(("embedding", Resource::whole(&weights.embed))), weights, activations, layer)
}
