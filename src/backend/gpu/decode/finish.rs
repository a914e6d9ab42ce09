//! Host side of `shaders/decode/finish.wgsl`: the residual stream between two layers, once per
//! slot. Beam search runs it too.
//!
//! Experiments: `docs/performance/decode.md#decodefinish`.

use crate::backend::BackendError;
use crate::backend::gpu::activations::Activations;
use crate::backend::gpu::binding::Resource;
use crate::backend::gpu::cost::{Access, Cost, Dispatch};
use crate::backend::gpu::fragment_costs::finish_residual;
use crate::backend::gpu::groups::Binder;
use crate::backend::gpu::kernel::{Canary, Kernel, Phase, neuron_block, usual_workgroup};
use crate::backend::gpu::recording::{Bound, Part};
use crate::host_struct::host_struct;

host_struct!("FinishParams");

pub static KERNEL: Kernel = Kernel {
    name: "finish",
    phase: Phase::Decode,
    shader: "decode/finish",
    workgroup: usual_workgroup,
    block: neuron_block,
    tiled: false,
    dynamic: &["steps"],
    canary: Canary { right: "* ROW4 + c] = rows[c];", wrong: "* ROW4 + c] = 1.01 * rows[c];" },
    cost: Some(cost),
};

fn cost(d: &Dispatch) -> Cost {
    let slots = d.slots_of(d.workgroups[0]);
    let x = Access::cached("residual stream", 2.0 * slots * d.row_bytes(), 0.0).rounds(1.0);
    finish_residual(d, slots, 1.0).access(x)
}

/// Binds the kernel in front of layer `index` of the schedule.
pub fn bind<'a>(binder: &mut Binder<'a>, activations: &'a Activations, index: usize) -> Result<Bound, BackendError> {
    let params = FinishParams { parity: index as u32 % 2 };
    let resources = [
        ("steps", activations.step()),
        ("samplers", Resource::whole(&activations.samplers)),
        ("partials", activations.updates.resource()),
        ("residual", Resource::whole(&activations.residual)),
    ];
    let group = binder.with_params(&KERNEL, params, &resources)?;
    let part = Part { group, workgroups: [activations.count as u32, 1, 1] };
    Ok(Bound { kernel: &KERNEL, parts: [part].into() })
}
