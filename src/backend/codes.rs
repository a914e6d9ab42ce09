//! Rows of a state as integers with one scale per row.
//!
//! A row's scale follows from its largest magnitude m: the smallest limit 2^(k/16) ≥ m, for an
//! integer k, divided by the largest code. A number's code is number / scale, rounded to the
//! nearest integer, halves to even. Scales come from tables of 16 steps per octave, so they need no
//! division and no power: every device computes the same. Rounding a row that has been rounded
//! changes nothing. A row without a magnitude of at least 2⁻¹⁰⁰ has scale 0 and codes 0; one with a
//! number that is not finite has the scale NaN, so the numbers that depend on it are reported.

use super::StateType;
use crate::model::Config;
use std::sync::LazyLock;

/// Steps per octave.
const STEPS: usize = 16;
/// Bits of the smallest magnitude that has a code, 2⁻¹⁰⁰.
const SMALLEST: u32 = (127 - 100) << 23;
const INFINITY: u32 = 0x7f80_0000;

/// The scale of a row, and the factor from a number to its code.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowScale {
    /// Number / code.
    pub scale: f32,
    /// Code / number.
    pub reciprocal: f32,
}

/// Scales and limits within one octave.
struct Octave {
    /// 2^(k/16), and a millionth more: the largest code times its scale may exceed the limit by a
    /// rounding error.
    limits: [f32; STEPS],
    scales: [f32; STEPS],
    reciprocals: [f32; STEPS],
}

impl Octave {
    fn new(largest: f64) -> Self {
        let exact: [f64; STEPS] = std::array::from_fn(|k| (k as f64 / STEPS as f64).exp2());
        Self {
            limits: exact.map(|limit| (limit * 1.000_001) as f32),
            scales: exact.map(|limit| (limit / largest) as f32),
            reciprocals: exact.map(|limit| (largest / limit) as f32),
        }
    }
}

/// Bits of the tables within one octave, for shaders: limits, scales and reciprocals.
pub fn tables(state_type: StateType) -> [(&'static str, [u32; STEPS]); 3] {
    let octave = match state_type {
        StateType::I16 => &I16,
        // Floats have no scales.
        StateType::I8 | StateType::F32 => &I8,
    };
    [("LIMITS", octave.limits), ("SCALES", octave.scales), ("RECIPROCALS", octave.reciprocals)]
        .map(|(name, table)| (name, table.map(f32::to_bits)))
}

static I8: LazyLock<Octave> = LazyLock::new(|| Octave::new(f64::from(i8::MAX)));
static I16: LazyLock<Octave> = LazyLock::new(|| Octave::new(f64::from(i16::MAX)));

/// A type of codes.
pub trait Code: bytemuck::Pod + Send + Sync + std::fmt::Debug {
    /// The scale of a row whose largest magnitude has these bits.
    fn row_scale(largest: u32) -> RowScale;
    /// The code of a number divided by its row's scale.
    fn round(x: f32) -> Self;
    /// As a number.
    fn number(self) -> f32;
}

impl Code for i8 {
    fn row_scale(largest: u32) -> RowScale {
        row_scale(&I8, largest)
    }
    fn round(x: f32) -> Self {
        x.round_ties_even() as Self
    }
    fn number(self) -> f32 {
        self.into()
    }
}

impl Code for i16 {
    fn row_scale(largest: u32) -> RowScale {
        row_scale(&I16, largest)
    }
    fn round(x: f32) -> Self {
        x.round_ties_even() as Self
    }
    fn number(self) -> f32 {
        self.into()
    }
}

fn row_scale(octave: &Octave, largest: u32) -> RowScale {
    if largest >= INFINITY {
        return RowScale { scale: f32::NAN, reciprocal: 0.0 };
    }
    if largest < SMALLEST {
        return RowScale { scale: 0.0, reciprocal: 0.0 };
    }
    let mantissa = largest & 0x007f_ffff | 0x3f80_0000;
    let exponent = (largest >> 23).cast_signed() - 127;
    let steps = octave.limits.iter().filter(|limit| limit.to_bits() < mantissa).count();
    let (step, octaves) = (steps % STEPS, exponent + (steps / STEPS) as i32);
    let shift = |x: f32, octaves: i32| f32::from_bits((x.to_bits().cast_signed() + (octaves << 23)).cast_unsigned());
    RowScale { scale: shift(octave.scales[step], octaves), reciprocal: shift(octave.reciprocals[step], -octaves) }
}

/// Rounds a row to codes; returns its scale.
pub fn encode<C: Code>(row: &[f32], codes: &mut [C]) -> f32 {
    let largest = row.iter().map(|x| x.to_bits() & 0x7fff_ffff).max().unwrap_or(0);
    let RowScale { scale, reciprocal } = C::row_scale(largest);
    for (code, x) in codes.iter_mut().zip(row) {
        *code = C::round(x * reciprocal);
    }
    scale
}

/// The numbers of a row of codes.
pub fn decode<C: Code>(codes: &[C], scale: f32, row: &mut [f32]) {
    for (x, code) in row.iter_mut().zip(codes) {
        *x = code.number() * scale;
    }
}

impl StateType {
    /// The scale of a row with this largest magnitude; none for floats.
    pub fn step(self, largest: f32) -> Option<f32> {
        match self {
            Self::F32 => None,
            Self::I16 => Some(i16::row_scale(largest.to_bits()).scale),
            Self::I8 => Some(i8::row_scale(largest.to_bits()).scale),
        }
    }

    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::I16 => 2,
            Self::I8 => 1,
        }
    }

    /// Bytes of the state of one sequence.
    pub fn state_bytes(self, config: &Config) -> u64 {
        let rows = (config.n_layer * config.neurons()) as u64;
        config.state_len() as u64 * self.bytes() as u64 + 4 * rows * self.scales() as u64
    }

    /// Scales per row.
    pub fn scales(self) -> usize {
        usize::from(self != Self::F32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<C: Code>(largest_code: f32) {
        let mut magnitude = 2f32.powi(-100);
        let mut last = 0.0;
        while magnitude < f32::MAX / 2.0 {
            let RowScale { scale, reciprocal } = C::row_scale(magnitude.to_bits());
            // The limit is at most a millionth below the magnitude and less than a step above it,
            // and codes stay in range.
            let limit = f64::from(scale) * f64::from(largest_code);
            let ratio = limit / f64::from(magnitude);
            assert!((0.999_998..1.044_275).contains(&ratio), "{magnitude}: {ratio}");
            assert!(C::round(magnitude * reciprocal).number() <= largest_code);
            assert_eq!(C::round(-magnitude * reciprocal).number(), -C::round(magnitude * reciprocal).number());
            assert!(scale >= last);
            last = scale;
            magnitude *= 1.0137;
        }
    }

    #[test]
    fn scales_are_the_next_step_of_the_table() {
        check::<i8>(127.0);
        check::<i16>(32767.0);
        for power in [-100, -3, 0, 1, 60, 127] {
            // A limit is its own.
            let exact = 2f32.powi(power);
            let RowScale { scale, .. } = i8::row_scale(exact.to_bits());
            assert_eq!(scale, exact * (1.0 / 127.0f64) as f32);
        }
    }

    #[test]
    fn rounding_again_changes_nothing() {
        fn check<C: Code + PartialEq>() {
            let mut magnitude = 2f32.powi(-99);
            while magnitude < f32::MAX / 2.0 {
                let row: Vec<f32> = (0..40).map(|i| ((i * 7919 % 41) as f32 - 20.0) / 20.0 * magnitude).collect();
                let (mut codes, mut back, mut again) =
                    (vec![C::zeroed(); row.len()], vec![0.0; row.len()], vec![C::zeroed(); row.len()]);
                let scale = encode(&row, &mut codes);
                decode(&codes, scale, &mut back);
                assert_eq!(encode(&back, &mut again), scale, "{magnitude}");
                assert_eq!(again, codes, "{magnitude}");
                magnitude *= 1.000_3;
            }
        }
        check::<i8>();
        check::<i16>();
    }

    #[test]
    fn odd_rows_have_odd_scales() {
        let encode8 = |row: &[f32]| {
            let mut codes = vec![7i8; row.len()];
            (encode(row, &mut codes), codes)
        };
        assert_eq!(encode8(&[0.0, -0.0]), (0.0, vec![0, 0]));
        assert_eq!(encode8(&[1e-40, -2f32.powi(-101)]), (0.0, vec![0, 0]));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let (scale, codes) = encode8(&[1.0, bad]);
            assert!(scale.is_nan() && codes == [0, 0]);
        }
        let (scale, codes) = encode8(&[f32::MAX, 1.0, -f32::MAX]);
        assert!(scale.is_finite() && codes == [127, 0, -127], "{scale} {codes:?}");
    }

    #[test]
    fn halves_go_to_the_even_code() {
        let scale = i8::row_scale(1f32.to_bits());
        for (halves, code) in [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-3.5, -4)] {
            assert_eq!(i8::round(halves * (1.0 / 127.0) * scale.reciprocal), code);
        }
    }

    #[test]
    fn numbers_come_back_within_half_a_step() {
        let row: Vec<f32> = (0..1000).map(|i| ((i * 7919 % 1000) as f32 - 500.0) * 0.37).collect();
        let mut codes = vec![0i16; row.len()];
        let scale = encode(&row, &mut codes);
        let mut back = vec![0.0; row.len()];
        decode(&codes, scale, &mut back);
        let mut worst = 0.0f32;
        row.iter().zip(&back).for_each(|(x, y)| worst = worst.max((x - y).abs() / scale));
        assert!((0.4..0.501).contains(&worst), "{worst}");
    }
}
