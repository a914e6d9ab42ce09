//! The step table: every slot's entry for each step of a submission.

use super::groups::ALIGNMENT;
use crate::backend::{Input, Output, SlotStep};
use crate::host_struct::host_struct;

host_struct!("Step");

pub(super) const INPUT_IDLE: u32 = u32::MAX;
pub(super) const INPUT_PREVIOUS: u32 = u32::MAX - 1;

impl From<&SlotStep> for Step {
    fn from(step: &SlotStep) -> Self {
        Self {
            input: match step.input {
                Input::Idle => INPUT_IDLE,
                Input::Token(token) => token,
                Input::Previous => INPUT_PREVIOUS,
            },
            position: step.position,
            read_scale: step.read_scale,
            write_scale: step.write_scale,
            sample: (step.output == Output::Token) as u32,
            logits: (step.output >= Output::Logits) as u32,
            rescale: step.rescale.unwrap_or(1.0),
            node: 0,
        }
    }
}

/// Bytes per step of the table, for a number of slots.
pub(super) fn stride(slots: usize) -> u64 {
    (slots * size_of::<Step>()).next_multiple_of(ALIGNMENT as usize) as u64
}

/// The table of `steps`; slots that a step does not name are idle.
pub(super) fn table(steps: &[Vec<Step>], slots: usize) -> Vec<u8> {
    let idle = Step { input: INPUT_IDLE, ..Step::from(&SlotStep::IDLE) };
    let mut table = Vec::with_capacity(steps.len() * stride(slots) as usize);
    for (index, step) in steps.iter().enumerate() {
        let mut step = step.clone();
        step.resize(slots, idle);
        table.resize(index * stride(slots) as usize, 0);
        table.extend_from_slice(bytemuck::cast_slice(&step));
    }
    table
}
