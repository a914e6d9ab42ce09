//! Converts sequences' memories between the device's layout (see `shaders/shared/memory.wgsl`) and
//! the host's.

use super::activations::floats;
use super::layout::RECENT_ROWS;
use super::pages::Page;
use super::slots::GpuSlots;
use crate::backend::BackendError;
use crate::backend::memory::{Memory, WINDOW};

/// Row of the residual in window slot `index`, if row `last` was written last.
fn recent_row(index: usize, last: usize) -> usize {
    (last + RECENT_ROWS - (last + WINDOW - index) % WINDOW) % RECENT_ROWS
}

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

    /// Reads a layer's memory of a slot.
    pub fn read_memory(&self, layer: usize, slot: usize) -> Result<Memory, BackendError> {
        let g = &self.shared.layout.geometry;
        let gpu = &self.shared.gpu;
        let (mut state, mut rotated) = (Vec::with_capacity(g.layer_state()), Vec::new());
        let mut kept = Vec::new();
        for (page, offset, bytes) in self.layer_pages(layer, slot) {
            let numbers = floats(&page.store.download(gpu, offset, bytes)?);
            let (blocks, recent) = numbers.split_at(self.shared.layout.recent_begin(&page.segment) as usize / 4);
            for block in blocks.chunks_exact(g.block * (g.row + WINDOW)) {
                let (rows, window) = block.split_at(g.block * g.row);
                state.extend_from_slice(rows);
                rotated.extend_from_slice(window);
            }
            // Every segment holds the same residuals.
            kept = recent.to_vec();
        }
        // A faulty driver may return any number.
        let last = kept[RECENT_ROWS * g.row] as usize % RECENT_ROWS;
        let row = |index| &kept[recent_row(index, last) * g.row..][..g.width];
        Ok(Memory {
            state: g.unpad(&state, g.row, g.width),
            rotated: g.unpad(&rotated, WINDOW, WINDOW),
            recent: (0..WINDOW).flat_map(row).copied().collect(),
        })
    }

    /// Replaces a layer's memory of a slot.
    pub fn write_memory(&self, layer: usize, slot: usize, memory: &Memory) -> Result<(), BackendError> {
        let g = &self.shared.layout.geometry;
        let gpu = &self.shared.gpu;
        let (mut state, mut rotated) = (vec![0f32; g.layer_state()], vec![0f32; g.all_neurons() * WINDOW]);
        g.pad(&memory.state, g.width, &mut state, g.row);
        g.pad(&memory.rotated, WINDOW, &mut rotated, WINDOW);
        for (page, offset, bytes) in self.layer_pages(layer, slot) {
            let mut packed: Vec<f32> = Vec::with_capacity(bytes as usize / 4);
            for block in page.segment.clone() {
                packed.extend_from_slice(&state[block * g.block * g.row..][..g.block * g.row]);
                packed.extend_from_slice(&rotated[block * g.block * WINDOW..][..g.block * WINDOW]);
            }
            // Both rows of a window slot are the same, so it does not matter which was written
            // last.
            for from in memory.recent.chunks_exact(g.width).cycle().take(RECENT_ROWS) {
                packed.extend_from_slice(from);
                packed.resize(packed.len() + g.row - g.width, 0.0);
            }
            packed.resize(bytes as usize / 4, 0.0);
            page.store.upload(gpu, offset, bytemuck::cast_slice(&packed))?;
        }
        Ok(())
    }

    /// Replaces a layer's state of a slot by `[H, N, D]` numbers. Its window is empty afterwards.
    pub fn write_layer(&self, layer: usize, slot: usize, state: &[f32]) -> Result<(), BackendError> {
        let g = &self.shared.layout.geometry;
        let memory = Memory { state: state.to_vec(), ..Memory::zeros(1, g.heads, g.neurons, g.width) };
        self.write_memory(layer, slot, &memory)
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
