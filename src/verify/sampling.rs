//! Random inputs of the sampler, the awkward ones included.

use super::random::Random;
use crate::options::{Effect, Request, Value};
use crate::sampling::{EOS_BIT, FLAG_BIASES, PROMPT_BIT, SamplerParams, SamplingOptions};
use std::ops::Bound;

/// One call of the sampler.
pub(super) struct SamplingCase {
    pub logits: Vec<f32>,
    pub counts: Vec<u32>,
    pub biases: Vec<f32>,
    pub params: SamplerParams,
    pub generated: u32,
}

/// A random case for a vocabulary of `vocab` tokens.
pub(super) fn case(vocab: usize, random: &mut Random) -> SamplingCase {
    let options = options(vocab, random);
    let mut params = SamplerParams::new(&options, random.word(), random.pick(&[0, 1, u32::MAX]));
    // Without the flag, biases must have no effect.
    params.flags |= random.pick(&[0, FLAG_BIASES]);
    SamplingCase {
        logits: logits(vocab, random),
        counts: counts(vocab, random),
        biases: biases(vocab, random),
        params,
        generated: random.pick(&[0, 1, 3, 1000, u32::MAX - 8]),
    }
}

fn logits(vocab: usize, random: &mut Random) -> Vec<f32> {
    let scale = random.pick(&[0.1, 1.0, 3.0, 30.0]);
    let mut logits = match random.below(6) {
        // Ties: halves of whole numbers.
        0 => random.normals(vocab, 4.0).iter().map(|x| x.round() * 0.5).collect(),
        1 => vec![random.normal(); vocab],
        // Zeros of both signs, denormals, the smallest normals.
        2 => {
            let mut tiny = || f32::from_bits(random.pick(&[0, 1, 0x007f_ffff, 0x0080_0000, 0x8000_0000, 0x8080_0001]));
            (0..vocab).map(|_| tiny()).collect()
        }
        _ => random.normals(vocab, scale),
    };
    match random.below(10) {
        0 => logits.iter_mut().filter(|_| random.one_in(2)).for_each(|logit| *logit = f32::NEG_INFINITY),
        1 => logits[random.below(vocab)] = random.pick(&[f32::INFINITY, f32::MAX, f32::MIN]),
        2 => logits[random.below(vocab)] = f32::from_bits(random.pick(&[0x7fc0_0000, 0xff80_0001])),
        3 if random.one_in(2) => logits.fill(f32::NEG_INFINITY),
        _ => {}
    }
    logits
}

fn counts(vocab: usize, random: &mut Random) -> Vec<u32> {
    let mut counts = vec![0; vocab];
    for count in counts.iter_mut() {
        if random.one_in(4) {
            *count = random.pick(&[PROMPT_BIT, 1, 5, PROMPT_BIT | 2]);
        }
    }
    // One token, or in rare cases every token, ends the sequence.
    counts[random.below(vocab)] |= EOS_BIT;
    if random.one_in(20) {
        counts.iter_mut().for_each(|count| *count |= EOS_BIT);
    }
    counts
}

/// Biases of about half the tokens, one in eight of them a ban.
pub(super) fn biases(vocab: usize, random: &mut Random) -> Vec<f32> {
    let mut bias = || match random.below(16) {
        0 => f32::NEG_INFINITY,
        1..8 => random.normal() * 5.0,
        _ => 0.0,
    };
    (0..vocab).map(|_| bias()).collect()
}

fn options(vocab: usize, random: &mut Random) -> SamplingOptions {
    let mut options = SamplingOptions {
        do_sample: !random.one_in(8),
        temperature: random.pick(&[0.0, 1e-20, 0.3, 0.8, 1.0, 1.7, 1e20]),
        min_new_tokens: random.pick(&[0, 0, 0, 2]),
        ..SamplingOptions::default()
    };
    if random.one_in(2) {
        options.top_k = 1 + random.below(vocab + 1) as u32;
    }
    if random.one_in(2) {
        options.top_p = random.unit().max(1e-6);
    }
    if random.one_in(3) {
        options.min_p = random.unit() * 0.3;
    }
    options.apply(&changed_logits(&options, random));
    options
}

/// Half of the options that change logits, such as penalties, each at random in its range.
fn changed_logits(options: &SamplingOptions, random: &mut Random) -> Request {
    let mut request = Request::default();
    for (spec, value) in options.request().values() {
        if spec.effect == Effect::Always && matches!(value, Value::Single(_)) && random.one_in(2) {
            let value = match spec.range {
                (Bound::Unbounded, Bound::Unbounded) => random.normal(),
                (Bound::Included(least) | Bound::Excluded(least), Bound::Unbounded) => {
                    least as f32 + 0.5 + random.unit() * 1.5
                }
                (_, Bound::Included(most) | Bound::Excluded(most)) => most as f32 * random.unit(),
            };
            spec.give(&mut request, Value::Single(value)).expect("a number");
        }
    }
    request
}
