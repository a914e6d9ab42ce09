//! Converts sequences' memories between the device's layout (see `shaders/shared/memory.wgsl`) and
//! the host's.

use super::activations::floats;
use super::layout::{Layout, RECENT_ROWS};
use super::pages::Page;
use super::slots::GpuSlots;
use crate::backend::memory::{Memory, OwnedState, SavedLayer, SavedState, WINDOW};
use crate::backend::{BackendError, StateType};
use maybe_async::maybe_async;

/// Row of the residual in window slot `index`, if row `last` was written last.
fn recent_row(index: usize, last: usize) -> usize {
    (last + RECENT_ROWS - (last + WINDOW - index) % WINDOW) % RECENT_ROWS
}

#[maybe_async]
impl GpuSlots {
    /// The pages that hold a slot's states and windows, with offset and size of the slot's own in
    /// bytes.
    pub fn slot_pages(&self, slot: usize) -> impl Iterator<Item = (&Page, u64, u64)> {
        (0..self.states.len()).flat_map(move |layer| self.layer_pages(layer, slot))
    }

    /// As [`GpuSlots::slot_pages`], for one layer.
    fn layer_pages(&self, layer: usize, slot: usize) -> impl Iterator<Item = (&Page, u64, u64)> {
        self.states[layer].iter().filter(move |page| page.slots.contains(&slot)).map(move |page| {
            let bytes = self.shared.layout.state_bytes(&page.segment);
            (page, (slot - page.slots.start) as u64 * bytes, bytes)
        })
    }

    /// Reads a layer's memory of a slot, as numbers.
    pub async fn read_memory(&self, layer: usize, slot: usize) -> Result<Memory, BackendError> {
        let LayerMemory { state, rotated, recent } = self.read_layer(layer, slot).await?;
        Ok(Memory { state: state.as_saved().numbers(self.shared.layout.geometry.width), rotated, recent })
    }

    /// Replaces a layer's memory of a slot by numbers, which are rounded to the state's type.
    pub async fn write_memory(&self, layer: usize, slot: usize, memory: &Memory) -> Result<(), BackendError> {
        let Memory { state, rotated, recent } = memory;
        self.write_layer(layer, slot, SavedLayer { state: SavedState::F32(state), rotated, recent }).await
    }

    /// Replaces a layer's state of a slot by `[H, N, D]` numbers. Its window is empty afterwards.
    pub async fn write_numbers(&self, layer: usize, slot: usize, state: &[f32]) -> Result<(), BackendError> {
        let g = &self.shared.layout.geometry;
        let Memory { rotated, recent, .. } = Memory::zeros(1, g.heads, g.neurons, g.width);
        let saved = SavedLayer { state: SavedState::F32(state), rotated: &rotated, recent: &recent };
        self.write_layer(layer, slot, saved).await
    }

    /// Reads a layer's memory of a slot as it is.
    pub async fn read_layer(&self, layer: usize, slot: usize) -> Result<LayerMemory, BackendError> {
        let layout = &self.shared.layout;
        let (g, parts, number) = (&layout.geometry, BlockParts::new(layout), layout.state_type.bytes());
        let (mut rows, mut scales, mut rotated, mut kept) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (page, offset, bytes) in self.layer_pages(layer, slot) {
            let bytes = page.store.download(&self.shared.gpu, offset, bytes).await?;
            let (blocks, recent) = bytes.split_at(layout.recent_begin(&page.segment) as usize);
            for block in blocks.chunks_exact(parts.all()) {
                let (own_rows, rest) = block.split_at(parts.rows);
                let (factors, window) = rest.split_at(parts.scales);
                rows.extend_from_slice(own_rows);
                scales.extend(floats(factors));
                rotated.extend(floats(window));
            }
            // Every segment holds the same residuals.
            kept = floats(recent);
        }
        // A faulty driver may return any number.
        let last = kept[RECENT_ROWS * g.row] as usize % RECENT_ROWS;
        let row = |index| &kept[recent_row(index, last) * g.row..][..g.width];
        let rows = g.unpad(&rows, g.row * number, g.width * number);
        let scales = || g.unpad(&scales, 1, 1);
        Ok(LayerMemory {
            state: match layout.state_type {
                StateType::F32 => OwnedState::F32(bytemuck::pod_collect_to_vec(&rows)),
                StateType::I16 => OwnedState::I16(bytemuck::pod_collect_to_vec(&rows), scales()),
                StateType::I8 => OwnedState::I8(bytemuck::pod_collect_to_vec(&rows), scales()),
            },
            rotated: g.unpad(&rotated, WINDOW, WINDOW),
            recent: (0..WINDOW).flat_map(row).copied().collect(),
        })
    }

    /// Replaces a layer's memory of a slot. A state of the same type is copied as it is, one of
    /// another type rounded.
    pub async fn write_layer(&self, layer: usize, slot: usize, saved: SavedLayer<'_>) -> Result<(), BackendError> {
        let layout = &self.shared.layout;
        let (g, parts, number) = (&layout.geometry, BlockParts::new(layout), layout.state_type.bytes());
        let converted;
        let state = if saved.state.state_type() == layout.state_type {
            saved.state
        } else {
            converted = saved.state.converted(layout.state_type, g.width);
            converted.as_saved()
        };
        let (numbers, scales): (&[u8], &[f32]) = match state {
            SavedState::F32(numbers) => (bytemuck::cast_slice(numbers), &[]),
            SavedState::I16(numbers, scales) => (bytemuck::cast_slice(numbers), scales),
            SavedState::I8(numbers, scales) => (bytemuck::cast_slice(numbers), scales),
        };
        let mut rows = vec![0; g.layer_state() * number];
        g.pad(numbers, g.width * number, &mut rows, g.row * number);
        let mut factors = vec![0f32; g.all_neurons()];
        g.pad(scales, 1, &mut factors, 1);
        let mut rotated = vec![0f32; g.all_neurons() * WINDOW];
        g.pad(saved.rotated, WINDOW, &mut rotated, WINDOW);
        for (page, offset, bytes) in self.layer_pages(layer, slot) {
            let mut packed: Vec<u8> = Vec::with_capacity(bytes as usize);
            for block in page.segment.clone() {
                packed.extend_from_slice(&rows[block * parts.rows..][..parts.rows]);
                packed.extend_from_slice(&bytemuck::cast_slice(&factors[g.neurons_of(block)])[..parts.scales]);
                let window = &rotated[block * g.block * WINDOW..][..g.block * WINDOW];
                packed.extend_from_slice(bytemuck::cast_slice(window));
            }
            // Both rows of a window slot are the same, so it does not matter which was written
            // last.
            for from in saved.recent.chunks_exact(g.width).cycle().take(RECENT_ROWS) {
                packed.extend_from_slice(bytemuck::cast_slice(from));
                packed.resize(packed.len() + 4 * (g.row - g.width), 0);
            }
            packed.resize(bytes as usize, 0);
            page.store.upload(&self.shared.gpu, offset, &packed).await?;
        }
        Ok(())
    }
}

/// A layer's memory of one sequence, without padding.
pub(super) struct LayerMemory {
    pub state: OwnedState,
    /// The window's q, `[H, N, WINDOW]`.
    pub rotated: Vec<f32>,
    /// The window's x, `[WINDOW, D]`.
    pub recent: Vec<f32>,
}

/// Bytes of the parts of a block's memory.
struct BlockParts {
    rows: usize,
    scales: usize,
    window: usize,
}

impl BlockParts {
    fn new(layout: &Layout) -> Self {
        let (g, state_type) = (&layout.geometry, layout.state_type);
        Self {
            rows: g.block * g.row * state_type.bytes(),
            scales: g.block * 4 * state_type.scales(),
            window: g.block * WINDOW * 4,
        }
    }

    fn all(&self) -> usize {
        self.rows + self.scales + self.window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shader's `recent_row`; `position` is that of the next token.
    fn shader_row(index: u32, position: u32) -> u32 {
        let (window, rows) = (WINDOW as u32, RECENT_ROWS as u32);
        let last = position.wrapping_sub(1);
        last.wrapping_sub(last.wrapping_sub(index) % window) % rows
    }

    #[test]
    fn every_index_is_found_where_its_token_was_written() {
        for position in [0u32, 1, 15, 16, 17, 31, 32, 33, 1000, u32::MAX] {
            for back in 1..=WINDOW as u32 {
                let token = position.wrapping_sub(back);
                let (index, row) = (token % WINDOW as u32, token % RECENT_ROWS as u32);
                assert_eq!(shader_row(index, position), row, "{back} tokens before {position}");
                let last = position.wrapping_sub(1) as usize % RECENT_ROWS;
                assert_eq!(recent_row(index as usize, last), row as usize, "{back} tokens before {position}");
            }
        }
    }
}
