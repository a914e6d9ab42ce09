//! Two devices' numbers side by side.
//!
//! Both round to f32 (2^-24 = 6e-8 relative), but add in another order, may fuse a product and a sum,
//! and may divide and take roots to within a few units of the last place, as WGSL allows. Over sums of
//! up to two thousand terms the rounding errors walk to about a hundred units, 6e-6 of the terms' size,
//! in the worst of many thousand elements, and to a tenth of that on average. Hence [`KERNEL`]: an
//! element may be off by 1e-5 of its vector's size (and of itself), a vector by 1e-5 of its norm.
//!
//! The size of a vector is its root mean square, or that of the terms it was summed from where they
//! cancel: an error cannot shrink with them.

use super::report::CaseReport;
use crate::backend::StateType;

/// How far two results may be apart: absolute + relative, and as a whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tolerance {
    /// Of the vector's size and of the element.
    pub element: f64,
    /// Squared error over squared norm.
    pub nmse: f64,
}

/// One kernel in f32 against its twin.
pub(super) const KERNEL: Tolerance = Tolerance { element: 1e-5, nmse: 1e-10 };

/// Scores of a beam search: sums of a few dozen numbers of size one and of exp and log, which devices
/// round as they like. An absolute bound.
pub(super) const SCORES: f64 = 1e-4;

/// Logits of a whole model after many tokens: rounding errors pass through every layer and stay in the
/// state. These are the bounds that the reference results themselves are held to on a GPU.
pub(super) const MODEL: Tolerance = Tolerance { element: 1e-3, nmse: 1e-8 };

impl std::fmt::Display for Tolerance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0e}·(size + |x|), NMSE {:.0e}", self.element, self.nmse)
    }
}

/// What one comparison allows.
#[derive(Clone, Copy, Debug)]
enum Allowed {
    Exact,
    Absolute(f64),
    Within(Tolerance),
}

impl std::fmt::Display for Allowed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact => f.write_str("exact"),
            Self::Absolute(difference) => write!(f, "{difference:.0e}"),
            Self::Within(tolerance) => tolerance.fmt(f),
        }
    }
}

/// How the rows of a state were rounded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rounding {
    /// Type of the device's state.
    pub state: StateType,
    /// Numbers in a row.
    pub width: usize,
    /// Half steps of its last scale that a row's roundings may add up to.
    pub roundings: usize,
}

/// Differences collected over the vectors of one case.
#[derive(Debug)]
pub(super) struct Comparison {
    allowed: Allowed,
    max_abs: f64,
    max_rel: f64,
    nmse: f64,
    failure: Option<String>,
    /// Whether anything but zeros was expected.
    substance: bool,
}

impl Comparison {
    /// Numbers within a tolerance.
    pub fn within(tolerance: Tolerance) -> Self {
        Self::new(Allowed::Within(tolerance))
    }

    /// Bit for bit.
    pub fn exact() -> Self {
        Self::new(Allowed::Exact)
    }

    /// Numbers that differ by no more than this, whatever their size.
    pub fn absolute(difference: f64) -> Self {
        Self::new(Allowed::Absolute(difference))
    }

    fn new(allowed: Allowed) -> Self {
        Self { allowed, max_abs: 0.0, max_rel: 0.0, nmse: 0.0, failure: None, substance: false }
    }

    /// Compares a vector; `terms` is the size of the terms that its elements are sums of, where that may
    /// exceed the elements' own.
    pub fn numbers(&mut self, what: &str, got: &[f32], expected: &[f32], terms: f64) {
        self.scaled(what, got, expected, terms, 1.0);
    }

    /// As [`Comparison::numbers`]; the largest absolute difference is given in multiples of `unit`.
    pub fn scaled(&mut self, what: &str, got: &[f32], expected: &[f32], terms: f64, unit: f64) {
        if got.len() != expected.len() {
            return self.fail(format!("{what}: {} numbers instead of {}", got.len(), expected.len()));
        }
        let norm: f64 = expected.iter().map(|&e| f64::from(e) * f64::from(e)).sum();
        self.substance |= norm > 0.0;
        let size = (norm / expected.len().max(1) as f64).sqrt().max(terms).max(f64::from(f32::MIN_POSITIVE));
        let mut squares = 0.0;
        for (index, (&got, &expected)) in got.iter().zip(expected).enumerate() {
            // Equal infinities differ by NaN: nothing that is compared here may be infinite.
            let difference = (f64::from(got) - f64::from(expected)).abs();
            let difference = if difference.is_finite() { difference } else { f64::INFINITY };
            let magnitude = f64::from(expected).abs();
            squares += difference * difference;
            self.max_abs = self.max_abs.max(difference / unit);
            if difference > 0.0 {
                self.max_rel = self.max_rel.max(difference / magnitude.max(size));
            }
            // What is not a number on either side fails, whatever the size that it spoils.
            let apart = match self.allowed {
                _ if difference.is_infinite() => true,
                Allowed::Within(tolerance) => difference > tolerance.element * (size + magnitude),
                Allowed::Absolute(allowed) => difference > allowed,
                Allowed::Exact => difference > 0.0,
            };
            if apart {
                self.fail(format!("{what}, number {index}: {got:e} instead of {expected:e}"));
            }
        }
        let nmse = if squares > 0.0 { squares / (size * size * expected.len() as f64) } else { 0.0 };
        self.nmse = self.nmse.max(nmse);
        if matches!(self.allowed, Allowed::Within(tolerance) if nmse > tolerance.nmse) {
            self.fail(format!("{what}: NMSE {nmse:.1e}"));
        }
    }

    /// As [`Comparison::numbers`], for the rows of a state. Where the device's states are codes, a
    /// number may be off by half a step of its row for each rounding.
    pub fn rows(&mut self, what: &str, got: &[f32], expected: &[f32], terms: f64, rounding: Rounding) {
        let Rounding { state, width, roundings } = rounding;
        if state == StateType::F32 || got.len() != expected.len() {
            return self.numbers(what, got, expected, terms);
        }
        let Allowed::Within(tolerance) = self.allowed else { return self.fail("rounded rows are never exact".into()) };
        let size = size_of(expected).max(terms);
        for (index, (got, expected)) in got.chunks_exact(width).zip(expected.chunks_exact(width)).enumerate() {
            let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs()));
            self.substance |= largest > 0.0;
            // The device's largest magnitude may be another within the tolerance, and the scale the next.
            let reached = f64::from(largest) + tolerance.element * (size + f64::from(largest));
            let half_a_step = 0.5 * f64::from(state.step(reached as f32).unwrap_or(0.0));
            // What is too small for a code becomes zero.
            let rounded = half_a_step.max(2f64.powi(-100)) * roundings as f64;
            for (at, (&got, &expected)) in got.iter().zip(expected).enumerate() {
                let difference = (f64::from(got) - f64::from(expected)).abs();
                self.max_abs = self.max_abs.max(difference);
                if difference > tolerance.element * (size + f64::from(expected.abs())) + rounded || difference.is_nan()
                {
                    self.fail(format!("{what}, row {index}, number {at}: {got:e} instead of {expected:e}"));
                }
            }
        }
    }

    /// Notes that something was expected that is worth the comparison.
    pub fn substance(&mut self) {
        self.substance = true;
    }

    /// Notes a failure; the first one is reported.
    pub fn fail(&mut self, what: String) {
        self.failure.get_or_insert(what);
    }

    /// The case's row. `nothing` says that zeros are what the case is about.
    pub fn report(mut self, kernel: &str, shape: String, detail: String, nothing: bool) -> CaseReport {
        if !self.substance && !nothing {
            self.fail("the case is void: nothing but zeros was expected".into());
        }
        let detail = match &self.failure {
            Some(failure) if detail.is_empty() => failure.clone(),
            Some(failure) => format!("{failure} ({detail})"),
            None => detail,
        };
        CaseReport {
            kernel: kernel.to_string(),
            shape,
            max_abs: self.max_abs,
            max_rel: self.max_rel,
            nmse: self.nmse,
            tolerance: self.allowed.to_string(),
            passed: self.failure.is_none(),
            detail,
        }
    }
}

/// Root mean square.
pub(super) fn size_of(numbers: &[f32]) -> f64 {
    let squares: f64 = numbers.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    (squares / numbers.len().max(1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(got: &[f32], expected: &[f32]) -> CaseReport {
        let mut comparison = Comparison::within(KERNEL);
        comparison.numbers("x", got, expected, 0.0);
        comparison.report("kernel", String::new(), String::new(), false)
    }

    #[test]
    fn rounding_passes_and_errors_fail() {
        assert!(compare(&[1.0, -2.000001, 0.0], &[1.0, -2.0, 1e-7]).passed);
        let report = compare(&[1.0, -2.001, 0.0], &[1.0, -2.0, 0.0]);
        assert!(!report.passed && report.detail.contains("number 1"), "{report:?}");
    }

    #[test]
    fn what_is_not_a_number_fails() {
        for bad in [f32::NAN, f32::INFINITY] {
            let report = compare(&[1.0, bad], &[1.0, 2.0]);
            assert!(!report.passed && report.max_abs == f64::INFINITY && report.nmse == f64::INFINITY, "{report:?}");
            assert!(!compare(&[1.0], &[bad]).passed);
            assert!(!compare(&[bad], &[bad]).passed);
        }
    }

    #[test]
    fn small_errors_everywhere_add_up_to_a_large_nmse() {
        let expected = vec![1.0; 1000];
        let got = vec![1.0 + 1.5e-5; 1000];
        let report = compare(&got, &expected);
        assert!(report.detail.contains("NMSE"), "{report:?}");
    }

    #[test]
    fn comparing_nothing_but_zeros_fails() {
        assert!(!compare(&[0.0], &[0.0]).passed);
        assert!(Comparison::exact().report("k", String::new(), String::new(), true).passed);
    }

    #[test]
    fn exact_means_exact() {
        let mut comparison = Comparison::exact();
        comparison.numbers("x", &[1.0], &[1.0 + f32::EPSILON], 0.0);
        assert!(!comparison.report("k", String::new(), String::new(), false).passed);
    }
}
