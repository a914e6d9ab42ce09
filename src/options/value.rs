//! Values of any option, and their types.

use std::collections::BTreeMap;
use std::fmt;

/// When beam search stops looking for better texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EarlyStopping {
    /// As soon as `num_beams` texts have ended (`true`).
    WhenEnoughEnded,
    /// When the best live beam is unlikely to beat the worst ended one (`false`).
    WhenUnlikely,
    /// Only when no live beam can beat the worst ended one (`"never"`).
    Never,
}

impl EarlyStopping {
    /// Every value by the word for it.
    pub const WORDS: [(&'static str, Self); 3] =
        [("true", Self::WhenEnoughEnded), ("false", Self::WhenUnlikely), ("never", Self::Never)];
}

/// Biases: numbers that are added to the logits of tokens, by token id.
pub type LogitBias = BTreeMap<u32, f32>;

/// Type of an option's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `bool`.
    Switch,
    /// `u32` or `u64`.
    Whole {
        /// Largest value of the type.
        largest: u64,
    },
    /// `usize`.
    Count,
    /// `f32`.
    Single,
    /// `f64`.
    Double,
    /// [`EarlyStopping`].
    Stopping,
    /// `Vec<String>`.
    Texts,
    /// Token ids: `Vec<u32>`.
    Ids,
    /// [`LogitBias`].
    Biases,
}

impl Kind {
    /// The largest whole number of the type; 0 for what is no whole number.
    pub fn largest(self) -> u64 {
        match self {
            Self::Whole { largest } => largest,
            Self::Count => usize::MAX as u64,
            _ => 0,
        }
    }
}

/// In words that follow "must be".
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch => f.write_str("true or false"),
            Self::Whole { .. } | Self::Count => write!(f, "a whole number from 0 to {}", self.largest()),
            Self::Single | Self::Double => f.write_str("a number"),
            Self::Stopping => f.write_str("true, false or \"never\""),
            Self::Texts => f.write_str("a text or several"),
            Self::Ids => f.write_str("a token id or several"),
            Self::Biases => f.write_str("numbers by token id"),
        }
    }
}

/// A value of any option.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of [`Kind::Switch`].
    Switch(bool),
    /// Of [`Kind::Whole`] and [`Kind::Count`].
    Whole(u64),
    /// Of [`Kind::Single`].
    Single(f32),
    /// Of [`Kind::Double`].
    Double(f64),
    /// Of [`Kind::Stopping`].
    Stopping(EarlyStopping),
    /// Of [`Kind::Texts`].
    Texts(Vec<String>),
    /// Of [`Kind::Ids`].
    Ids(Vec<u32>),
    /// Of [`Kind::Biases`].
    Biases(LogitBias),
}

impl Value {
    /// The value as generation_config.json has it.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Switch(on) => (*on).into(),
            Self::Whole(number) => (*number).into(),
            // 0.8 rather than the nearest f32 in all its digits.
            Self::Single(number) => number.to_string().parse::<f64>().map_or(serde_json::Value::Null, Into::into),
            Self::Double(number) => (*number).into(),
            Self::Stopping(EarlyStopping::Never) => "never".into(),
            Self::Stopping(stopping) => (*stopping == EarlyStopping::WhenEnoughEnded).into(),
            Self::Texts(texts) => texts.clone().into(),
            Self::Ids(ids) => ids.clone().into(),
            Self::Biases(biases) => {
                biases.iter().map(|(id, bias)| (id.to_string(), Self::Single(*bias).to_json())).collect()
            }
        }
    }
}

/// As people write it: texts in quotes, the elements of a list separated by spaces.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Switch(on) => on.fmt(f),
            Self::Whole(number) => number.fmt(f),
            Self::Single(number) => number.fmt(f),
            Self::Double(number) => number.fmt(f),
            Self::Stopping(stopping) => {
                let word = EarlyStopping::WORDS.iter().find(|(_, value)| value == stopping);
                f.write_str(word.map_or("", |(word, _)| word))
            }
            Self::Texts(texts) => {
                f.write_str(&texts.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(" "))
            }
            Self::Ids(ids) => f.write_str(&ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")),
            Self::Biases(biases) => {
                f.write_str(&biases.iter().map(|(id, bias)| format!("{id}={bias}")).collect::<Vec<_>>().join(" "))
            }
        }
    }
}

/// A type that an option may have.
pub(super) trait OptionType: Sized {
    /// The same at run time.
    const KIND: Kind;

    /// The value of any option that this is.
    fn to_value(&self) -> Value;

    /// The value of this type, if it is one.
    fn from_value(value: Value) -> Option<Self>;
}

/// Types that a [`Value`] holds as they are.
macro_rules! held {
    ($($type:ty: $variant:ident,)*) => {
        $(impl OptionType for $type {
            const KIND: Kind = Kind::$variant;

            fn to_value(&self) -> Value {
                Value::$variant(self.clone())
            }

            fn from_value(value: Value) -> Option<Self> {
                if let Value::$variant(value) = value { Some(value) } else { None }
            }
        })*
    };
}

held! {
    bool: Switch,
    f32: Single,
    f64: Double,
    EarlyStopping: Stopping,
    Vec<String>: Texts,
    Vec<u32>: Ids,
    LogitBias: Biases,
}

/// Whole numbers.
macro_rules! whole {
    ($($type:ty: $kind:expr,)*) => {
        $(impl OptionType for $type {
            const KIND: Kind = $kind;

            fn to_value(&self) -> Value {
                Value::Whole(*self as u64)
            }

            fn from_value(value: Value) -> Option<Self> {
                if let Value::Whole(number) = value { number.try_into().ok() } else { None }
            }
        })*
    };
}

whole! {
    u32: Kind::Whole { largest: u32::MAX as u64 },
    u64: Kind::Whole { largest: u64::MAX },
    usize: Kind::Count,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_people_and_as_files_write_them() {
        for (value, shown, json) in [
            (Value::Switch(false), "false", "false"),
            (Value::Whole(u64::MAX), "18446744073709551615", "18446744073709551615"),
            (Value::Single(0.8), "0.8", "0.8"),
            (Value::Double(-2.0), "-2", "-2.0"),
            (Value::Stopping(EarlyStopping::WhenEnoughEnded), "true", "true"),
            (Value::Stopping(EarlyStopping::Never), "never", "\"never\""),
            (Value::Texts(vec!["a\n".into(), "b".into()]), "\"a\\n\" \"b\"", "[\"a\\n\",\"b\"]"),
            (Value::Ids(vec![1, 2]), "1 2", "[1,2]"),
            (Value::Biases([(3, 0.5), (1, -100.0)].into()), "1=-100 3=0.5", "{\"1\":-100.0,\"3\":0.5}"),
        ] {
            assert_eq!((value.to_string().as_str(), value.to_json().to_string().as_str()), (shown, json));
        }
    }
}
