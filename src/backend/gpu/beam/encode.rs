//! Host side of `shaders/beam/encode.wgsl`: every layer but the first. Its parameters are those of
//! decode's `encode`.
//!
//! Experiments: `docs/performance/beams.md#beamencode`.

use crate::backend::BackendError;
use crate::backend::gpu::activations::Activations;
use crate::backend::gpu::binding::Resource;
use crate::backend::gpu::decode::encode::EncodeParams;
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Canary, Kernel, Phase, neuron_block};
use crate::backend::gpu::layout::Layout;
use crate::backend::gpu::recording::{Bound, Part};
use crate::backend::gpu::weights::Weights;
use std::ops::Range;

pub static KERNEL: Kernel = Kernel {
    name: "beam/encode",
    phase: Phase::Beam,
    shader: "beam/encode",
    workgroup: Layout::search_workgroup,
    block: neuron_block,
    tiled: true,
    dynamic: &["steps"],
    canary: Canary { right: "rotate(u.zw, neuron + 2u, position)", wrong: "rotate(u.zw, neuron, position)" },
    cost: None,
};

/// A layer of the schedule and its nodes.
#[derive(Clone, Copy)]
pub struct Layer<'a> {
    pub layout: &'a Layout,
    /// Index in the schedule.
    pub index: usize,
    pub nodes: &'a wgpu::Buffer,
}

/// Binds the kernel, which starts from the residual stream that decode's `finish` left.
pub fn bind<'a>(
    binder: &mut Binder<'a>,
    weights: &'a Weights,
    activations: &'a Activations,
    layer: Layer<'a>,
) -> Result<Bound, BackendError> {
    bind_to(binder, &KERNEL, None, weights, activations, layer)
}

/// Binds an encoding kernel, `beam/embed` or `beam/encode`. `source` is what its residual stream
/// starts from, besides `residual`.
pub fn bind_to<'a>(
    binder: &mut Binder<'a>,
    kernel: &'static Kernel,
    source: Option<(&'static str, Resource<'a>)>,
    weights: &'a Weights,
    activations: &'a Activations,
    Layer { layout, index, nodes }: Layer<'a>,
) -> Result<Bound, BackendError> {
    let count = activations.count;
    let part = |(segment_index, segment): (usize, &Range<usize>)| {
        let params = EncodeParams {
            slot_end: count as u32,
            block_begin: segment.start as u32,
            parity: index as u32 % 2,
            ..EncodeParams::default()
        };
        let mut resources = vec![
            ("steps", activations.step()),
            ("samplers", Resource::whole(&activations.samplers)),
            ("residual", Resource::whole(&activations.residual)),
            ("dense_weights", weights.encoder[segment_index].resource()),
            ("turns", Resource::whole(&weights.turns)),
            ("nodes", Resource::whole(nodes)),
            ("neurons", activations.neurons.resource()),
        ];
        resources.extend(source);
        let group = binder.with_params(kernel, params, &resources)?;
        Ok(Part { group, workgroups: [activations.tiles(count), segment.len() as u32, 1] })
    };
    let parts = layout.segments.iter().enumerate().map(part);
    Ok(Bound { kernel, parts: parts.collect::<Result<_, BackendError>>()? })
}
