//! The fields of a JSON object, taken one by one.

use super::error::ApiError;
use crate::options::{ids, whole};
use axum::body::Bytes;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// A request's object. `null` means absent.
pub(super) struct Fields {
    object: Map<String, Value>,
    known: BTreeSet<&'static str>,
}

impl Fields {
    /// The object in a body; none at all counts as an empty one.
    pub fn of_body(body: &Bytes) -> Result<Self, ApiError> {
        if body.trim_ascii().is_empty() {
            return Ok(Self::of(Map::new()));
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(object)) => Ok(Self::of(object)),
            Ok(_) => Err(ApiError::new(axum::http::StatusCode::BAD_REQUEST, "the body must be a JSON object")),
            Err(error) => {
                Err(ApiError::new(axum::http::StatusCode::BAD_REQUEST, format!("the body is not valid JSON: {error}")))
            }
        }
    }

    /// The fields of an object.
    pub fn of(object: Map<String, Value>) -> Self {
        Self { object, known: BTreeSet::new() }
    }

    /// Puts a value in a field's place.
    pub fn set(&mut self, name: &str, value: Value) {
        self.object.insert(name.to_owned(), value);
    }

    /// A field's value as it is.
    pub fn value(&mut self, name: &'static str) -> Option<&Value> {
        self.known.insert(name);
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// A field, as `read` understands it; `expected` says what that is.
    pub fn take<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        match read(value) {
            Some(read) => Ok(Some(read)),
            None => Err(ApiError::invalid(name, format!("{name} must be {expected}, got {}", shown(value)))),
        }
    }

    /// A text.
    pub fn text(&mut self, name: &'static str) -> Result<Option<String>, ApiError> {
        self.take(name, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// True or false.
    pub fn switch(&mut self, name: &'static str) -> Result<Option<bool>, ApiError> {
        self.take(name, "true or false", Value::as_bool)
    }

    /// A whole number of a range. Numbers such as 3.0 count as whole.
    pub fn whole(&mut self, name: &'static str, least: u64, most: u64) -> Result<Option<u64>, ApiError> {
        let expected = format!("a whole number from {least} to {most}");
        self.take(name, &expected, |value| whole(value).filter(|number| (least..=most).contains(number)))
    }

    /// A list of token ids.
    pub fn ids(&mut self, name: &'static str) -> Result<Option<Vec<u32>>, ApiError> {
        self.take(name, "a list of token ids", ids)
    }

    /// An object in a field.
    pub fn object(&mut self, name: &'static str) -> Result<Option<Self>, ApiError> {
        Ok(self.take(name, "an object", |value| value.as_object().cloned())?.map(Self::of))
    }

    /// The fields that somebody has asked for.
    #[cfg(test)]
    pub fn known(&self) -> BTreeSet<String> {
        self.known.iter().map(|name| (*name).to_owned()).collect()
    }

    /// The fields that nobody has asked for.
    pub fn unknown(&self) -> Vec<&str> {
        self.object.keys().map(String::as_str).filter(|name| !self.known.contains(name)).collect()
    }
}

/// A value as messages show it: no longer than a line.
pub(super) fn shown(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &'static str) -> Fields {
        Fields::of_body(&Bytes::from_static(text.as_bytes())).unwrap()
    }

    #[test]
    fn null_is_absent_and_unknown_fields_are_named() {
        let mut all = fields(r#"{"n": null, "stop": "a", "other": 1, "seed": 3.0}"#);
        assert_eq!(all.whole("n", 1, 9).unwrap(), None);
        assert_eq!(all.text("stop").unwrap(), Some("a".to_owned()));
        assert_eq!(all.whole("seed", 0, u64::MAX).unwrap(), Some(3));
        assert_eq!(all.unknown(), ["other"]);
        assert!(fields("  ").unknown().is_empty());
    }

    #[test]
    fn values_of_another_kind_are_errors_that_name_the_field() {
        for (text, message) in [
            (r#"{"n": 0}"#, "n must be a whole number from 1 to 9, got 0"),
            (r#"{"n": 1.5}"#, "n must be a whole number from 1 to 9, got 1.5"),
            (r#"{"n": "1"}"#, "n must be a whole number from 1 to 9, got \"1\""),
        ] {
            let error = fields(text).whole("n", 1, 9).unwrap_err();
            assert_eq!(
                (error.body()["error"]["message"].as_str(), error.body()["error"]["param"].as_str()),
                (Some(message), Some("n"))
            );
        }
        assert!(Fields::of_body(&Bytes::from_static(b"[1]")).is_err());
        assert!(Fields::of_body(&Bytes::from_static(b"{")).is_err());
        assert!(ids(&serde_json::json!([1, 4_294_967_296_u64])).is_none());
    }
}
