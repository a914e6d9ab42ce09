//! Twin of `shaders/beam_select.wgsl` and `shaders/beam_counts.wgsl`: the best continuations of all beams.

use crate::backend::beams::BeamCandidate;
use crate::sampling::{COUNT_MASK, EOS_BIT, SamplerParams, Status, keys};

/// Sums that run side by side.
const SUMS: usize = 64;

/// A candidate as it sorts: the inverted key of its score above its token, so that the least is the best.
type Ranked = u64;

/// One beam's best continuations.
#[derive(Clone, Debug, Default)]
pub struct BeamBest {
    /// The best first.
    ranked: Vec<Ranked>,
    /// Whether the logits allow a choice.
    pub status: Option<Status>,
}

/// Finds the `k` best tokens by score + penalised(log_softmax(logits)); of equal ones, the lower token
/// first. Banned tokens are left out.
pub fn select(
    logits: &[f32],
    counts: &[u32],
    params: &SamplerParams,
    generated: u32,
    score: f32,
    k: usize,
    best: &mut BeamBest,
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
    let possible = logits.iter().zip(counts).enumerate();
    let possible = possible.filter(|&(_, (&logit, &count))| logit != f32::NEG_INFINITY && count & banned_bits == 0);
    best.ranked.extend(possible.map(|(token, (&logit, &count))| {
        let log_prob = keys::canonical(keys::canonical(logit - largest) - log_sum);
        let total = keys::canonical(keys::penalised(log_prob, count, params) + score);
        u64::from(!keys::order_key(total)) << 32 | token as u64
    }));
    if k < best.ranked.len() {
        best.ranked.select_nth_unstable(k);
        best.ranked.truncate(k);
    }
    best.ranked.sort_unstable();
}

/// The `k` best of all beams; of equal ones, the lower beam first.
pub fn merge<'a>(beams: impl Iterator<Item = &'a BeamBest>, k: usize) -> Vec<BeamCandidate> {
    let mut ranked: Vec<(u32, usize, u32)> = Vec::new();
    for (beam, best) in beams.enumerate() {
        ranked.extend(best.ranked.iter().map(|&entry| ((entry >> 32) as u32, beam, entry as u32)));
    }
    ranked.sort_unstable();
    ranked.truncate(k);
    let candidate =
        |(key, beam, token): (u32, usize, u32)| BeamCandidate { beam, token, score: keys::order_value(!key) };
    ranked.into_iter().map(candidate).collect()
}

/// Token counts `[beams]`, each `[V]`, after beams continue `parents` with `tokens`.
pub fn reorder(counts: &[Vec<u32>], parents: &[usize], tokens: impl Iterator<Item = u32>) -> Vec<Vec<u32>> {
    let child = |(&parent, token): (&usize, u32)| {
        let mut counts = counts[parent].clone();
        let count = &mut counts[token as usize];
        // A full count stays full rather than running into the bits above it.
        *count += u32::from(*count & COUNT_MASK != COUNT_MASK);
        counts
    };
    parents.iter().zip(tokens).map(child).collect()
}
