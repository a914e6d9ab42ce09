//! Weighted sums of rows, over lists of those that count.

use super::simd::{Isa, LANES, Reuse};
use super::weights::Half;
use bytemuck::{Pod, Zeroable};
use std::ops::{Deref, DerefMut};

/// A row and its weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Weighted {
    /// Index of the row.
    pub row: u32,
    /// Its weight.
    pub weight: f32,
}

/// The rows that count, in order.
#[derive(Debug, Default)]
pub struct RowList {
    /// Those, and room behind them: what is listed is written a vector at a time.
    items: Vec<Weighted>,
    len: usize,
}

impl RowList {
    /// Lists lanes of vectors that follow one another: those whose bit is set, with their weights.
    #[inline(always)]
    pub fn fill<I: Isa>(&mut self, isa: I, vectors: impl ExactSizeIterator<Item = ([f32; LANES], u32)>) {
        self.truncate(0);
        self.reserve(vectors.len());
        for (index, (weights, lanes)) in vectors.enumerate() {
            self.push(isa, &weights, lanes, index * LANES);
        }
    }

    /// Makes room for as many vectors more.
    #[inline(always)]
    pub fn reserve(&mut self, vectors: usize) {
        let room = self.len + (vectors + 1) * LANES;
        if self.items.len() < room {
            self.items.resize(room, Weighted::default());
        }
    }

    /// Lists those lanes of a vector whose bit is set, with their weights; the vector's rows begin with `first`. No branch
    /// asks whether a lane counts: it would be mispredicted as often as not.
    ///
    /// # Panics
    /// Where there is no room.
    #[inline(always)]
    pub fn push<I: Isa>(&mut self, isa: I, weights: &[f32; LANES], lanes: u32, first: usize) {
        let to = self.items[self.len..].first_chunk_mut::<LANES>().expect("room for a vector");
        self.len += isa.compact(weights, lanes, first as u32, bytemuck::cast_mut(to));
    }

    /// Keeps the first `len` rows.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Deref for RowList {
    type Target = [Weighted];

    fn deref(&self) -> &[Weighted] {
        &self.items[..self.len]
    }
}

impl DerefMut for RowList {
    fn deref_mut(&mut self) -> &mut [Weighted] {
        &mut self.items[..self.len]
    }
}

/// out ← out + Σ weight · row over a list; `lines` are the rows, as vectors. Asks for rows ahead of time where `ahead` is set.
#[inline(always)]
pub fn weighted_sum<I: Isa, E: Half>(isa: I, list: &[Weighted], lines: &[[E; LANES]], ahead: bool, out: &mut [f32]) {
    let (out, _) = out.as_chunks_mut::<LANES>();
    let row = out.len();
    let mut at = 0;
    while at < row {
        let count = (row - at).min(I::ACCUMULATORS);
        let count = 1 << count.ilog2();
        let out = &mut out[at..at + count];
        match count {
            16 => columns::<I, E, 16>(isa, list, lines, row, at, ahead, out),
            8 => columns::<I, E, 8>(isa, list, lines, row, at, ahead, out),
            4 => columns::<I, E, 4>(isa, list, lines, row, at, ahead, out),
            2 => columns::<I, E, 2>(isa, list, lines, row, at, ahead, out),
            _ => columns::<I, E, 1>(isa, list, lines, row, at, ahead, out),
        }
        at += count;
    }
}

/// [`weighted_sum`] for the `V` vectors of columns from `at` on, which stay in registers.
#[inline(always)]
fn columns<I: Isa, E: Half, const V: usize>(
    isa: I,
    list: &[Weighted],
    lines: &[[E; LANES]],
    row: usize,
    at: usize,
    ahead: bool,
    out: &mut [[f32; LANES]],
) {
    let columns = |item: &Weighted| lines[item.row as usize * row + at..].first_chunk::<V>().expect("a row");
    let mut sums = [isa.splat(0.0); V];
    for (sum, out) in sums.iter_mut().zip(out.iter()) {
        *sum = isa.load(out);
    }
    for (i, item) in list.iter().enumerate() {
        if ahead && let Some(later) = list.get(i + isa.rows_ahead()) {
            columns(later).iter().for_each(|line| isa.prefetch(line, Reuse::Late));
        }
        let (columns, weight) = (columns(item), isa.splat(item.weight));
        for v in 0..V {
            sums[v] = isa.mul_add(weight, E::load(isa, &columns[v]), sums[v]);
        }
    }
    for (sum, out) in sums.into_iter().zip(out) {
        isa.store(sum, out);
    }
}
