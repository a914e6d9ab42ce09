//! A vocabulary of characters, as training scripts keep it: `chars`, `stoi` or `itos`, in the configuration or in the
//! checkpoint.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::error::{ModelError, clip};
use super::json::whole;
use crate::tokenizer::Tokenizer;

/// Keys that describe a vocabulary, the first present one counts: ids to texts, texts to ids, or the characters in
/// the order of their ids.
pub(super) const VOCABULARY: [&str; 3] = ["itos", "stoi", "chars"];

/// The tokenizer that a configuration or a checkpoint describes; `None` if it describes none.
pub(super) fn tokenizer(
    map: &Map<String, Value>,
    path: &Path,
    vocab_size: usize,
) -> Result<Option<Tokenizer>, ModelError> {
    let Some((key, value)) = VOCABULARY.iter().find_map(|&key| Some((key, map.get(key).filter(|v| !v.is_null())?)))
    else {
        return Ok(None);
    };
    let error = |found: String| ModelError::InvalidValue {
        path: path.to_owned(),
        key,
        found,
        expected: format!("ids below vocab_size {vocab_size}, each with one text"),
    };
    let mut texts = BTreeMap::new();
    let pairs = pairs(value).ok_or_else(|| error(clip(&value.to_string())))?;
    for (text, id) in pairs {
        let Some(id) = u32::try_from(id).ok().filter(|&id| (id as usize) < vocab_size) else {
            return Err(error(format!("{} for {:?}", id, clip(&text))));
        };
        if let Some(other) = texts.insert(id, text.clone()) {
            return Err(error(format!("{id} for {:?} and {:?}", clip(&other), clip(&text))));
        }
    }
    match Tokenizer::characters(texts, vocab_size) {
        Ok(tokenizer) => Ok(Some(tokenizer)),
        Err(text) => Err(ModelError::InvalidValue {
            path: path.to_owned(),
            key,
            found: format!("a vocabulary with {:?}", clip(&text)),
            expected: "every character once; other tokens between < and > or [ and ]".to_owned(),
        }),
    }
}

/// Texts and their ids.
fn pairs(value: &Value) -> Option<Vec<(String, u64)>> {
    match value {
        Value::String(chars) => Some(chars.chars().map(String::from).zip(0..).collect()),
        Value::Array(texts) => texts.iter().zip(0..).map(|(text, id)| Some((text.as_str()?.to_owned(), id))).collect(),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| match value {
                Value::String(text) => Some((text.clone(), key.parse().ok()?)),
                id => Some((key.clone(), whole(id)?)),
            })
            .collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: Value) -> Result<Option<Tokenizer>, String> {
        let Value::Object(map) = value else { panic!("an object") };
        tokenizer(&map, Path::new("config.json"), 5).map_err(|error| error.to_string())
    }

    #[test]
    fn every_way_to_write_a_vocabulary_gives_the_same_ids() {
        for value in [
            json!({ "chars": "\nabé" }),
            json!({ "chars": ["\n", "a", "b", "é"] }),
            json!({ "stoi": { "a": 1, "\n": 0, "é": 3, "b": 2.0 } }),
            json!({ "itos": { "1": "a", "0": "\n", "3": "é", "2": "b" }, "chars": "zzz" }),
            json!({ "itos": ["\n", "a", "b", "é", "<end>"], "stoi": null }),
        ] {
            let tokenizer = read(value).unwrap().unwrap();
            assert_eq!(tokenizer.encode("béa\n".as_bytes()).unwrap(), [2, 3, 1, 0]);
            assert_eq!(tokenizer.decode(&[2, 3, 4, 1, 0]), "béa\n");
        }
        assert!(read(json!({ "vocab_size": 5, "chars": null })).unwrap().is_none());
    }

    #[test]
    fn what_is_no_vocabulary_is_refused() {
        for (value, expected) in [
            (json!({ "chars": 7 }), "\"chars\" is 7, expected ids below vocab_size 5"),
            (json!({ "chars": ["a", 1] }), "\"chars\" is [\"a\",1], expected"),
            (json!({ "chars": "abcdef" }), "\"chars\" is 5 for \"f\", expected ids below vocab_size 5"),
            (json!({ "stoi": { "a": -1 } }), "\"stoi\" is {\"a\":-1}, expected"),
            (json!({ "stoi": { "a": 1, "b": 1 } }), "\"stoi\" is 1 for \"a\" and \"b\", expected"),
            (json!({ "itos": { "x": "a" } }), "\"itos\" is {\"x\":\"a\"}, expected"),
            (json!({ "chars": "aa" }), "\"chars\" is a vocabulary with \"a\", expected every character once"),
            (json!({ "chars": ["the"] }), "\"chars\" is a vocabulary with \"the\", expected every character once"),
        ] {
            let message = read(value).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }
}
