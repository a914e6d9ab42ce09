//! Extreme logits, counts and options.

use crate::sampling_cases::{Random, SamplingCase};
use crate::thresholds::weights;
use crate::{DEFAULT, draw, survivors, token};
use bdh_gpu::sampling::{
    COUNT_MASK, EOS_BIT, NO_TOKEN, PROMPT_BIT, Sampler, SamplerParams, SamplerState, SamplingError, SamplingOptions,
    Status, WEIGHT_ONE, sample,
};

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
