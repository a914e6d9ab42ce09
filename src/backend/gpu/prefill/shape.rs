//! Shape of a chunk on a model: the workgroups of its kernels.

use crate::backend::gpu::kernel::Kernel;
use crate::backend::gpu::layout::Layout;
use crate::backend::gpu::recording::{Bound, GroupId, Part};
use crate::host_struct::host_struct;
use std::ops::Range;

host_struct!("PrefillParams");
host_struct!("PrefillToken");

/// A number of tokens on a layout.
#[derive(Clone, Copy)]
pub struct Shape<'a> {
    pub layout: &'a Layout,
    pub tokens: usize,
}

impl<'a> Shape<'a> {
    /// Tiles of tokens.
    pub fn tiles(&self) -> usize {
        self.tokens.div_ceil(self.layout.chunk.tile)
    }

    /// Tokens of all tiles, padding included.
    pub fn padded_tokens(&self) -> u32 {
        (self.tiles() * self.layout.chunk.tile) as u32
    }

    /// Invocations that share a row of the state.
    pub fn row_share(&self) -> usize {
        (self.layout.geometry.row / 4).div_ceil(self.layout.chunk.columns)
    }

    /// Workgroups that hold `invocations`.
    pub fn workgroups(&self, invocations: usize) -> u32 {
        (invocations as u32).div_ceil(self.layout.workgroup)
    }

    /// One dispatch per segment, with `invocations` per block.
    pub fn blocks(&self, kernel: &'static Kernel, groups: &[GroupId], invocations: usize) -> Bound {
        self.each(kernel, groups, &self.layout.segments, |segment| {
            [self.workgroups(invocations), segment.len() as u32, 1]
        })
    }

    /// One dispatch per segment of `segments`, with its `workgroups`.
    pub fn each(
        &self,
        kernel: &'static Kernel,
        groups: &[GroupId],
        segments: &[Range<usize>],
        workgroups: impl Fn(&Range<usize>) -> [u32; 3],
    ) -> Bound {
        let part = |(&group, segment): (&GroupId, _)| Part { group, workgroups: workgroups(segment) };
        Bound { kernel, parts: groups.iter().zip(segments).map(part).collect() }
    }

    /// A single dispatch of a kernel.
    pub fn one(&self, kernel: &'static Kernel, group: GroupId, workgroups: [u32; 3]) -> Bound {
        Bound { kernel, parts: [Part { group, workgroups }].into() }
    }
}
