//! How the next token is chosen, as a caller says it.

use super::SamplingError;
use crate::options::OutOfRange;

/// How the next token is chosen from the logits.
///
/// The order is: penalties, bans, temperature, top-k, top-p, min-p, draw. The default draws from
/// the model's own distribution, unchanged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingOptions {
    /// Draw at random; false takes the best token, as temperature 0 does.
    pub do_sample: bool,
    /// Logits are divided by this; finite, at least 0. 0 takes the best token.
    pub temperature: f32,
    /// Keep the k best tokens and all that tie with the last of them; 0 keeps every token.
    pub top_k: u32,
    /// Keep the best tokens up to this share of the probability; above 0, at most 1 (all).
    pub top_p: f32,
    /// Keep tokens with at least this share of the best token's probability; 0 to 1.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens in the prompt or the generated
    /// text; above 0, 1 changes nothing.
    pub repetition_penalty: f32,
    /// Taken off the logit of every token that has been generated; 0 changes nothing.
    pub presence_penalty: f32,
    /// Taken off a token's logit once for each time it has been generated; 0 changes nothing.
    pub frequency_penalty: f32,
    /// End-of-sequence tokens are banned until this many tokens have been generated.
    pub min_new_tokens: u32,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self {
            do_sample: true,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            min_new_tokens: 0,
        }
    }
}

impl SamplingOptions {
    /// The default with the best token taken instead of a random one.
    pub fn greedy() -> Self {
        Self { do_sample: false, ..Self::default() }
    }

    /// Whether the best token is taken: temperature, top-k, top-p and min-p then have no effect.
    pub fn is_greedy(&self) -> bool {
        !self.do_sample || self.temperature == 0.0
    }

    /// Checks every option against its valid range.
    ///
    /// # Errors
    ///
    /// [`SamplingError::OutOfRange`] for the first option that is out of range or NaN.
    pub fn validate(&self) -> Result<(), SamplingError> {
        const NOT_NEGATIVE: &str = "finite and at least 0";
        const SHARE_ABOVE_ZERO: &str = "above 0 and at most 1";
        const SHARE: &str = "at least 0 and at most 1";
        const POSITIVE: &str = "finite and above 0";
        const FINITE: &str = "finite";

        let zero_or_more = |value: f32| value.is_finite() && value >= 0.0;
        let share = |value: f32| (0.0..=1.0).contains(&value);
        let checks = [
            ("temperature", self.temperature, zero_or_more(self.temperature), NOT_NEGATIVE),
            ("top_p", self.top_p, share(self.top_p) && self.top_p > 0.0, SHARE_ABOVE_ZERO),
            ("min_p", self.min_p, share(self.min_p), SHARE),
            (
                "repetition_penalty",
                self.repetition_penalty,
                zero_or_more(self.repetition_penalty) && self.repetition_penalty > 0.0,
                POSITIVE,
            ),
            ("presence_penalty", self.presence_penalty, self.presence_penalty.is_finite(), FINITE),
            ("frequency_penalty", self.frequency_penalty, self.frequency_penalty.is_finite(), FINITE),
        ];
        for (option, value, valid, range) in checks {
            if !valid {
                return Err(OutOfRange::new(option, range, value).into());
            }
        }
        Ok(())
    }
}
