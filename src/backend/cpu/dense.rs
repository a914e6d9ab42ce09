//! Twin of `shaders/shared/dense.wgsl`: dense products over tiles, for several sequences at once.
//! Each weight is loaded once for all of them.

use super::simd::{Isa, Kernel, LANES, Level, Reuse, register_tiles};
use super::weights::{TILE, Weight};
use crate::backend::pack::Geometry;
use std::ops::Range;

/// Sequences that share one pass over a tile; more sums would spill out of the registers.
const GROUP: usize = 4;

/// Prefetch distance, in bytes: half of a first-level cache.
const PREFETCH_DISTANCE: usize = 16 << 10;
/// Bytes of the matrix per thread that stay in the core's own caches from one product to the next.
const OWN_CACHE: usize = 1 << 20;

/// A tile of a matrix in tiles.
#[derive(Clone, Copy)]
pub struct Tile<'a, E> {
    /// The tile, `[D][TILE]`, followed by the tiles that come next.
    pub weights: &'a [E],
    /// D.
    pub depth: usize,
    /// Whether to prefetch weights: hardware prefetchers stop at page boundaries.
    pub prefetch: bool,
}

impl<'a, E: Weight> Tile<'a, E> {
    /// The tiles `range` of a matrix that is divided among `threads` threads.
    pub fn range(matrix: &'a [E], depth: usize, range: Range<usize>, threads: usize) -> impl Iterator<Item = Self> {
        let prefetch = size_of_val(matrix) > OWN_CACHE * threads;
        range.map(move |index| Tile { weights: &matrix[index * depth * TILE..], depth, prefetch })
    }
}

/// The encoder's tiles of a block.
pub fn block_tiles(g: &Geometry, block: usize) -> Range<usize> {
    block * g.block / TILE..(block + 1) * g.block / TILE
}

/// Calls `out` with x[s] · tile, `[TILE]`, for every sequence s in `active`.
///
/// `inputs` are the sequences' x, `[S][row]`.
pub fn tile_product<E: Weight>(
    level: Level,
    tile: Tile<E>,
    inputs: &[f32],
    row: usize,
    active: &[usize],
    mut out: impl FnMut(usize, &[f32; TILE]),
) {
    for (index, group) in active.chunks(GROUP).enumerate() {
        // The first group brings the tile into the cache.
        let tile = Tile { prefetch: tile.prefetch && index == 0, ..tile };
        let x = |i: usize| &inputs[group[i] * row..][..row];
        let mut sums = [[0.0; TILE]; GROUP];
        match group.len() {
            1 => level.run(Product { tile, x: [x(0)], sums: sums.first_chunk_mut::<1>().expect("one of four") }),
            2 => level.run(Product { tile, x: [x(0), x(1)], sums: sums.first_chunk_mut::<2>().expect("two of four") }),
            3 => level.run(Product {
                tile,
                x: [x(0), x(1), x(2)],
                sums: sums.first_chunk_mut::<3>().expect("three of four"),
            }),
            _ => level.run(Product { tile, x: [x(0), x(1), x(2), x(3)], sums: &mut sums }),
        }
        for (&slot, sums) in group.iter().zip(&sums) {
            out(slot, sums);
        }
    }
}

/// sums[s] ← x[s] · tile.
struct Product<'a, E, const S: usize> {
    tile: Tile<'a, E>,
    x: [&'a [f32]; S],
    sums: &'a mut [[f32; TILE]; S],
}

impl<E: Weight, const S: usize> Kernel for Product<'_, E, S> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        const VECTORS: usize = TILE / LANES;
        // Sums that spill cost more than loading x again for every part of the tile; but the
        // compiler's baseline spills either way.
        let widest = if I::ACCUMULATORS < 4 { VECTORS } else { I::ACCUMULATORS / S };
        register_tiles!(VECTORS, widest, |at, V| self.columns::<I, V>(isa, at));
    }
}

impl<E: Weight, const S: usize> Product<'_, E, S> {
    /// The product for the `V` vectors of outputs from `at` on, whose sums stay in registers.
    #[inline(always)]
    fn columns<I: Isa, const V: usize>(&mut self, isa: I, at: usize) {
        let mut sums = [[isa.splat(0.0); V]; S];
        let (all, _) = self.tile.weights.as_chunks::<TILE>();
        let lines = &all[..self.tile.depth];
        let later = all.get(PREFETCH_DISTANCE / size_of::<[E; TILE]>()..);
        // The first columns bring the others into the cache.
        let later = later.filter(|_| self.tile.prefetch && at == 0).unwrap_or_default();
        let x = self.x.map(|x| &x[..lines.len()]);
        for (d, line) in lines.iter().enumerate() {
            if let Some(later) = later.get(d) {
                let step = size_of::<[f32; LANES]>() / size_of::<E>();
                later.iter().step_by(step).for_each(|weight| isa.prefetch(weight, Reuse::Soon));
            }
            let (parts, _) = line.as_chunks::<LANES>();
            let parts = parts[at..].first_chunk::<V>().expect("columns of a tile");
            for v in 0..V {
                let weights = E::load(isa, &parts[v]);
                for (sums, x) in sums.iter_mut().zip(&x) {
                    sums[v] = isa.mul_add(weights, isa.splat(x[d]), sums[v]);
                }
            }
        }
        for (sums, out) in sums.iter().zip(&mut *self.sums) {
            let (parts, _) = out.as_chunks_mut::<LANES>();
            for (&sum, part) in sums.iter().zip(&mut parts[at..]) {
                isa.store(sum, part);
            }
        }
    }
}
