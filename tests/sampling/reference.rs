//! A plain f64 reference.

use crate::sampling_cases::{Random, SamplingCase};
use crate::transformers::BOUNDARY;
use crate::{DEFAULT, draw};
use bdh_gpu::sampling::{
    COUNT_MASK, EOS_BIT, FLAG_BIASES, NO_TOKEN, PROMPT_BIT, Sampler, SamplerParams, SamplingOptions, Status,
    WEIGHT_ONE, draw_word,
};

/// One token as the definitions have it, in f64.
#[derive(Clone, Copy)]
pub struct Reference {
    /// Whether the token may be drawn.
    pub kept: bool,
    /// Its probability before top-k.
    pub probability: f64,
    /// Relative distance to the nearest threshold of top-p or min-p; infinite where there is none.
    pub margin: f64,
}

/// The definitions, word by word, for finite logits that do not tie after the penalties or tie
/// exactly before them.
pub fn reference(logits: &[f32], counts: &[u32], options: &SamplingOptions) -> Vec<Reference> {
    let processed: Vec<f64> = logits
        .iter()
        .zip(counts)
        .map(|(&logit, &count)| {
            let (times, mut logit) = (count & COUNT_MASK, f64::from(logit));
            if times > 0 || count & PROMPT_BIT != 0 {
                let penalty = f64::from(options.repetition_penalty);
                logit = if logit < 0.0 { logit * penalty } else { logit / penalty };
            }
            if times > 0 {
                logit -= f64::from(options.frequency_penalty) * f64::from(times);
                logit -= f64::from(options.presence_penalty);
            }
            if count & EOS_BIT != 0 && options.min_new_tokens > 0 {
                logit = f64::NEG_INFINITY;
            }
            logit
        })
        .collect();
    let largest = processed.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let power = |logit: f64| ((logit - largest) / f64::from(options.temperature)).exp();
    let sum = |ids: &[usize]| ids.iter().map(|&id| power(processed[id])).sum::<f64>();

    let everything = sum(&(0..logits.len()).collect::<Vec<_>>());
    let in_top_k: Vec<usize> = (0..logits.len())
        .filter(|&id| {
            let greater = processed.iter().filter(|&&l| l > processed[id]).count();
            let unbanned = processed[id] > f64::NEG_INFINITY;
            unbanned && (options.top_k == 0 || greater < options.top_k as usize)
        })
        .collect();
    let left = sum(&in_top_k);

    let (top_p, min_p) = (f64::from(options.top_p), f64::from(options.min_p));
    (0..logits.len())
        .map(|id| {
            let greater: Vec<usize> =
                in_top_k.iter().copied().filter(|&other| processed[other] > processed[id]).collect();
            let above = sum(&greater) / left;
            let ratio = power(processed[id]);
            let mut margin = f64::INFINITY;
            if top_p < 1.0 && !greater.is_empty() {
                margin = margin.min((above / top_p - 1.0).abs());
            }
            if min_p > 0.0 {
                margin = margin.min((ratio / min_p - 1.0).abs());
            }
            Reference {
                kept: in_top_k.contains(&id) && (top_p >= 1.0 || greater.is_empty() || above < top_p) && ratio >= min_p,
                probability: ratio / everything,
                margin,
            }
        })
        .collect()
}

/// Everything after the weights again, by sorting and by 128-bit sums: no selection, no scratch.
fn draw_from_weights(
    keys_and_weights: &[(u32, u32)],
    params: &SamplerParams,
    options: &SamplingOptions,
    generated: u32,
) -> (u32, u32, u64, u64, usize) {
    let mut order: Vec<usize> = (0..keys_and_weights.len()).filter(|&id| keys_and_weights[id].0 != 0).collect();
    order.sort_by_key(|&id| std::cmp::Reverse(keys_and_weights[id].0));
    let key = |id: usize| keys_and_weights[id].0;
    let weight = |id: usize| u128::from(keys_and_weights[id].1);

    if options.top_k > 0 && (options.top_k as usize) < order.len() {
        let last = key(order[options.top_k as usize - 1]);
        order.retain(|&id| key(id) >= last);
    }
    let top_k_key = key(*order.last().unwrap());
    if options.top_p < 1.0 {
        let mass: u128 = order.iter().map(|&id| weight(id)).sum();
        let above = |id: usize| -> u128 {
            let greater = order.iter().take_while(|&&other| key(other) > key(id));
            greater.map(|&other| weight(other)).sum()
        };
        // above < max(1, ceil(p · mass)), with p = top_p / 2^32
        let share = u128::from(params.top_p) * mass;
        let kept = |id: usize| above(id) == 0 || (above(id) << 32) < share;
        order = order.iter().copied().filter(|&id| kept(id)).collect();
    }
    let top_p_key = key(*order.last().unwrap());
    let min_p = f64::from(options.min_p) * f64::from(WEIGHT_ONE);
    order.retain(|&id| weight(id) as f64 >= min_p);
    order.sort_unstable();
    let mass: u128 = order.iter().map(|&id| weight(id)).sum();
    let word = draw_word(params.seed(), generated, params.sequence, 0);
    let draw = (u128::from(word) * mass) >> 64;
    let mut sum = 0;
    let drawn = order.iter().copied().find(|&id| {
        sum += weight(id);
        sum > draw
    });
    (top_k_key, top_p_key, mass as u64, draw as u64, drawn.unwrap())
}

#[test]
fn random_cases_follow_the_definitions() {
    let mut random = Random::new(7);
    let mut sampler = Sampler::new();
    let mut seen = [0; 5];
    for number in 0..3000 {
        let vocab = random.pick(&[1, 2, 3, 5, 17, 97, 256]);
        let case = SamplingCase::random(vocab, &mut random);
        case.options.validate().unwrap();
        let mut counts = case.counts.clone();
        sampler.set_biases(&case.biases);
        let outcome = sampler.sample(&case.logits, &mut counts, &case.params, case.generated);
        seen[outcome.status as usize] += 1;

        let nan = case.logits.iter().any(|logit| logit.is_nan());
        let infinite = case.logits.contains(&f32::INFINITY);
        let hold_eos = case.generated < case.options.min_new_tokens;
        let left = (0..vocab).any(|id| case.logits[id] != f32::NEG_INFINITY && !is_banned(&case, hold_eos, id));
        let failure = match (nan, infinite, left) {
            (true, ..) => Some(Status::Nan),
            (_, true, _) => Some(Status::PlusInfinity),
            (.., false) => Some(Status::NothingLeft),
            _ => None,
        };
        if let Some(status) = failure {
            assert_eq!(outcome.status, status, "case {number}: {case:?}");
            assert_eq!(outcome.token, NO_TOKEN);
            assert_eq!((outcome.mass, outcome.draw), (0, 0));
            assert_eq!(counts, case.counts, "case {number}");
            continue;
        }

        let token = outcome.token as usize;
        let eos = case.counts[token] & EOS_BIT != 0;
        let running = [Status::Running, Status::Eos][usize::from(eos)];
        assert_eq!(outcome.status, running);
        assert!(!is_banned(&case, hold_eos, token));
        let mut expected_counts = case.counts.clone();
        if expected_counts[token] & COUNT_MASK != COUNT_MASK {
            expected_counts[token] += 1;
        }
        assert_eq!(counts, expected_counts, "case {number}");

        if case.options.is_greedy() {
            assert_eq!((outcome.mass, outcome.top_k_key), (0, 0));
            assert_eq!(sampler.survivors().count(), 0);
            continue;
        }
        let all = keys_and_weights(&case, hold_eos);
        let (top_k_key, top_p_key, mass, draw, drawn) =
            draw_from_weights(&all, &case.params, &case.options, case.generated);
        assert_eq!(
            (outcome.top_k_key, outcome.top_p_key, outcome.mass),
            (top_k_key, top_p_key, mass),
            "case {number}: {case:?}"
        );
        assert_eq!((outcome.draw, token), (draw, drawn), "case {number}");
    }
    assert!(seen.iter().all(|&count| count > 50), "{seen:?}");
}

/// Whether a token may not be drawn, whatever its logit.
fn is_banned(case: &SamplingCase, hold_eos: bool, id: usize) -> bool {
    let biased = case.params.flags & FLAG_BIASES != 0;
    hold_eos && case.counts[id] & EOS_BIT != 0 || biased && case.biases[id] == f32::NEG_INFINITY
}

/// The keys by trial and the weights from a run in which nothing is cut: (0, 0) for banned ids.
fn keys_and_weights(case: &SamplingCase, hold_eos: bool) -> Vec<(u32, u32)> {
    let uncut = SamplingOptions { top_k: 0, top_p: 1.0, min_p: 0.0, min_new_tokens: 0, ..case.options };
    let banned = |id: usize| is_banned(case, hold_eos, id);
    let logits: Vec<f32> =
        (0..case.logits.len()).map(|id| if banned(id) { f32::NEG_INFINITY } else { case.logits[id] }).collect();
    let mut params = SamplerParams::new(&uncut, 0, 0);
    params.flags |= case.params.flags & FLAG_BIASES;
    let mut sampler = Sampler::new();
    sampler.set_biases(&case.biases);
    sampler.sample(&logits, &mut case.counts.clone(), &params, 0);
    let mut pairs = vec![(0, 0); logits.len()];
    for (id, weight) in sampler.survivors() {
        // Alone, a token's own key is the smallest that is left.
        let id = id as usize;
        let count = &mut [case.counts[id]];
        let mut alone = Sampler::new();
        alone.set_biases(&case.biases[id..=id]);
        let alone = alone.sample(&logits[id..=id], count, &params, 0);
        pairs[id] = (alone.top_k_key, weight);
    }
    pairs
}

#[test]
fn random_cases_agree_with_f64_away_from_the_thresholds() {
    let mut random = Random::new(11);
    let mut compared = 0;
    for number in 0..500 {
        let vocab = random.pick(&[2, 5, 97, 256]);
        let options = SamplingOptions {
            temperature: 0.3 + 1.5 * random.unit(),
            top_k: random.pick(&[0, 1, 3, 50, 1000]),
            top_p: random.pick(&[1.0, 0.95, 0.5, 0.1]),
            min_p: random.pick(&[0.0, 0.02, 0.4]),
            // Powers of two, so that equal logits stay equal in f32 and f64.
            repetition_penalty: random.pick(&[1.0, 0.5, 2.0]),
            presence_penalty: random.pick(&[0.0, 0.5, -0.25]),
            frequency_penalty: random.pick(&[0.0, 0.125, -1.0]),
            ..DEFAULT()
        };
        // Multiples of 1/1024 keep every f32 operation exact; ties are frequent.
        let logits: Vec<f32> = (0..vocab).map(|_| (random.normal() * 2048.0).round() / 1024.0).collect();
        let counts: Vec<u32> = (0..vocab).map(|_| random.pick(&[0, 0, 0, 1, 3, PROMPT_BIT, PROMPT_BIT | 2])).collect();
        let (outcome, kept) = draw(&logits, &counts, &options);
        let reference = reference(&logits, &counts, &options);
        assert!(reference[outcome.token as usize].probability > 0.0);
        for (id, expected) in reference.iter().enumerate() {
            if expected.margin > BOUNDARY {
                compared += 1;
                let ours = kept.contains(&(id as u32));
                assert_eq!(ours, expected.kept, "case {number}, token {id}");
            }
        }
    }
    assert!(compared > 30_000, "{compared}");
}
