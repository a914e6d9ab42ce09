//! Is a neuron's activation higher in texts about a concept than in others?
//!
//! [`mann_whitney`] compares two groups of activations by their ranks, [`mann_whitney_sparse`] does
//! so from the nonzero activations alone, and [`benjamini_hochberg`] adjusts the p-values of many
//! neurons for their number. Counts are integers up to the last step, so the dense and the sparse
//! comparison are equal bit for bit. `tests/inspect/scipy_check.py` compares both with SciPy.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// Most activations of one comparison: the cube of their number fits into 127 bits.
const MOST_VALUES: u64 = 1 << 42;

/// How the activations of a group of texts, the positive one, compare with those of another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Area under the ROC curve, 0 to 1: the probability that an activation of the positive group
    /// is higher than one of the negative group, with a tie counted as half. `u / (n1 * n2)`.
    pub auroc: f64,
    /// Mann-Whitney U of the positive group: pairs of a positive and a negative activation in which
    /// the positive one is higher, with a tie counted as half. 0 to `n1 * n2`.
    pub u: f64,
    /// Distance of `u` from its mean if the groups do not differ, in standard deviations, after the
    /// continuity correction. Above zero if the positive group is higher, 0 if all activations are
    /// equal. It still ranks neurons whose `p` is 0.
    pub z: f64,
    /// Two-sided p-value of the normal approximation, with tie and continuity correction; 1 if all
    /// activations are equal, 0 below about 2e-308.
    pub p: f64,
    /// Share of the positive group's activations above zero, 0 to 1.
    pub positive_rate: f64,
    /// Share of the negative group's activations above zero, 0 to 1.
    pub negative_rate: f64,
}

/// Compares the activations of two groups by the Mann-Whitney U test.
///
/// Equals `scipy.stats.mannwhitneyu(positive, negative, method="asymptotic")` in 64-bit floats.
/// Formulas: Mann and Whitney, "On a Test of Whether one of Two Random Variables is Stochastically
/// Larger than the Other" (1947); tie correction as in Lehmann, "Nonparametrics" (1975), 1.4.
/// If all activations are equal, the variance of U is 0, and p is 1, as SciPy has it.
///
/// The approximation is coarse for groups of fewer than about ten activations. Infinities are
/// ordered like other values; -0 equals 0. Takes O(n log n) time.
///
/// # Errors
/// `None` if a group is empty, an activation is NaN, or both groups together exceed 2^42 values.
pub fn mann_whitney(positive: &[f32], negative: &[f32]) -> Option<Comparison> {
    if positive.iter().chain(negative).any(|value| value.is_nan()) {
        return None;
    }
    let sorted = |values: &[f32]| {
        let mut values = values.to_vec();
        values.sort_unstable_by(f32::total_cmp);
        values
    };
    let active = |values: &[f32]| values.len() - values.partition_point(|&value| value <= 0.0);
    let groups = Groups::new(positive.len(), negative.len())?;
    let (positive, negative) = (sorted(positive), sorted(negative));
    let mut tally = Tally::default();
    tally.add_sorted(&positive, &negative);
    Some(groups.compare(tally, active(&positive), active(&negative)))
}

/// [`mann_whitney`] for groups of mostly zeros, given their nonzero activations.
///
/// `positive` and `negative` hold the activations above zero, in any order; they are sorted in
/// place. `positive_total` and `negative_total` are the sizes of the groups, zeros included. The
/// result equals that of [`mann_whitney`] on the full groups, bit for bit. Takes O(k log k) time
/// for k nonzero activations, whatever the totals.
///
/// # Errors
/// `None` if a total is 0 or below the number of its nonzero activations, an activation is not
/// above zero (NaN included), or both totals together exceed 2^42.
pub fn mann_whitney_sparse(
    positive: &mut [f32],
    positive_total: usize,
    negative: &mut [f32],
    negative_total: usize,
) -> Option<Comparison> {
    let all_positive = positive.iter().chain(negative.iter()).all(|&value| value > 0.0);
    if !all_positive {
        return None;
    }
    let zeros = (positive_total.checked_sub(positive.len())?, negative_total.checked_sub(negative.len())?);
    let groups = Groups::new(positive_total, negative_total)?;
    positive.sort_unstable_by(f32::total_cmp);
    negative.sort_unstable_by(f32::total_cmp);
    let mut tally = Tally::default();
    tally.add(zeros.0, zeros.1);
    tally.add_sorted(positive, negative);
    Some(groups.compare(tally, positive.len(), negative.len()))
}

/// Counts of pairs and ties, over distinct activations in ascending order.
#[derive(Default)]
struct Tally {
    /// 2 U of the positive group so far.
    twice_u: u128,
    /// Activations of the negative group so far.
    negatives: u128,
    /// Sum of `t^3 - t` over the sets of t equal activations so far.
    ties: u128,
}

impl Tally {
    /// Adds the activations of one value, above all values so far.
    fn add(&mut self, positives: usize, negatives: usize) {
        let (positives, negatives) = (positives as u128, negatives as u128);
        let tied = positives + negatives;
        self.twice_u += positives * (2 * self.negatives + negatives);
        self.ties += tied.pow(3) - tied;
        self.negatives += negatives;
    }

    /// Merges two ascending groups without NaN, all above the values so far.
    fn add_sorted(&mut self, mut positive: &[f32], mut negative: &[f32]) {
        let run = |values: &[f32], value| values.iter().take_while(|&&other| other == value).count();
        while let Some(value) = lower(positive.first(), negative.first()) {
            let (positives, negatives) = (run(positive, value), run(negative, value));
            self.add(positives, negatives);
            (positive, negative) = (&positive[positives..], &negative[negatives..]);
        }
    }
}

/// The lower of two values, or the one there is.
fn lower(a: Option<&f32>, b: Option<&f32>) -> Option<f32> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(*b)),
        (a, b) => a.or(b).copied(),
    }
}

/// Sizes of the two groups, each above zero.
struct Groups {
    positive: usize,
    negative: usize,
}

impl Groups {
    fn new(positive: usize, negative: usize) -> Option<Self> {
        let fits = positive.checked_add(negative)? as u64 <= MOST_VALUES;
        (positive > 0 && negative > 0 && fits).then_some(Self { positive, negative })
    }

    /// The comparison from complete counts; `*_active` are the activations above zero.
    fn compare(&self, tally: Tally, positive_active: usize, negative_active: usize) -> Comparison {
        let (n1, n2) = (self.positive as u128, self.negative as u128);
        let (pairs, n) = (n1 * n2, n1 + n2);
        let u = tally.twice_u as f64 / 2.0;
        // Variance n1 n2 / 12 (n + 1 - ties / (n (n - 1))), with the bracket as one exact fraction:
        // with many zeros its terms nearly cancel.
        let variance = pairs as f64 * (n.pow(3) - n - tally.ties) as f64 / (12 * n * (n - 1)) as f64;
        // Twice the distance of U from its mean n1 n2 / 2, moved 1/2 towards it.
        let twice_distance = tally.twice_u.abs_diff(pairs).saturating_sub(1);
        let z = if twice_distance == 0 { 0.0 } else { twice_distance as f64 / (2.0 * variance.sqrt()) };
        Comparison {
            auroc: u / pairs as f64,
            u,
            z: if tally.twice_u < pairs { -z } else { z },
            p: erfc(z * FRAC_1_SQRT_2),
            positive_rate: positive_active as f64 / n1 as f64,
            negative_rate: negative_active as f64 / n2 as f64,
        }
    }
}

/// From here up, [`erfc`] takes the continued fraction: below, 1 - erf loses under 8 bits.
const FRACTION_FROM: f64 = 2.0;

/// Levels of the continued fraction: at [`FRACTION_FROM`], where it converges slowest, its relative
/// error is 2e-17.
const LEVELS: u32 = 60;

/// Complementary error function, `2 / sqrt(pi)` times the integral of `exp(-t^2)` from `x` up.
///
/// Relative error below 1e-12; results below the smallest normal number, about 2e-308, are 0. NaN
/// for NaN. Series: NIST Digital Library of Mathematical Functions, <https://dlmf.nist.gov>, 7.6.2
/// (all its terms have one sign) below 2, and the continued fraction 7.9.1 above.
pub fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    if x < FRACTION_FROM {
        // erf(x) = 2 / sqrt(pi) exp(-x^2) sum of 2^n x^(2n + 1) / (1 * 3 * ... * (2n + 1)).
        let (mut sum, mut term, mut odd) = (x, x, 1.0);
        while term > sum * (f64::EPSILON / 4.0) {
            odd += 2.0;
            term *= 2.0 * x * x / odd;
            sum += term;
        }
        return 1.0 - 2.0 / PI.sqrt() * exp_minus_square(x) * sum;
    }
    // erfc(x) = exp(-x^2) / sqrt(pi) / (x + (1/2) / (x + (2/2) / (x + (3/2) / ...))), evaluated
    // from the innermost level.
    let fraction = (1..=LEVELS).rev().fold(x, |inner, level| x + f64::from(level) / 2.0 / inner);
    let result = exp_minus_square(x) / (PI.sqrt() * fraction);
    if result < f64::MIN_POSITIVE { 0.0 } else { result }
}

/// `exp(-x^2)` without the rounding error of `x^2`, which costs 9 bits near the end of the range.
fn exp_minus_square(x: f64) -> f64 {
    // The result is 0 from here up; infinity minus infinity below would be NaN.
    if x > 28.0 {
        return 0.0;
    }
    // The high half has 21 bits, so that its square is exact.
    let high = f64::from_bits(x.to_bits() & !0xffff_ffff);
    (-high * high).exp() * ((high - x) * (high + x)).exp()
}

/// Adjusts p-values for their number by the method of Benjamini and Hochberg, in their order.
///
/// The tests whose adjusted p-value is at most q have an expected share of false discoveries of at
/// most q, if the tests are independent or positively dependent. Equals
/// `scipy.stats.false_discovery_control(p)`. Source: Benjamini and Hochberg, "Controlling the False
/// Discovery Rate" (1995). Takes O(n log n) time.
///
/// SciPy rejects p-values outside 0 to 1; here they count as the nearer bound, and NaN counts as 1.
pub fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let mut adjusted: Vec<f64> = p.iter().map(|&p| if p.is_nan() { 1.0 } else { p.clamp(0.0, 1.0) }).collect();
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_unstable_by(|&a, &b| adjusted[a].total_cmp(&adjusted[b]));
    let mut lowest = 1.0_f64;
    for (rank, &index) in order.iter().enumerate().rev() {
        lowest = lowest.min(adjusted[index] * (p.len() as f64 / (rank + 1) as f64));
        adjusted[index] = lowest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest relative error allowed for a p-value.
    const P_TOLERANCE: f64 = 1e-10;

    fn close(actual: f64, expected: f64, tolerance: f64) -> bool {
        (actual - expected).abs() <= tolerance * expected.abs()
    }

    /// Small numbers by linear congruence, the same on every machine.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (self.0 >> 33) % bound
        }

        /// `length` integers, of which about one in `one_in` is nonzero.
        fn activations(&mut self, length: u64, one_in: u64, highest: u64) -> Vec<f32> {
            let mut one = || if self.below(one_in) == 0 { 1 + self.below(highest) } else { 0 };
            (0..length).map(|_| one() as f32 / 8.0).collect()
        }
    }

    fn sparse(positive: &[f32], negative: &[f32]) -> Option<Comparison> {
        let nonzero = |values: &[f32]| values.iter().copied().filter(|&value| value != 0.0).collect::<Vec<_>>();
        mann_whitney_sparse(&mut nonzero(positive), positive.len(), &mut nonzero(negative), negative.len())
    }

    /// Compares with SciPy's statistic and p-value, dense and, if no value is negative, sparse.
    fn check(name: &str, positive: &[f32], negative: &[f32], u: f64, p: f64) {
        let actual = mann_whitney(positive, negative).expect(name);
        assert_eq!(actual.u, u, "{name}");
        assert!(close(actual.auroc, u / (positive.len() * negative.len()) as f64, 1e-15), "{name}: {actual:?}");
        assert!(close(actual.p, p, P_TOLERANCE), "{name}: {actual:?} instead of {p:e}");
        if positive.iter().chain(negative).all(|&value| value >= 0.0) {
            assert_eq!(sparse(positive, negative), Some(actual), "{name}");
        }
        let swapped = mann_whitney(negative, positive).expect(name);
        assert_eq!((swapped.p, swapped.z), (actual.p, -actual.z), "{name}");
    }

    // SciPy 1.17.1 and NumPy 2.4.6 computed the constants of `equals_scipy`:
    //
    // def compare(name, positive, negative):
    //     x, y = np.float64(positive), np.float64(negative)
    //     result = mannwhitneyu(x, y, method="asymptotic")
    //     print(name, repr(float(result.statistic)), repr(float(result.pvalue)))
    //
    // compare("distinct", [19, 22, 16, 29, 24], [20, 11, 17, 12])
    // compare("ties", [1, 2, 2, 3, 3, 3, 4], [0, 1, 2, 2, 2, 3])
    // compare("signs", [-2.5, -0.0, 0.0, 1.5], [-3.0, -2.5, 0.0, 0.25, 1.5])
    // compare("one_each", [1], [2])
    // compare("one_above", [5], [1, 2, 3])
    // compare("one_tied", [1], [1, 2, 3])
    // compare("equal", [3, 3, 3], [3])
    // compare("same", [1, 2, 3], [1, 2, 3])
    // compare("zeros", [k * 37 % 101 // 80 * (k % 13 + 1) for k in range(300)],
    //         [k * 41 % 103 // 95 * (k % 7 + 1) for k in range(2000)])
    // compare("rare", [7] + [0] * 9, [0] * 1000)
    // compare("tail", range(900, 1800), range(900))
    // compare("all_zero", [0] * 20, [0] * 30)
    #[test]
    fn equals_scipy() {
        check("distinct", &[19., 22., 16., 29., 24.], &[20., 11., 17., 12.], 17.0, 0.11134688653314041);
        check("ties", &[1., 2., 2., 3., 3., 3., 4.], &[0., 1., 2., 2., 2., 3.], 31.0, 0.1559259320482882);
        check("signs", &[-2.5, -0.0, 0.0, 1.5], &[-3.0, -2.5, 0.0, 0.25, 1.5], 11.0, 0.9000040960811826);
        check("one_each", &[1.0], &[2.0], 0.0, 1.0);
        check("one_above", &[5.0], &[1.0, 2.0, 3.0], 3.0, 0.37109336952269756);
        check("one_tied", &[1.0], &[1.0, 2.0, 3.0], 0.5, 0.6373518882339371);
        check("equal", &[3.0; 3], &[3.0], 1.5, 1.0);
        check("same", &[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0], 4.5, 1.0);
        let positive: Vec<_> = (0..300).map(|k| (k * 37 % 101 / 80 * (k % 13 + 1)) as f32).collect();
        let negative: Vec<_> = (0..2000).map(|k| (k * 41 % 103 / 95 * (k % 7 + 1)) as f32).collect();
        check("zeros", &positive, &negative, 340363.0, 2.063856553931453e-13);
        let mut rare = [0.0; 10];
        rare[0] = 7.0;
        check("rare", &rare, &[0.0; 1000], 5500.0, 1.6858174400886053e-23);
        let tail: Vec<_> = (0..1800).map(|k| k as f32).collect();
        check("tail", &tail[900..], &tail[..900], 810000.0, 2.2453868370761107e-295);
        check("all_zero", &[0.0; 20], &[0.0; 30], 300.0, 1.0);
    }

    #[test]
    fn describes_the_groups() {
        let actual = mann_whitney(&[0.0, -1.0, 2.0, 3.0], &[0.0, 0.5]).expect("two groups");
        assert_eq!((actual.positive_rate, actual.negative_rate), (0.5, 0.5));
        // Pairs above: 2 and 3 over both, 0 tied with 0.
        assert_eq!((actual.u, actual.auroc), (4.5, 4.5 / 8.0));
        let equal = mann_whitney(&[1.0; 4], &[1.0; 5]).expect("two groups");
        assert_eq!((equal.auroc, equal.z, equal.p), (0.5, 0.0, 1.0));
        let low = mann_whitney(&[1.0, 2.0, 3.0], &[f32::INFINITY, 4.0, 5.0]).expect("two groups");
        assert_eq!(low.auroc, 0.0);
        assert!(low.z < 0.0);
    }

    #[test]
    fn u_counts_pairs() {
        let mut numbers = Numbers(1);
        for _ in 0..200 {
            let (n1, n2, one_in) = (1 + numbers.below(40), 1 + numbers.below(40), 1 + numbers.below(4));
            let (positive, negative) = (numbers.activations(n1, one_in, 9), numbers.activations(n2, one_in, 9));
            let points = |a: f32, b: f32| if a == b { 0.5 } else { f64::from(u8::from(a > b)) };
            let pairs: f64 = positive.iter().flat_map(|&a| negative.iter().map(move |&b| points(a, b))).sum();
            assert_eq!(mann_whitney(&positive, &negative).expect("two groups").u, pairs);
        }
    }

    #[test]
    fn sparse_equals_dense() {
        let mut numbers = Numbers(2);
        for _ in 0..2000 {
            let (n1, n2) = (1 + numbers.below(300), 1 + numbers.below(300));
            let (one_in, other_one_in) = (1 + numbers.below(30), 1 + numbers.below(30));
            let highest = 1 + numbers.below(1000);
            let positive = numbers.activations(n1, one_in, highest);
            let negative = numbers.activations(n2, other_one_in, highest);
            let dense = mann_whitney(&positive, &negative);
            assert!(dense.is_some());
            assert_eq!(sparse(&positive, &negative), dense);
        }
    }

    #[test]
    fn rejects_what_has_no_order() {
        assert_eq!(mann_whitney(&[], &[1.0]), None);
        assert_eq!(mann_whitney(&[1.0], &[]), None);
        assert_eq!(mann_whitney(&[f32::NAN], &[1.0]), None);
        assert_eq!(mann_whitney(&[1.0], &[2.0, f32::NAN]), None);
        assert_eq!(mann_whitney_sparse(&mut [], 0, &mut [1.0], 2), None);
        assert_eq!(mann_whitney_sparse(&mut [1.0, 2.0], 1, &mut [1.0], 2), None);
        assert_eq!(mann_whitney_sparse(&mut [1.0], 2, &mut [-1.0], 2), None);
        assert_eq!(mann_whitney_sparse(&mut [0.0], 2, &mut [1.0], 2), None);
        assert_eq!(mann_whitney_sparse(&mut [f32::NAN], 2, &mut [1.0], 2), None);
        assert_eq!(mann_whitney_sparse(&mut [1.0], 2, &mut [1.0], usize::MAX), None);
    }

    #[cfg(target_pointer_width = "64")]
    #[test]
    fn the_largest_groups_fit() {
        let half = (MOST_VALUES / 2) as usize;
        let actual = mann_whitney_sparse(&mut [1.0], half, &mut [], half).expect("two groups");
        assert!(actual.auroc > 0.5 && actual.p > 0.1 && actual.p < 1.0, "{actual:?}");
        assert_eq!(mann_whitney_sparse(&mut [1.0], half, &mut [], half + 1), None);
        let equal = mann_whitney_sparse(&mut [], half, &mut [], half).expect("two groups");
        assert_eq!((equal.auroc, equal.z, equal.p), (0.5, 0.0, 1.0));
    }

    #[test]
    fn hopeless_tails_are_zero() {
        let values: Vec<_> = (0..4000).map(|k| k as f32).collect();
        let actual = mann_whitney(&values[2000..], &values[..2000]).expect("two groups");
        assert_eq!((actual.auroc, actual.p), (1.0, 0.0));
        assert!(actual.z > 50.0 && actual.z.is_finite());
        for x in [27.0, 28.5, 1e10, 1e200, f64::INFINITY] {
            assert_eq!((erfc(x), erfc(-x)), (0.0, 2.0));
        }
        assert!(erfc(f64::NAN).is_nan());
    }

    // SciPy's values: print(x, repr(float(scipy.special.erfc(x)))) for each x.
    const ERFC: [(f64, f64); 23] = [
        (0.0, 1.0),
        (1e-300, 1.0),
        (1e-08, 0.9999999887162083),
        (0.1, 0.8875370839817152),
        (0.5, 0.4795001221869535),
        (0.84375, 0.2327743387676584),
        (1.0, 0.15729920705028516),
        (1.25, 0.07709987174354177),
        (1.999, 0.0046984433486294865),
        (2.0, 0.004677734981047266),
        (2.5, 0.00040695201744495886),
        (3.0, 2.2090496998585445e-05),
        (4.5, 1.9661604415428878e-10),
        (6.0, 2.1519736712498913e-17),
        (10.0, 2.0884875837625446e-45),
        (15.5, 1.6632016400488725e-106),
        (20.25, 2.2729564178807834e-180),
        (25.0, 8.300172571196523e-274),
        (25.8, 1.8017760538593416e-291),
        (-0.5, 1.5204998778130465),
        (-1.5, 1.9661051464753108),
        (-3.0, 1.9999779095030015),
        (-7.0, 2.0),
    ];

    #[test]
    fn erfc_equals_scipy() {
        for (x, expected) in ERFC {
            assert!(close(erfc(x), expected, 1e-12), "erfc({x}) = {:e} instead of {expected:e}", erfc(x));
        }
    }

    // scipy.stats.false_discovery_control([0.01, 0.04, 0.03, 0.005, 0.8, 0.02, 0.02, 1, 0, 0.04])
    #[test]
    fn adjusted_p_values_equal_scipy() {
        let p = [0.01, 0.04, 0.03, 0.005, 0.8, 0.02, 0.02, 1.0, 0.0, 0.04];
        let expected = [0.03333333333333333, 0.05, 0.05, 0.025, 0.888888888888889, 0.04, 0.04, 1.0, 0.0, 0.05];
        for (actual, expected) in benjamini_hochberg(&p).into_iter().zip(expected) {
            assert!(close(actual, expected, 1e-15), "{actual} instead of {expected}");
        }
    }

    #[test]
    fn adjusts_few_and_odd_p_values() {
        assert!(benjamini_hochberg(&[]).is_empty());
        assert_eq!(benjamini_hochberg(&[0.3]), [0.3]);
        assert_eq!(benjamini_hochberg(&[f64::NAN, 0.25, -f64::NAN, 2.0]), [1.0; 4]);
        assert_eq!(benjamini_hochberg(&[-1.0, 1e-320]), [0.0, 1e-320]);
    }
}
