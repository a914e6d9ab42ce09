//! Options by their names.

use std::borrow::Cow;

/// An option whose value lies outside its range, or is NaN.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option} must be {range}, got {value}")]
pub struct OutOfRange {
    /// The option as Rust and Python write it, for example `num_beams`.
    pub option: &'static str,
    /// The valid range, in words that follow "must be".
    pub range: Cow<'static, str>,
    /// The value that was given.
    pub value: String,
}

impl OutOfRange {
    /// The error for a value outside `range`.
    pub fn new(option: &'static str, range: impl Into<Cow<'static, str>>, value: impl ToString) -> Self {
        Self { option, range: range.into(), value: value.to_string() }
    }
}
