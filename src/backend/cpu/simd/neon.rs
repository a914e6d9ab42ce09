//! NEON, aarch64's vectors of 128 bits, four to a vector of ours.
//!
//! NEON is part of aarch64's baseline: the compiler uses it everywhere, so there is nothing to
//! detect at run time. No instruction beyond the baseline is used.

use super::{Isa, LANES, Reuse};
use bytemuck::cast;
use core::arch::aarch64::{
    float32x4_t, int8x16_t, int16x8_t, uint16x8_t, uint32x4_t, uint64x2_t, vabsq_f32, vaddq_f32, vaddvq_u32, vbicq_u32,
    vceqzq_f32, vcombine_s8, vcombine_s16, vcvtnq_s32_f32, vcvtq_f32_s32, vdupq_n_f32, vfmaq_f32, vget_low_s8,
    vget_low_s16, vmaxq_u32, vmovl_high_s8, vmovl_high_s16, vmovl_s8, vmovl_s16, vorrq_u32, vqmovn_s16, vqmovn_s32,
    vtrn1q_u32, vtrn1q_u64, vtrn2q_u32, vtrn2q_u64,
};
use std::arch::asm;

// SAFETY, for every `unsafe` block below: this file is compiled only for targets whose processors
// all have NEON. Loads and stores copy whole arrays, without pointers.

/// NEON.
#[derive(Clone, Copy)]
pub struct Neon;

/// Vectors of 128 bits in one of ours.
const PARTS: usize = LANES / 4;

/// Eight half floats as floats. The instructions belong to the baseline; their intrinsics are newer
/// than the oldest supported compiler.
#[inline(always)]
fn halves(bits: uint16x8_t) -> [float32x4_t; 2] {
    let (low, high): (float32x4_t, float32x4_t);
    // SAFETY: both convert registers to registers, and touch neither memory nor flags.
    unsafe {
        asm!("fcvtl {to:v}.4s, {bits:v}.4h", bits = in(vreg) bits, to = lateout(vreg) low,
            options(pure, nomem, nostack, preserves_flags));
        asm!("fcvtl2 {to:v}.4s, {bits:v}.8h", bits = in(vreg) bits, to = lateout(vreg) high,
            options(pure, nomem, nostack, preserves_flags));
    }
    [low, high]
}

/// Eight integers as floats.
#[inline(always)]
fn floats(i: int16x8_t) -> [float32x4_t; 2] {
    // SAFETY: see above.
    unsafe { [vcvtq_f32_s32(vmovl_s16(vget_low_s16(i))), vcvtq_f32_s32(vmovl_high_s16(i))] }
}

/// Sixteen floats as integers, halves to even.
#[inline(always)]
fn rounded(v: [float32x4_t; PARTS]) -> [int16x8_t; 2] {
    // SAFETY: see above.
    unsafe {
        let narrow = |part| vqmovn_s32(vcvtnq_s32_f32(part));
        [vcombine_s16(narrow(v[0]), narrow(v[1])), vcombine_s16(narrow(v[2]), narrow(v[3]))]
    }
}

impl Isa for Neon {
    type V = [float32x4_t; PARTS];
    // A tile's sums take at most 24 of the 32 registers.
    const ACCUMULATORS: usize = 4;
    const TILE: [usize; 2] = [6, 1];

    #[inline(always)]
    fn prefetch<T>(self, value: &T, reuse: Reuse) {
        let address = std::ptr::from_ref(value);
        // SAFETY: a prefetch faults at no address and changes nothing that a program sees.
        unsafe {
            match reuse {
                Reuse::Soon => {
                    asm!("prfm pldl1keep, [{}]", in(reg) address, options(nomem, nostack, preserves_flags));
                }
                Reuse::Late => {
                    asm!("prfm pldl1strm, [{}]", in(reg) address, options(nomem, nostack, preserves_flags));
                }
            }
        }
    }

    #[inline(always)]
    fn prefetch_distance(self) -> usize {
        // The smaller one of x86. Not measured: see docs/performance/shared.md.
        8
    }

    #[inline(always)]
    fn nonzero(self, v: Self::V) -> u32 {
        // Each lane's own bit, unless the lane is zero.
        let bits: [uint32x4_t; PARTS] = cast::<[u32; LANES], _>(std::array::from_fn(|i| 1 << i));
        // SAFETY: see above.
        unsafe {
            let lanes = |part: usize| vbicq_u32(bits[part], vceqzq_f32(v[part]));
            vaddvq_u32(vorrq_u32(vorrq_u32(lanes(0), lanes(1)), vorrq_u32(lanes(2), lanes(3))))
        }
    }

    #[inline(always)]
    fn transpose(self, square: &mut [[u32; LANES]; LANES]) {
        let rows: [[uint32x4_t; PARTS]; LANES] = cast(*square);
        let mut columns = rows;
        // Squares of four: pairs of rows are interleaved, then pairs of pairs.
        for i in 0..PARTS {
            for k in 0..PARTS {
                let [a, b, c, d] = [0, 1, 2, 3].map(|row| rows[4 * i + row][k]);
                // SAFETY: see above.
                let squares = unsafe {
                    let [even, odd]: [uint64x2_t; 2] = [cast(vtrn1q_u32(a, b)), cast(vtrn2q_u32(a, b))];
                    let [next_even, next_odd] = [cast(vtrn1q_u32(c, d)), cast(vtrn2q_u32(c, d))];
                    [
                        vtrn1q_u64(even, next_even),
                        vtrn1q_u64(odd, next_odd),
                        vtrn2q_u64(even, next_even),
                        vtrn2q_u64(odd, next_odd),
                    ]
                };
                for (column, four) in squares.into_iter().enumerate() {
                    columns[4 * k + column][i] = cast(four);
                }
            }
        }
        *square = cast(columns);
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: see above.
        unsafe { [vdupq_n_f32(x); PARTS] }
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::V {
        cast(*from)
    }

    #[inline(always)]
    fn load_half(self, from: &[u16; LANES]) -> Self::V {
        let [a, b]: [uint16x8_t; 2] = cast(*from);
        let ([a, b], [c, d]) = (halves(a), halves(b));
        [a, b, c, d]
    }

    #[inline(always)]
    fn load_i16(self, from: &[i16; LANES]) -> Self::V {
        let [a, b]: [int16x8_t; 2] = cast(*from);
        let ([a, b], [c, d]) = (floats(a), floats(b));
        [a, b, c, d]
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Self::V {
        let bytes: int8x16_t = cast(*from);
        // SAFETY: see above.
        let [low, high] = unsafe { [vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes)] };
        let ([a, b], [c, d]) = (floats(low), floats(high));
        [a, b, c, d]
    }

    #[inline(always)]
    fn store_i16(self, v: Self::V, to: &mut [i16; LANES]) {
        *to = cast(rounded(v));
    }

    #[inline(always)]
    fn store_i8(self, v: Self::V, to: &mut [i8; LANES]) {
        let [low, high] = rounded(v);
        // SAFETY: see above.
        *to = cast(unsafe { vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)) });
    }

    #[inline(always)]
    fn larger_magnitude(self, a: Self::V, b: Self::V) -> Self::V {
        // Of numbers that are not negative, the larger has the larger bits.
        // SAFETY: see above.
        std::array::from_fn(|i| unsafe { cast(vmaxq_u32(cast(a[i]), cast(vabsq_f32(b[i])))) })
    }

    #[inline(always)]
    fn store(self, v: Self::V, to: &mut [f32; LANES]) {
        *to = cast(v);
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see above.
        std::array::from_fn(|i| unsafe { vaddq_f32(a[i], b[i]) })
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: see above.
        std::array::from_fn(|i| unsafe { vfmaq_f32(c[i], a[i], b[i]) })
    }

    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        // SAFETY: see above.
        let four: [f32; 4] = cast(unsafe { vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3])) });
        (four[0] + four[2]) + (four[1] + four[3])
    }
}
