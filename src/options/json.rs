//! Values of options in JSON: requests to a server, calls from a page.

use super::{EarlyStopping, Kind, Spec, Value, specs};
use serde_json::Value as Json;

impl Spec {
    /// A JSON value as one of the option, as clients of servers write it. Its range is not checked.
    pub fn from_json(&self, value: &Json) -> Option<Value> {
        Some(match self.kind {
            Kind::Switch => Value::Switch(value.as_bool()?),
            // Clients have signed seeds.
            Kind::Whole { .. } if self.name == specs::seed.name => {
                Value::Whole(whole(value).or_else(|| value.as_i64().map(i64::cast_unsigned))?)
            }
            // Some servers switch it off so.
            Kind::Whole { .. } if self.name == specs::top_k.name && value.as_i64() == Some(-1) => Value::Whole(0),
            Kind::Whole { largest } => Value::Whole(whole(value).filter(|number| *number <= largest)?),
            Kind::Count => Value::Whole(whole(value)?),
            Kind::Single => Value::Single(value.as_f64()? as f32),
            Kind::Double => Value::Double(value.as_f64()?),
            Kind::Stopping => Value::Stopping(match value {
                Json::Bool(true) => EarlyStopping::WhenEnoughEnded,
                Json::Bool(false) => EarlyStopping::WhenUnlikely,
                Json::String(word) if word == "never" => EarlyStopping::Never,
                _ => return None,
            }),
            Kind::Texts => Value::Texts(match value {
                Json::String(text) => vec![text.clone()],
                Json::Array(texts) => {
                    texts.iter().map(|text| Some(text.as_str()?.to_owned())).collect::<Option<_>>()?
                }
                _ => return None,
            }),
            Kind::Ids => Value::Ids(match value {
                Json::Array(_) => ids(value)?,
                one => vec![whole(one)?.try_into().ok()?],
            }),
            Kind::Biases => {
                let bias = |(id, bias): (&String, &Json)| Some((id.parse().ok()?, bias.as_f64()? as f32));
                Value::Biases(value.as_object()?.iter().map(bias).collect::<Option<_>>()?)
            }
        })
    }
}

/// A whole number, also one written as 3.0.
pub(crate) fn whole(value: &Json) -> Option<u64> {
    let exact =
        |number: f64| (number >= 0.0 && number.fract() == 0.0 && number < 2f64.powi(53)).then_some(number as u64);
    value.as_u64().or_else(|| value.as_f64().and_then(exact))
}

/// A list of token ids.
pub(crate) fn ids(value: &Json) -> Option<Vec<u32>> {
    value.as_array()?.iter().map(|id| whole(id)?.try_into().ok()).collect()
}
