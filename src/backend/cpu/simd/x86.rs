//! AVX2 and AVX-512 on x86-64.

use super::{Isa, Kernel, LANES, Reuse};
use std::arch::x86_64::*;
use std::sync::LazyLock;

/// Runs a kernel compiled with AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c,popcnt")]
pub fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2 { late: LatePrefetch::detect() })
}

/// Runs a kernel compiled with AVX-512F.
#[target_feature(enable = "avx512f,avx2,fma,f16c,popcnt")]
pub fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512 { late: LatePrefetch::detect() })
}

/// Prefetch instruction for [`Reuse::Late`]. The vendor decides: see docs/performance.md.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LatePrefetch {
    /// Non-temporal, so that the caches keep their lines. AMD processors fetch these lines at full
    /// speed.
    NonTemporal,
    /// Into the second-level cache. Intel server processors run non-temporal prefetches at a
    /// quarter of this rate.
    SecondLevel,
}

impl LatePrefetch {
    /// The best one for this processor.
    #[inline(always)]
    fn detect() -> Self {
        static NON_TEMPORAL: LazyLock<bool> = LazyLock::new(|| {
            // The vendor string has twelve characters.
            #[allow(unused_unsafe, reason = "safe in newer versions of the standard library")]
            // SAFETY: every x86-64 processor has this instruction and its leaf 0.
            let leaf = unsafe { __cpuid(0) };
            let vendor: [u32; 3] = [leaf.ebx, leaf.edx, leaf.ecx];
            matches!(bytemuck::bytes_of(&vendor), b"AuthenticAMD" | b"HygonGenuine")
        });
        if *NON_TEMPORAL { Self::NonTemporal } else { Self::SecondLevel }
    }

    /// [`Isa::prefetch_distance`], as measured: 16 rows cost Intel 5 %, 8 rows cost AMD 2 %.
    #[inline(always)]
    fn distance(self) -> usize {
        if self == Self::NonTemporal { 16 } else { 8 }
    }
}

// SAFETY, for every `unsafe` block below: only the two functions above make the two types, and they
// run only on processors with the features. Loads and stores are unaligned and go through array
// references of the right length.

/// Prefetches the cache line in which `value` starts.
#[inline(always)]
fn prefetch<T>(value: &T, reuse: Reuse, late: LatePrefetch) {
    let address = std::ptr::from_ref(value).cast();
    // SAFETY: a prefetch faults at no address.
    unsafe {
        match (reuse, late) {
            (Reuse::Soon, _) => _mm_prefetch::<_MM_HINT_T0>(address),
            (Reuse::Late, LatePrefetch::NonTemporal) => _mm_prefetch::<_MM_HINT_NTA>(address),
            (Reuse::Late, LatePrefetch::SecondLevel) => _mm_prefetch::<_MM_HINT_T1>(address),
        }
    }
}

/// AVX2, FMA and F16C: two registers of eight lanes make a vector.
#[derive(Clone, Copy)]
pub struct Avx2 {
    late: LatePrefetch,
}

impl Isa for Avx2 {
    type V = [__m256; 2];
    const ACCUMULATORS: usize = 4;
    const TILE: [usize; 2] = [6, 1];

    #[inline(always)]
    fn prefetch<T>(self, value: &T, reuse: Reuse) {
        prefetch(value, reuse, self.late);
    }

    #[inline(always)]
    fn prefetch_distance(self) -> usize {
        self.late.distance()
    }

    #[inline(always)]
    fn nonzero(self, v: Self::V) -> u32 {
        // SAFETY: see above.
        let lanes =
            |v| unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NEQ_UQ>(v, _mm256_setzero_ps())).cast_unsigned() };
        lanes(v[0]) | lanes(v[1]) << 8
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: see above.
        unsafe { [_mm256_set1_ps(x); 2] }
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::V {
        let p = from.as_ptr();
        // SAFETY: see above.
        unsafe { [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))] }
    }

    #[inline(always)]
    fn load_half(self, from: &[u16; LANES]) -> Self::V {
        let p = from.as_ptr().cast::<__m128i>();
        // SAFETY: see above.
        unsafe { [_mm256_cvtph_ps(_mm_loadu_si128(p)), _mm256_cvtph_ps(_mm_loadu_si128(p.add(1)))] }
    }

    #[inline(always)]
    fn load_i16(self, from: &[i16; LANES]) -> Self::V {
        let p = from.as_ptr().cast::<__m128i>();
        // SAFETY: see above.
        unsafe { [_mm_loadu_si128(p), _mm_loadu_si128(p.add(1))].map(|x| _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(x))) }
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Self::V {
        // SAFETY: see above.
        unsafe {
            let bytes = _mm_loadu_si128(from.as_ptr().cast());
            let high = _mm_unpackhi_epi64(bytes, bytes);
            [_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(high))]
        }
    }

    #[inline(always)]
    fn store_i16(self, v: Self::V, to: &mut [i16; LANES]) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), halves(v)) }
    }

    #[inline(always)]
    fn store_i8(self, v: Self::V, to: &mut [i8; LANES]) {
        // SAFETY: see above.
        unsafe {
            let halves = halves(v);
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves));
            _mm_storeu_si128(to.as_mut_ptr().cast(), bytes);
        }
    }

    #[inline(always)]
    fn larger_magnitude(self, a: Self::V, b: Self::V) -> Self::V {
        [larger_magnitude(a[0], b[0]), larger_magnitude(a[1], b[1])]
    }

    #[inline(always)]
    fn store(self, v: Self::V, to: &mut [f32; LANES]) {
        let p = to.as_mut_ptr();
        // SAFETY: see above.
        unsafe {
            _mm256_storeu_ps(p, v[0]);
            _mm256_storeu_ps(p.add(8), v[1]);
        }
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see above.
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: see above.
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }

    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        // SAFETY: see above.
        unsafe {
            let eight = _mm256_add_ps(v[0], v[1]);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
}

/// Sixteen floats as 16-bit integers.
#[inline(always)]
fn halves(v: [__m256; 2]) -> __m256i {
    // SAFETY: see above.
    unsafe {
        // Fours of both registers alternate.
        let fours = _mm256_packs_epi32(_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1]));
        _mm256_permute4x64_epi64::<0b11_01_10_00>(fours)
    }
}

/// The larger of `a` and |b|, lane by lane, by their bits.
#[inline(always)]
fn larger_magnitude(a: __m256, b: __m256) -> __m256 {
    // SAFETY: see above.
    unsafe {
        let b = _mm256_and_si256(_mm256_castps_si256(b), _mm256_set1_epi32(0x7fff_ffff));
        _mm256_castsi256_ps(_mm256_max_epu32(_mm256_castps_si256(a), b))
    }
}

/// AVX-512F: one register is a vector.
#[derive(Clone, Copy)]
pub struct Avx512 {
    late: LatePrefetch,
}

impl Isa for Avx512 {
    type V = __m512;
    const ACCUMULATORS: usize = 16;
    const TILE: [usize; 2] = [12, 2];

    #[inline(always)]
    fn prefetch<T>(self, value: &T, reuse: Reuse) {
        prefetch(value, reuse, self.late);
    }

    #[inline(always)]
    fn prefetch_distance(self) -> usize {
        self.late.distance()
    }

    #[inline(always)]
    fn nonzero(self, v: Self::V) -> u32 {
        // SAFETY: see above.
        unsafe { _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(v, _mm512_setzero_ps()).into() }
    }

    #[inline(always)]
    fn compact(self, values: &[f32; LANES], lanes: u32, first: u32, to: &mut [[u32; 2]; LANES]) -> usize {
        let below = (lanes & 0xff).count_ones() as usize;
        // SAFETY: see above; each store fills eight of the sixteen elements, and the second starts
        // at most eight elements in.
        unsafe {
            let values = _mm512_castps_si512(_mm512_loadu_ps(values.as_ptr()));
            let counting = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            let indices = _mm512_add_epi32(_mm512_set1_epi32(first.cast_signed()), counting);
            let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            let high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
            let low = _mm512_permutex2var_epi32(indices, low, values);
            let high = _mm512_permutex2var_epi32(indices, high, values);
            let to = to.as_mut_ptr();
            _mm512_storeu_si512(to.cast(), _mm512_maskz_compress_epi64(lanes as u8, low));
            _mm512_storeu_si512(to.add(below).cast(), _mm512_maskz_compress_epi64((lanes >> 8) as u8, high));
        }
        (lanes & 0xffff).count_ones() as usize
    }

    #[inline(always)]
    fn transpose(self, square: &mut [[u32; LANES]; LANES]) {
        // No closures: they would be compiled without the target features.
        // SAFETY: see above.
        unsafe {
            let mut rows = [_mm512_setzero_si512(); LANES];
            for i in 0..LANES {
                rows[i] = _mm512_loadu_si512(square[i].as_ptr().cast());
            }
            // Interleaves pairs of rows within each quarter of a vector, then fours.
            let mut fours = [_mm512_setzero_si512(); LANES];
            for first in (0..LANES).step_by(4) {
                let low = _mm512_unpacklo_epi32(rows[first], rows[first + 1]);
                let high = _mm512_unpackhi_epi32(rows[first], rows[first + 1]);
                let next_low = _mm512_unpacklo_epi32(rows[first + 2], rows[first + 3]);
                let next_high = _mm512_unpackhi_epi32(rows[first + 2], rows[first + 3]);
                // Columns 0, 1, 2 and 3 of each quarter.
                fours[first] = _mm512_unpacklo_epi64(low, next_low);
                fours[first + 1] = _mm512_unpackhi_epi64(low, next_low);
                fours[first + 2] = _mm512_unpacklo_epi64(high, next_high);
                fours[first + 3] = _mm512_unpackhi_epi64(high, next_high);
            }
            // Gathers the quarters of four vectors that hold the same column.
            for column in 0..4 {
                let (a, b, c, d) = (fours[column], fours[4 + column], fours[8 + column], fours[12 + column]);
                let (even_low, even_high) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0x88>(c, d));
                let (odd_low, odd_high) = (_mm512_shuffle_i32x4::<0xdd>(a, b), _mm512_shuffle_i32x4::<0xdd>(c, d));
                let columns = [
                    _mm512_shuffle_i32x4::<0x88>(even_low, even_high),
                    _mm512_shuffle_i32x4::<0x88>(odd_low, odd_high),
                    _mm512_shuffle_i32x4::<0xdd>(even_low, even_high),
                    _mm512_shuffle_i32x4::<0xdd>(odd_low, odd_high),
                ];
                for (quarter, row) in columns.into_iter().enumerate() {
                    _mm512_storeu_si512(square[4 * quarter + column].as_mut_ptr().cast(), row);
                }
            }
        }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }

    #[inline(always)]
    fn load_half(self, from: &[u16; LANES]) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_i16(self, from: &[i16; LANES]) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm256_loadu_si256(from.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast()))) }
    }

    #[inline(always)]
    fn store_i16(self, v: Self::V, to: &mut [i16; LANES]) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(v))) }
    }

    #[inline(always)]
    fn store_i8(self, v: Self::V, to: &mut [i8; LANES]) {
        // SAFETY: see above.
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v))) }
    }

    #[inline(always)]
    fn larger_magnitude(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see above.
        unsafe {
            let b = _mm512_and_si512(_mm512_castps_si512(b), _mm512_set1_epi32(0x7fff_ffff));
            _mm512_castsi512_ps(_mm512_max_epu32(_mm512_castps_si512(a), b))
        }
    }

    #[inline(always)]
    fn store(self, v: Self::V, to: &mut [f32; LANES]) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // SAFETY: see above.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        // SAFETY: see above.
        unsafe { _mm512_reduce_add_ps(v) }
    }
}
