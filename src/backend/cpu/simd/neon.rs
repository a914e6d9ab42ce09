//! NEON, aarch64's vectors of 128 bits, four to a vector of ours.
//!
//! NEON is part of aarch64's baseline: the compiler uses it everywhere, so there is nothing to
//! detect at run time. No instruction beyond the baseline is used.

use super::{Isa, LANES, Reuse};
use std::arch::aarch64::*;
use std::arch::asm;
use std::mem::transmute;

// SAFETY, for every `unsafe` block below: this file is compiled only for targets whose processors
// all have NEON. Arrays become vectors of the same size; every pattern of bits is valid for both.

/// NEON.
#[derive(Clone, Copy)]
pub struct Neon;

/// Vectors of 128 bits in one of ours.
const PARTS: usize = LANES / 4;

/// Eight half floats as floats. The instructions belong to the baseline; their intrinsics are newer
/// than the oldest supported compiler.
#[inline(always)]
fn halves(bits: uint16x8_t) -> [float32x4_t; 2] {
    let (low, high);
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
        let low = vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(v[0])), vcvtnq_s32_f32(v[1]));
        let high = vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(v[2])), vcvtnq_s32_f32(v[3]));
        [low, high]
    }
}

/// The larger of `a` and |b|, lane by lane, by their bits.
#[inline(always)]
fn larger_magnitude(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    // SAFETY: see above.
    unsafe { vreinterpretq_f32_u32(vmaxq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(vabsq_f32(b)))) }
}

/// The bits of four lanes that are not zero, of `bits`.
#[inline(always)]
fn nonzero(v: float32x4_t, bits: [u32; 4]) -> uint32x4_t {
    // SAFETY: see above.
    unsafe { vbicq_u32(transmute::<[u32; 4], uint32x4_t>(bits), vceqzq_f32(v)) }
}

impl Isa for Neon {
    type V = [float32x4_t; PARTS];
    // A tile's sums take at most 24 of the 32 registers.
    const ACCUMULATORS: usize = 4;
    const TILE: [usize; 2] = [6, 1];

    #[inline(always)]
    fn prefetch<T>(self, value: &T, reuse: Reuse) {
        let address = std::ptr::from_ref(value).addr();
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
        // SAFETY: see above.
        unsafe {
            let low = vorrq_u32(nonzero(v[0], [1, 2, 4, 8]), nonzero(v[1], [0x10, 0x20, 0x40, 0x80]));
            let high =
                vorrq_u32(nonzero(v[2], [0x100, 0x200, 0x400, 0x800]), nonzero(v[3], [0x1000, 0x2000, 0x4000, 0x8000]));
            vaddvq_u32(vorrq_u32(low, high))
        }
    }

    #[inline(always)]
    fn transpose(self, square: &mut [[u32; LANES]; LANES]) {
        let rows = *square;
        for i in (0..LANES).step_by(4) {
            for k in (0..LANES).step_by(4) {
                // A square of four: pairs of rows are interleaved, then pairs of pairs.
                // SAFETY: see above; a row has four numbers from `i` on, and from `k` on.
                unsafe {
                    let a = vld1q_u32(rows[i].as_ptr().add(k));
                    let b = vld1q_u32(rows[i + 1].as_ptr().add(k));
                    let c = vld1q_u32(rows[i + 2].as_ptr().add(k));
                    let d = vld1q_u32(rows[i + 3].as_ptr().add(k));
                    let even = vreinterpretq_u64_u32(vtrn1q_u32(a, b));
                    let odd = vreinterpretq_u64_u32(vtrn2q_u32(a, b));
                    let next_even = vreinterpretq_u64_u32(vtrn1q_u32(c, d));
                    let next_odd = vreinterpretq_u64_u32(vtrn2q_u32(c, d));
                    vst1q_u64(square[k].as_mut_ptr().add(i).cast(), vtrn1q_u64(even, next_even));
                    vst1q_u64(square[k + 1].as_mut_ptr().add(i).cast(), vtrn1q_u64(odd, next_odd));
                    vst1q_u64(square[k + 2].as_mut_ptr().add(i).cast(), vtrn2q_u64(even, next_even));
                    vst1q_u64(square[k + 3].as_mut_ptr().add(i).cast(), vtrn2q_u64(odd, next_odd));
                }
            }
        }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: see above.
        unsafe { [vdupq_n_f32(x); PARTS] }
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::V {
        // SAFETY: see above.
        unsafe { transmute::<[f32; LANES], Self::V>(*from) }
    }

    #[inline(always)]
    fn load_half(self, from: &[u16; LANES]) -> Self::V {
        // SAFETY: see above.
        let [low, high] = unsafe { transmute::<[u16; LANES], [uint16x8_t; 2]>(*from) };
        let ([a, b], [c, d]) = (halves(low), halves(high));
        [a, b, c, d]
    }

    #[inline(always)]
    fn load_i16(self, from: &[i16; LANES]) -> Self::V {
        // SAFETY: see above.
        let [low, high] = unsafe { transmute::<[i16; LANES], [int16x8_t; 2]>(*from) };
        let ([a, b], [c, d]) = (floats(low), floats(high));
        [a, b, c, d]
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Self::V {
        // SAFETY: see above.
        let [low, high] = unsafe {
            let bytes = transmute::<[i8; LANES], int8x16_t>(*from);
            [vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes)]
        };
        let ([a, b], [c, d]) = (floats(low), floats(high));
        [a, b, c, d]
    }

    #[inline(always)]
    fn store_i16(self, v: Self::V, to: &mut [i16; LANES]) {
        // SAFETY: see above.
        *to = unsafe { transmute::<[int16x8_t; 2], [i16; LANES]>(rounded(v)) };
    }

    #[inline(always)]
    fn store_i8(self, v: Self::V, to: &mut [i8; LANES]) {
        let [low, high] = rounded(v);
        // SAFETY: see above.
        *to = unsafe { transmute::<int8x16_t, [i8; LANES]>(vqmovn_high_s16(vqmovn_s16(low), high)) };
    }

    #[inline(always)]
    fn larger_magnitude(self, a: Self::V, b: Self::V) -> Self::V {
        [
            larger_magnitude(a[0], b[0]),
            larger_magnitude(a[1], b[1]),
            larger_magnitude(a[2], b[2]),
            larger_magnitude(a[3], b[3]),
        ]
    }

    #[inline(always)]
    fn store(self, v: Self::V, to: &mut [f32; LANES]) {
        // SAFETY: see above.
        *to = unsafe { transmute::<Self::V, [f32; LANES]>(v) };
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see above.
        unsafe { [vaddq_f32(a[0], b[0]), vaddq_f32(a[1], b[1]), vaddq_f32(a[2], b[2]), vaddq_f32(a[3], b[3])] }
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: see above.
        unsafe {
            [
                vfmaq_f32(c[0], a[0], b[0]),
                vfmaq_f32(c[1], a[1], b[1]),
                vfmaq_f32(c[2], a[2], b[2]),
                vfmaq_f32(c[3], a[3], b[3]),
            ]
        }
    }

    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        // SAFETY: see above.
        unsafe {
            let four = vaddq_f32(vaddq_f32(v[0], v[2]), vaddq_f32(v[1], v[3]));
            vpadds_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)))
        }
    }
}
