//! Plain Rust for every processor.

use super::{Isa, LANES, Reuse};

/// Plain Rust; the compiler vectorises it for its baseline.
#[derive(Clone, Copy)]
pub struct Portable;

impl Isa for Portable {
    type V = [f32; LANES];
    const ACCUMULATORS: usize = 2;
    const TILE: [usize; 2] = [6, 1];

    #[inline(always)]
    fn prefetch<T>(self, _: &T, _: Reuse) {}

    #[inline(always)]
    fn prefetch_distance(self) -> usize {
        // Prefetches do nothing here.
        0
    }

    #[inline(always)]
    fn nonzero(self, v: Self::V) -> u32 {
        v.iter().enumerate().fold(0, |lanes, (i, &x)| lanes | u32::from(x != 0.0) << i)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::V {
        *from
    }

    #[inline(always)]
    fn load_half(self, from: &[u16; LANES]) -> Self::V {
        from.map(half_to_f32)
    }

    #[inline(always)]
    fn load_i16(self, from: &[i16; LANES]) -> Self::V {
        from.map(f32::from)
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Self::V {
        from.map(f32::from)
    }

    #[inline(always)]
    fn store_i16(self, v: Self::V, to: &mut [i16; LANES]) {
        *to = v.map(|x| x.round_ties_even() as i16);
    }

    #[inline(always)]
    fn store_i8(self, v: Self::V, to: &mut [i8; LANES]) {
        *to = v.map(|x| x.round_ties_even() as i8);
    }

    #[inline(always)]
    fn larger_magnitude(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| f32::from_bits(a[i].to_bits().max(b[i].abs().to_bits())))
    }

    #[inline(always)]
    fn store(self, v: Self::V, to: &mut [f32; LANES]) {
        *to = v;
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] + b[i])
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
}

/// Converts a finite half float to f32 without branches: a multiplication re-biases the exponent
/// and normalises subnormals. (The loader rejects weights that are not finite.)
#[inline(always)]
fn half_to_f32(bits: u16) -> f32 {
    let magnitude = f32::from_bits((bits as u32 & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
    f32::from_bits(magnitude.to_bits() | (bits as u32 & 0x8000) << 16)
}
