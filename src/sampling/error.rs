//! What can go wrong while choosing a token.

use crate::options::OutOfRange;
use thiserror::Error;

/// A sampling option out of range, or logits that no token can be chosen from.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum SamplingError {
    /// A field of [`SamplingOptions`](super::SamplingOptions) lies outside its valid range, or is NaN.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
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
