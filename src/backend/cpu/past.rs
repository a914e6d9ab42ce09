//! The tokens that a sliding window holds, and those that leave it.
//!
//! With a reach of R tokens, a token at position t attends to those at t − R … t − 1: what the token
//! at t − R has written is subtracted once t has been read. It need not be kept for that. Each
//! layer's residual x of a token tells its q again, because u depends on x alone.
//!
//! Leaving mirrors entering (see [`crate::backend::memory`]): q and −x of the last [`WINDOW`] tokens
//! that left form a second window beside the state. A token attends to it too, and its pairs settle
//! like those of the first.

use super::pages::Pages;
use crate::backend::BackendError;
use crate::backend::memory::WINDOW;
use crate::backend::pack::Geometry;

/// A sequence's residuals, for a sliding window.
pub struct Past {
    /// Tokens that a token attends to, R.
    pub reach: usize,
    row: usize,
    /// Residuals of the last R tokens, `[layers][R][row]`; the token at position t is at index
    /// t mod R.
    held: Pages<f32>,
    /// Residuals of the tokens that left last, negated, `[layers][WINDOW][row]`; the token that left
    /// after position t is at index t mod WINDOW.
    leaving: Vec<f32>,
    /// Tokens in `held`.
    filled: usize,
}

impl Past {
    /// An empty past.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`] if it does not fit.
    pub fn new(g: &Geometry, reach: usize) -> Result<Self, BackendError> {
        let held = Pages::zeroed(g.layers.saturating_mul(reach).saturating_mul(g.row), "a sliding window")?;
        Ok(Self { reach, row: g.row, held, leaving: vec![0.0; g.layers * WINDOW * g.row], filled: 0 })
    }

    /// Holds nothing any more. Residuals without their q have no effect.
    pub fn clear(&mut self) {
        self.filled = 0;
    }

    /// Copies a past of the same reach.
    pub fn copy_from(&mut self, from: &Self) {
        self.leaving.copy_from_slice(&from.leaving);
        self.filled = from.filled;
        let (size, used) = (self.reach * self.row, self.filled * self.row);
        if size > 0 {
            for (to, from) in self.held.chunks_exact_mut(size).zip(from.held.chunks_exact(size)) {
                to[..used].copy_from_slice(&from[..used]);
            }
        }
    }

    /// Position of the token that leaves once the one at `position` has been read, if one does.
    pub fn leaving_at(&self, position: u32) -> Option<u32> {
        position.checked_sub(u32::try_from(self.reach).ok()?)
    }

    /// A held token's residual, `[row]`.
    pub fn residual(&self, layer: usize, position: u32) -> &[f32] {
        &self.held[self.at(layer, position)..][..self.row]
    }

    /// Residuals of the tokens that left last, negated, `[WINDOW][row]`.
    pub fn leaving(&self, layer: usize) -> &[f32] {
        let size = WINDOW * self.row;
        &self.leaving[layer * size..][..size]
    }

    /// The token at `position` has been read with the residual `x`, `[row]`: the oldest one leaves, and
    /// it takes its place.
    pub fn pass(&mut self, layer: usize, position: u32, x: &[f32]) {
        let at = self.at(layer, position);
        if self.leaving_at(position).is_some() {
            let to = (layer * WINDOW + position as usize % WINDOW) * self.row;
            let to = &mut self.leaving[to..][..self.row];
            to.iter_mut().zip(&self.held[at..]).for_each(|(to, x)| *to = -x);
        }
        self.held[at..][..self.row].copy_from_slice(x);
        self.filled = self.filled.max(position as usize % self.reach + 1);
    }

    fn at(&self, layer: usize, position: u32) -> usize {
        (layer * self.reach + position as usize % self.reach) * self.row
    }

    /// Residuals of a layer as data, `[WINDOW + tokens][width]`: of those that left last, then of those
    /// held.
    pub fn rows(&self, layer: usize, width: usize) -> Vec<f32> {
        let held = &self.held[layer * self.reach * self.row..][..self.filled * self.row];
        let rows = self.leaving(layer).chunks_exact(self.row).chain(held.chunks_exact(self.row));
        rows.flat_map(|row| &row[..width]).copied().collect()
    }

    /// The inverse of [`Past::rows`], for as many rows as fit.
    pub fn set_rows(&mut self, layer: usize, width: usize, rows: &[f32]) {
        let size = WINDOW * self.row;
        let leaving = self.leaving[layer * size..][..size].chunks_exact_mut(self.row);
        let held = self.held[layer * self.reach * self.row..][..self.reach * self.row].chunks_exact_mut(self.row);
        for (to, from) in leaving.chain(held).zip(rows.chunks_exact(width)) {
            to[..width].copy_from_slice(from);
        }
        self.filled = (rows.len() / width).saturating_sub(WINDOW).min(self.reach);
    }
}
