//! The sampling pipeline on the CPU: against published vectors, against transformers' own
//! processors, against a plain f64 reference, and against chance.

#[path = "common/sampling_cases.rs"]
mod sampling_cases;
#[path = "common/statistics.rs"]
mod statistics;

use bdh_gpu::sampling::{
    COUNT_MASK, EOS_BIT, NO_TOKEN, PROMPT_BIT, SampleOutcome, Sampler, SamplerParams, SamplerState, SamplingError,
    SamplingOptions, Status, WEIGHT_ONE, draw_word, philox4x32_10, sample, tables, weight_of_exponent,
};
use sampling_cases::{Random, SamplingCase};
use serde_json::Value;
use statistics::{chi_square, critical};

const DEFAULT: fn() -> SamplingOptions = SamplingOptions::default;

/// Draws once from a fresh sequence; returns the outcome and what could have been drawn.
fn draw(logits: &[f32], counts: &[u32], options: &SamplingOptions) -> (SampleOutcome, Vec<u32>) {
    options.validate().unwrap();
    let mut sampler = Sampler::new();
    let params = SamplerParams::new(options, 42, 0);
    let outcome = sampler.sample(logits, &mut counts.to_vec(), &params, 0);
    (outcome, sampler.survivors().map(|(id, _)| id).collect())
}

/// What survives of logits without any history.
fn survivors(logits: &[f32], options: SamplingOptions) -> Vec<u32> {
    draw(logits, &vec![0; logits.len()], &options).1
}

/// The token chosen from logits without any history.
fn token(logits: &[f32], options: SamplingOptions) -> u32 {
    draw(logits, &vec![0; logits.len()], &options).0.token
}

// ---- random numbers ----

#[test]
fn philox_matches_the_published_vectors() {
    let vectors = [
        ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
        ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
        (
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0],
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
        ),
        ([0, 0, 0, 0], [42, 0], [0x9cea_f053, 0x77f5_493b, 0x12bf_50ad, 0x5742_b3d7]),
        ([1, 0, 0, 0], [42, 0], [0xfcdb_2127, 0x53ba_6cfd, 0x838f_5a6e, 0x744e_06fb]),
        ([0, 1, 0, 0], [42, 0], [0x42e0_b8b3, 0x7dbf_5de8, 0x2fe7_39d4, 0x6aaf_03eb]),
    ];
    for (counter, key, words) in vectors {
        assert_eq!(philox4x32_10(counter, key), words);
    }
}

#[test]
fn a_draw_uses_words_0_and_1_of_its_step_sequence_and_stream() {
    assert_eq!(draw_word(42, 0, 0, 0), 0x9cea_f053_77f5_493b);
    assert_eq!(draw_word(42, 1, 0, 0), 0xfcdb_2127_53ba_6cfd);
    assert_eq!(draw_word(42, 0, 1, 0), 0x42e0_b8b3_7dbf_5de8);
    let [high, low, ..] = philox4x32_10([5, 6, 7, 0], [0x89ab_cdef, 0x0123_4567]);
    let word = draw_word(0x0123_4567_89ab_cdef, 5, 6, 7);
    assert_eq!(word, u64::from(high) << 32 | u64::from(low));
}

// ---- weights ----

#[test]
fn tables_do_not_depend_on_the_last_bit_of_exp2() {
    // Correctly rounded on every host: no entry lies near a rounding boundary.
    for (i, &word) in tables().iter().enumerate() {
        let exact = if i < 256 {
            f64::exp2(31.0 - i as f64 / 256.0)
        } else {
            f64::exp2(32.0) * (1.0 - f64::exp2(-((i - 256) as f64) / 32768.0))
        };
        let off = (exact - f64::from(word)).abs();
        assert!(off < 0.5 - 1e-4, "table word {i} is {off} from {exact}");
    }
    // FNV-1a over the words: the shader and any other host must start from these.
    let hash = tables()
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &word| (hash ^ u64::from(word)).wrapping_mul(0x0000_0100_0000_01b3));
    assert_eq!(hash, 0xaf1e_113a_c303_92e7);
}

#[test]
fn weights_are_within_3e_9_of_the_power_of_two() {
    let mut worst = 0.0_f64;
    // A step prime to every power of two visits all table entries in all combinations.
    for exponent in (0..33 << 24_u64).step_by(1009) {
        let exact = f64::exp2(-(exponent as f64) / f64::exp2(24.0));
        let weight = f64::from(weight_of_exponent(exponent)) / f64::exp2(31.0);
        worst = worst.max((weight - exact).abs());
    }
    assert!(worst < 3e-9, "{worst:e}");

    assert_eq!(weight_of_exponent(0), WEIGHT_ONE);
    assert!(weight_of_exponent(1) < WEIGHT_ONE);
    assert_eq!(weight_of_exponent(31 << 24), 1);
    assert_eq!(weight_of_exponent((31 << 24) + 1), 0);
    assert_eq!(weight_of_exponent(32 << 24), 0);
    assert_eq!(weight_of_exponent(u64::MAX), 0);
}

#[test]
fn distribution_is_within_1e_6_of_a_softmax_at_65536_tokens() {
    let mut random = Random::new(1);
    for (scale, temperature) in [(1.0, 1.0), (4.0, 0.7), (0.01, 1.0), (10.0, 2.0), (3.0, 0.1)] {
        let logits: Vec<f32> = (0..65_536).map(|_| random.normal() * scale).collect();
        let options = SamplingOptions { temperature, ..DEFAULT() };
        let mut sampler = Sampler::new();
        let params = SamplerParams::new(&options, 0, 0);
        let outcome = sampler.sample(&logits, &mut vec![0; logits.len()], &params, 0);

        let expected = softmax(&logits, temperature);
        let mass = outcome.mass as f64;
        let distance = sampler
            .survivors()
            .map(|(id, weight)| (f64::from(weight) / mass - expected[id as usize]).abs())
            .sum::<f64>()
            / 2.0;
        // A weight loses less than one unit. That shows where many tokens weigh next to nothing
        // beside a few: half of all units that can be lost, of a mass close to one weight.
        let lost = if scale == 1.0 { 0.0 } else { logits.len() as f64 / 2.0 / mass };
        assert!(distance <= 1e-6 + lost, "scale {scale}: {distance:e}");
    }
}

fn softmax(logits: &[f32], temperature: f32) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let power = |&logit: &f32| ((f64::from(logit) - f64::from(largest)) / f64::from(temperature)).exp();
    let sum: f64 = logits.iter().map(power).sum();
    logits.iter().map(|logit| power(logit) / sum).collect()
}

// ---- thresholds and penalties ----

#[test]
fn top_p_and_min_p_keep_the_documented_tokens() {
    let logits: Vec<f32> = [0.1_f32, 0.2, 0.3, 0.4].map(f32::ln).to_vec();
    let top_p = |top_p| SamplingOptions { top_p, ..DEFAULT() };
    let min_p = |min_p| SamplingOptions { min_p, ..DEFAULT() };
    assert_eq!(survivors(&logits, top_p(0.41)), [2, 3]);
    assert_eq!(survivors(&logits, top_p(0.71)), [1, 2, 3]);
    assert_eq!(survivors(&logits, top_p(0.95)), [0, 1, 2, 3]);
    assert_eq!(survivors(&logits, top_p(1e-30)), [3]);
    assert_eq!(survivors(&logits, min_p(0.26)), [1, 2, 3]);
    assert_eq!(survivors(&logits, min_p(0.51)), [2, 3]);
    assert_eq!(survivors(&logits, min_p(1.0)), [3]);
}

#[test]
fn top_k_keeps_all_that_tie_with_the_last() {
    let logits = [5.0, 4.0, 4.0, 4.0, 1.0];
    let top_k = |top_k| SamplingOptions { top_k, ..DEFAULT() };
    assert_eq!(survivors(&logits, top_k(1)), [0]);
    assert_eq!(survivors(&logits, top_k(2)), [0, 1, 2, 3]);
    assert_eq!(survivors(&logits, top_k(4)), [0, 1, 2, 3]);
    for k in [0, 5, 6, u32::MAX] {
        assert_eq!(survivors(&logits, top_k(k)), [0, 1, 2, 3, 4]);
    }
}

#[test]
fn top_p_keeps_all_that_tie_at_the_boundary() {
    let options = SamplingOptions { top_p: 0.3, ..DEFAULT() };
    assert_eq!(survivors(&[1.0; 6], options), [0, 1, 2, 3, 4, 5]);
    assert_eq!(survivors(&[0.0, 1.0, 1.0, 0.0], options), [1, 2]);
}

#[test]
fn top_p_counts_only_what_top_k_left() {
    let logits: Vec<f32> = [0.1_f32, 0.2, 0.3, 0.4].map(f32::ln).to_vec();
    // Of the two best, the first has 4/7 = 0.571.
    let both = |top_p| SamplingOptions { top_k: 2, top_p, ..DEFAULT() };
    assert_eq!(survivors(&logits, both(0.56)), [3]);
    assert_eq!(survivors(&logits, both(0.58)), [2, 3]);
}

#[test]
fn repetition_penalty_takes_each_id_once_from_prompt_and_text() {
    // [2, -2, 5, 0, 1] becomes [1, -4, 5, 0, 1]; ids 0, 1 and 3 have occurred.
    let logits = [2.0, -2.0, 5.0, 0.0, 1.0];
    let options = SamplingOptions { repetition_penalty: 2.0, ..DEFAULT() };
    let expected = [1.0, -4.0, 5.0, 0.0, 1.0];
    for counts in [[PROMPT_BIT, PROMPT_BIT, 0, PROMPT_BIT, 0], [PROMPT_BIT, PROMPT_BIT | 2, 0, 1, 0]] {
        assert_eq!(weights(&logits, &counts, &options), plain_weights(&expected));
    }
}

#[test]
fn frequency_and_presence_take_generated_tokens_only() {
    let logits = [3.0, 3.0, 3.0, 3.0];
    let options = SamplingOptions { frequency_penalty: 0.5, presence_penalty: 0.25, ..DEFAULT() };
    let counts = [0, PROMPT_BIT, 1, PROMPT_BIT | 3];
    let expected = [3.0, 3.0, 2.25, 1.25];
    assert_eq!(weights(&logits, &counts, &options), plain_weights(&expected));
}

/// Every token's weight; all must survive.
fn weights(logits: &[f32], counts: &[u32], options: &SamplingOptions) -> Vec<u32> {
    let mut sampler = Sampler::new();
    let params = SamplerParams::new(options, 0, 0);
    sampler.sample(logits, &mut counts.to_vec(), &params, 0);
    let weights: Vec<u32> = sampler.survivors().map(|(_, weight)| weight).collect();
    assert_eq!(weights.len(), logits.len());
    weights
}

fn plain_weights(logits: &[f32]) -> Vec<u32> {
    weights(logits, &vec![0; logits.len()], &DEFAULT())
}

#[test]
fn end_of_sequence_is_banned_until_min_new_tokens() {
    let options = SamplingOptions { do_sample: false, min_new_tokens: 2, ..DEFAULT() };
    let params = SamplerParams::new(&options, 0, 0);
    let mut counts = [0, EOS_BIT];
    let mut control = SamplerState::default();
    let mut chosen = Vec::new();
    while control.status() == Some(Status::Running) {
        let outcome = sample(&[0.0, 1.0], &mut counts, &params, control.generated);
        control.record(&outcome);
        chosen.push(outcome.token);
    }
    assert_eq!(chosen, [0, 0, 1]);
    assert_eq!(control.status(), Some(Status::Eos));
    assert_eq!((control.token, control.generated), (1, 3));
    assert_eq!(counts, [2, EOS_BIT | 1]);
    assert_eq!(control.check(), Ok(()));
}

// ---- transformers ----

/// A processor's boundary may fall between two f32 roundings of one number. A token may differ only
/// if it lies this close to one, relative to the threshold.
const BOUNDARY: f64 = 1e-5;

#[test]
fn survivors_and_probabilities_are_those_of_transformers() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/sampling/processors.json");
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(cases.len(), 60);

    let mut compared = 0;
    for (number, case) in cases.iter().enumerate() {
        let float = |name: &str, off: f64| case[name].as_f64().unwrap_or(off) as f32;
        let list = |name: &str| case[name].as_array().unwrap().iter();
        let logits: Vec<f32> = list("logits").map(|v| v.as_f64().unwrap() as f32).collect();
        let options = SamplingOptions {
            temperature: float("temperature", 1.0),
            top_k: case["top_k"].as_u64().unwrap_or(0) as u32,
            top_p: float("top_p", 1.0),
            min_p: float("min_p", 0.0),
            repetition_penalty: float("repetition_penalty", 1.0),
            ..DEFAULT()
        };
        options.validate().unwrap();
        // The context is prompt and text together; put every other id in the text.
        let mut counts = vec![0; logits.len()];
        for (i, id) in list("context").map(|v| v.as_u64().unwrap()).enumerate() {
            if let Some(count) = counts.get_mut(id as usize) {
                if i % 2 == 0 {
                    *count |= PROMPT_BIT;
                } else {
                    *count += 1;
                }
            }
        }

        let greedy = SamplingOptions { do_sample: false, ..options };
        let best = case["greedy"].as_u64().unwrap();
        assert_eq!(u64::from(draw(&logits, &counts, &greedy).0.token), best);

        let mut sampler = Sampler::new();
        let params = SamplerParams::new(&options, 42, 0);
        let outcome = sampler.sample(&logits, &mut counts.clone(), &params, 0);
        let ours: Vec<(u32, u32)> = sampler.survivors().collect();
        let theirs: Vec<u32> = list("keep").map(|v| v.as_u64().unwrap() as u32).collect();

        let reference = reference(&logits, &counts, &options);
        for id in 0..logits.len() as u32 {
            let we_keep = ours.iter().any(|&(our, _)| our == id);
            if we_keep != theirs.contains(&id) {
                let margin = reference[id as usize].margin;
                assert!(margin < BOUNDARY, "case {number}, token {id}: {margin:e}");
            }
        }
        if ours.iter().map(|&(id, _)| id).eq(theirs) {
            compared += 1;
            for (&(id, weight), probability) in ours.iter().zip(list("probs")) {
                let off = f64::from(weight) / outcome.mass as f64 - probability.as_f64().unwrap();
                assert!(off.abs() < 1e-6, "case {number}, token {id}: {off:e}");
            }
        }
    }
    assert!(compared >= 58, "only {compared} cases had equal survivors");
}

// ---- a plain reference ----

/// One token as the definitions have it, in f64.
#[derive(Clone, Copy)]
struct Reference {
    /// Whether the token may be drawn.
    kept: bool,
    /// Its probability before top-k.
    probability: f64,
    /// Relative distance to the nearest threshold of top-p or min-p; infinite where there is none.
    margin: f64,
}

/// The definitions, word by word, for finite logits that do not tie after the penalties or tie
/// exactly before them.
fn reference(logits: &[f32], counts: &[u32], options: &SamplingOptions) -> Vec<Reference> {
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
        let outcome = sampler.sample(&case.logits, &mut counts, &case.params, case.generated);
        seen[outcome.status as usize] += 1;

        let nan = case.logits.iter().any(|logit| logit.is_nan());
        let infinite = case.logits.contains(&f32::INFINITY);
        let hold_eos = case.generated < case.options.min_new_tokens;
        let left = (case.logits.iter().zip(&case.counts))
            .any(|(&logit, &c)| logit != f32::NEG_INFINITY && !(hold_eos && c & EOS_BIT != 0));
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
        assert!(!(eos && hold_eos));
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

/// The keys by trial and the weights from a run in which nothing is cut: (0, 0) for banned ids.
fn keys_and_weights(case: &SamplingCase, hold_eos: bool) -> Vec<(u32, u32)> {
    let uncut = SamplingOptions { top_k: 0, top_p: 1.0, min_p: 0.0, min_new_tokens: 0, ..case.options };
    let banned = |id: usize| hold_eos && case.counts[id] & EOS_BIT != 0;
    let logits: Vec<f32> =
        (0..case.logits.len()).map(|id| if banned(id) { f32::NEG_INFINITY } else { case.logits[id] }).collect();
    let params = SamplerParams::new(&uncut, 0, 0);
    let mut sampler = Sampler::new();
    sampler.sample(&logits, &mut case.counts.clone(), &params, 0);
    let mut pairs = vec![(0, 0); logits.len()];
    for (id, weight) in sampler.survivors() {
        // Alone, a token's own key is the smallest that is left.
        let id = id as usize;
        let count = &mut [case.counts[id]];
        let alone = sample(&logits[id..=id], count, &params, 0);
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

// ---- chance ----

const DRAWS: u32 = 1_000_000;

/// Draws [`DRAWS`] tokens with the whole pipeline and tests them against the f64 reference.
fn test_distribution(vocab: usize, spread: f32, options: SamplingOptions, seed: u64) -> usize {
    let mut random = Random::new(seed);
    let logits: Vec<f32> = (0..vocab).map(|_| random.normal() * spread).collect();
    let history: Vec<u32> = (0..vocab).map(|_| random.pick(&[0, 0, PROMPT_BIT])).collect();
    let expected = reference(&logits, &history, &options);
    let left: f64 = (expected.iter().filter(|r| r.kept)).map(|r| r.probability).sum();
    let probabilities: Vec<f64> = expected.iter().map(|r| if r.kept { r.probability / left } else { 0.0 }).collect();

    let params = SamplerParams::new(&options, seed, 0);
    let mut sampler = Sampler::new();
    let mut counts = history.clone();
    let mut observed = vec![0; vocab];
    for step in 0..DRAWS {
        let token = sampler.sample(&logits, &mut counts, &params, step).token as usize;
        // Undone, so that every draw is from the same distribution.
        counts[token] = history[token];
        observed[token] += 1;
    }
    for (id, &count) in observed.iter().enumerate() {
        assert!(expected[id].kept || count == 0, "token {id} was cut");
    }
    let (statistic, freedom) = chi_square(&observed, &probabilities);
    assert!(statistic < critical(freedom), "V {vocab}: {statistic} with {freedom} degrees of freedom");
    freedom
}

#[test]
fn draws_of_8_tokens_follow_the_softmax() {
    assert_eq!(test_distribution(8, 1.0, DEFAULT(), 1), 7);
}

#[test]
fn draws_of_32_tokens_follow_the_penalised_softmax() {
    let options = SamplingOptions { temperature: 1.5, repetition_penalty: 1.3, ..DEFAULT() };
    assert_eq!(test_distribution(32, 1.0, options, 2), 31);
}

#[test]
fn draws_of_64_tokens_follow_the_cut_softmax() {
    let options = SamplingOptions { top_k: 40, top_p: 0.9, min_p: 0.02, ..DEFAULT() };
    assert!(test_distribution(64, 1.0, options, 3) > 10);
}

#[test]
fn draws_of_256_tokens_follow_the_softmax() {
    assert_eq!(test_distribution(256, 0.5, DEFAULT(), 4), 255);
}

/// Pairs of tokens against the product of their probabilities: 64 cells.
fn test_independence(pair_at: impl Fn(u32) -> [(u32, u32); 2]) {
    let logits = [0.0, 0.5, -0.5, 1.0, -1.0, 0.25, 0.75, -0.25];
    let mut sampler = Sampler::new();
    let mut counts = [0; 8];
    let mut observed = vec![0; 64];
    for i in 0..DRAWS / 2 {
        let [first, second] = pair_at(i).map(|(step, sequence)| {
            let params = SamplerParams::new(&DEFAULT(), 5, sequence);
            sampler.sample(&logits, &mut counts, &params, step).token as usize
        });
        observed[first * 8 + second] += 1;
    }
    let single = softmax(&logits, 1.0);
    let pairs: Vec<f64> = (0..64).map(|i| single[i / 8] * single[i % 8]).collect();
    let (statistic, freedom) = chi_square(&observed, &pairs);
    assert_eq!(freedom, 63);
    assert!(statistic < critical(63), "{statistic}");
}

#[test]
fn draws_of_neighbouring_steps_are_independent() {
    test_independence(|i| [(2 * i, 0), (2 * i + 1, 0)]);
}

#[test]
fn draws_of_neighbouring_sequences_are_independent() {
    test_independence(|i| [(i, 0), (i, 1)]);
}

// ---- edges ----

#[test]
fn the_share_of_top_p_is_rounded_up() {
    let mut random = Random::new(5);
    for number in 0..1000 {
        let vocab = random.pick(&[2, 3, 100]);
        let (case, kept) = SamplingCase::at_top_p_boundary(vocab, &mut random);
        let mut sampler = Sampler::new();
        sampler.sample(&case.logits, &mut case.counts.clone(), &case.params, 0);
        assert_eq!(sampler.survivors().count(), 1 + usize::from(kept), "case {number}: {case:?}");
    }
}

#[test]
fn a_draw_at_a_boundary_takes_the_token_after_it() {
    let case = SamplingCase::at_draw_boundary(65_536, &mut Random::new(6));
    let outcome = sample(&case.logits, &mut case.counts.clone(), &case.params, 0);
    assert_eq!(outcome.mass, (1 << 31) + 65_535);
    assert!(outcome.draw < 65_535);
    assert_eq!(u64::from(outcome.token), outcome.draw);
}

#[test]
fn greedy_takes_the_first_of_the_best() {
    let logits = [1.0, 3.0, -1.0, 3.0, 2.0];
    assert_eq!(token(&logits, SamplingOptions::greedy()), 1);
    let cold = SamplingOptions { temperature: 0.0, top_k: 1, ..DEFAULT() };
    let (outcome, kept) = draw(&logits, &[0; 5], &cold);
    assert_eq!(outcome.token, 1);
    assert_eq!((outcome.top_k_key, outcome.mass, outcome.draw), (0, 0, 0));
    assert!(kept.is_empty());
}

#[test]
fn zeros_of_both_signs_and_denormals_are_equal() {
    let denormal = f32::from_bits(0x007f_ffff);
    let logits = [-0.0, 0.0, denormal, -denormal, -1.0];
    assert_eq!(token(&logits, SamplingOptions::greedy()), 0);
    let best = SamplingOptions { top_k: 1, ..DEFAULT() };
    assert_eq!(survivors(&logits, best), [0, 1, 2, 3]);
}

#[test]
fn one_token_is_always_drawn() {
    for logit in [0.0, -1e38, f32::MAX, f32::MIN] {
        let (outcome, kept) = draw(&[logit], &[0], &DEFAULT());
        assert_eq!((outcome.token, outcome.status), (0, Status::Running));
        assert_eq!(outcome.mass, u64::from(WEIGHT_ONE));
        assert_eq!(kept, [0]);
    }
}

#[test]
fn bad_logits_are_reported_not_drawn() {
    let banned = [EOS_BIT, 0, 0];
    let options = SamplingOptions { min_new_tokens: 1, ..DEFAULT() };
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let cases = [
        ([nan, 0.0, 0.0], Status::Nan, SamplingError::NanLogits),
        ([inf, -nan, 0.0], Status::Nan, SamplingError::NanLogits),
        ([inf, 0.0, 0.0], Status::PlusInfinity, SamplingError::InfiniteLogits),
        ([0.0, -inf, -inf], Status::NothingLeft, SamplingError::NothingLeft),
    ];
    for (logits, status, error) in cases {
        for greedy in [false, true] {
            let options = SamplingOptions { do_sample: !greedy, ..options };
            let (outcome, kept) = draw(&logits, &banned, &options);
            assert_eq!((outcome.status, outcome.token), (status, NO_TOKEN));
            assert!(kept.is_empty());
            let mut control = SamplerState { token: 7, generated: 3, ..SamplerState::default() };
            control.record(&outcome);
            assert_eq!((control.token, control.generated), (7, 3));
            assert_eq!(control.check(), Err(error.clone()));
        }
    }
}

#[test]
fn minus_infinity_is_never_drawn() {
    let inf = f32::INFINITY;
    let (outcome, kept) = draw(&[-inf, 2.0, -inf], &[PROMPT_BIT | 5, 0, 1], &DEFAULT());
    assert_eq!((outcome.token, kept), (1, vec![1]));
}

#[test]
fn every_finite_temperature_works() {
    let logits = [1.0, 1.0 - f32::EPSILON, 0.0, -200.0];
    let at = |temperature| {
        let options = SamplingOptions { temperature, ..DEFAULT() };
        options.validate().unwrap();
        weights(&logits, &[0; 4], &options)
    };
    for cold in [f32::from_bits(1), 1e-38, 1e-20] {
        assert_eq!(at(cold), [WEIGHT_ONE, 0, 0, 0]);
    }
    for hot in [1e20, 1e38, f32::MAX] {
        assert_eq!(at(hot), [WEIGHT_ONE; 4]);
    }
    // Across the whole range a hotter distribution is flatter, and right where f64 can tell.
    let mut last = 0;
    for exponent in -126..=127 {
        let temperature = f32::powi(2.0, exponent);
        let weight = at(temperature)[2];
        assert!(weight >= last, "temperature 2^{exponent}");
        last = weight;
        let exact = (-1.0 / f64::from(temperature)).exp();
        let off = f64::from(weight) / f64::from(WEIGHT_ONE) - exact;
        assert!(off.abs() < 1e-7, "temperature 2^{exponent}: {off:e}");
    }
}

#[test]
fn overflowing_penalties_saturate() {
    let options =
        SamplingOptions { repetition_penalty: 1e-30, frequency_penalty: -3e38, presence_penalty: -3e38, ..DEFAULT() };
    let (outcome, kept) = draw(&[1e30, 0.0, -1.0], &[100, 0, 0], &options);
    assert_eq!((outcome.status, outcome.token), (Status::Running, 0));
    assert_eq!(kept.len(), 3);
}

#[test]
fn a_full_count_stays_full() {
    let mut counts = [COUNT_MASK | PROMPT_BIT];
    let params = SamplerParams::new(&DEFAULT(), 0, 0);
    let outcome = sample(&[0.0], &mut counts, &params, 0);
    assert_eq!(outcome.status, Status::Running);
    assert_eq!(counts, [COUNT_MASK | PROMPT_BIT]);
}

#[test]
fn a_draw_does_not_depend_on_what_ran_before() {
    let mut random = Random::new(3);
    let logits: Vec<f32> = (0..256).map(|_| random.normal()).collect();
    let params = SamplerParams::new(&DEFAULT(), 9, 2);
    let fresh = sample(&logits, &mut [0; 256], &params, 5);
    let mut sampler = Sampler::new();
    for vocab in [1, 1000, 3] {
        sampler.sample(&vec![0.5; vocab], &mut vec![0; vocab], &params, 1);
    }
    assert_eq!(sampler.sample(&logits, &mut [0; 256], &params, 5), fresh);
}

// ---- options ----

#[test]
fn options_out_of_range_are_named_with_value_and_range() {
    DEFAULT().validate().unwrap();
    SamplingOptions::greedy().validate().unwrap();
    let message = |change: fn(&mut SamplingOptions)| {
        let mut options = DEFAULT();
        change(&mut options);
        options.validate().unwrap_err().to_string()
    };
    assert_eq!(message(|o| o.top_p = 1.5), "--top-p must be above 0 and at most 1, got 1.5");
    assert_eq!(message(|o| o.top_p = 0.0), "--top-p must be above 0 and at most 1, got 0");
    assert_eq!(message(|o| o.min_p = -0.1), "--min-p must be at least 0 and at most 1, got -0.1");
    assert_eq!(message(|o| o.temperature = -1.0), "--temperature must be finite and at least 0, got -1");
    assert_eq!(message(|o| o.repetition_penalty = 0.0), "--repetition-penalty must be finite and above 0, got 0");
    assert_eq!(message(|o| o.frequency_penalty = f32::INFINITY), "--frequency-penalty must be finite, got inf");
    assert_eq!(message(|o| o.presence_penalty = f32::NAN), "--presence-penalty must be finite, got NaN");
}

#[test]
fn nan_and_infinity_are_never_valid() {
    let fields: [fn(&mut SamplingOptions) -> &mut f32; 6] = [
        |o| &mut o.temperature,
        |o| &mut o.top_p,
        |o| &mut o.min_p,
        |o| &mut o.repetition_penalty,
        |o| &mut o.presence_penalty,
        |o| &mut o.frequency_penalty,
    ];
    for field in fields {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut options = DEFAULT();
            *field(&mut options) = value;
            assert!(options.validate().is_err(), "{options:?}");
        }
    }
}

#[test]
fn status_words_are_those_of_the_device() {
    let words: Vec<_> = (0..6).map(Status::from_word).collect();
    let failures: Vec<_> = words.iter().flatten().map(|s| s.is_failure()).collect();
    assert_eq!(words[1], Some(Status::Eos));
    assert_eq!(words[5], None);
    assert_eq!(failures, [false, false, true, true, true]);
}

#[test]
fn device_structs_have_the_size_the_kernel_expects() {
    assert_eq!(size_of::<SamplerParams>(), 64);
    assert_eq!(size_of::<SamplerState>(), 48);
    assert_eq!(size_of_val(tables()), 96 * 16);
}
