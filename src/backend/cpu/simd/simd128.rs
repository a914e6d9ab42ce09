//! WebAssembly's vectors of 128 bits, four to a vector of ours.

use super::{Isa, LANES, Reuse};
use core::arch::wasm32::{
    f32x4_abs, f32x4_add, f32x4_convert_i32x4, f32x4_mul, f32x4_ne, f32x4_nearest, f32x4_splat,
    i16x8_extend_high_i8x16, i16x8_extend_low_i8x16, i32x4_bitmask, i32x4_extend_high_i16x8, i32x4_extend_low_i16x8,
    i32x4_trunc_sat_f32x4, u32x4_extend_high_u16x8, u32x4_extend_low_u16x8, u32x4_max, u32x4_shl, u32x4_splat, v128,
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
    bytemuck::cast(each(v, |part| i32x4_trunc_sat_f32x4(f32x4_nearest(part))))
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
        bytemuck::cast(*from)
    }

    /// Without branches, as in `portable`.
    #[inline(always)]
    fn load_half(self, from: &[u16; LANES]) -> Self::V {
        let [a, b]: [v128; 2] = bytemuck::cast(*from);
        let wide = [
            u32x4_extend_low_u16x8(a),
            u32x4_extend_high_u16x8(a),
            u32x4_extend_low_u16x8(b),
            u32x4_extend_high_u16x8(b),
        ];
        each(wide, |bits| {
            let magnitude = u32x4_shl(v128_and(bits, u32x4_splat(0x7fff)), 13);
            let sign = u32x4_shl(v128_and(bits, u32x4_splat(0x8000)), 16);
            v128_or(f32x4_mul(magnitude, u32x4_splat(0x7780_0000)), sign)
        })
    }

    #[inline(always)]
    fn load_i16(self, from: &[i16; LANES]) -> Self::V {
        let [a, b]: [v128; 2] = bytemuck::cast(*from);
        let ([a, b], [c, d]) = (floats(a), floats(b));
        [a, b, c, d]
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Self::V {
        let bytes: v128 = bytemuck::cast(*from);
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
        *to = bytemuck::cast(v);
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
