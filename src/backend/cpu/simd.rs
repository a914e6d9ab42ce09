//! Sixteen floats at a time on whatever the processor has.
//!
//! A kernel is written once against [`Isa`]; [`Level::run`] compiles it for each instruction set and
//! picks the best that the processor supports when the program starts.

/// Number of lanes in a vector of every [`Isa`].
pub const LANES: usize = 16;

/// When what is asked for is needed again after its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// So soon that caches should hold it.
    Soon,
    /// So late that it would only drive others out of the caches: it passes by them, on processors that are good at that.
    Late,
}

/// An instruction set: sixteen f32 lanes, fused or not, as the set has it.
pub trait Isa: Copy {
    /// Sixteen floats.
    type V: Copy;
    /// Vectors that stay in registers while others pass through them; a power of two, at most 16.
    const ACCUMULATORS: usize;
    /// Tokens and vectors of outputs that a dense product over many tokens keeps in registers.
    const TILE: [usize; 2];
    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::V;
    /// Reads sixteen floats.
    fn load(self, from: &[f32; LANES]) -> Self::V;
    /// Reads sixteen half floats (as bits).
    fn load_half(self, from: &[u16; LANES]) -> Self::V;
    /// Writes sixteen floats.
    fn store(self, v: Self::V, to: &mut [f32; LANES]);
    /// a + b, lane by lane.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// a·b + c, lane by lane.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Asks for the line of memory in which `value` starts.
    fn prefetch<T>(self, value: &T, reuse: Reuse);
    /// Rows of memory, in the order of their use, between the one in use and the one to ask for.
    fn rows_ahead(self) -> usize;
    /// Which lanes are not zero, bit by bit; NaN is not.
    fn nonzero(self, v: Self::V) -> u32;
    /// Writes (`first` + i, the bits of `values[i]`) for every lane i whose bit is set, in order; what lies behind them
    /// in `to` is undefined. Returns how many there are.
    #[inline(always)]
    fn compact(self, values: &[f32; LANES], lanes: u32, first: u32, to: &mut [[u32; 2]; LANES]) -> usize {
        let mut count = 0;
        for (i, value) in values.iter().enumerate() {
            to[count] = [first + i as u32, value.to_bits()];
            count += (lanes >> i & 1) as usize;
        }
        count
    }
    /// Rows become columns.
    #[inline(always)]
    fn transpose(self, square: &mut [[u32; LANES]; LANES]) {
        let rows = *square;
        for (i, row) in square.iter_mut().enumerate() {
            *row = std::array::from_fn(|k| rows[k][i]);
        }
    }
    /// Sum of all lanes in a fixed order.
    #[inline(always)]
    fn sum(self, v: Self::V) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                lanes[i] += lanes[i + width];
            }
            width /= 2;
        }
        lanes[0]
    }
}

/// Work that [`Level::run`] compiles for every instruction set. Implement `run` as `#[inline(always)]`,
/// and likewise whatever it calls in a hot loop: what the compiler does not inline, it compiles without the
/// instructions, and calls a function for each of them. A closure can be such a thing.
pub trait Kernel {
    /// What it returns.
    type Output;
    /// Does the work.
    fn run<I: Isa>(self, isa: I) -> Self::Output;
}

/// The instruction set in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Whatever the compiler's baseline is (SSE2, NEON).
    Portable,
    /// AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512F.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// The best that this processor supports.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
                && is_x86_feature_detected!("popcnt");
            if avx2 && is_x86_feature_detected!("avx512f") {
                return Self::Avx512;
            }
            if avx2 {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    /// Every level that this processor supports, weakest first.
    pub fn available() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        match Self::detect() {
            Self::Avx512 => return vec![Self::Portable, Self::Avx2, Self::Avx512],
            Self::Avx2 => return vec![Self::Portable, Self::Avx2],
            Self::Portable => {}
        }
        vec![Self::Portable]
    }

    /// Runs a kernel compiled for this level.
    #[inline]
    #[allow(unsafe_code, reason = "calls functions that need the instructions that were found")]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Self::Portable => kernel.run(Portable),
            // SAFETY: a level beyond Portable is made only by `detect`/`available`, after the processor
            // was seen to support the features that the function enables.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { x86::run_avx2(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { x86::run_avx512(kernel) },
        }
    }
}

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
    fn rows_ahead(self) -> usize {
        // Nothing is asked for.
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

/// A finite half float as f32, without branches: the exponent is re-biased by a multiplication, which
/// also normalises subnormals. (Weights are checked to be finite when they are loaded.)
#[inline(always)]
fn half_to_f32(bits: u16) -> f32 {
    let magnitude = f32::from_bits((bits as u32 & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
    f32::from_bits(magnitude.to_bits() | (bits as u32 & 0x8000) << 16)
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "the processor's vector instructions")]
mod x86 {
    use super::{Isa, Kernel, LANES, Reuse};
    use std::arch::x86_64::*;
    use std::sync::LazyLock;

    #[target_feature(enable = "avx2,fma,f16c,popcnt")]
    pub fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
        kernel.run(Avx2 { late: LateHint::detect() })
    }

    #[target_feature(enable = "avx512f,avx2,fma,f16c,popcnt")]
    pub fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
        kernel.run(Avx512 { late: LateHint::detect() })
    }

    /// How to ask for what is needed again late.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum LateHint {
        /// Past the caches, which keep what they have: AMD's processors fetch such lines as fast as others.
        PastCaches,
        /// Into the second-level cache: Intel's server processors fetch a line past it at a quarter of the rate.
        SecondLevel,
    }

    impl LateHint {
        #[inline(always)]
        fn detect() -> Self {
            static PAST_CACHES: LazyLock<bool> = LazyLock::new(|| {
                // The vendor's twelve letters.
                #[allow(unused_unsafe, reason = "safe in newer versions of the standard library")]
                // SAFETY: every x86-64 processor has this instruction and its leaf 0.
                let leaf = unsafe { __cpuid(0) };
                let vendor: [u32; 3] = [leaf.ebx, leaf.edx, leaf.ecx];
                matches!(bytemuck::bytes_of(&vendor), b"AuthenticAMD" | b"HygonGenuine")
            });
            if *PAST_CACHES { Self::PastCaches } else { Self::SecondLevel }
        }

        /// [`Isa::rows_ahead`]: as measured; 16 cost Intel's 5 %, 8 cost AMD's 2 %.
        #[inline(always)]
        fn rows_ahead(self) -> usize {
            if self == Self::PastCaches { 16 } else { 8 }
        }
    }

    // SAFETY, for every `unsafe` block below: the two types are made only in the functions above, which
    // run only on processors that have the features; loads and stores go through array references of
    // the right length, by unaligned instructions.

    #[inline(always)]
    fn prefetch<T>(value: &T, reuse: Reuse, late: LateHint) {
        let address = std::ptr::from_ref(value).cast();
        // SAFETY: a hint, which faults at no address.
        unsafe {
            match (reuse, late) {
                (Reuse::Soon, _) => _mm_prefetch::<_MM_HINT_T0>(address),
                (Reuse::Late, LateHint::PastCaches) => _mm_prefetch::<_MM_HINT_NTA>(address),
                (Reuse::Late, LateHint::SecondLevel) => _mm_prefetch::<_MM_HINT_T1>(address),
            }
        }
    }

    #[derive(Clone, Copy)]
    pub struct Avx2 {
        late: LateHint,
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
        fn rows_ahead(self) -> usize {
            self.late.rows_ahead()
        }

        #[inline(always)]
        fn nonzero(self, v: Self::V) -> u32 {
            // SAFETY: see the module.
            let lanes =
                |v| unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_NEQ_UQ>(v, _mm256_setzero_ps())).cast_unsigned() };
            lanes(v[0]) | lanes(v[1]) << 8
        }

        #[inline(always)]
        fn splat(self, x: f32) -> Self::V {
            // SAFETY: see the module.
            unsafe { [_mm256_set1_ps(x); 2] }
        }

        #[inline(always)]
        fn load(self, from: &[f32; LANES]) -> Self::V {
            let p = from.as_ptr();
            // SAFETY: see the module.
            unsafe { [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))] }
        }

        #[inline(always)]
        fn load_half(self, from: &[u16; LANES]) -> Self::V {
            let p = from.as_ptr().cast::<__m128i>();
            // SAFETY: see the module.
            unsafe { [_mm256_cvtph_ps(_mm_loadu_si128(p)), _mm256_cvtph_ps(_mm_loadu_si128(p.add(1)))] }
        }

        #[inline(always)]
        fn store(self, v: Self::V, to: &mut [f32; LANES]) {
            let p = to.as_mut_ptr();
            // SAFETY: see the module.
            unsafe {
                _mm256_storeu_ps(p, v[0]);
                _mm256_storeu_ps(p.add(8), v[1]);
            }
        }

        #[inline(always)]
        fn add(self, a: Self::V, b: Self::V) -> Self::V {
            // SAFETY: see the module.
            unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
        }

        #[inline(always)]
        fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            // SAFETY: see the module.
            unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
        }

        #[inline(always)]
        fn sum(self, v: Self::V) -> f32 {
            // SAFETY: see the module.
            unsafe {
                let eight = _mm256_add_ps(v[0], v[1]);
                let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
            }
        }
    }

    #[derive(Clone, Copy)]
    pub struct Avx512 {
        late: LateHint,
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
        fn rows_ahead(self) -> usize {
            self.late.rows_ahead()
        }

        #[inline(always)]
        fn nonzero(self, v: Self::V) -> u32 {
            // SAFETY: see the module.
            unsafe { _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(v, _mm512_setzero_ps()).into() }
        }

        #[inline(always)]
        fn compact(self, values: &[f32; LANES], lanes: u32, first: u32, to: &mut [[u32; 2]; LANES]) -> usize {
            let below = (lanes & 0xff).count_ones() as usize;
            // SAFETY: see the module; each store fills eight of the sixteen places, the second one behind at most eight.
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
            // No closures: they would be compiled without these instructions.
            // SAFETY: see the module.
            unsafe {
                let mut rows = [_mm512_setzero_si512(); LANES];
                for i in 0..LANES {
                    rows[i] = _mm512_loadu_si512(square[i].as_ptr().cast());
                }
                // Within each quarter of a vector pairs of rows come together, then fours.
                let mut fours = [_mm512_setzero_si512(); LANES];
                for first in (0..LANES).step_by(4) {
                    let low = _mm512_unpacklo_epi32(rows[first], rows[first + 1]);
                    let high = _mm512_unpackhi_epi32(rows[first], rows[first + 1]);
                    let next_low = _mm512_unpacklo_epi32(rows[first + 2], rows[first + 3]);
                    let next_high = _mm512_unpackhi_epi32(rows[first + 2], rows[first + 3]);
                    // Column 0 of each quarter, 1, 2 and 3.
                    fours[first] = _mm512_unpacklo_epi64(low, next_low);
                    fours[first + 1] = _mm512_unpackhi_epi64(low, next_low);
                    fours[first + 2] = _mm512_unpacklo_epi64(high, next_high);
                    fours[first + 3] = _mm512_unpackhi_epi64(high, next_high);
                }
                // Quarters: those of four vectors of the same column come together.
                for column in 0..4 {
                    let (a, b, c, d) = (fours[column], fours[4 + column], fours[8 + column], fours[12 + column]);
                    let (even_low, even_high) =
                        (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0x88>(c, d));
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
            // SAFETY: see the module.
            unsafe { _mm512_set1_ps(x) }
        }

        #[inline(always)]
        fn load(self, from: &[f32; LANES]) -> Self::V {
            // SAFETY: see the module.
            unsafe { _mm512_loadu_ps(from.as_ptr()) }
        }

        #[inline(always)]
        fn load_half(self, from: &[u16; LANES]) -> Self::V {
            // SAFETY: see the module.
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) }
        }

        #[inline(always)]
        fn store(self, v: Self::V, to: &mut [f32; LANES]) {
            // SAFETY: see the module.
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
        }

        #[inline(always)]
        fn add(self, a: Self::V, b: Self::V) -> Self::V {
            // SAFETY: see the module.
            unsafe { _mm512_add_ps(a, b) }
        }

        #[inline(always)]
        fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            // SAFETY: see the module.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }

        #[inline(always)]
        fn sum(self, v: Self::V) -> f32 {
            // SAFETY: see the module.
            unsafe { _mm512_reduce_add_ps(v) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;

    struct Compact<'a>(&'a [f32; LANES]);

    impl Kernel for Compact<'_> {
        type Output = (u32, Vec<[u32; 2]>);
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> Self::Output {
            let lanes = isa.nonzero(isa.load(self.0));
            let mut to = [[7; 2]; LANES];
            let count = isa.compact(self.0, lanes, 100, &mut to);
            (lanes, to[..count].to_vec())
        }
    }

    #[test]
    fn lanes_that_are_not_zero_are_listed_in_order_at_every_level() {
        for lanes in 0..=0xffff {
            let value = |i: usize| match (lanes >> i & 1, i) {
                (1, 3) => f32::NAN,
                (1, _) => i as f32 - 20.0,
                _ => 0.0 * -(i as f32),
            };
            let values: [f32; LANES] = std::array::from_fn(value);
            let wanted: Vec<[u32; 2]> =
                (0..LANES).filter(|i| lanes >> i & 1 == 1).map(|i| [100 + i as u32, values[i].to_bits()]).collect();
            for level in Level::available() {
                assert_eq!(level.run(Compact(&values)), (lanes, wanted.clone()), "{level:?}");
            }
        }
    }

    struct Transpose([[u32; LANES]; LANES]);

    impl Kernel for Transpose {
        type Output = [[u32; LANES]; LANES];
        #[inline(always)]
        fn run<I: Isa>(mut self, isa: I) -> Self::Output {
            isa.transpose(&mut self.0);
            self.0
        }
    }

    #[test]
    fn rows_become_columns_at_every_level() {
        let square = |of: fn(usize, usize) -> usize| std::array::from_fn(|i| std::array::from_fn(|k| of(i, k) as u32));
        for level in Level::available() {
            let columns = level.run(Transpose(square(|i, k| 100 * i + k)));
            assert_eq!(columns, square(|i, k| 100 * k + i), "{level:?}");
        }
    }

    struct Probe<'a>(&'a [u16; LANES], &'a [f32; LANES]);

    impl Kernel for Probe<'_> {
        type Output = ([f32; LANES], f32);
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> Self::Output {
            let v = isa.mul_add(isa.load_half(self.0), isa.load(self.1), isa.splat(1.0));
            let v = isa.add(v, isa.splat(2.0));
            let mut out = [0.0; LANES];
            isa.store(v, &mut out);
            (out, isa.sum(v))
        }
    }

    #[test]
    fn every_finite_half_converts_exactly_at_every_level() {
        let ones = [1.0; LANES];
        for start in (0..=u16::MAX).step_by(LANES) {
            let bits: [u16; LANES] = std::array::from_fn(|i| start + i as u16);
            if bits.iter().any(|&b| !f16::from_bits(b).is_finite()) {
                continue;
            }
            let expected = bits.map(|b| f16::from_bits(b).to_f32() + 1.0 + 2.0);
            for level in Level::available() {
                let (got, sum) = level.run(Probe(&bits, &ones));
                assert_eq!(got, expected, "{level:?} from {start:#x}");
                let exact: f64 = expected.iter().map(|&x| x as f64).sum();
                assert!((sum as f64 - exact).abs() <= 1e-5 * exact.abs().max(1.0));
            }
        }
    }
}
