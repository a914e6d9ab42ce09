//! Generation options: each is defined once, as a row of `table.rs`.
//!
//! | file | holds |
//! | --- | --- |
//! | `table` | one row per option: name, type, default, range, effect, help |
//! | `rows` | the macro that turns the rows into [`SamplingOptions`], [`Request`] and [`OPTIONS`] |
//! | `spec` | a row at run time: [`Spec`] |
//! | `json` | values in JSON |
//! | `value` | a value of any option: [`Value`], and its type: [`Kind`] |
//!
//! Every interface walks over the rows: the command line makes arguments of them and the prompt
//! loop commands, [`GenerationConfig`](crate::model::GenerationConfig) reads and writes their keys,
//! the Python package takes their names as keywords. Each fills a [`Request`].
//! [`Settings`](crate::generation::Settings) merges the caller's over the model's over the
//! defaults.
//!
//! ```
//! use bdh_gpu::options::{self, Request, Value};
//!
//! let spec = options::find("top_p").expect("an option");
//! let mut request = Request::default();
//! spec.give(&mut request, Value::Single(0.9)).expect("a number");
//! assert_eq!(request.top_p, Some(0.9));
//! let error = spec.check(&Value::Single(1.5)).unwrap_err();
//! assert_eq!(error.to_string(), "top_p must be above 0 and at most 1, got 1.5");
//! ```

mod json;
mod rows;
mod spec;
mod table;
mod value;

#[cfg(feature = "server")]
pub(crate) use json::{ids, whole};
pub use spec::{Command, Effect, Range, Spec};
pub use table::{BEAMS, CHOOSING, HEADINGS, LENGTH, MAX_BEAMS, OPTIONS, Request, SamplingOptions, defaults, specs};
pub use value::{EarlyStopping, Kind, LogitBias, Value};

use std::borrow::Cow;

/// The option of this name.
pub fn find(name: &str) -> Option<&'static Spec> {
    OPTIONS.into_iter().find(|spec| spec.name == name)
}

/// All options in the order of a help text: by heading, those with a short name first.
pub fn in_help_order() -> impl Iterator<Item = &'static Spec> {
    HEADINGS.into_iter().flat_map(|heading| {
        let mut specs: Vec<_> = OPTIONS.into_iter().filter(|spec| spec.heading == heading).collect();
        specs.sort_by_key(|spec| spec.short.is_none());
        specs
    })
}

impl Request {
    /// The values that are given, in the order of the table.
    pub fn values(&self) -> impl Iterator<Item = (&'static Spec, Value)> {
        OPTIONS.into_iter().filter_map(|spec| Some((spec, spec.given(self)?)))
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_every_row_has_help_and_a_heading() {
        let names: HashSet<&str> = OPTIONS.iter().map(|spec| spec.name).collect();
        let commands: Vec<&Command> = OPTIONS.iter().filter_map(|spec| spec.command.as_ref()).collect();
        let words: HashSet<&str> = commands.iter().map(|command| command.name).collect();
        assert_eq!((names.len(), words.len()), (OPTIONS.len(), commands.len()));
        assert_eq!(in_help_order().count(), OPTIONS.len(), "a heading is not one of HEADINGS");
        for spec in OPTIONS {
            assert!(!spec.help.is_empty() && !spec.help.ends_with('.'), "{}", spec.name);
            assert!(spec.kind == Kind::Switch || !spec.value_name.is_empty(), "{}", spec.name);
        }
    }

    #[test]
    fn defaults_lie_within_their_ranges() {
        for spec in OPTIONS {
            if let Some(value) = spec.default() {
                assert_eq!(spec.check(&value), Ok(()), "{}", spec.name);
                let mut request = Request::default();
                spec.give(&mut request, value.clone()).unwrap();
                assert_eq!(spec.given(&request), Some(value));
            }
        }
    }

    #[test]
    fn a_value_of_another_type_is_an_error() {
        let error = |name, value| {
            let spec: &Spec = find(name).unwrap();
            spec.give(&mut Request::default(), value).unwrap_err().to_string()
        };
        assert_eq!(error("temperature", Value::Switch(true)), "temperature must be a number, got true");
        let large = Value::Whole(1 << 32);
        assert_eq!(error("top_k", large), "top_k must be a whole number from 0 to 4294967295, got 4294967296");
    }
}
