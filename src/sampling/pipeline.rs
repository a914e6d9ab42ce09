//! The CPU twin of `shaders/decode/sample.wgsl`: same numbers, same sets, same token.
//!
//! A logit goes through the penalties and its bias in f32, one rounding per operation, and becomes a key: a u32
//! that sorts as the logit does, 0 for a banned token. The best key gives every token a weight, a
//! Q1.31 integer. From there on everything is integers and sets, so the order of sums and the way
//! a threshold is searched do not show in the result.

use super::params::{COUNT_MASK, EOS_BIT, FLAG_BIASES, FLAG_GREEDY, FLAG_TOP_K, FLAG_TOP_P, NO_TOKEN, PROMPT_BIT};
use super::tables::{COARSE_LEN, TABLE_LEN};
use super::{SamplerParams, SamplingError, draw_word, tables};

/// The weight of the best token: 1 in Q1.31.
pub const WEIGHT_ONE: u32 = 1 << 31;

/// Bits of plus infinity.
const INFINITY: u32 = 0x7f80_0000;
/// Bits of the largest finite f32.
const LARGEST: u32 = 0x7f7f_ffff;
/// Bits of the smallest normal f32.
const SMALLEST_NORMAL: u32 = 0x0080_0000;
/// Everything of an f32 but its sign.
const MAGNITUDE: u32 = 0x7fff_ffff;
/// Bits of 255.99: distances from the best logit end here.
const LONGEST_DISTANCE: u32 = 0x437f_fd71;
/// Counts stop growing in the frequency penalty where f32 stops holding every integer.
const LARGEST_COUNT: u32 = 1 << 24;

/// A logit is NaN.
const FAULT_NAN: u32 = 1;
/// A logit is plus infinity.
const FAULT_INFINITY: u32 = 2;

/// How a sequence stands after a draw; the values are the status words of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    /// A token was chosen, and more may follow.
    Running = 0,
    /// The token chosen is an end-of-sequence id.
    Eos = 1,
    /// A logit is NaN; no token was chosen.
    Nan = 2,
    /// A logit is plus infinity; no token was chosen.
    PlusInfinity = 3,
    /// Every token is banned or has a logit of minus infinity; no token was chosen.
    NothingLeft = 4,
}

impl Status {
    /// The status a word of the device stands for.
    pub fn from_word(word: u32) -> Option<Self> {
        [Self::Running, Self::Eos, Self::Nan, Self::PlusInfinity, Self::NothingLeft]
            .into_iter()
            .find(|&status| status as u32 == word)
    }

    /// Whether no token was chosen.
    pub fn is_failure(self) -> bool {
        self as u32 >= Self::Nan as u32
    }

    /// The error a failure is reported as.
    ///
    /// # Errors
    ///
    /// The variant of [`SamplingError`] that says why no token was chosen.
    pub fn check(self) -> Result<(), SamplingError> {
        match self {
            Self::Running | Self::Eos => Ok(()),
            Self::Nan => Err(SamplingError::NanLogits),
            Self::PlusInfinity => Err(SamplingError::InfiniteLogits),
            Self::NothingLeft => Err(SamplingError::NothingLeft),
        }
    }
}

/// The token of one step, and the numbers it came from.
///
/// Keys, mass and draw are 0 after a failure and where the best token was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleOutcome {
    /// Whether a token was chosen, and whether it ends the sequence.
    pub status: Status,
    /// The token; [`NO_TOKEN`] after a failure.
    pub token: u32,
    /// The smallest key that top-k left.
    pub top_k_key: u32,
    /// The smallest key that top-p left.
    pub top_p_key: u32,
    /// The sum of the weights that were left to draw from.
    pub mass: u64,
    /// Where in the mass the draw fell, below `mass`.
    pub draw: u64,
}

impl SampleOutcome {
    fn failure(status: Status) -> Self {
        Self { status, token: NO_TOKEN, top_k_key: 0, top_p_key: 0, mass: 0, draw: 0 }
    }
}

/// Chooses a token; [`Sampler::sample`] with buffers of its own.
pub fn sample(logits: &[f32], counts: &mut [u32], params: &SamplerParams, generated: u32) -> SampleOutcome {
    Sampler::new().sample(logits, counts, params, generated)
}

/// Chooses tokens, with buffers that are kept from one to the next.
#[derive(Clone, Debug, Default)]
pub struct Sampler {
    /// Bias per token, `[V]`, for options with [`FLAG_BIASES`].
    biases: Vec<f32>,
    /// Key per token.
    keys: Vec<u32>,
    /// Weight per token; 0 for a banned one.
    weights: Vec<u32>,
    /// What a threshold is searched in: key and weight of a token in one number.
    candidates: Vec<u64>,
    /// The smallest key and weight that survived the last call; `None` where none was drawn.
    floor: Option<(u32, u32)>,
}

impl Sampler {
    /// A sampler with empty buffers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over biases `[V]` (see [`BiasRow`](super::BiasRow)) for options with [`FLAG_BIASES`].
    pub fn set_biases(&mut self, biases: &[f32]) {
        self.biases.clear();
        self.biases.extend_from_slice(biases);
    }

    /// The biases: `[V]`, or nothing before [`Sampler::set_biases`].
    pub fn biases(&self) -> &[f32] {
        &self.biases
    }

    /// Chooses a token from `logits` and counts it.
    ///
    /// `counts` says per id whether it is in the prompt ([`PROMPT_BIT`]), whether it ends the
    /// sequence ([`EOS_BIT`]) and how often it has been generated (the rest). `generated` is the
    /// number of tokens generated before this one: the step of the random counter.
    ///
    /// # Panics
    ///
    /// If `logits` is empty, or `counts` or the biases that `params` asks for have another length.
    pub fn sample(
        &mut self,
        logits: &[f32],
        counts: &mut [u32],
        params: &SamplerParams,
        generated: u32,
    ) -> SampleOutcome {
        assert!(!logits.is_empty(), "there must be at least one logit");
        assert_eq!(logits.len(), counts.len(), "one count per logit");
        let biased = params.flags & FLAG_BIASES != 0;
        assert!(!biased || self.biases.len() == logits.len(), "one bias per logit");
        self.floor = None;

        let best = match self.find_keys(logits, counts, params, generated) {
            Ok(best) => best,
            Err(status) => return SampleOutcome::failure(status),
        };
        let mut outcome = SampleOutcome { status: Status::Running, ..SampleOutcome::failure(Status::Running) };
        let token = if params.flags & FLAG_GREEDY != 0 {
            first_index(&self.keys, |&key| key == best)
        } else {
            self.find_weights(best, params);
            self.apply_thresholds(params, &mut outcome);
            self.draw(params, generated, &mut outcome)
        };
        outcome.token = token as u32;
        if counts[token] & EOS_BIT != 0 {
            outcome.status = Status::Eos;
        }
        // A full count stays full rather than running into the bits above it.
        counts[token] += u32::from(counts[token] & COUNT_MASK != COUNT_MASK);
        outcome
    }

    /// The tokens the last call could have drawn, with their weights, in order of their ids.
    ///
    /// Empty after a failure and where the best token was taken. A token may have survived with a
    /// weight that rounds to 0.
    pub fn survivors(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let pairs = self.keys.iter().zip(&self.weights).enumerate();
        pairs.filter_map(|(id, (&key, &weight))| {
            let (lowest_key, lowest_weight) = self.floor?;
            (key >= lowest_key && weight >= lowest_weight).then_some((id as u32, weight))
        })
    }

    /// Fills `keys` and returns the largest, or says why there is none to use.
    fn find_keys(
        &mut self,
        logits: &[f32],
        counts: &[u32],
        params: &SamplerParams,
        generated: u32,
    ) -> Result<u32, Status> {
        let banned_bits = if generated < params.min_new_tokens { EOS_BIT } else { 0 };
        let mut faults = 0;
        let mut best = 0;
        self.keys.clear();
        self.keys.extend(logits.iter().zip(counts).zip(params.each_bias(&self.biases)).map(
            |((&logit, &count), bias)| {
                faults |= fault(logit);
                let banned = logit == f32::NEG_INFINITY || bias == f32::NEG_INFINITY || count & banned_bits != 0;
                let key = if banned { 0 } else { order_key(biased(penalised(canonical(logit), count, params), bias)) };
                best = best.max(key);
                key
            },
        ));
        if faults & FAULT_NAN != 0 {
            Err(Status::Nan)
        } else if faults & FAULT_INFINITY != 0 {
            Err(Status::PlusInfinity)
        } else if best == 0 {
            Err(Status::NothingLeft)
        } else {
            Ok(best)
        }
    }

    /// Fills `weights` from `keys`.
    fn find_weights(&mut self, best: u32, params: &SamplerParams) {
        let tables = tables();
        let largest = order_value(best);
        self.weights.clear();
        self.weights.extend(self.keys.iter().map(|&key| {
            if key == 0 {
                return 0;
            }
            let distance = fixed_distance(largest, order_value(key));
            let exponent = (u64::from(distance) * u64::from(params.scale)) >> params.scale_shift;
            weight(exponent, tables)
        }));
    }

    /// Finds the smallest key and weight that survive top-k, top-p and min-p.
    fn apply_thresholds(&mut self, params: &SamplerParams, outcome: &mut SampleOutcome) {
        let top_k = params.flags & FLAG_TOP_K != 0;
        let top_p = params.flags & FLAG_TOP_P != 0;
        let candidates = &mut self.candidates;
        candidates.clear();
        if top_k || top_p {
            let pairs = self.keys.iter().zip(&self.weights);
            candidates.extend(
                pairs.filter(|&(&key, _)| key != 0).map(|(&key, &weight)| u64::from(key) << 32 | u64::from(weight)),
            );
        }

        // A key is above 0, so 1 keeps every token that is not banned.
        let mut lowest = 1;
        if top_k && (params.top_k as usize) < candidates.len() {
            let last = params.top_k as usize - 1;
            let (_, &mut nth, _) = candidates.select_nth_unstable_by(last, |a, b| b.cmp(a));
            lowest = (nth >> 32) as u32;
            candidates.retain(|&candidate| (candidate >> 32) as u32 >= lowest);
        }
        outcome.top_k_key = smallest_key(&self.keys, lowest);
        if top_p {
            let mass = candidates.iter().map(|&c| u64::from(c as u32)).sum();
            lowest = key_at_mass(candidates, top_p_target(mass, params.top_p));
        }
        outcome.top_p_key = if top_p { lowest } else { outcome.top_k_key };
        self.floor = Some((outcome.top_p_key, params.min_p));
    }

    /// Draws an id among the survivors.
    fn draw(&self, params: &SamplerParams, generated: u32, outcome: &mut SampleOutcome) -> usize {
        outcome.mass = self.survivors().map(|(_, weight)| u64::from(weight)).sum();
        let word = draw_word(params.seed(), generated, params.sequence, 0);
        outcome.draw = ((u128::from(word) * u128::from(outcome.mass)) >> 64) as u64;
        let mut sum = 0;
        let drawn = self.survivors().find(|&(_, weight)| {
            sum += u64::from(weight);
            sum > outcome.draw
        });
        drawn.expect("the draw lies below the mass").0 as usize
    }
}

/// Position of the first element for which `test` holds, which there must be.
fn first_index<T>(values: &[T], test: impl FnMut(&T) -> bool) -> usize {
    values.iter().position(test).expect("there is a best token")
}

/// The smallest key that is at least `lowest`.
fn smallest_key(keys: &[u32], lowest: u32) -> u32 {
    let kept = keys.iter().filter(|&&key| key >= lowest);
    kept.fold(u32::MAX, |smallest, &key| smallest.min(key))
}

/// Rounds an f32 to what every device agrees on: no denormals, no minus zero, no infinity.
///
/// The smallest normal goes to zero too, because devices that flush denormals differ in whether
/// they look before or after rounding up to it.
pub(crate) fn canonical(value: f32) -> f32 {
    let bits = value.to_bits();
    let magnitude = (bits & MAGNITUDE).min(LARGEST);
    if magnitude <= SMALLEST_NORMAL { 0.0 } else { f32::from_bits(bits & !MAGNITUDE | magnitude) }
}

/// The faults of a logit as the model wrote it.
fn fault(logit: f32) -> u32 {
    let bits = logit.to_bits();
    if bits & MAGNITUDE > INFINITY {
        FAULT_NAN
    } else if bits == INFINITY {
        FAULT_INFINITY
    } else {
        0
    }
}

/// A canonical logit after the repetition, frequency and presence penalties.
pub(crate) fn penalised(logit: f32, count: u32, params: &SamplerParams) -> f32 {
    let generated = count & COUNT_MASK;
    let mut logit = logit;
    if generated > 0 || count & PROMPT_BIT != 0 {
        let factor = if logit < 0.0 { params.repetition } else { params.repetition_inverse };
        logit = canonical(logit * factor);
    }
    if generated > 0 {
        let times = generated.min(LARGEST_COUNT) as f32;
        logit = canonical(logit - canonical(params.frequency * times));
        logit = canonical(logit - params.presence);
    }
    logit
}

/// A canonical logit with its bias. A bias of 0 changes nothing.
pub(crate) fn biased(logit: f32, bias: f32) -> f32 {
    canonical(logit + bias)
}

/// A number that sorts as the value does. No canonical value has key 0.
pub(crate) fn order_key(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits & !MAGNITUDE != 0 { !bits } else { bits | !MAGNITUDE }
}

/// The value a key was made from.
pub(crate) fn order_value(key: u32) -> f32 {
    f32::from_bits(if key & !MAGNITUDE != 0 { key & MAGNITUDE } else { !key })
}

/// Distance from the largest logit in units of 2^-24, cut to a whole number, at most 255.99.
fn fixed_distance(largest: f32, logit: f32) -> u32 {
    // Not negative, so the bits sort as the values do, an overflow included.
    let distance = canonical(largest - logit).to_bits().min(LONGEST_DISTANCE);
    (f32::from_bits(distance) * 16_777_216.0) as u32
}

/// 2^(-exponent / 2^24) as a Q1.31 integer, by two tables and a linear term; 0 from 2^-32 down.
pub fn weight_of_exponent(exponent: u64) -> u32 {
    weight(exponent, tables())
}

fn weight(exponent: u64, tables: &[u32; TABLE_LEN]) -> u32 {
    if exponent >= 32 << 24 {
        return 0;
    }
    let high_half = |a: u32, b: u32| ((u64::from(a) * u64::from(b)) >> 32) as u32;
    let exponent = exponent as u32;
    let fraction = exponent & 0x00ff_ffff;
    let coarse = (fraction >> 16) as usize;
    let fine = (fraction >> 9 & 127) as usize;
    // ln 2 in units of 2^-16, so that the product, shifted, counts units of 2^-32.
    let linear = ((fraction & 511) * 45_426) >> 8;
    let mut weight = tables[coarse];
    weight -= high_half(weight, tables[COARSE_LEN + fine]);
    weight -= high_half(weight, linear);
    weight >> (exponent >> 24)
}

/// How much mass must lie above a token for top-p to drop it: the share of the mass, rounded up.
fn top_p_target(mass: u64, top_p: u32) -> u64 {
    let share = (u128::from(mass) * u128::from(top_p)).div_ceil(1 << 32);
    (share as u64).max(1)
}

/// The key at which the mass, counted from the best key down, reaches `target`.
///
/// Every token with less than `target` above it has at least this key. `target` is between 1 and
/// the mass of all candidates.
fn key_at_mass(candidates: &mut [u64], target: u64) -> u32 {
    let mut rest = candidates;
    let mut target = target;
    while rest.len() > 1 {
        let middle = rest.len() / 2;
        rest.select_nth_unstable_by(middle, |a, b| b.cmp(a));
        let (above, below) = rest.split_at_mut(middle);
        let mass = above.iter().map(|&c| u64::from(c as u32)).sum::<u64>();
        if mass >= target {
            rest = above;
        } else {
            target -= mass;
            rest = below;
        }
    }
    (rest[0] >> 32) as u32
}
