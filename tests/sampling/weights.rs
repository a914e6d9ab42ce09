//! Weights of exponents.

use crate::DEFAULT;
use crate::sampling_cases::Random;
use bdh_gpu::sampling::{Sampler, SamplerParams, SamplingOptions, WEIGHT_ONE, tables, weight_of_exponent};

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

pub fn softmax(logits: &[f32], temperature: f32) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let power = |&logit: &f32| ((f64::from(logit) - f64::from(largest)) / f64::from(temperature)).exp();
    let sum: f64 = logits.iter().map(power).sum();
    logits.iter().map(|logit| power(logit) / sum).collect()
}
