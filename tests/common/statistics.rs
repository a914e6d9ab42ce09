//! Whether observed frequencies are those of a distribution.

/// Chi-square of observed counts against probabilities; cells with an expectation below 5 are
/// merged. Returns the statistic and the degrees of freedom.
pub fn chi_square(observed: &[u64], probabilities: &[f64]) -> (f64, usize) {
    let total: u64 = observed.iter().sum();
    let (mut statistic, mut cells) = (0.0, 0);
    let mut add = |seen: f64, expected: f64| {
        statistic += (seen - expected).powi(2) / expected;
        cells += 1;
    };
    let (mut rest_seen, mut rest_expected) = (0.0, 0.0);
    for (&seen, &probability) in observed.iter().zip(probabilities) {
        let expected = probability * total as f64;
        if expected >= 5.0 {
            add(seen as f64, expected);
        } else {
            rest_seen += seen as f64;
            rest_expected += expected;
        }
    }
    if rest_expected >= 5.0 {
        add(rest_seen, rest_expected);
    } else {
        assert!(rest_seen < 40.0, "{rest_seen} of {rest_expected} expected");
    }
    (statistic, cells - 1)
}

/// Upper critical value at significance 1e-6: exact where published, else by Wilson and Hilferty,
/// which is within 1 % there.
pub fn critical(freedom: usize) -> f64 {
    match freedom {
        7 => 41.9,
        31 => 84.2,
        63 => 131.7,
        255 => 377.2,
        _ => {
            let spread = 2.0 / (9.0 * freedom as f64);
            freedom as f64 * (1.0 - spread + 4.7534 * spread.sqrt()).powi(3) * 1.01
        }
    }
}
