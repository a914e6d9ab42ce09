//! A step's candidates: the best continuations over all beams, as a device finds them, in plain f32.

use std::cmp::Ordering;

#[cfg(doc)]
use crate::sampling::FLAG_BIASES;
use crate::sampling::{COUNT_MASK, EOS_BIT, PROMPT_BIT, SamplerParams, SamplingError};

/// A live beam with one more token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Summed log-probabilities of the beam's tokens, this one included, after the penalties.
    pub score: f32,
    /// Place of the beam.
    pub beam: u32,
    /// The token.
    pub token: u32,
}

/// The `k` best continuations of all beams, the best first; of equal ones, the lower beam or else the
/// lower token first. Fewer where fewer are possible. A reference for what a device computes, in f32.
///
/// `logits` and `counts` are V numbers for each beam, the counts as the sampler keeps them (see
/// [`PROMPT_BIT`]); `biases` are V numbers for options with [`FLAG_BIASES`]; `scores` are those of
/// [`BeamSearch::scores`](super::BeamSearch::scores); of `params` the penalties, `min_new_tokens`
/// and that flag count; `generated` is the number of tokens generated in each beam so far.
///
/// # Errors
/// Logits that are NaN or plus infinity, and a step in which no token is possible.
///
/// # Panics
/// If the numbers of beams or of tokens disagree.
pub fn select(
    logits: &[&[f32]],
    counts: &[&[u32]],
    biases: &[f32],
    scores: &[f32],
    params: &SamplerParams,
    generated: u32,
    k: usize,
) -> Result<Vec<Candidate>, SamplingError> {
    assert!(logits.len() == scores.len() && counts.len() == scores.len(), "one score for each beam");
    if logits.iter().any(|logits| logits.iter().any(|logit| logit.is_nan())) {
        return Err(SamplingError::NanLogits);
    }
    if logits.iter().any(|logits| logits.contains(&f32::INFINITY)) {
        return Err(SamplingError::InfiniteLogits);
    }
    let mut candidates = Vec::new();
    let mut log_probs = Vec::new();
    for (beam, (logits, counts)) in logits.iter().zip(counts).enumerate() {
        log_softmax_penalised(logits, counts, biases, params, generated, &mut log_probs);
        let possible = log_probs.iter().enumerate().filter(|&(_, &log_prob)| log_prob > f32::NEG_INFINITY);
        candidates.extend(possible.map(|(token, &log_prob)| Candidate {
            score: finite(scores[beam] + log_prob),
            beam: beam as u32,
            token: token as u32,
        }));
    }
    if candidates.is_empty() {
        return Err(SamplingError::NothingLeft);
    }
    let order = |a: &Candidate, b: &Candidate| {
        let by_score = b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal);
        by_score.then((a.beam, a.token).cmp(&(b.beam, b.token)))
    };
    if k < candidates.len() {
        candidates.select_nth_unstable_by(k, order);
        candidates.truncate(k);
    }
    candidates.sort_unstable_by(order);
    Ok(candidates)
}

/// Log-probabilities of one beam's next token after the penalties, into `out`: the logarithm of the
/// softmax first, then repetition, frequency and presence, then the biases `[V]` for options with
/// [`FLAG_BIASES`]. A banned token has minus infinity.
///
/// The logits are neither NaN nor plus infinity.
///
/// # Panics
/// If there is not one count for each logit.
pub fn log_softmax_penalised(
    logits: &[f32],
    counts: &[u32],
    biases: &[f32],
    params: &SamplerParams,
    generated: u32,
    out: &mut Vec<f32>,
) {
    assert_eq!(logits.len(), counts.len(), "one count for each logit");
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let log_sum = sum_of_exponentials(logits, largest).ln();
    let banned_bits = if generated < params.min_new_tokens { EOS_BIT } else { 0 };
    out.clear();
    out.extend(logits.iter().zip(counts).zip(params.each_bias(biases)).map(|((&logit, &count), bias)| {
        if logit == f32::NEG_INFINITY || bias == f32::NEG_INFINITY || count & banned_bits != 0 {
            return f32::NEG_INFINITY;
        }
        finite(penalised(finite((logit - largest) - log_sum), count, params) + bias)
    }));
}

/// Σ exp(logit − largest), in the order of a workgroup: one sum for each thread, then halves of the
/// threads onto each other.
fn sum_of_exponentials(logits: &[f32], largest: f32) -> f32 {
    const THREADS: usize = 256;
    let mut sums = [0f32; THREADS];
    for logits in logits.chunks(THREADS) {
        for (sum, logit) in sums.iter_mut().zip(logits) {
            *sum += (logit - largest).exp();
        }
    }
    let mut half = THREADS / 2;
    while half > 0 {
        let (low, high) = sums.split_at_mut(half);
        low.iter_mut().zip(high).for_each(|(low, high)| *low += *high);
        half /= 2;
    }
    sums[0]
}

/// A log-probability after the repetition, frequency and presence penalties.
fn penalised(log_prob: f32, count: u32, params: &SamplerParams) -> f32 {
    let generated = count & COUNT_MASK;
    let mut log_prob = log_prob;
    if generated > 0 || count & PROMPT_BIT != 0 {
        let factor = if log_prob < 0.0 { params.repetition } else { params.repetition_inverse };
        log_prob = finite(log_prob * factor);
    }
    if generated > 0 {
        log_prob = finite(log_prob - finite(params.frequency * generated as f32));
        log_prob = finite(log_prob - params.presence);
    }
    log_prob
}

/// Only a banned token is infinitely bad.
fn finite(value: f32) -> f32 {
    value.clamp(f32::MIN, f32::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::NO_TEXT;
    use super::super::tests::GREEDY;
    use super::*;
    use crate::sampling::{FLAG_BIASES, SamplingOptions};
    use rand::rngs::Xoshiro256PlusPlus;
    use rand::{RngExt, SeedableRng};

    fn params(options: SamplingOptions) -> SamplerParams {
        SamplerParams::new(&options, 0, 0)
    }

    #[test]
    fn log_softmax_matches_f64() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(5);
        let mut found = Vec::new();
        for vocab in [1, 2, 97, 255, 256, 257, 4096, 65_536] {
            let logits: Vec<f32> = (0..vocab).map(|_| random.random_range(-20.0..20.0)).collect();
            log_softmax_penalised(&logits, &vec![PROMPT_BIT | 3; vocab], &[], &params(GREEDY), 0, &mut found);
            let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
            for (&found, &logit) in found.iter().zip(&logits) {
                let expected = f64::from(logit) - sum.ln();
                assert!((f64::from(found) - expected).abs() < 1e-5, "V {vocab}: {found} {expected}");
            }
        }
    }

    #[test]
    fn penalties_are_those_of_log_probabilities() {
        let options = SamplingOptions {
            repetition_penalty: 2.0,
            frequency_penalty: 0.5,
            presence_penalty: 0.25,
            min_new_tokens: 2,
            ..GREEDY
        };
        let quarter = 0.25f32.ln();
        let mut found = Vec::new();
        let counts = [0, PROMPT_BIT, PROMPT_BIT | 3, EOS_BIT | 1];
        log_softmax_penalised(&[7.0; 4], &counts, &[], &params(options), 1, &mut found);
        assert_eq!(found, [quarter, 2.0 * quarter, 2.0 * quarter - 1.75, f32::NEG_INFINITY]);
        log_softmax_penalised(&[7.0; 4], &counts, &[], &params(options), 2, &mut found);
        assert_eq!(found[3], 2.0 * quarter - 0.75);
        let biased = SamplerParams { flags: FLAG_BIASES, ..params(options) };
        let biases = [1.5, 0.0, f32::NEG_INFINITY, -1.0];
        log_softmax_penalised(&[7.0; 4], &counts, &biases, &biased, 2, &mut found);
        assert_eq!(found, [quarter + 1.5, 2.0 * quarter, f32::NEG_INFINITY, 2.0 * quarter - 1.75]);
        // The largest numbers there are stay numbers, and ban nothing.
        let options = SamplingOptions { frequency_penalty: f32::MAX, presence_penalty: -f32::MAX, ..options };
        log_softmax_penalised(&[f32::MAX, f32::MIN, 0.0], &[9, PROMPT_BIT, 1], &[], &params(options), 2, &mut found);
        assert!(found.iter().all(|value| value.is_finite()), "{found:?}");
    }

    #[test]
    fn of_equal_candidates_the_first_wins() {
        let (logits, counts) = ([[1.0; 3]; 2], [[0; 3]; 2]);
        let select = |scores: &[f32], k| {
            let logits = logits.each_ref().map(|logits| &logits[..]);
            let counts = counts.each_ref().map(|counts| &counts[..]);
            let found = select(&logits, &counts, &[], scores, &params(GREEDY), 0, k).unwrap();
            found.iter().map(|candidate| (candidate.beam, candidate.token)).collect::<Vec<_>>()
        };
        assert_eq!(select(&[0.0, 0.0], 4), [(0, 0), (0, 1), (0, 2), (1, 0)]);
        assert_eq!(select(&[-1.0, 0.0], 4), [(1, 0), (1, 1), (1, 2), (0, 0)]);
        // Zeros of both signs are equal.
        assert_eq!(select(&[-0.0, 0.0], 2), [(0, 0), (0, 1)]);
        // Added to −10⁹, a log-probability rounds away.
        assert_eq!(select(&[-1e9, -1e9], 9).len(), 6);
    }

    #[test]
    fn logits_that_allow_no_choice_are_errors() {
        let options = SamplingOptions { min_new_tokens: 1, ..GREEDY };
        let select = |logits: [&[f32]; 2], counts: [&[u32]; 2]| {
            select(&logits, &counts, &[], &[0.0, NO_TEXT], &params(options), 0, 4).map(|found| found.len())
        };
        let none = &[0, 0][..];
        assert_eq!(select([&[0.0, f32::INFINITY], &[f32::NAN, 0.0]], [none; 2]), Err(SamplingError::NanLogits));
        assert_eq!(select([&[0.0, f32::INFINITY], &[0.0; 2]], [none; 2]), Err(SamplingError::InfiniteLogits));
        assert_eq!(select([&[f32::NEG_INFINITY; 2]; 2], [none; 2]), Err(SamplingError::NothingLeft));
        assert_eq!(select([&[0.0; 2]; 2], [&[EOS_BIT; 2]; 2]), Err(SamplingError::NothingLeft));
        assert_eq!(select([&[0.0, f32::NEG_INFINITY], &[0.0; 2]], [none; 2]), Ok(3));
        assert_eq!(select([&[0.0; 2]; 2], [&[EOS_BIT, 0]; 2]), Ok(2));
    }
}
