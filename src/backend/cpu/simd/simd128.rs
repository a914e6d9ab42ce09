//! WebAssembly's vectors of 128 bits, four to a vector of ours.

use super::{Isa, LANES, Reuse};
use core::arch::wasm32::{
    f32x4, f32x4_abs, f32x4_add, f32x4_convert_i32x4, f32x4_extract_lane, f32x4_mul, f32x4_ne, f32x4_nearest,
    f32x4_splat, i8x16, i16x8, i16x8_extend_high_i8x16, i16x8_extend_low_i8x16, i32x4_bitmask, i32x4_extend_high_i16x8,
    i32x4_extend_low_i16x8, i32x4_extract_lane, i32x4_trunc_sat_f32x4, u32x4, u32x4_max, u32x4_shl, u32x4_splat, v128,
    v128_and, v128_or,
};

/// The feature simd128.
#[derive(Clone, Copy)]
pub struct Simd128;

/// Vectors of 128 bits in one of ours.
const PARTS: usize = LANES / 4;

#[inline(always)]
fn each(a: [v128; PARTS], f: impl Fn(v128) -> v128) -> [v128; PARTS] {
    [f(a[0]), f(a[1]), f(a[2]), f(a[3])]
}

#[inline(always)]
fn pairs(a: [v128; PARTS], b: [v128; PARTS], f: impl Fn(v128, v128) -> v128) -> [v128; PARTS] {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

/// Eight integers as floats.
#[inline(always)]
fn floats(i: v128) -> [v128; 2] {
    [f32x4_convert_i32x4(i32x4_extend_low_i16x8(i)), f32x4_convert_i32x4(i32x4_extend_high_i16x8(i))]
}

/// Sixteen floats as integers, halves to even.
#[inline(always)]
fn rounded(v: [v128; PARTS]) -> [i32; LANES] {
    let [a, b, c, d] = each(v, |part| i32x4_trunc_sat_f32x4(f32x4_nearest(part)));
    let lanes = |v| {
        [i32x4_extract_lane::<0>(v), i32x4_extract_lane::<1>(v), i32x4_extract_lane::<2>(v), i32x4_extract_lane::<3>(v)]
    };
    let ([a, b, c, d], mut all) = ([lanes(a), lanes(b), lanes(c), lanes(d)], [0; LANES]);
    for (to, from) in all.chunks_exact_mut(4).zip([a, b, c, d]) {
        to.copy_from_slice(&from);
    }
    all
}

impl Isa for Simd128 {
    type V = [v128; PARTS];
    const ACCUMULATORS: usize = 2;
    const TILE: [usize; 2] = [3, 1];

    #[inline(always)]
    fn prefetch<T>(self, _: &T, _: Reuse) {}

    #[inline(always)]
    fn prefetch_distance(self) -> usize {
        // Prefetches do nothing here.
        0
    }

    #[inline(always)]
    fn nonzero(self, v: Self::V) -> u32 {
        let zero = f32x4_splat(0.0);
        let lanes = |part: usize| u32::from(i32x4_bitmask(f32x4_ne(v[part], zero))) << (4 * part);
        lanes(0) | lanes(1) | lanes(2) | lanes(3)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [f32x4_splat(x); PARTS]
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::V {
        let part = |at: usize| f32x4(from[at], from[at + 1], from[at + 2], from[at + 3]);
        [part(0), part(4), part(8), part(12)]
    }

    /// Without branches, as in `portable`.
    #[inline(always)]
    fn load_half(self, from: &[u16; LANES]) -> Self::V {
        let wide = |i: usize| u32::from(from[i]);
        let part = |at: usize| u32x4(wide(at), wide(at + 1), wide(at + 2), wide(at + 3));
        let convert = |bits: v128| {
            let magnitude = u32x4_shl(v128_and(bits, u32x4_splat(0x7fff)), 13);
            let sign = u32x4_shl(v128_and(bits, u32x4_splat(0x8000)), 16);
            v128_or(f32x4_mul(magnitude, u32x4_splat(0x7780_0000)), sign)
        };
        each([part(0), part(4), part(8), part(12)], convert)
    }

    #[inline(always)]
    fn load_i16(self, from: &[i16; LANES]) -> Self::V {
        let half = |at: usize| {
            let [a, b, c, d, e, f, g, h] = std::array::from_fn(|i| from[at + i]);
            floats(i16x8(a, b, c, d, e, f, g, h))
        };
        let ([a, b], [c, d]) = (half(0), half(8));
        [a, b, c, d]
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Self::V {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *from;
        let bytes = i8x16(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p);
        let ([a, b], [c, d]) = (floats(i16x8_extend_low_i8x16(bytes)), floats(i16x8_extend_high_i8x16(bytes)));
        [a, b, c, d]
    }

    #[inline(always)]
    fn store_i16(self, v: Self::V, to: &mut [i16; LANES]) {
        *to = rounded(v).map(|x| x as i16);
    }

    #[inline(always)]
    fn store_i8(self, v: Self::V, to: &mut [i8; LANES]) {
        *to = rounded(v).map(|x| x as i8);
    }

    #[inline(always)]
    fn larger_magnitude(self, a: Self::V, b: Self::V) -> Self::V {
        // Of numbers that are not negative, the larger has the larger bits.
        pairs(a, b, |a, b| u32x4_max(a, f32x4_abs(b)))
    }

    #[inline(always)]
    fn store(self, v: Self::V, to: &mut [f32; LANES]) {
        for (to, part) in to.chunks_exact_mut(4).zip(v) {
            to.copy_from_slice(&[
                f32x4_extract_lane::<0>(part),
                f32x4_extract_lane::<1>(part),
                f32x4_extract_lane::<2>(part),
                f32x4_extract_lane::<3>(part),
            ]);
        }
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        pairs(a, b, |a, b| f32x4_add(a, b))
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        self.add(pairs(a, b, |a, b| f32x4_mul(a, b)), c)
    }
}
