//! Layouts of a chunk's matrices: panels, columns, and padding.

use crate::backend::cpu::simd::{Isa, Kernel, LANES};

/// The tokens of a chunk, padded to whole vectors.
pub fn padded_tokens(tokens: usize) -> usize {
    tokens.next_multiple_of(LANES)
}

/// Some columns of a matrix `[T][row]` in panels: each panel is contiguous, `[T][vectors]`, and
/// panels follow one another. A panel of all tokens fits the first-level cache; columns of long
/// rows would compete for a few of its sets.
#[derive(Clone, Copy)]
pub struct Panel {
    /// First vector of the columns.
    pub at: usize,
    /// Vectors of the columns: 4 or 1.
    pub vectors: usize,
}

/// The panels of a row. Two rows of the state, their sums, x and y of a panel fit the registers.
#[inline(always)]
pub fn panels<I: Isa>(row: usize) -> impl Iterator<Item = Panel> {
    let row = row / LANES;
    let wide = if I::ACCUMULATORS == 16 { row / 4 } else { 0 };
    let wide_panels = (0..wide).map(|i| Panel { at: 4 * i, vectors: 4 });
    wide_panels.chain((4 * wide..row).map(|at| Panel { at, vectors: 1 }))
}

/// Copies a matrix `[T][row]` into panels, or back.
pub struct CopyPanels<'a> {
    /// The matrix to copy from.
    pub from: &'a [f32],
    /// The matrix to copy to.
    pub to: &'a mut [f32],
    /// Length of a row.
    pub row: usize,
    /// Whether `to` is the matrix in panels.
    pub into_panels: bool,
}

impl Kernel for CopyPanels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let tokens = self.from.len() / self.row;
        for Panel { at, vectors } in panels::<I>(self.row) {
            for t in 0..tokens {
                let width = vectors * LANES;
                let (plain, panel) = (t * self.row + at * LANES, at * LANES * tokens + t * width);
                let (from, to) = if self.into_panels { (plain, panel) } else { (panel, plain) };
                self.to[to..to + width].copy_from_slice(&self.from[from..from + width]);
            }
        }
    }
}

/// Transposes rows `[R][block]` to columns `[block][padded]`, with zeros for missing rows. `block`
/// and `padded` are whole vectors.
#[inline(always)]
pub fn transpose<I: Isa>(isa: I, rows: &[f32], block: usize, columns: &mut [f32], padded: usize) {
    for first in (0..padded).step_by(LANES) {
        let rows = &rows[(first * block).min(rows.len())..];
        for at in (0..block).step_by(LANES) {
            let mut square = [[0; LANES]; LANES];
            for (row, to) in rows.chunks_exact(block).zip(&mut square) {
                *to = bytemuck::cast(*row[at..].first_chunk::<LANES>().expect("whole vectors"));
            }
            isa.transpose(&mut square);
            for (from, column) in square.iter().zip(columns[at * padded..].chunks_exact_mut(padded)) {
                column[first..first + LANES].copy_from_slice(&bytemuck::cast::<_, [f32; LANES]>(*from));
            }
        }
    }
}
