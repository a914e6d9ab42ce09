//! A step is a list of operations: pure data that names kernels and their bindings. Recordings are
//! functions of the plan alone. `submission` encodes one as commands, `profile` times one, and
//! tests read one without a device.

use super::kernel::Kernel;
use std::sync::Arc;

/// A kernel's bindings: an index into the [`Groups`](super::groups::Groups) of a set of sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GroupId(pub usize);

/// A buffer that recordings copy from or to: an index into the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BufferId(pub usize);

/// One dispatch: its bindings and its workgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub group: GroupId,
    pub workgroups: [u32; 3],
}

/// A kernel on its buffers, one part per segment of the model or page of states: one binding cannot
/// hold them together.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    pub kernel: &'static Kernel,
    pub parts: Arc<[Part]>,
}

/// Offsets of a kernel's dynamic bindings, in the order of their indices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Offsets {
    values: [u32; 2],
    count: usize,
}

impl Offsets {
    /// No dynamic bindings.
    pub const NONE: Self = Self { values: [0; 2], count: 0 };

    pub fn one(first: u32) -> Self {
        Self { values: [first, 0], count: 1 }
    }

    pub fn two(first: u32, second: u32) -> Self {
        Self { values: [first, second], count: 2 }
    }

    pub fn as_slice(&self) -> &[u32] {
        &self.values[..self.count]
    }
}

/// One operation. It sees the writes of all operations before it.
#[derive(Clone, Debug)]
pub(super) enum Op {
    /// Runs a kernel.
    Run(Bound, Offsets),
    /// Copies bytes from one buffer to another.
    Copy { from: BufferId, from_offset: u64, to: BufferId, to_offset: u64, bytes: u64 },
}

impl Bound {
    /// Runs the kernel.
    pub fn run(&self, offsets: Offsets) -> Op {
        Op::Run(self.clone(), offsets)
    }
}

impl Op {
    /// Number of dispatches in the operation.
    pub fn dispatches(&self) -> usize {
        match self {
            Self::Run(bound, _) => bound.parts.len(),
            Self::Copy { .. } => 0,
        }
    }
}

/// The kernels that operations run, by name.
#[cfg(test)]
pub(super) fn names(ops: &[Op]) -> Vec<&'static str> {
    let name = |op: &Op| match op {
        Op::Run(bound, _) => Some(bound.kernel.name),
        Op::Copy { .. } => None,
    };
    ops.iter().filter_map(name).collect()
}
