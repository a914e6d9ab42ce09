//! Sixteen floats at a time on whatever the processor has.
//!
//! A kernel is written once against [`Isa`]; [`Level::run`] compiles it for each instruction set and
//! picks the best that the processor supports when the program starts.

/// Number of lanes in a vector of every [`Isa`].
pub const LANES: usize = 16;

/// An instruction set: sixteen f32 lanes, fused or not, as the set has it.
pub trait Isa: Copy {
    /// Sixteen floats.
    type V: Copy;
    /// Vectors that stay in registers while others pass through them; a power of two, at most 16.
    const ACCUMULATORS: usize;
    /// Vectors of a tile that a product over many tokens keeps at a time; divides `weights::TILE`.
    const TILE_VECTORS: usize;
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
    fn prefetch<T>(self, value: &T);
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
/// and likewise whatever it calls in a hot loop.
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
            if is_x86_feature_detected!("avx512f") {
                return Self::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
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
    const TILE_VECTORS: usize = 1;

    #[inline(always)]
    fn prefetch<T>(self, _: &T) {}

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
    use super::{Isa, Kernel, LANES};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx2,fma,f16c")]
    pub fn run_avx2<K: Kernel>(kernel: K) -> K::Output {
        kernel.run(Avx2(()))
    }

    #[target_feature(enable = "avx512f,avx2,fma,f16c")]
    pub fn run_avx512<K: Kernel>(kernel: K) -> K::Output {
        kernel.run(Avx512(()))
    }

    // SAFETY, for every `unsafe` block below: the two types are made only in the functions above, which
    // run only on processors that have the features; loads and stores go through array references of
    // the right length, by unaligned instructions.

    #[derive(Clone, Copy)]
    pub struct Avx2(());

    impl Isa for Avx2 {
        type V = [__m256; 2];
        const ACCUMULATORS: usize = 4;
        const TILE_VECTORS: usize = 1;

        #[inline(always)]
        fn prefetch<T>(self, value: &T) {
            // SAFETY: a hint, which faults at no address.
            unsafe { _mm_prefetch::<_MM_HINT_NTA>(std::ptr::from_ref(value).cast()) }
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
    }

    #[derive(Clone, Copy)]
    pub struct Avx512(());

    impl Isa for Avx512 {
        type V = __m512;
        const ACCUMULATORS: usize = 16;
        const TILE_VECTORS: usize = 4;

        #[inline(always)]
        fn prefetch<T>(self, value: &T) {
            // SAFETY: a hint, which faults at no address.
            unsafe { _mm_prefetch::<_MM_HINT_NTA>(std::ptr::from_ref(value).cast()) }
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
