//! Ranges of the options.

use crate::DEFAULT;
use bdh_gpu::sampling::{SamplerParams, SamplerState, SamplingOptions, Status, tables};

#[test]
fn options_out_of_range_are_named_with_value_and_range() {
    DEFAULT().validate().unwrap();
    SamplingOptions::greedy().validate().unwrap();
    let message = |change: fn(&mut SamplingOptions)| {
        let mut options = DEFAULT();
        change(&mut options);
        options.validate().unwrap_err().to_string()
    };
    assert_eq!(message(|o| o.top_p = 1.5), "top_p must be above 0 and at most 1, got 1.5");
    assert_eq!(message(|o| o.top_p = 0.0), "top_p must be above 0 and at most 1, got 0");
    assert_eq!(message(|o| o.min_p = -0.1), "min_p must be at least 0 and at most 1, got -0.1");
    assert_eq!(message(|o| o.temperature = -1.0), "temperature must be finite and at least 0, got -1");
    assert_eq!(message(|o| o.repetition_penalty = 0.0), "repetition_penalty must be finite and above 0, got 0");
    assert_eq!(message(|o| o.frequency_penalty = f32::INFINITY), "frequency_penalty must be finite, got inf");
    assert_eq!(message(|o| o.presence_penalty = f32::NAN), "presence_penalty must be finite, got NaN");
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
