//! JSON files of a model directory, read key by key with errors that name file, key and value.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::config_keys::is_opaque;
use super::error::{ModelError, clip};
use super::files::Files;

/// A JSON object and where it came from.
pub(crate) struct JsonFile {
    pub(crate) path: PathBuf,
    pub(crate) map: Map<String, Value>,
}

impl JsonFile {
    /// Reads a file; `None` if there is none.
    pub(crate) fn read(files: &dyn Files, path: PathBuf) -> Result<Option<Self>, ModelError> {
        const LONGEST: u64 = 16 << 20;
        let bytes = match files.start(&path, LONGEST + 1) {
            Ok(bytes) => bytes,
            Err(ModelError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        if bytes.len() as u64 > LONGEST {
            return Err(ModelError::Json { path, found: "longer than 16 MiB".to_owned() });
        }
        Self::parse(&path, &bytes).map(Some)
    }

    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, ModelError> {
        let error = |found| ModelError::Json { path: path.to_owned(), found };
        // Editors on Windows begin a file with one.
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        if bytes.is_empty() {
            return Err(error("the file is empty".to_owned()));
        }
        let strict = serde_json::from_slice(bytes);
        match strict.or_else(|reason| serde_json::from_slice(&without_infinities(bytes)).map_err(|_| reason)) {
            Ok(Value::Object(map)) => Ok(Self { path: path.to_owned(), map }),
            Ok(value) => Err(error(format!("is {}", kind(&value)))),
            Err(reason) => Err(error(format!("not valid JSON ({reason})"))),
        }
    }

    /// The value of a key; null is the same as no key, and so is what a pickle's object stands for.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null() && !is_opaque(value))
    }

    pub(crate) fn integer(&self, key: &'static str, range: RangeInclusive<u64>) -> Result<Option<u64>, ModelError> {
        self.value(key, || whole_number(&range), |value| whole(value).filter(|number| range.contains(number)))
    }

    pub(crate) fn number(
        &self,
        key: &'static str,
        expected: &str,
        valid: impl Fn(f32) -> bool,
    ) -> Result<Option<f32>, ModelError> {
        self.value(
            key,
            || expected.to_owned(),
            |value| value.as_f64().map(|number| number as f32).filter(|number| number.is_finite() && valid(*number)),
        )
    }

    pub(crate) fn boolean(&self, key: &'static str) -> Result<Option<bool>, ModelError> {
        self.value(key, || "true or false".to_owned(), Value::as_bool)
    }

    /// Token ids, given as one number or a list; −1 is none.
    pub(crate) fn token_ids(&self, key: &'static str) -> Result<Option<Vec<u32>>, ModelError> {
        let id = |value: &Value| match value.as_f64() {
            Some(-1.0) => Some(None),
            _ => whole(value).and_then(|id| u32::try_from(id).ok()).map(Some),
        };
        let ids: Option<Vec<Option<u32>>> = self.value(
            key,
            || "a token id or a list of token ids".to_owned(),
            |value| match value {
                Value::Array(list) => list.iter().map(id).collect(),
                one => id(one).map(|id| vec![id]),
            },
        )?;
        Ok(ids.map(|ids| ids.into_iter().flatten().collect()))
    }

    /// Converts the value of a key, if there is one.
    pub(crate) fn value<T>(
        &self,
        key: &'static str,
        expected: impl Fn() -> String,
        convert: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match convert(value) {
            Some(converted) => Ok(Some(converted)),
            None => Err(ModelError::InvalidValue {
                path: self.path.clone(),
                key,
                found: clip(&value.to_string()),
                expected: expected(),
            }),
        }
    }
}

/// A whole number from 0, also where it is written as 4.0.
pub(crate) fn whole(value: &Value) -> Option<u64> {
    /// Up to here every whole number is an f64.
    const EXACT: f64 = (1u64 << 53) as f64;
    let float = || value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..=EXACT).contains(number));
    value.as_u64().or_else(|| float().map(|number| number as u64))
}

/// A JSON text with the numbers that only Python writes, NaN, Infinity and -Infinity, as texts.
fn without_infinities(bytes: &[u8]) -> Vec<u8> {
    const NUMBERS: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];
    let mut out = Vec::with_capacity(bytes.len());
    let (mut at, mut quoted) = (0, false);
    while let Some(&byte) = bytes.get(at) {
        let rest = &bytes[at..];
        let length = match byte {
            b'\\' if quoted => rest.len().min(2),
            b'"' => {
                quoted = !quoted;
                1
            }
            _ if quoted => 1,
            _ => match NUMBERS.iter().find(|number| rest.starts_with(number)) {
                Some(number) => {
                    out.extend([b"\"", *number, b"\""].concat());
                    at += number.len();
                    continue;
                }
                None => 1,
            },
        };
        out.extend_from_slice(&rest[..length]);
        at += length;
    }
    out
}

/// How messages call a range of whole numbers.
pub(crate) fn whole_number(range: &RangeInclusive<u64>) -> String {
    match range.end() {
        &u64::MAX => format!("a whole number from {}", range.start()),
        end => format!("a whole number from {} to {end}", range.start()),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_peoples_tools_write_is_read() {
        let read = |text: &str| JsonFile::parse(Path::new("a.json"), text.as_bytes()).map(|json| Value::from(json.map));
        let plain = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(read("\u{feff}{\"a\": 1}").unwrap(), plain("{\"a\": 1}"));
        let python = r#"{"a": NaN, "b": [-Infinity, Infinity], "NaN \" NaN \\": "Infinity \\", "c": 1}"#;
        let quoted = r#"{"a": "NaN", "b": ["-Infinity", "Infinity"], "NaN \" NaN \\": "Infinity \\", "c": 1}"#;
        assert_eq!(read(python).unwrap(), plain(quoted));
        let message = read("{\"a\": NaN, }").unwrap_err().to_string();
        assert!(message.starts_with("a.json: not valid JSON (expected value at line 1 column 7)"), "{message}");
    }

    #[test]
    fn whole_numbers_may_be_written_as_floats() {
        for (text, expected) in [
            ("4", Some(4)),
            ("4.0", Some(4)),
            ("1e3", Some(1000)),
            ("18446744073709551615", Some(u64::MAX)),
            ("-0.0", Some(0)),
            ("4.5", None),
            ("-1", None),
            ("1e300", None),
            ("\"4\"", None),
        ] {
            assert_eq!(whole(&serde_json::from_str(text).unwrap()), expected, "{text}");
        }
    }
}
