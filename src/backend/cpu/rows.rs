//! Weighted sums of rows, over lists of those that count.

use super::simd::{Isa, LANES};
use super::weights::Half;

/// A row and its weight.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Weighted {
    /// Index of the row.
    pub row: u32,
    /// Its weight.
    pub weight: f32,
}

/// Rows ahead of their use at which they are asked for.
pub const AHEAD: usize = 16;

/// Keeps what `keep` says of `items` in `list`, in order, without a branch that would be mispredicted.
#[inline(always)]
pub fn select<T: Copy, const N: usize>(
    list: &mut Vec<T>,
    items: impl ExactSizeIterator<Item = ([T; N], bool)>,
    filler: T,
) {
    list.clear();
    list.resize(N * (items.len() + 1), filler);
    let mut count = 0;
    for (item, keep) in items {
        list[count..count + N].copy_from_slice(&item);
        count += N * usize::from(keep);
    }
    list.truncate(count);
}

/// Drops the rows of weight zero, as [`select`] does.
#[inline(always)]
pub fn drop_zeros(list: &mut Vec<Weighted>) {
    let mut count = 0;
    for i in 0..list.len() {
        let item = list[i];
        list[count] = item;
        count += usize::from(item.weight != 0.0);
    }
    list.truncate(count);
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
        if ahead && let Some(later) = list.get(i + AHEAD) {
            columns(later).iter().for_each(|line| isa.prefetch(line));
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
