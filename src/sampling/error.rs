//! What can go wrong while choosing a token.

use thiserror::Error;

/// A sampling option out of range, or logits that no token can be chosen from.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum SamplingError {
    /// An option lies outside its valid range, or is NaN.
    #[error("--{} must be {range}, got {value}", option.replace('_', "-"))]
    OutOfRange {
        /// Name of the field of [`SamplingOptions`](super::SamplingOptions); the message shows it
        /// as it is written on the command line.
        option: &'static str,
        /// The value that was given.
        value: f32,
        /// The valid range, in words that follow "must be".
        range: &'static str,
    },
    /// The model produced a logit that is not a number.
    #[error("the logits contain NaN: the weights or the state are damaged")]
    NanLogits,
    /// The model produced a logit of plus infinity.
    #[error("the logits contain +infinity: the weights or the state are damaged")]
    InfiniteLogits,
    /// Every token is banned or has a logit of minus infinity.
    #[error("no token is left to draw: every logit is banned or -infinity")]
    NothingLeft,
}
