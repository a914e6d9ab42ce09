//! Vectors of sixteen floats over the processor's instruction sets.
//!
//! A kernel is written once against [`Isa`]. [`Level::run`] compiles it for every instruction set;
//! [`Level::detect`] picks the best one that the processor supports.

#[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
#[allow(unsafe_code, reason = "the processor's vector instructions")]
mod neon;
mod portable;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd128;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "the processor's vector instructions")]
mod x86;

pub use portable::Portable;

/// Number of lanes in a vector of every [`Isa`].
pub const LANES: usize = 16;

/// When a prefetched line is used again after its first use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Soon: the caches should hold it.
    Soon,
    /// Late: the line would only evict others. Non-temporal on processors that are fast at it.
    Late,
}

/// An instruction set: sixteen f32 lanes, with fused multiply-adds where the set has them.
pub trait Isa: Copy {
    /// Sixteen floats.
    type V: Copy;
    /// Vectors of sums in a register tile while other operands stream through; a power of two, at
    /// most 16.
    const ACCUMULATORS: usize;
    /// Register tile of a dense product over many tokens: tokens, and vectors of outputs.
    const TILE: [usize; 2];
    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::V;
    /// Loads sixteen floats.
    fn load(self, from: &[f32; LANES]) -> Self::V;
    /// Loads sixteen half floats (as bits).
    fn load_half(self, from: &[u16; LANES]) -> Self::V;
    /// Loads sixteen 16-bit integers.
    fn load_i16(self, from: &[i16; LANES]) -> Self::V;
    /// Loads sixteen bytes with a sign.
    fn load_i8(self, from: &[i8; LANES]) -> Self::V;
    /// Stores sixteen floats, rounded to integers, halves to even; they must be in range.
    fn store_i16(self, v: Self::V, to: &mut [i16; LANES]);
    /// Stores sixteen floats, rounded to integers, halves to even; they must be in range.
    fn store_i8(self, v: Self::V, to: &mut [i8; LANES]);
    /// The larger of `a` and |b|, lane by lane, for a ≥ 0; NaN is the largest.
    fn larger_magnitude(self, a: Self::V, b: Self::V) -> Self::V;
    /// Stores sixteen floats.
    fn store(self, v: Self::V, to: &mut [f32; LANES]);
    /// a + b, lane by lane.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// a·b + c, lane by lane.
    fn mul_add(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Prefetches the cache line in which `value` starts.
    fn prefetch<T>(self, value: &T, reuse: Reuse);
    /// Prefetch distance, in rows.
    fn prefetch_distance(self) -> usize;
    /// Bit mask of the lanes that are not zero; NaN is not zero.
    fn nonzero(self, v: Self::V) -> u32;
    /// Writes (`first` + i, the bits of `values[i]`) for every lane i in the mask `lanes`, in
    /// order. Returns how many there are; the elements of `to` behind them are undefined.
    #[inline(always)]
    fn compact(self, values: &[f32; LANES], lanes: u32, first: u32, to: &mut [[u32; 2]; LANES]) -> usize {
        let mut count = 0;
        for (i, value) in values.iter().enumerate() {
            to[count] = [first + i as u32, value.to_bits()];
            count += (lanes >> i & 1) as usize;
        }
        count
    }
    /// Transposes a square in place.
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

/// Work that [`Level::run`] compiles for every instruction set.
///
/// Mark `run` and every function in its hot loops `#[inline(always)]`. The compiler compiles a
/// function that it does not inline without the target features, and each vector instruction then
/// becomes a call. This holds for closures too: avoid them in hot loops.
pub trait Kernel {
    /// Result of the kernel.
    type Output;
    /// Does the work.
    fn run<I: Isa>(self, isa: I) -> Self::Output;
}

/// Covers `$count` vectors of columns with register tiles, from left to right and each as wide as
/// possible: evaluates `$body` with the tile's first vector `$at` and its width, the constant `$V`.
/// Widths are powers of two, at most `$widest`, which is at most 16.
///
/// A macro, because a closure could end up outside the kernel's target features.
macro_rules! register_tiles {
    ($count:expr, $widest:expr, |$at:ident, $V:ident| $body:expr) => {{
        let (count, widest): (usize, usize) = ($count, $widest);
        let mut $at = 0;
        while $at < count {
            let width = 1 << (count - $at).min(widest).ilog2();
            match width {
                16 if widest >= 16 => {
                    const $V: usize = 16;
                    $body
                }
                8 if widest >= 8 => {
                    const $V: usize = 8;
                    $body
                }
                4 if widest >= 4 => {
                    const $V: usize = 4;
                    $body
                }
                2 if widest >= 2 => {
                    const $V: usize = 2;
                    $body
                }
                _ => {
                    const $V: usize = 1;
                    $body
                }
            }
            $at += width;
        }
    }};
}
pub(super) use register_tiles;

/// The instruction set in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Plain Rust, with the instructions that the compiler's baseline has (SSE2, for example).
    #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
    Portable,
    /// WebAssembly's vectors, which a module requires or does not know.
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    Simd128,
    /// NEON, which every processor that runs this program has.
    #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
    Neon,
    /// AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512F.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// Every level for which the program's target itself vouches, weakest first.
    const BASELINE: &[Self] = &[
        #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
        Self::Portable,
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        Self::Simd128,
        #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
        Self::Neon,
    ];

    /// The best level that this processor supports.
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
        Self::BASELINE[Self::BASELINE.len() - 1]
    }

    /// Every level that this processor supports, weakest first.
    pub fn available() -> Vec<Self> {
        #[cfg(target_arch = "x86_64")]
        match Self::detect() {
            Self::Avx512 => return vec![Self::Portable, Self::Avx2, Self::Avx512],
            Self::Avx2 => return vec![Self::Portable, Self::Avx2],
            Self::Portable => {}
        }
        Self::BASELINE.to_vec()
    }

    /// Runs a kernel compiled for this level.
    #[inline]
    #[allow(unsafe_code, reason = "calls functions whose target features were detected")]
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            #[cfg(not(all(target_arch = "wasm32", target_feature = "simd128")))]
            Self::Portable => kernel.run(Portable),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Self::Simd128 => kernel.run(simd128::Simd128),
            #[cfg(all(target_arch = "aarch64", target_feature = "neon"))]
            Self::Neon => kernel.run(neon::Neon),
            // SAFETY: only `detect` and `available` make a level beyond Portable, after they have
            // found that the processor supports the features that the function enables.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { x86::run_avx2(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { x86::run_avx512(kernel) },
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
    fn compact_lists_nonzero_lanes_in_order_at_every_level() {
        for lanes in 0..=0xffff {
            let value = |i: usize| match (lanes >> i & 1, i) {
                (1, 3) => f32::NAN,
                (1, 5) => f32::from_bits(1),
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
    fn transpose_turns_rows_into_columns_at_every_level() {
        let square = |of: fn(usize, usize) -> usize| std::array::from_fn(|i| std::array::from_fn(|k| of(i, k) as u32));
        for level in Level::available() {
            let columns = level.run(Transpose(square(|i, k| 100 * i + k)));
            assert_eq!(columns, square(|i, k| 100 * k + i), "{level:?}");
        }
    }

    struct Convert<'a>(&'a [u16; LANES], &'a [f32; LANES]);

    impl Kernel for Convert<'_> {
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
                let (got, sum) = level.run(Convert(&bits, &ones));
                assert_eq!(got, expected, "{level:?} from {start:#x}");
                let exact: f64 = expected.iter().map(|&x| x as f64).sum();
                assert!((sum as f64 - exact).abs() <= 1e-5 * exact.abs().max(1.0));
            }
        }
    }

    struct Codes<'a>(&'a [i8; LANES], &'a [i16; LANES], f32);

    impl Kernel for Codes<'_> {
        type Output = ([f32; LANES], [f32; LANES], [i8; LANES], [i16; LANES], [f32; LANES]);
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> Self::Output {
            let (bytes, words) = (isa.load_i8(self.0), isa.load_i16(self.1));
            let mut out = ([0.0; LANES], [0.0; LANES], [0; LANES], [0; LANES], [0.0; LANES]);
            isa.store(bytes, &mut out.0);
            isa.store(words, &mut out.1);
            isa.store_i8(isa.add(bytes, isa.splat(self.2)), &mut out.2);
            isa.store_i16(isa.add(words, isa.splat(self.2)), &mut out.3);
            isa.store(isa.larger_magnitude(isa.splat(40.0), bytes), &mut out.4);
            out
        }
    }

    #[test]
    fn every_code_is_loaded_and_rounded_alike_at_every_level() {
        let rounded = |x: f32| x.round_ties_even();
        for start in (-120..120).step_by(LANES) {
            let bytes: [i8; LANES] = std::array::from_fn(|i| (start + i as i32 / 2) as i8);
            let words = bytes.map(|byte| i16::from(byte) * 257);
            for fraction in [0.0, 0.5, -0.5, 0.49, 0.51] {
                for level in Level::available() {
                    let (b, w, to_b, to_w, larger) = level.run(Codes(&bytes, &words, fraction));
                    assert_eq!((b, w), (bytes.map(f32::from), words.map(f32::from)), "{level:?}");
                    assert_eq!(to_b, b.map(|x| rounded(x + fraction) as i8), "{level:?} {fraction}");
                    assert_eq!(to_w, w.map(|x| rounded(x + fraction) as i16), "{level:?} {fraction}");
                    assert_eq!(larger, b.map(|x| x.abs().max(40.0)), "{level:?}");
                }
            }
        }
    }

    struct Larger(f32, f32);

    impl Kernel for Larger {
        type Output = f32;
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> f32 {
            let mut lanes = [0.0; LANES];
            isa.store(isa.larger_magnitude(isa.splat(self.0), isa.splat(self.1)), &mut lanes);
            lanes[LANES - 1]
        }
    }

    #[test]
    fn no_magnitude_is_larger_than_nan() {
        for level in Level::available() {
            assert!(level.run(Larger(1.0, -f32::NAN)).is_nan(), "{level:?}");
            assert!(level.run(Larger(f32::NAN, 1.0)).is_nan(), "{level:?}");
            assert_eq!(level.run(Larger(1.0, f32::NEG_INFINITY)), f32::INFINITY, "{level:?}");
        }
    }

    struct MulAdd([f32; 3]);

    impl Kernel for MulAdd {
        type Output = [f32; LANES];
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> Self::Output {
            let mut lanes = [0.0; LANES];
            let [a, b, c] = self.0.map(|x| isa.splat(x));
            isa.store(isa.mul_add(a, b, c), &mut lanes);
            lanes
        }
    }

    /// Results that are below the normal numbers stay: no level flushes them to zero.
    #[test]
    fn a_level_rounds_once_or_twice_but_always_the_same_way() {
        let rounded_twice = |[a, b, c]: [f32; 3]| a * b + c;
        let fused = |[a, b, c]: [f32; 3]| a.mul_add(b, c);
        let (smallest, step) = (f32::MIN_POSITIVE, 1.0 + f32::EPSILON);
        let cases = [
            [step, step, -step],
            [step, -step, step * step],
            [3.0, 1.0 / 3.0, -1.0],
            [smallest, 0.25, smallest / 8.0],
            [f32::from_bits(3), 1.0, f32::from_bits(4)],
            [f32::MAX, 2.0, -f32::MAX],
            [f32::NAN, 1.0, 1.0],
        ];
        for level in Level::available() {
            let got = cases.map(|case| level.run(MulAdd(case)));
            let is = |of: fn([f32; 3]) -> f32| {
                let same = |(lanes, &case): (&[f32; LANES], &[f32; 3])| {
                    let wanted = of(case);
                    lanes.iter().all(|x| x.to_bits() == wanted.to_bits() || x.is_nan() && wanted.is_nan())
                };
                got.iter().zip(&cases).all(same)
            };
            assert!(is(rounded_twice) != is(fused), "{level:?}: {got:?}");
        }
    }

    struct Prefetch<'a>(&'a [u16]);

    impl Kernel for Prefetch<'_> {
        type Output = usize;
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> usize {
            for number in self.0 {
                isa.prefetch(number, Reuse::Soon);
                isa.prefetch(number, Reuse::Late);
            }
            isa.prefetch_distance()
        }
    }

    /// An instruction that the processor lacks, or one that reads an address, would end the test.
    #[test]
    fn every_level_prefetches_a_few_rows_ahead() {
        let numbers = [7; 100];
        for level in Level::available() {
            assert!(level.run(Prefetch(&numbers)) <= 64, "{level:?}");
        }
    }
}
