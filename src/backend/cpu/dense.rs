//! Dense products over tiles, for several sequences at once: each weight is read once for all of them.

use super::simd::{Isa, Kernel, LANES, Level};
use super::weights::{Half, TILE};

/// Sequences that share one pass over a tile: more would spill the sums out of registers.
const GROUP: usize = 4;

/// out[s] ← x[s] · tile for every sequence.
///
/// `tile` is `[D][TILE]`; `inputs` `[S][row]`, of which the sequences in `active` count; `out` is called
/// with each sequence's index and its `[TILE]` sums.
pub fn tile_product<E: Half>(
    level: Level,
    tile: &[E],
    inputs: &[f32],
    row: usize,
    active: &[usize],
    mut out: impl FnMut(usize, &[f32; TILE]),
) {
    for group in active.chunks(GROUP) {
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

struct Product<'a, E, const S: usize> {
    tile: &'a [E],
    x: [&'a [f32]; S],
    sums: &'a mut [[f32; TILE]; S],
}

impl<E: Half, const S: usize> Kernel for Product<'_, E, S> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        const VECTORS: usize = TILE / LANES;
        let mut sums = [[isa.splat(0.0); VECTORS]; S];
        let (lines, _) = self.tile.as_chunks::<TILE>();
        let x = self.x.map(|x| &x[..lines.len()]);
        for (d, line) in lines.iter().enumerate() {
            let (parts, _) = line.as_chunks::<LANES>();
            for (v, part) in parts.iter().enumerate() {
                let weights = E::load(isa, part);
                for (sums, x) in sums.iter_mut().zip(&x) {
                    sums[v] = isa.mul_add(weights, isa.splat(x[d]), sums[v]);
                }
            }
        }
        for (sums, out) in sums.iter().zip(self.sums) {
            let (parts, _) = out.as_chunks_mut::<LANES>();
            for (&sum, part) in sums.iter().zip(parts) {
                isa.store(sum, part);
            }
        }
    }
}
