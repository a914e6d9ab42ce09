//! Rotary phases: exact at any position a `u32` can hold.
//!
//! A phase is a fraction of a turn. Frequencies are kept as 64-bit fixed-point turns per position, so
//! that the product with a position wraps by itself; the upper 32 bits are the phase. Its error is
//! below 2^-32 turn at every position, where the product in `f32` loses the phase altogether past 2^24.
//!
//! Sine and cosine are polynomials of our own, because WGSL promises only an absolute error of 2^-11
//! for its built-in ones. `shaders/shared/rotary.wgsl` holds the same code.

use std::fmt;
use std::str::FromStr;

use super::tensor::Dtype;

/// Frequencies of one head's neurons in fixed point: 2^-64 turns per position, one entry per neuron.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    turns: Vec<u64>,
    paired: bool,
}

impl Rotary {
    /// Converts `freqs` (turns per position, one per neuron of a head, finite).
    pub fn new(freqs: &[f32]) -> Self {
        let turns: Vec<u64> = freqs.iter().map(|&f| fixed_turns(f)).collect();
        let paired = turns.chunks(2).all(|pair| pair[0] == pair[pair.len() - 1]);
        Self { turns, paired }
    }

    /// Fixed-point frequencies, `[N]`.
    pub fn turns(&self) -> &[u64] {
        &self.turns
    }

    /// Whether both members of every pair share a frequency, as they do unless frequencies were trained.
    pub fn paired(&self) -> bool {
        self.paired
    }

    /// Phase of neuron `i` at `position`, in 2^-32 turns.
    pub fn phase(&self, i: usize, position: u32) -> u32 {
        phase(self.turns[i], position)
    }
}

/// The frequencies of model.md by formula, `[neurons]`, turns per position.
pub fn default_freqs(neurons: usize) -> Vec<f32> {
    Rope::default().freqs(neurons)
}

/// A kind of rotary embedding: which neurons of a head are rotated together, and how fast. Written
/// `interleaved:65536` or `half-split:10000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rope {
    pairs: Pairs,
    base: u32,
}

/// The two neurons of pair j, of N.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pairs {
    /// 2j and 2j + 1.
    Interleaved,
    /// j and j + N/2.
    HalfSplit,
}

impl Rope {
    /// The base of the frequencies: pair j of a head of N neurons turns by base^(−2j/N) radians per position.
    pub fn base(self) -> u32 {
        self.base
    }

    /// Whether pair j consists of neurons j and j + N/2 rather than of neighbours.
    pub fn is_half_split(self) -> bool {
        self.pairs == Pairs::HalfSplit
    }

    /// Frequencies by formula once the members of a pair are neighbours, `[neurons]`, turns per position.
    pub fn freqs(self, neurons: usize) -> Vec<f32> {
        (0..neurons)
            .map(|i| {
                let pair = (i / 2 * 2) as f64;
                (f64::from(self.base).powf(-pair / neurons as f64) / std::f64::consts::TAU) as f32
            })
            .collect()
    }
}

impl Default for Rope {
    /// The official kind.
    fn default() -> Self {
        Self { pairs: Pairs::Interleaved, base: 65536 }
    }
}

impl fmt::Display for Rope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = match self.pairs {
            Pairs::Interleaved => "interleaved",
            Pairs::HalfSplit => "half-split",
        };
        f.pad(&format!("{pairs}:{}", self.base))
    }
}

impl FromStr for Rope {
    type Err = RopeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (pairs, base) = text.split_once(':').ok_or(RopeError)?;
        let pairs = match pairs {
            "interleaved" => Pairs::Interleaved,
            "half-split" => Pairs::HalfSplit,
            _ => return Err(RopeError),
        };
        let base = base.parse().ok().filter(|&base| base > 1).ok_or(RopeError)?;
        Ok(Self { pairs, base })
    }
}

/// Where a model's rotary frequencies come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frequencies {
    /// They were computed.
    Formula,
    /// They were stored as those of the formula rounded to a type of less precision, and computed.
    Rounded(Dtype),
    /// They were stored.
    Stored,
}

impl Frequencies {
    /// What those say that a file stores as `values` of type `dtype`, `formula` being the computed ones.
    pub(crate) fn of(values: &[f32], dtype: Dtype, formula: &[f32]) -> Self {
        // The formula in f32, as PyTorch computes it, is a few units in the last place off.
        const SLACK: f32 = 4e-7;
        let rounded = |value: f32| match dtype {
            Dtype::F16 => half::f16::from_f32(value).to_f32(),
            _ => half::bf16::from_f32(value).to_f32(),
        };
        let agree = |(&stored, &exact): (&f32, &f32)| {
            [1.0 - SLACK, 1.0, 1.0 + SLACK].iter().any(|factor| rounded(exact * factor) == stored)
        };
        match dtype {
            Dtype::F16 | Dtype::BF16 if values.iter().zip(formula).all(agree) => Self::Rounded(dtype),
            _ => Self::Stored,
        }
    }
}

impl fmt::Display for Frequencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Formula => f.pad("by formula"),
            Self::Rounded(dtype) => f.pad(&format!("by formula; stored rounded to {dtype}")),
            Self::Stored => f.pad("stored with the weights"),
        }
    }
}

/// A text that names no kind of rotary embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {}", Self::EXPECTED)]
pub struct RopeError;

impl RopeError {
    /// The texts that name one.
    pub(crate) const EXPECTED: &str =
        "interleaved:65536 (the official kind) or half-split:10000, or another base above 1";
}

/// `f` turns per position as 2^-64 turns, whole turns dropped. Exact for every f32 of magnitude 2^-40
/// and above; smaller ones are truncated to a multiple of 2^-64.
fn fixed_turns(f: f32) -> u64 {
    let bits = f.to_bits();
    let exponent = ((bits >> 23) & 0xff) as i32;
    let mantissa = (bits & 0x7f_ffff) as u64 | if exponent == 0 { 0 } else { 0x80_0000 };
    // value = mantissa · 2^(exponent − 150); in units of 2^-64: mantissa · 2^(exponent − 86).
    let shift = exponent.max(1) - 86;
    let magnitude = match shift {
        64.. => 0,
        0..64 => mantissa.wrapping_shl(shift as u32),
        -63..0 => mantissa >> -shift,
        _ => 0,
    };
    if bits >> 31 == 1 { magnitude.wrapping_neg() } else { magnitude }
}

/// Phase in 2^-32 turns of a fixed-point frequency at `position`.
#[inline]
pub fn phase(turns: u64, position: u32) -> u32 {
    (turns.wrapping_mul(position as u64) >> 32) as u32
}

/// Cosine and sine of `phase` (2^-32 turns), within 1.2e-7 of the true values.
///
/// The phase is reduced to an eighth of a turn around the nearest quarter; the polynomials are those of
/// Cephes' `sinf` and `cosf`.
#[inline]
pub fn cos_sin(phase: u32) -> (f32, f32) {
    let quarter = phase.wrapping_add(1 << 29) >> 30;
    let rest = phase.wrapping_sub(quarter << 30) as i32;
    let x = rest as f32 * (std::f64::consts::TAU / 4294967296.0) as f32;
    let z = x * x;
    let sine = ((-1.951_529_6e-4 * z + 8.332_161e-3) * z - 1.666_665_5e-1) * z * x + x;
    let cosine = ((2.443_315_7e-5 * z - 1.388_731_6e-3) * z + 4.166_664_6e-2) * z * z - 0.5 * z + 1.0;
    let (c, s) = if quarter & 1 == 0 { (cosine, sine) } else { (sine, cosine) };
    let c = if quarter == 1 || quarter == 2 { -c } else { c };
    let s = if quarter >= 2 { -s } else { s };
    (c, s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_exact_at_every_position() {
        for &f in &default_freqs(1024) {
            for t in [0, 1, 255, 65_537, 1 << 24, (1 << 24) + 1, 3_000_000_019, u32::MAX] {
                // 24-bit mantissa times 32-bit position: exact in 128-bit integers at scale 2^-64.
                let scaled = (f as f64 * 2f64.powi(64)) as u128;
                let exact = ((scaled * t as u128) & u64::MAX as u128) as f64 / 2f64.powi(64);
                let got = phase(fixed_turns(f), t) as f64 / 2f64.powi(32);
                let error = (got - exact).abs();
                assert!(error.min(1.0 - error) < 1e-9, "f {f} t {t}: {got} against {exact}");
            }
        }
    }

    #[test]
    fn negative_and_large_frequencies_wrap() {
        assert_eq!(phase(fixed_turns(-0.25), 1), 3 << 30);
        assert_eq!(phase(fixed_turns(7.5), 1), 1 << 31);
        assert_eq!(phase(fixed_turns(0.0), 12345), 0);
    }

    #[test]
    fn kinds_are_read_and_written() {
        for text in ["interleaved:65536", "half-split:10000", "half-split:500000"] {
            assert_eq!(text.parse::<Rope>().unwrap().to_string(), text);
        }
        assert_eq!(Rope::default().to_string(), "interleaved:65536");
        for wrong in ["", "rope", "interleaved", "half-split:", "half-split:1", "half-split:-3", "halfsplit:10000"] {
            assert_eq!(wrong.parse::<Rope>(), Err(RopeError), "{wrong}");
        }
    }

    #[test]
    fn frequencies_rounded_to_a_half_are_those_of_the_formula() {
        for rope in [Rope::default(), "half-split:10000".parse().unwrap()] {
            let formula = rope.freqs(8192);
            // A unit in the last place either way, as other implementations of the power have it.
            let shaken = |i: usize| f32::from_bits(formula[i].to_bits() + (i % 3) as u32 - 1);
            let f16: Vec<f32> = (0..8192).map(|i| half::f16::from_f32(shaken(i)).to_f32()).collect();
            let bf16: Vec<f32> = (0..8192).map(|i| half::bf16::from_f32(shaken(i)).to_f32()).collect();
            assert_eq!(Frequencies::of(&f16, Dtype::F16, &formula), Frequencies::Rounded(Dtype::F16));
            assert_eq!(Frequencies::of(&bf16, Dtype::BF16, &formula), Frequencies::Rounded(Dtype::BF16));
            assert_eq!(Frequencies::of(&bf16, Dtype::F32, &formula), Frequencies::Stored);
            let mut other = bf16.clone();
            other[77] = f32::from_bits(other[77].to_bits() + (1 << 16));
            assert_eq!(Frequencies::of(&other, Dtype::BF16, &formula), Frequencies::Stored);
        }
    }

    #[test]
    fn cosine_and_sine_match_f64() {
        for k in 0..200_000u32 {
            let p = k.wrapping_mul(0x9E37_79B9) ^ (k << 7);
            let angle = p as f64 / 4294967296.0 * std::f64::consts::TAU;
            let (c, s) = cos_sin(p);
            assert!((c as f64 - angle.cos()).abs() < 1.2e-7, "cos {p}: {c} {}", angle.cos());
            assert!((s as f64 - angle.sin()).abs() < 1.2e-7, "sin {p}: {s} {}", angle.sin());
        }
        assert_eq!(cos_sin(0), (1.0, 0.0));
    }
}
