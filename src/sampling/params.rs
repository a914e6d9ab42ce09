//! What the sampling kernel reads and writes. The structures are those of `shaders/shared/{sampler,step}.wgsl`.

use crate::host_struct::host_struct;

use super::pipeline::{SampleOutcome, Status, canonical};
use super::{BiasRow, SamplingError, SamplingOptions};

/// Set in a count when the id occurs in the prompt.
pub const PROMPT_BIT: u32 = 1 << 31;
/// Set in a count when the id ends the sequence.
pub const EOS_BIT: u32 = 1 << 30;
/// The bits of a count that say how often the id has been generated.
pub const COUNT_MASK: u32 = EOS_BIT - 1;
/// Stands where there is no token: in the ring for a sequence that has ended or failed.
pub const NO_TOKEN: u32 = u32::MAX;

/// [`SamplerParams::flags`]: take the best token.
pub const FLAG_GREEDY: u32 = 1;
/// [`SamplerParams::flags`]: top-k is on.
pub const FLAG_TOP_K: u32 = 2;
/// [`SamplerParams::flags`]: top-p is on.
pub const FLAG_TOP_P: u32 = 4;
/// [`SamplerParams::flags`]: tokens have biases.
pub const FLAG_BIASES: u32 = 8;

host_struct!("SamplerParams");

impl SamplerParams {
    /// The options of one sequence, which [`SamplingOptions::validate`] must have accepted.
    pub fn new(options: &SamplingOptions, seed: u64, sequence: u32) -> Self {
        let mut flags = 0;
        if options.is_greedy() {
            flags |= FLAG_GREEDY;
        }
        if options.top_k > 0 {
            flags |= FLAG_TOP_K;
        }
        if options.top_p < 1.0 {
            flags |= FLAG_TOP_P;
        }
        let repetition = canonical(options.repetition_penalty);
        let (scale, scale_shift) = fixed_point_scale(options.temperature);
        Self {
            flags,
            repetition,
            repetition_inverse: canonical(1.0 / repetition),
            frequency: canonical(options.frequency_penalty),
            presence: canonical(options.presence_penalty),
            scale,
            scale_shift,
            top_k: options.top_k,
            top_p: (f64::from(options.top_p) * f64::exp2(32.0)).round() as u32,
            min_p: (f64::from(options.min_p) * f64::exp2(31.0)).ceil() as u32,
            min_new_tokens: options.min_new_tokens,
            sequence,
            seed_lo: seed as u32,
            seed_hi: (seed >> 32) as u32,
            zero: 0,
            padding: 0,
        }
    }

    /// The same for a sequence whose tokens have these biases, if any do.
    pub fn with_biases(self, biases: &BiasRow) -> Self {
        Self { flags: if biases.is_empty() { self.flags } else { self.flags | FLAG_BIASES }, ..self }
    }

    /// The bias of every token: `biases` `[V]`, or 0 without [`FLAG_BIASES`].
    pub(crate) fn each_bias(&self, biases: &[f32]) -> impl Iterator<Item = f32> {
        let biases = if self.flags & FLAG_BIASES != 0 { biases } else { &[] };
        biases.iter().copied().chain(std::iter::repeat(0.0))
    }

    /// The seed, both halves.
    pub fn seed(&self) -> u64 {
        u64::from(self.seed_hi) << 32 | u64::from(self.seed_lo)
    }
}

/// log2(e) / temperature as (multiplier, shift), 32 significant bits where the range allows.
///
/// A distance in units of 2^-24, times the multiplier, shifted right, is an exponent in the same
/// units, and an exponent of 32 or more weighs nothing. So a scale of 2^29 and above may saturate
/// (any distance then weighs nothing), and one below 2^-63 may vanish (none then matters).
fn fixed_point_scale(temperature: f32) -> (u32, u32) {
    const SHORTEST: i32 = 3;
    const LONGEST: i32 = 63;

    let scale = std::f64::consts::LOG2_E / f64::from(temperature);
    let exponent = ((scale.to_bits() >> 52) & 0x7ff) as i32 - 1023;
    let shift = (31 - exponent).clamp(SHORTEST, LONGEST);
    let multiplier = (scale * f64::from(shift).exp2()).round() as u32;
    (multiplier, shift as u32)
}

host_struct!("SamplerState");

impl SamplerState {
    /// Takes in the outcome of a draw, as the kernel does.
    ///
    /// A failed draw changes the status and the report but neither the token nor the number
    /// generated: no token was generated, and `token` stays a valid id.
    pub fn record(&mut self, outcome: &SampleOutcome) {
        if !outcome.status.is_failure() {
            self.token = outcome.token;
            // As on the device, where numbers wrap.
            self.generated = self.generated.wrapping_add(1);
        }
        self.status = outcome.status as u32;
        self.top_k_key = outcome.top_k_key;
        self.top_p_key = outcome.top_p_key;
        self.mass_lo = outcome.mass as u32;
        self.mass_hi = (outcome.mass >> 32) as u32;
        self.draw_lo = outcome.draw as u32;
        self.draw_hi = (outcome.draw >> 32) as u32;
    }

    /// The status, if the word holds one.
    pub fn status(&self) -> Option<Status> {
        Status::from_word(self.status)
    }

    /// The error that ended the sequence, if one did.
    ///
    /// # Errors
    ///
    /// One of the variants of [`SamplingError`] about logits.
    pub fn check(&self) -> Result<(), SamplingError> {
        self.status().map_or(Ok(()), Status::check)
    }
}
