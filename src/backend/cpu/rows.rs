//! Weighted sums over sparse lists of rows.

use super::simd::{Isa, LANES, Reuse, register_tiles};
use super::weights::Vectors;
use bytemuck::{Pod, Zeroable};
use std::ops::{Deref, DerefMut};

/// Bytes in a cache line.
pub const CACHE_LINE: usize = 64;

/// A row and its weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
#[repr(C)]
pub struct Weighted {
    /// Index of the row.
    pub row: u32,
    /// Its weight.
    pub weight: f32,
}

/// Rows with nonzero weight, in order.
#[derive(Debug, Default)]
pub struct RowList {
    /// The list, with room behind it: [`RowList::push`] writes whole vectors.
    items: Vec<Weighted>,
    len: usize,
}

impl RowList {
    /// Lists the lanes of consecutive vectors, each given by its weights and the mask of its lanes.
    #[inline(always)]
    pub fn fill<I: Isa>(&mut self, isa: I, vectors: impl ExactSizeIterator<Item = ([f32; LANES], u32)>) {
        self.truncate(0);
        self.reserve(vectors.len());
        for (index, (weights, lanes)) in vectors.enumerate() {
            self.push(isa, &weights, lanes, index * LANES);
        }
    }

    /// Reserves room for `vectors` more vectors.
    #[inline(always)]
    pub fn reserve(&mut self, vectors: usize) {
        let room = self.len + (vectors + 1) * LANES;
        if self.items.len() < room {
            self.items.resize(room, Weighted::default());
        }
    }

    /// Appends the lanes of a vector that are set in the mask `lanes`; lane i is row `first` + i.
    /// No branch per lane: it would be mispredicted half of the time.
    ///
    /// # Panics
    /// If there is no room; see [`RowList::reserve`].
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

/// weight ← weight · scale of the row, for every item of a list.
#[inline(always)]
pub fn scale_weights(list: &mut [Weighted], scales: &[f32]) {
    for item in list {
        item.weight *= scales[item.row as usize];
    }
}

/// out ← out + Σ weight · row over a list. `lines` are the rows as vectors; `prefetch` prefetches
/// the rows of later items.
#[inline(always)]
pub fn weighted_sum<I: Isa, E: Vectors>(
    isa: I,
    list: &[Weighted],
    lines: &[[E; LANES]],
    prefetch: bool,
    out: &mut [f32],
) {
    let (out, _) = out.as_chunks_mut::<LANES>();
    let row = out.len();
    register_tiles!(row, I::ACCUMULATORS, |at, V| {
        columns::<I, E, V>(isa, list, lines, row, at, prefetch, &mut out[at..at + V])
    });
}

/// [`weighted_sum`] for the `V` vectors of columns from `at` on, whose sums stay in registers.
#[inline(always)]
fn columns<I: Isa, E: Vectors, const V: usize>(
    isa: I,
    list: &[Weighted],
    lines: &[[E; LANES]],
    row: usize,
    at: usize,
    prefetch: bool,
    out: &mut [[f32; LANES]],
) {
    let columns = |item: &Weighted| lines[item.row as usize * row + at..].first_chunk::<V>().expect("a row");
    let mut sums = [isa.splat(0.0); V];
    for (sum, out) in sums.iter_mut().zip(out.iter()) {
        *sum = isa.load(out);
    }
    for (i, item) in list.iter().enumerate() {
        if prefetch && let Some(later) = list.get(i + E::AHEAD * isa.prefetch_distance()) {
            let per_line = (CACHE_LINE / size_of::<[E; LANES]>()).max(1);
            columns(later).iter().step_by(per_line).for_each(|vector| isa.prefetch(vector, Reuse::Late));
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
