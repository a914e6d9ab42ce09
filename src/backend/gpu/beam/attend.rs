//! Host side of `shaders/beam/attend.wgsl`: base state and path to attention output.
//!
//! Experiments: `docs/performance/beams.md#beamattend`.

use crate::backend::BackendError;
use crate::backend::gpu::activations::Activations;
use crate::backend::gpu::beam::buffers::BeamBuffers;
use crate::backend::gpu::binding::Resource;
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Canary, Kernel, Phase, neuron_block};
use crate::backend::gpu::layout::Layout;
use crate::backend::gpu::pages::Page;
use crate::backend::gpu::recording::{Bound, Part};
use crate::host_struct::host_struct;

host_struct!("BeamAttendParams");

pub static KERNEL: Kernel = Kernel {
    name: "beam/attend",
    phase: Phase::Beam,
    shader: "beam/attend",
    workgroup: Layout::search_workgroup,
    block: neuron_block,
    tiled: false,
    dynamic: &["steps"],
    canary: Canary { right: "* bitcast<f32>(paths[first + k].y)", wrong: "* 1.01 * bitcast<f32>(paths[first + k].y)" },
    cost: None,
};

/// Binds the kernel for a layer of states, one part per page of the base state.
pub fn bind<'a>(
    binder: &mut Binder<'a>,
    activations: &'a Activations,
    buffers: &'a BeamBuffers,
    nodes: &'a wgpu::Buffer,
    base: &'a [Page],
) -> Result<Bound, BackendError> {
    let part = |page: &'a Page| {
        let params = BeamAttendParams { block_begin: page.segment.start as u32 };
        let resources = [
            ("steps", activations.step()),
            ("samplers", Resource::whole(&activations.samplers)),
            ("paths", Resource::whole(&buffers.paths)),
            ("nodes", Resource::whole(nodes)),
            ("memory", page.store.resource()),
            ("neurons", activations.neurons.resource()),
        ];
        let group = binder.with_params(&KERNEL, params, &resources)?;
        Ok(Part { group, workgroups: [activations.count as u32, page.segment.len() as u32, 1] })
    };
    Ok(Bound { kernel: &KERNEL, parts: base.iter().map(part).collect::<Result<_, BackendError>>()? })
}
