//! Encodes recordings as wgpu commands.

use super::groups::Groups;
use super::recording::Op;

/// Appends operations to an encoder, in as few passes as their copies allow.
pub(super) fn encode(groups: &Groups, ops: &[Op], encoder: &mut wgpu::CommandEncoder) {
    let mut ops = ops.iter().peekable();
    while let Some(op) = ops.peek() {
        match op {
            Op::Copy { from, from_offset, to, to_offset, bytes } => {
                let (from, to) = (&groups.buffers[from.0], &groups.buffers[to.0]);
                encoder.copy_buffer_to_buffer(from, *from_offset, to, *to_offset, *bytes);
                ops.next();
            }
            Op::Run(..) => {
                let mut pass = encoder.begin_compute_pass(&Default::default());
                while let Some(op) = ops.next_if(|op| matches!(op, Op::Run(..))) {
                    dispatch(groups, op, &mut pass);
                }
            }
        }
    }
}

/// Appends a kernel's dispatches to a pass.
pub(super) fn dispatch(groups: &Groups, op: &Op, pass: &mut wgpu::ComputePass) {
    let Op::Run(bound, offsets) = op else { return };
    for (index, part) in bound.parts.iter().enumerate() {
        let group = &groups.groups[part.group.0];
        if index == 0 {
            pass.set_pipeline(&group.pipeline.pipeline);
        }
        pass.set_bind_group(0, &group.group, offsets.as_slice());
        let [x, y, z] = part.workgroups;
        pass.dispatch_workgroups(x, y, z);
    }
}
