//! Tests of the search.

use super::*;
use crate::sampling::{EOS_BIT, PROMPT_BIT, SamplerParams, SamplingOptions};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

/// Logits of the next token after a text.
type Model<'a> = dyn Fn(&[u32]) -> Vec<f32> + 'a;

/// Runs a search as a device would: texts and counts are copied from parent to child.
fn run(model: &Model, prompt: &[u32], options: &BeamOptions, sampling: &SamplingOptions) -> Vec<Hypothesis> {
    let params = SamplerParams::new(sampling, 0, 0);
    let mut search = BeamSearch::new(options.clone()).unwrap();
    let mut counts = vec![0; model(prompt).len()];
    prompt.iter().for_each(|&token| counts[token as usize] |= PROMPT_BIT);
    options.eos_token_ids.iter().for_each(|&token| counts[token as usize] |= EOS_BIT);
    let mut beams = vec![(prompt.to_vec(), counts); options.num_beams];
    while !search.is_over() {
        let logits: Vec<Vec<f32>> = beams.iter().map(|(text, _)| model(text)).collect();
        let logits: Vec<&[f32]> = logits.iter().map(|logits| &logits[..]).collect();
        let counts: Vec<&[u32]> = beams.iter().map(|(_, counts)| &counts[..]).collect();
        let (generated, k) = (search.generated() as u32, search.candidates_per_step());
        let candidates = select(&logits, &counts, &[], search.scores(), &params, generated, k).unwrap();
        let Step::Continue(extensions) = search.advance(&candidates) else { break };
        assert_eq!(extensions.len(), options.num_beams);
        let child = |extension: &Extension| {
            let (mut text, mut counts) = beams[extension.parent as usize].clone();
            text.push(extension.token);
            counts[extension.token as usize] += 1;
            (text, counts)
        };
        beams = extensions.iter().map(child).collect();
    }
    assert_eq!(search.advance(&[]), Step::Over);
    search.finish()
}

/// Next-token probabilities by last token.
fn markov(text: &[u32]) -> Vec<f32> {
    let row: [f32; 4] = match text.last() {
        Some(0) => [0.05, 0.55, 0.25, 0.15],
        Some(1) => [0.20, 0.25, 0.45, 0.10],
        Some(2) => [0.35, 0.15, 0.20, 0.30],
        _ => [0.35, 0.05, 0.50, 0.10],
    };
    row.map(f32::ln).to_vec()
}

fn two_beams(max_new_tokens: usize) -> BeamOptions {
    BeamOptions {
        num_beams: 2,
        num_return_sequences: 2,
        max_new_tokens,
        eos_token_ids: vec![0],
        ..BeamOptions::default()
    }
}

#[track_caller]
fn check(options: &BeamOptions, sampling: &SamplingOptions, expected: [(&[u32], f64); 2]) {
    let found = run(&markov, &[1], options, sampling);
    assert_eq!(found.len(), 2);
    for (found, (tokens, score)) in found.iter().zip(expected) {
        assert_eq!(found.tokens, tokens);
        assert!((found.score - score).abs() < 1e-6, "{tokens:?}: {} {score}", found.score);
        assert_eq!(found.ended, !options.eos_token_ids.is_empty() && tokens.ends_with(&[0]));
    }
}

pub(super) const GREEDY: SamplingOptions = SamplingOptions { do_sample: false, ..SamplingOptions::DEFAULT };

// The expected texts and scores of the next four tests are those of transformers.

#[test]
fn early_stopping_decides_how_long_to_look() {
    use EarlyStopping::{Never, WhenEnoughEnded, WhenUnlikely};
    for (early_stopping, expected) in [
        (WhenEnoughEnded, [(&[2, 0][..], -0.924165), (&[2, 3, 0], -1.017434)]),
        (WhenUnlikely, [(&[2, 0], -0.924165), (&[2, 3, 2, 0], -0.936362)]),
        (Never, [(&[2, 3, 2, 3, 2], -0.918550), (&[2, 0], -0.924165)]),
    ] {
        check(&BeamOptions { early_stopping, ..two_beams(5) }, &GREEDY, expected);
    }
}

#[test]
fn length_penalty_favours_long_texts() {
    for (length_penalty, expected) in [
        (0.0, [(&[2, 0][..], -1.848330), (&[2, 3, 2], -2.695628)]),
        (1.0, [(&[2, 3, 2], -0.898543), (&[2, 0], -0.924165)]),
        (2.0, [(&[2, 3, 2], -0.299514), (&[2, 3, 0], -0.339145)]),
    ] {
        check(&BeamOptions { length_penalty, ..two_beams(3) }, &GREEDY, expected);
    }
}

#[test]
fn min_new_tokens_bans_the_end() {
    let sampling = SamplingOptions { min_new_tokens: 3, ..GREEDY };
    check(&two_beams(3), &sampling, [(&[2, 3, 2], -0.898543), (&[1, 2, 3], -1.129592)]);
}

#[test]
fn without_eos_every_beam_has_the_full_length() {
    let options = BeamOptions { eos_token_ids: Vec::new(), ..two_beams(3) };
    check(&options, &GREEDY, [(&[2, 0, 1], -0.815389), (&[2, 3, 2], -0.898543)]);
    let sampling = SamplingOptions { repetition_penalty: 2.0, ..GREEDY };
    check(&options, &sampling, [(&[2, 0, 1], -1.014668), (&[2, 3, 0], -1.017434)]);
}

#[test]
fn candidates_suffice_however_many_end() {
    let count = |eos: &[u32]| {
        let options = BeamOptions { num_beams: 3, eos_token_ids: eos.to_vec(), ..BeamOptions::default() };
        BeamSearch::new(options).unwrap().candidates_per_step()
    };
    assert_eq!((count(&[]), count(&[7]), count(&[7, 9]), count(&[9, 7, 9, 1])), (6, 6, 9, 12));
}

fn candidate(score: f32, beam: u32, token: u32) -> Candidate {
    Candidate { score, beam, token }
}

#[test]
fn an_end_beyond_the_first_num_beams_is_dropped() {
    let mut search = BeamSearch::new(two_beams(9)).unwrap();
    assert_eq!(search.scores(), [0.0, -1e9]);
    let first = [candidate(-0.5, 0, 3), candidate(-1.0, 0, 1), candidate(-1.5, 0, 0), candidate(-9.0, 0, 2)];
    let extension = |parent, token| Extension { parent, token };
    assert_eq!(search.advance(&first), Step::Continue(vec![extension(0, 3), extension(0, 1)]));
    assert_eq!(search.scores(), [-0.5, -1.0]);
    // The first ends, the third ends too far back to count, and the fourth lives in their place.
    let second = [candidate(-1.0, 1, 0), candidate(-1.0, 1, 2), candidate(-2.0, 0, 0), candidate(-3.0, 0, 2)];
    assert_eq!(search.advance(&second), Step::Continue(vec![extension(1, 2), extension(0, 2)]));
    assert_eq!(search.scores(), [-1.0, -3.0]);
    let texts = search.finish();
    // Cut short here, so that a live beam counts; it comes after the text that is as good.
    let text = |tokens: &[u32], ended| Hypothesis { tokens: tokens.to_vec(), tail: String::new(), score: -0.5, ended };
    assert_eq!(texts, [text(&[1, 0], true), text(&[1, 2], false)]);
}

#[test]
fn a_live_text_must_be_better_not_as_good() {
    for (score, over) in [(-1.5, true), (-1.25, false)] {
        let options = BeamOptions { num_beams: 1, num_return_sequences: 1, ..two_beams(9) };
        let mut search = BeamSearch::new(options).unwrap();
        assert_ne!(search.advance(&[candidate(-0.25, 0, 1), candidate(-3.0, 0, 2)]), Step::Over);
        assert_eq!(search.advance(&[candidate(-1.5, 0, 0), candidate(score, 0, 1)]) == Step::Over, over);
    }
}

#[test]
fn impossible_candidates_leave_places_without_a_text() {
    let mut search = BeamSearch::new(two_beams(9)).unwrap();
    let Step::Continue(extensions) = search.advance(&[candidate(-0.5, 0, 1), candidate(f32::NEG_INFINITY, 0, 2)])
    else {
        panic!("the search goes on")
    };
    assert_eq!((extensions.len(), search.scores()), (2, &[-0.5, NO_TEXT][..]));
    // When the only text ends, what is left has none, and nothing can come of it.
    assert_eq!(
        search.advance(&[candidate(-1.0, 0, 0), candidate(NO_TEXT, 1, 1), candidate(NO_TEXT, 1, 2)]),
        Step::Over
    );
    assert_eq!(search.finish(), [Hypothesis { tokens: vec![1, 0], tail: String::new(), score: -0.5, ended: true }]);
}

#[test]
fn places_without_a_text_stay_out_of_the_result() {
    // Fewer texts than beams: of two tokens, in one step.
    let halves = |_: &[u32]| vec![0.0, 0.0];
    let options = BeamOptions { num_beams: 4, num_return_sequences: 4, max_new_tokens: 1, ..BeamOptions::default() };
    let found = run(&halves, &[0], &options, &GREEDY);
    assert_eq!(found.iter().map(|text| &text.tokens[..]).collect::<Vec<_>>(), [[0], [1]]);
    // A single token, and even fewer candidates than places.
    let alone = |_: &[u32]| vec![0.0];
    let found = run(&alone, &[0], &BeamOptions { max_new_tokens: 3, ..options.clone() }, &GREEDY);
    assert_eq!(found, [Hypothesis { tokens: vec![0; 3], tail: String::new(), score: 0.0, ended: false }]);
    // Tokens that are impossible do not count either.
    let certain = |_: &[u32]| vec![f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY];
    let found = run(&certain, &[0], &BeamOptions { max_new_tokens: 3, ..options.clone() }, &GREEDY);
    assert_eq!(found, [Hypothesis { tokens: vec![1; 3], tail: String::new(), score: 0.0, ended: false }]);
    // Every token ends the text.
    let both = BeamOptions { max_new_tokens: 9, eos_token_ids: vec![0, 1], ..options };
    let found = run(&halves, &[0], &both, &GREEDY);
    assert!(found.len() == 2 && found.iter().all(|text| text.ended && text.tokens.len() == 1));
}

#[test]
fn no_new_tokens_are_one_empty_text() {
    let found = run(&markov, &[1], &two_beams(0), &GREEDY);
    assert_eq!(found, [Hypothesis { tokens: Vec::new(), tail: String::new(), score: 0.0, ended: false }]);
    let unstarted = BeamSearch::new(two_beams(3)).unwrap().finish();
    assert_eq!(unstarted, found);
}

#[test]
fn extreme_length_penalties_give_numbers() {
    for length_penalty in [-1e300, -400.0, 400.0, 1e300, f64::MIN_POSITIVE] {
        for early_stopping in [EarlyStopping::Never, EarlyStopping::WhenUnlikely] {
            let options = BeamOptions { length_penalty, early_stopping, ..two_beams(20) };
            let found = run(&markov, &[1], &options, &GREEDY);
            assert!(found.len() == 2 && found.iter().all(|text| text.score.is_finite()), "{found:?}");
        }
    }
}

// --- random models ---

/// A model with a random row of logits for each last token and length.
struct Random {
    vocab: usize,
    rows: Vec<Vec<f32>>,
}

const LONGEST: usize = 8;

impl Random {
    fn new(seed: u64, vocab: usize) -> Self {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let row = |random: &mut Xoshiro256PlusPlus| (0..vocab).map(|_| random.random_range(-3.0..3.0)).collect();
        Self { vocab, rows: (0..vocab * LONGEST).map(|_| row(&mut random)).collect() }
    }

    fn logits(&self, text: &[u32]) -> Vec<f32> {
        self.rows[text.len() % LONGEST * self.vocab + text[text.len() - 1] as usize].clone()
    }

    /// Summed log-probability of `tokens` after `prompt`, in f64.
    fn log_prob(&self, prompt: &[u32], tokens: &[u32]) -> f64 {
        let mut text = prompt.to_vec();
        let mut sum = 0.0;
        for &token in tokens {
            let logits = self.logits(&text);
            let all: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
            sum += f64::from(logits[token as usize]) - all.ln();
            text.push(token);
        }
        sum
    }
}

fn random_options(random: &mut Xoshiro256PlusPlus, vocab: u32) -> BeamOptions {
    use EarlyStopping::{Never, WhenEnoughEnded, WhenUnlikely};
    let num_beams = random.random_range(1..6);
    BeamOptions {
        num_beams,
        num_return_sequences: num_beams,
        length_penalty: random.random_range(-1.0..2.0),
        early_stopping: [WhenEnoughEnded, WhenUnlikely, Never][random.random_range(0..3)],
        max_new_tokens: random.random_range(1..LONGEST),
        eos_token_ids: (0..random.random_range(0..3)).map(|_| random.random_range(0..vocab)).collect(),
        ..BeamOptions::default()
    }
}

const CASES: u64 = 500;

#[test]
fn one_beam_without_eos_is_greedy() {
    for seed in 0..CASES {
        let model = Random::new(seed, 2 + seed as usize % 7);
        let options =
            BeamOptions { num_beams: 1, max_new_tokens: 1 + seed as usize % LONGEST, ..BeamOptions::default() };
        let mut text = vec![0];
        for _ in 0..options.max_new_tokens {
            let logits = model.logits(&text);
            let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
            text.push(best as u32);
        }
        let found = run(&|text: &[u32]| model.logits(text), &[0], &options, &GREEDY);
        assert_eq!(found[0].tokens, text[1..], "seed {seed}");
    }
}

#[test]
fn results_are_what_they_say() {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
    for seed in 0..CASES {
        let model = Random::new(seed, random.random_range(2..9));
        let options = random_options(&mut random, model.vocab as u32);
        let found = run(&|text: &[u32]| model.logits(text), &[1], &options, &GREEDY);
        assert!((1..=options.num_beams).contains(&found.len()), "seed {seed}");
        assert!(found.is_sorted_by(|a, b| a.score >= b.score), "seed {seed}: {found:?}");
        for (i, text) in found.iter().enumerate() {
            assert!(found[..i].iter().all(|other| other.tokens != text.tokens), "seed {seed}: {found:?}");
            let is_eos = |token| options.eos_token_ids.contains(token);
            let (last, before) = text.tokens.split_last().unwrap();
            assert_eq!(is_eos(last), text.ended);
            assert!(!before.iter().any(is_eos));
            assert!(text.ended || text.tokens.len() == options.max_new_tokens);
            let length = text.tokens.len() as f64;
            let score = model.log_prob(&[1], &text.tokens) / length.powf(options.length_penalty);
            assert!((text.score - score).abs() < 1e-4, "seed {seed}: {} {score}", text.score);
        }
    }
}

#[test]
fn token_numbers_do_not_matter() {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(2);
    for seed in 0..CASES {
        let model = Random::new(seed, random.random_range(2..9));
        let options = random_options(&mut random, model.vocab as u32);
        // Every id t becomes V − 1 − t.
        let other = |token: u32| model.vocab as u32 - 1 - token;
        let mirrored = |text: &[u32]| {
            let text: Vec<u32> = text.iter().map(|&token| other(token)).collect();
            model.logits(&text).into_iter().rev().collect()
        };
        let there = run(&|text: &[u32]| model.logits(text), &[1], &options, &GREEDY);
        let eos_token_ids = options.eos_token_ids.iter().map(|&token| other(token)).collect();
        let back = run(&mirrored, &[other(1)], &BeamOptions { eos_token_ids, ..options }, &GREEDY);
        assert_eq!(there.len(), back.len(), "seed {seed}");
        for (there, back) in there.iter().zip(&back) {
            let tokens: Vec<u32> = back.tokens.iter().map(|&token| other(token)).collect();
            assert_eq!(there.tokens, tokens, "seed {seed}");
        }
    }
}

#[test]
fn without_eos_only_the_scores_depend_on_the_length_options() {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(3);
    for seed in 0..CASES {
        let model = Random::new(seed, random.random_range(2..9));
        let options = BeamOptions { eos_token_ids: Vec::new(), ..random_options(&mut random, 2) };
        let other = BeamOptions { length_penalty: 0.0, early_stopping: EarlyStopping::Never, ..options.clone() };
        let texts = |options: &BeamOptions| {
            let found = run(&|text: &[u32]| model.logits(text), &[1], options, &GREEDY);
            found.into_iter().map(|text| text.tokens).collect::<Vec<_>>()
        };
        assert_eq!(texts(&options), texts(&other), "seed {seed}");
    }
}

#[test]
fn enough_beams_find_the_best_of_all_texts() {
    for seed in 0..CASES {
        let (vocab, length) = [(2, 4), (3, 3), (4, 2), (5, 2), (3, 1)][seed as usize % 5];
        let model = Random::new(seed, vocab);
        let eos_token_ids = if seed % 2 == 0 { vec![0] } else { Vec::new() };
        let num_beams = vocab.pow(length);
        let options = BeamOptions {
            num_beams,
            num_return_sequences: num_beams,
            length_penalty: (seed % 4) as f64 - 1.0,
            early_stopping: EarlyStopping::Never,
            max_new_tokens: length as usize,
            eos_token_ids: eos_token_ids.clone(),
            ..BeamOptions::default()
        };
        // Every text that ends, or has the full length.
        let (mut texts, mut open) = (Vec::new(), vec![Vec::new()]);
        while let Some(text) = open.pop() {
            for token in 0..vocab as u32 {
                let text = [&text[..], &[token]].concat();
                let done = eos_token_ids.contains(&token) || text.len() == length as usize;
                if done { &mut texts } else { &mut open }.push(text);
            }
        }
        let score = |text: &[u32]| model.log_prob(&[1], text) / (text.len() as f64).powf(options.length_penalty);
        texts.sort_by(|a, b| score(b).total_cmp(&score(a)));
        let found = run(&|text: &[u32]| model.logits(text), &[1], &options, &GREEDY);
        assert_eq!(found.len(), texts.len(), "seed {seed}");
        for (found, text) in found.iter().zip(&texts) {
            // Texts closer than f32 can tell may change places.
            assert!((found.score - score(text)).abs() < 1e-4, "seed {seed}: {found:?} {text:?}");
            assert!((found.score - score(&found.tokens)).abs() < 1e-4, "seed {seed}: {found:?}");
        }
    }
}
