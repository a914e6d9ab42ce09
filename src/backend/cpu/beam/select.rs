//! Twin of `shaders/beam/select.wgsl`: the best continuations of one beam.

#[cfg(doc)]
use crate::sampling::FLAG_BIASES;
use crate::sampling::{EOS_BIT, SamplerParams, Status, keys};

/// Independent partial sums of the softmax.
const SUMS: usize = 64;

/// A candidate: the inverted key of its score in the upper half, its token in the lower half. The
/// least one is the best.
pub type Ranked = u64;

/// The best continuations of one beam.
#[derive(Clone, Debug, Default)]
pub struct Best {
    /// Best first.
    pub ranked: Vec<Ranked>,
    /// Whether the logits allow a choice.
    pub status: Option<Status>,
}

/// Counts and biases of a beam's tokens.
#[derive(Clone, Copy, Debug)]
pub struct Tables<'a> {
    /// Token counts, `[V]`.
    pub counts: &'a [u32],
    /// Biases, `[V]`, for options with [`FLAG_BIASES`].
    pub biases: &'a [f32],
}

/// Finds the `k` best tokens by score + penalised(log_softmax(logits)) + bias, without banned
/// tokens. Ties go to the lower token.
pub fn select(
    logits: &[f32],
    tables: Tables<'_>,
    params: &SamplerParams,
    generated: u32,
    score: f32,
    k: usize,
    best: &mut Best,
) {
    best.ranked.clear();
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let status = if logits.iter().any(|logit| logit.is_nan()) {
        Status::Nan
    } else if largest == f32::INFINITY {
        Status::PlusInfinity
    } else if largest == f32::NEG_INFINITY {
        Status::NothingLeft
    } else {
        Status::Running
    };
    best.status = Some(status);
    if status != Status::Running {
        return;
    }
    let largest = keys::canonical(largest);
    let mut sums = [0f32; SUMS];
    for logits in logits.chunks(SUMS) {
        sums.iter_mut().zip(logits).for_each(|(sum, logit)| *sum += (logit - largest).exp());
    }
    let log_sum = sums.iter().sum::<f32>().ln();
    let banned_bits = if generated < params.min_new_tokens { EOS_BIT } else { 0 };
    let all = logits.iter().zip(tables.counts).zip(params.each_bias(tables.biases)).enumerate();
    let possible = all.filter(|&(_, ((&logit, &count), bias))| {
        logit != f32::NEG_INFINITY && bias != f32::NEG_INFINITY && count & banned_bits == 0
    });
    best.ranked.extend(possible.map(|(token, ((&logit, &count), bias))| {
        let log_prob = keys::canonical(keys::canonical(logit - largest) - log_sum);
        let total = keys::canonical(keys::biased(keys::penalised(log_prob, count, params), bias) + score);
        u64::from(!keys::order_key(total)) << 32 | token as u64
    }));
    if k < best.ranked.len() {
        best.ranked.select_nth_unstable(k);
        best.ranked.truncate(k);
    }
    best.ranked.sort_unstable();
}
