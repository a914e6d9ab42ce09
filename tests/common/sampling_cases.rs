//! Random inputs for the sampler, the awkward ones included: ties, infinities, NaN, zeros of both
//! signs, denormals, bans that leave nothing, options at the ends of their ranges.

use bdh_gpu::sampling::{EOS_BIT, FLAG_BIASES, PROMPT_BIT, SamplerParams, SamplingOptions, draw_word};

/// One call of the sampler.
#[derive(Clone, Debug)]
pub struct SamplingCase {
    /// One per token.
    pub logits: Vec<f32>,
    /// One per token: prompt bit, end-of-sequence bit, times generated.
    pub counts: Vec<u32>,
    /// One per token, minus infinity for a ban; of effect in every other case.
    pub biases: Vec<f32>,
    /// Valid options.
    pub options: SamplingOptions,
    /// `options` with a random seed and sequence.
    pub params: SamplerParams,
    /// Tokens generated before this one.
    pub generated: u32,
}

/// SplitMix64: enough randomness to make cases, the same in every version of every crate.
pub struct Random(u64);

impl Random {
    /// A stream of its own for every seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.word() % end as u64) as usize
    }

    /// True once in `times`.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Between 0 and 1.
    pub fn unit(&mut self) -> f32 {
        (self.word() >> 40) as f32 / (1 << 24) as f32
    }

    /// About normal, mean 0, deviation 1.
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.unit()).sum::<f32>() - 6.0
    }

    /// An element of a slice.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

impl SamplingCase {
    /// A random case for a vocabulary of `vocab` tokens.
    pub fn random(vocab: usize, random: &mut Random) -> Self {
        let options = options(vocab, random);
        let generated = random.pick(&[0, 0, 1, 3, 1000, u32::MAX - 8]);
        let sequence = random.pick(&[0, 0, 1, 7, u32::MAX]);
        let mut params = SamplerParams::new(&options, random.word(), sequence);
        params.flags |= random.pick(&[0, FLAG_BIASES]);
        Self {
            logits: logits(vocab, random),
            counts: counts(vocab, random),
            biases: biases(vocab, random),
            params,
            options,
            generated,
        }
    }

    /// A best token with a mass of 2^31 and one other, with top-p within a unit of the best one's
    /// mass: rounding the share the wrong way keeps one token too few or too many.
    ///
    /// The second value says whether both survive. There must be two tokens at least.
    pub fn at_top_p_boundary(vocab: usize, random: &mut Random) -> (Self, bool) {
        let off = 200 + random.below(1800) as u64;
        let top_p = 1.0 - off as f32 / (1 << 24) as f32;
        // The smallest mass of which the share exceeds 2^31.
        let kept = random.one_in(2);
        let enough = (1_u64 << 55) / ((1 << 24) - off) + 1;
        let weight = enough - (1 << 31) - u64::from(!kept);
        let logit = (weight as f64 + 0.5).ln() - f64::exp2(31.0).ln();

        let mut case = Self::plain(vec![f32::NEG_INFINITY; vocab], random);
        let first = random.below(vocab);
        case.logits[first] = 0.0;
        case.logits[(first + 1 + random.below(vocab - 1)) % vocab] = logit as f32;
        case.options.top_p = top_p;
        case.params = SamplerParams::new(&case.options, random.word(), 0);
        (case, kept)
    }

    /// A mass of 2^31 on the last token and 1 on each other, with a seed for which the draw falls on
    /// one of these: it then stands exactly at the boundary before token `draw`.
    ///
    /// About 2^31 / `vocab` seeds are tried.
    pub fn at_draw_boundary(vocab: usize, random: &mut Random) -> Self {
        let mut logits = vec![-31.0 * std::f32::consts::LN_2 + 0.1; vocab];
        logits[vocab - 1] = 0.0;
        let mut case = Self::plain(logits, random);
        let mass = (1_u128 << 31) + vocab as u128 - 1;
        let mut seed = random.word();
        while ((u128::from(draw_word(seed, 0, 0, 0)) * mass) >> 64) as usize >= vocab - 1 {
            seed = seed.wrapping_add(1);
        }
        case.params = SamplerParams::new(&case.options, seed, 0);
        case
    }

    fn plain(logits: Vec<f32>, random: &mut Random) -> Self {
        let options = SamplingOptions::default();
        Self {
            counts: vec![0; logits.len()],
            biases: vec![0.0; logits.len()],
            logits,
            options,
            params: SamplerParams::new(&options, random.word(), 0),
            generated: 0,
        }
    }
}

fn biases(vocab: usize, random: &mut Random) -> Vec<f32> {
    let mut bias = || match random.below(16) {
        0 => f32::NEG_INFINITY,
        1 => random.pick(&[100.0, -99.0, f32::MIN_POSITIVE * 2.0]),
        2..8 => random.normal() * 4.0,
        _ => 0.0,
    };
    (0..vocab).map(|_| bias()).collect()
}

fn logits(vocab: usize, random: &mut Random) -> Vec<f32> {
    let scale = random.pick(&[0.1, 1.0, 1.0, 3.0, 10.0, 100.0]);
    let mut logits: Vec<f32> = match random.below(10) {
        // Many ties: whole and half numbers.
        0 | 1 => (0..vocab).map(|_| (random.normal() * 2.0).round() * 0.5).collect(),
        // All the same.
        2 => vec![random.normal() * scale; vocab],
        // Zeros of both signs, denormals and the smallest normals.
        3 => (0..vocab)
            .map(|_| {
                let tiny = random.pick(&[0, 1, 0x0040_0000, 0x007f_ffff, 0x0080_0000, 0x0080_0001]);
                f32::from_bits(tiny | random.pick(&[0, 1 << 31]))
            })
            .collect(),
        // Any finite bits: distances and products overflow.
        4 => (0..vocab)
            .map(|_| f32::from_bits(random.word() as u32))
            .map(|logit| if logit.is_finite() { logit } else { 0.0 })
            .collect(),
        _ => (0..vocab).map(|_| random.normal() * scale).collect(),
    };
    // Some exact copies of other tokens, and some bans.
    for _ in 0..random.below(4) {
        let from = random.below(vocab);
        let to = random.below(vocab);
        logits[to] = logits[from];
    }
    match random.below(12) {
        0 => {
            for logit in &mut logits {
                if random.one_in(2) {
                    *logit = f32::NEG_INFINITY;
                }
            }
        }
        1 => logits.fill(f32::NEG_INFINITY),
        2 => {
            logits.fill(f32::NEG_INFINITY);
            logits[random.below(vocab)] = random.normal();
        }
        3 => logits[random.below(vocab)] = f32::INFINITY,
        4 => {
            let payload = random.pick(&[0x7fc0_0000, 0xffc0_0000, 0x7f80_0001, 0xffff_ffff]);
            logits[random.below(vocab)] = f32::from_bits(payload);
            if random.one_in(2) {
                logits[random.below(vocab)] = f32::INFINITY;
            }
        }
        _ => {}
    }
    logits
}

fn counts(vocab: usize, random: &mut Random) -> Vec<u32> {
    let mut counts = vec![0; vocab];
    if random.one_in(4) {
        return counts;
    }
    for count in &mut counts {
        if random.one_in(4) {
            *count |= PROMPT_BIT;
        }
        if random.one_in(4) {
            *count |= random.below(6) as u32;
        }
    }
    counts[random.below(vocab)] |= random.pick(&[0, 1, 0x00ff_ffff, 0x0100_0001, EOS_BIT - 1]);
    match random.below(8) {
        0 => counts.iter_mut().for_each(|count| *count |= EOS_BIT),
        1 | 2 => (0..1 + random.below(3)).for_each(|_| counts[random.below(vocab)] |= EOS_BIT),
        _ => {}
    }
    counts
}

fn options(vocab: usize, random: &mut Random) -> SamplingOptions {
    let mut options = SamplingOptions { do_sample: !random.one_in(8), ..SamplingOptions::default() };
    if random.one_in(2) {
        let ends = [0.0, f32::from_bits(1), 1e-38, 1e-9, 1e-3, 1e9, 1e38];
        options.temperature = match random.below(4) {
            0 => random.pick(&ends),
            _ => 0.1 + 2.0 * random.unit(),
        };
    }
    if random.one_in(2) {
        let around = [1, 2, 3, vocab - 1, vocab, vocab + 1, u32::MAX as usize];
        options.top_k = match random.below(2) {
            0 => random.pick(&around) as u32,
            _ => 1 + random.below(vocab) as u32,
        };
    }
    if random.one_in(2) {
        let ends = [f32::from_bits(1), 1e-20, 0.5, 0.9, 1.0 - f32::EPSILON / 2.0];
        options.top_p = match random.below(3) {
            0 => random.pick(&ends),
            _ => random.unit().max(1e-6),
        };
    }
    if random.one_in(3) {
        options.min_p = match random.below(3) {
            0 => random.pick(&[f32::from_bits(1), 1e-9, 0.5, 1.0]),
            _ => random.unit() * 0.3,
        };
    }
    if random.one_in(2) {
        let ends = [f32::from_bits(1), 1e-38, 1e-20, 1e20, 3e38];
        options.repetition_penalty = match random.below(6) {
            0 => random.pick(&ends),
            _ => 0.5 + random.unit() * 1.5,
        };
    }
    if random.one_in(2) {
        options.frequency_penalty = match random.below(8) {
            0 => random.pick(&[1e-40, 3e38, -3e38, -0.0]),
            _ => random.normal(),
        };
        options.presence_penalty = match random.below(8) {
            0 => random.pick(&[1e-40, 3e38, -3e38, -0.0]),
            _ => random.normal(),
        };
    }
    if random.one_in(3) {
        options.min_new_tokens = random.pick(&[1, 2, 4, u32::MAX]);
    }
    options
}
