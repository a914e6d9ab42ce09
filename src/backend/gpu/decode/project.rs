//! Host side of `shaders/decode/project.wgsl`: attention output to decoder output.
//!
//! Experiments: `docs/performance/decode.md#decodeproject`.

use crate::backend::BackendError;
use crate::backend::gpu::activations::Activations;
use crate::backend::gpu::binding::Resource;
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
};

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
