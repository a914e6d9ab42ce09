//! JSON files of a model directory, read key by key with errors that name file, key and value.

use std::io::Read;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::error::{ModelError, clip};
use super::storage::open_regular;

/// A JSON object and where it came from.
pub(crate) struct JsonFile {
    pub(crate) path: PathBuf,
    pub(crate) map: Map<String, Value>,
}

impl JsonFile {
    /// Reads a file; `None` if there is none.
    pub(crate) fn read(path: PathBuf) -> Result<Option<Self>, ModelError> {
        const LONGEST: u64 = 16 << 20;
        let (file, _) = match open_regular(&path) {
            Ok(opened) => opened,
            Err(ModelError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        if let Err(source) = file.take(LONGEST + 1).read_to_end(&mut bytes) {
            return Err(ModelError::Io { path, source });
        }
        if bytes.len() as u64 > LONGEST {
            return Err(ModelError::Json { path, found: "longer than 16 MiB".to_owned() });
        }
        Self::parse(&path, &bytes).map(Some)
    }

    pub(crate) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, ModelError> {
        let error = |found| ModelError::Json { path: path.to_owned(), found };
        if bytes.is_empty() {
            return Err(error("the file is empty".to_owned()));
        }
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(map)) => Ok(Self { path: path.to_owned(), map }),
            Ok(value) => Err(error(format!("is {}", kind(&value)))),
            Err(reason) => Err(error(format!("not valid JSON ({reason})"))),
        }
    }

    /// The value of a key; null is the same as no key.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn integer(&self, key: &'static str, range: RangeInclusive<u64>) -> Result<Option<u64>, ModelError> {
        self.value(key, || whole_number(&range), |value| value.as_u64().filter(|number| range.contains(number)))
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

    /// Token ids, given as one number or a list.
    pub(crate) fn token_ids(&self, key: &'static str) -> Result<Option<Vec<u32>>, ModelError> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        self.value(
            key,
            || "a token id or a list of token ids".to_owned(),
            |value| match value {
                Value::Array(list) => list.iter().map(id).collect(),
                one => id(one).map(|id| vec![id]),
            },
        )
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
