//! Host side of `shaders/prefill/decode.wgsl`: gates to updates.
//!
//! Experiments: `docs/performance/prefill.md#prefilldecode`.

use crate::backend::BackendError;
use crate::backend::gpu::binding::Resource;
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Canary, Kernel, Phase, neuron_block, usual_workgroup};
use crate::backend::gpu::prefill::buffers::ChunkBuffers;
use crate::backend::gpu::prefill::shape::Shape;
use crate::backend::gpu::recording::{Bound, GroupId};
use crate::backend::gpu::weights::Weights;

pub static KERNEL: Kernel = Kernel {
    name: "prefill/decode",
    phase: Phase::Prefill,
    shader: "prefill/decode",
    workgroup: usual_workgroup,
    block: neuron_block,
    tiled: false,
    dynamic: &[],
    canary: Canary { right: "bits &= bits - 1u;", wrong: "bits &= (bits - 1u) & 0x7fffffffu;" },
    cost: None,
};

/// Binds the kernel for a segment.
pub fn bind<'a>(
    binder: &mut Binder<'a>,
    weights: &'a Weights,
    buffers: &'a ChunkBuffers,
    segment: usize,
) -> Result<GroupId, BackendError> {
    let resources = [
        ("params", buffers.params(segment)),
        ("gates", Resource::whole(&buffers.activations[segment])),
        ("decoder_rows", weights.decoder[segment].resource()),
        ("part_updates", Resource::whole(&buffers.updates)),
    ];
    binder.bind(&KERNEL, &resources)
}

/// One workgroup per token and part of the segment.
pub fn dispatch(shape: Shape, groups: &[GroupId]) -> Bound {
    shape.each(&KERNEL, groups, &shape.layout.chunk.parts, |parts| [shape.tokens as u32, parts.len() as u32, 1])
}
