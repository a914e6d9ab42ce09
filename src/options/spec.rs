//! A row of the table at run time.

use super::value::{Kind, Value};
use super::{OutOfRange, Request};
use std::ops::{Bound, RangeBounds};

/// Valid values of a number, which must also be finite.
pub type Range = (Bound<f64>, Bound<f64>);

/// When an option has an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// However tokens are chosen.
    Always,
    /// In drawing. A caller who gives the option asks for drawing: the model's own `num_beams` and
    /// its `do_sample` false give way.
    Drawing,
    /// In drawing, which it does not ask for.
    OnlyDrawing,
    /// In beam search.
    Beams,
}

/// A command of a prompt loop that sets the option.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// Its name.
    pub name: &'static str,
    /// Word for its value.
    pub value_name: &'static str,
    /// Help: one line, no full stop.
    pub help: &'static str,
}

/// An option, as its row of the table defines it.
#[derive(Debug)]
pub struct Spec {
    /// Its name in Rust, Python and generation_config.json.
    pub name: &'static str,
    /// Type of its values.
    pub kind: Kind,
    /// Valid values.
    pub range: Range,
    /// When it has an effect.
    pub effect: Effect,
    /// Heading of its help, one of [`HEADINGS`](super::HEADINGS).
    pub heading: &'static str,
    /// Help: one sentence, no full stop. Of a switch with an opposite: the opposite's help.
    pub help: &'static str,
    /// Word for its value in help; empty for a switch.
    pub value_name: &'static str,
    /// One letter that stands for its name.
    pub short: Option<char>,
    /// Name under which users turn a switch off.
    pub opposite: Option<&'static str>,
    /// Whether generation_config.json may give it.
    pub in_file: bool,
    /// The prompt loop's command, if it has one.
    pub command: Option<Command>,
    pub(super) default: fn() -> Option<Value>,
    pub(super) given: fn(&Request) -> Option<Value>,
    pub(super) give: fn(&mut Request, Value) -> Option<()>,
}

impl Spec {
    /// Fields that a row may leave out.
    pub(super) const ROW: Self = Self {
        name: "",
        kind: Kind::Switch,
        range: (Bound::Unbounded, Bound::Unbounded),
        effect: Effect::Always,
        heading: "",
        help: "",
        value_name: "",
        short: None,
        opposite: None,
        in_file: true,
        command: None,
        default: || None,
        given: |_| None,
        give: |_, _| None,
    };

    /// The built-in value; `None` if it is drawn or empty.
    pub fn default(&self) -> Option<Value> {
        (self.default)()
    }

    /// The value in a request.
    pub fn given(&self, request: &Request) -> Option<Value> {
        (self.given)(request)
    }

    /// Puts a value into a request. Its range is checked later, by [`Spec::check`].
    ///
    /// # Errors
    /// [`OutOfRange`] for a value that is not of the option's type.
    pub fn give(&self, request: &mut Request, value: Value) -> Result<(), OutOfRange> {
        let shown = value.to_string();
        (self.give)(request, value).ok_or_else(|| OutOfRange::new(self.name, self.kind.to_string(), shown))
    }

    /// Whether a value is the built-in one.
    pub fn is_default(&self, value: &Value) -> bool {
        self.default().as_ref() == Some(value)
    }

    /// Whether a number is in the option's range.
    pub fn contains(&self, number: f64) -> bool {
        number.is_finite() && self.range.contains(&number)
    }

    /// Checks a number, or each of several, against the option's range; anything else is valid.
    ///
    /// # Errors
    /// [`OutOfRange`] for a number outside the range, and for NaN.
    pub fn check(&self, value: &Value) -> Result<(), OutOfRange> {
        let number = match *value {
            Value::Whole(number) => number as f64,
            Value::Single(number) => number.into(),
            Value::Double(number) => number,
            Value::Biases(ref biases) => {
                let wrong = biases.iter().find(|&(_, &bias)| !self.contains(bias.into()));
                return wrong.map_or(Ok(()), |(id, bias)| Err(self.out_of_range(format!("{bias} for token {id}"))));
            }
            _ => return Ok(()),
        };
        if self.contains(number) { Ok(()) } else { Err(self.out_of_range(value)) }
    }

    fn out_of_range(&self, value: impl ToString) -> OutOfRange {
        OutOfRange::new(self.name, self.range_in_words(), value)
    }

    /// The range in words that follow "must be".
    fn range_in_words(&self) -> String {
        let whole = matches!(self.kind, Kind::Whole { .. } | Kind::Count);
        let finite = (!whole && self.range.1 == Bound::Unbounded).then(|| "finite".to_string());
        let least = match self.range.0 {
            Bound::Included(least) => Some(format!("at least {least}")),
            Bound::Excluded(limit) => Some(format!("above {limit}")),
            Bound::Unbounded => None,
        };
        let most = match self.range.1 {
            Bound::Included(most) => Some(format!("at most {most}")),
            Bound::Excluded(limit) => Some(format!("below {limit}")),
            Bound::Unbounded => None,
        };
        [finite, least, most].into_iter().flatten().collect::<Vec<_>>().join(" and ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::Bound::{Excluded, Included, Unbounded};

    #[test]
    fn ranges_are_put_into_words() {
        let words = |kind, range| Spec { kind, range, ..Spec::ROW }.range_in_words();
        assert_eq!(words(Kind::Single, (Unbounded, Unbounded)), "finite");
        assert_eq!(words(Kind::Single, (Excluded(0.0), Unbounded)), "finite and above 0");
        assert_eq!(words(Kind::Double, (Included(0.0), Excluded(1.0))), "at least 0 and below 1");
        assert_eq!(words(Kind::Count, (Included(1.0), Unbounded)), "at least 1");
    }

    #[test]
    fn nan_and_infinity_are_in_no_range() {
        for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(!Spec::ROW.contains(number));
        }
    }
}
