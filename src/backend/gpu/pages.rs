//! States and windows of a set of slots, in pages that fit a binding.

use super::device::Gpu;
use super::layout::Layout;
use super::store::Store;
use super::texels::Use;
use crate::backend::BackendError;
use std::ops::Range;

/// States and windows of some slots in one segment of one layer.
pub(super) struct Page {
    /// Index of the segment.
    pub index: usize,
    /// Blocks of the segment.
    pub segment: Range<usize>,
    pub slots: Range<usize>,
    pub store: Store,
}

impl Page {
    /// Stride between slots' memories in the page, in vec4.
    pub fn slot_stride(&self, layout: &Layout) -> u32 {
        (layout.state_bytes(&self.segment) / 16) as u32
    }

    /// Offset of the window's residuals in a slot's memory, in vec4.
    pub fn recent_begin(&self, layout: &Layout) -> u32 {
        (layout.recent_begin(&self.segment) / 16) as u32
    }
}

/// Empty pages of one layer for `count` slots.
pub(super) fn allocate(gpu: &Gpu, layout: &Layout, count: usize) -> Result<Vec<Page>, BackendError> {
    let mut pages = Vec::new();
    for (index, segment) in layout.segments.iter().enumerate() {
        for slots in layout.pages(segment, count) {
            let bytes = layout.state_bytes(segment) * slots.len() as u64;
            let store = Store::new(gpu, "the sequences' state", bytes, Use::Words, layout.images)?;
            pages.push(Page { index, segment: segment.clone(), slots, store });
        }
    }
    Ok(pages)
}
