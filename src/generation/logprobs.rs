//! How likely a model found a token, and which others it thought of.

use super::score::log_sum;

/// A token's log-probability and the likeliest tokens in its place, of the model's own distribution:
/// before penalties and temperature.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    /// The token.
    pub token: u32,
    /// Its log-probability, nats; not a number if a logit is not.
    pub logprob: f32,
    /// Its place among all tokens, from 1: how many have a higher logit, and 1.
    pub rank: u32,
    /// The likeliest tokens with their log-probabilities, the best first; of two alike the one with
    /// the lower id.
    pub top: Vec<(u32, f32)>,
}

impl TokenLogprobs {
    /// Those of `token` by its logits `[V]`, with the `top` likeliest.
    pub(crate) fn of(logits: &[f32], token: u32, top: usize) -> Self {
        let [highest, sum] = log_sum(logits);
        let logprob = |id: u32| (f64::from(logits[id as usize]) - highest - sum) as f32;
        let best = best_ids(logits, top).into_iter().map(|id| (id, logprob(id))).collect();
        let own = logits[token as usize];
        let rank = 1 + logits.iter().filter(|&&logit| logit > own).count() as u32;
        Self { token, logprob: logprob(token), rank, top: best }
    }
}

/// Ids of the `count` highest logits, in order.
fn best_ids(logits: &[f32], count: usize) -> Vec<u32> {
    let order = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    if count < ids.len() {
        if count > 0 {
            ids.select_nth_unstable_by(count - 1, order);
        }
        ids.truncate(count);
    }
    ids.sort_unstable_by(order);
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_come_first_and_ties_by_their_ids() {
        let logits = [0.0, 2.0, 1.0, 2.0];
        assert!(best_ids(&logits, 0).is_empty());
        assert_eq!(best_ids(&logits, 3), [1, 3, 2]);
        assert_eq!(best_ids(&logits, 9), [1, 3, 2, 0]);
        let of = TokenLogprobs::of(&logits, 2, 1);
        let sum = logits.iter().map(|&logit: &f32| f64::from(logit).exp()).sum::<f64>().ln();
        assert_eq!((of.token, of.rank, of.top), (2, 3, vec![(1, (2.0 - sum) as f32)]));
        assert!((f64::from(of.logprob) - (1.0 - sum)).abs() < 1e-6);
    }
}
