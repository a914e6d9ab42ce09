//! Dense products over tiles, for several sequences at once: each weight is read once for all of them.

use super::rows::Weighted;
use super::simd::{Isa, Kernel, LANES, Level};
use super::weights::{Half, TILE};
use crate::backend::memory::WINDOW;

/// Sequences that share one pass over a tile: more would spill the sums out of registers.
const GROUP: usize = 4;

/// Rows that are needed soon: a product whose weights come from a cache asks for them on its way, so that they come
/// from memory meanwhile.
#[derive(Default)]
pub struct Ahead<'a> {
    list: &'a [Weighted],
    /// The first pair that settles before the listed rows are read, and how many do, WINDOW pairs apart.
    turn: usize,
    settling: usize,
    lines: &'a [[f32; LANES]],
    /// Vectors in a row.
    row: usize,
    /// Vectors asked for so far, and how many to ask for at each step.
    done: usize,
    step: usize,
}

impl<'a> Ahead<'a> {
    /// Of the rows of `row` numbers of a block's state those that settle in this turn of the window, and those that are
    /// listed.
    pub fn new(list: &'a [Weighted], rows: &'a [f32], row: usize, turn: usize) -> Self {
        let settling = (rows.len() / (2 * row)).saturating_sub(turn).div_ceil(WINDOW);
        Self { list, turn, settling, lines: rows.as_chunks().0, row: row / LANES, done: 0, step: 0 }
    }

    /// Divides them among `steps` steps.
    pub fn spread(&mut self, steps: usize) {
        self.step = ((2 * self.settling + self.list.len()) * self.row).div_ceil(steps.max(1));
    }

    #[inline(always)]
    fn ask<I: Isa>(&mut self, isa: I) {
        for _ in 0..self.step {
            let index = self.done / self.row;
            let row = if index < 2 * self.settling {
                2 * (self.turn + WINDOW * (index / 2)) + index % 2
            } else {
                let Some(item) = self.list.get(index - 2 * self.settling) else { return };
                item.row as usize
            };
            isa.prefetch(&self.lines[row * self.row + self.done % self.row]);
            self.done += 1;
        }
    }
}

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
    ahead: &mut Ahead,
    mut out: impl FnMut(usize, &[f32; TILE]),
) {
    for group in active.chunks(GROUP) {
        let x = |i: usize| &inputs[group[i] * row..][..row];
        let mut sums = [[0.0; TILE]; GROUP];
        match group.len() {
            1 => level.run(Product { tile, ahead, x: [x(0)], sums: sums.first_chunk_mut::<1>().expect("one of four") }),
            2 => level.run(Product {
                tile,
                ahead,
                x: [x(0), x(1)],
                sums: sums.first_chunk_mut::<2>().expect("two of four"),
            }),
            3 => level.run(Product {
                tile,
                ahead,
                x: [x(0), x(1), x(2)],
                sums: sums.first_chunk_mut::<3>().expect("three of four"),
            }),
            _ => level.run(Product { tile, ahead, x: [x(0), x(1), x(2), x(3)], sums: &mut sums }),
        }
        for (&slot, sums) in group.iter().zip(&sums) {
            out(slot, sums);
        }
    }
}

struct Product<'a, 'b, E, const S: usize> {
    tile: &'a [E],
    ahead: &'a mut Ahead<'b>,
    x: [&'a [f32]; S],
    sums: &'a mut [[f32; TILE]; S],
}

impl<E: Half, const S: usize> Kernel for Product<'_, '_, E, S> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        const VECTORS: usize = TILE / LANES;
        let mut sums = [[isa.splat(0.0); VECTORS]; S];
        let (lines, _) = self.tile.as_chunks::<TILE>();
        let x = self.x.map(|x| &x[..lines.len()]);
        for (d, line) in lines.iter().enumerate() {
            self.ahead.ask(isa);
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
