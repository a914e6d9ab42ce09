//! Default generation options that come with a model.

use super::error::ModelError;
use super::json::JsonFile;
use crate::options::{self, EarlyStopping, Kind, Range, Request, Spec};
use serde_json::{Map, Value};
use std::ops::Bound;

/// What generation_config.json says; `None` where it says nothing, or nothing that can be used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// The options that the file gives. An empty list of end-of-sequence ids says that there are
    /// none.
    pub options: Request,
    /// Texts to return per prompt, ≥ 1.
    pub num_return_sequences: Option<usize>,
    /// Token a generation without a prompt starts from.
    pub bos_token_id: Option<u32>,
    /// Keys whose values cannot be used, and why.
    problems: Vec<(&'static str, String)>,
}

impl GenerationConfig {
    /// The keys that are set, as generation_config.json has them.
    pub(crate) fn to_json(&self) -> Map<String, Value> {
        let option = |spec: &'static Spec| Some((spec.name, spec.given(&self.options)?.to_json()));
        let others = [
            ("num_return_sequences", self.num_return_sequences.map(Value::from)),
            ("bos_token_id", self.bos_token_id.map(Value::from)),
        ];
        let options = options::in_help_order().filter_map(option);
        let set = options.chain(others.into_iter().filter_map(|(key, value)| Some((key, value?))));
        set.map(|(key, value)| (key.to_owned(), value)).collect()
    }

    /// Reads the known keys of a file. Values that cannot be used are left out and kept as problems, for whoever uses
    /// them; a note names these, and another one the keys that Hugging Face's library obeys and this one does not.
    pub(crate) fn from_json(json: &JsonFile) -> (Self, Vec<String>) {
        let mut config = Self::default();
        for spec in options::in_help_order().filter(|spec| spec.in_file) {
            let value = config.kept(spec.name, read(json, spec));
            let given = value.map(|value| spec.give(&mut config.options, value));
            if let Some(Err(error)) = given {
                config.problems.push((spec.name, error.to_string()));
            }
        }
        let count = json.integer("num_return_sequences", 1..=u64::from(u32::MAX));
        config.num_return_sequences =
            config.kept("num_return_sequences", count).and_then(|count| usize::try_from(count).ok());
        let ids = config.kept("bos_token_id", json.token_ids("bos_token_id"));
        config.bos_token_id = ids.and_then(|ids| ids.first().copied());
        let problems = config.problems.iter();
        let mut notes: Vec<String> = problems.map(|(_, message)| format!("{message}; it is not used")).collect();
        notes.extend(not_obeyed(json));
        (config, notes)
    }

    /// The value that was read; what is wrong with it is kept as a problem.
    fn kept<T>(&mut self, key: &'static str, read: Result<Option<T>, ModelError>) -> Option<T> {
        read.unwrap_or_else(|error| {
            self.problems.push((key, error.to_string()));
            None
        })
    }

    /// Why a key's value cannot be used, in one line that names the file; `None` if it can, or is not given.
    pub fn problem(&self, key: &str) -> Option<&str> {
        self.problems.iter().find(|(name, _)| *name == key).map(|(_, message)| message.as_str())
    }
}

/// Reads an option.
fn read(json: &JsonFile, spec: &Spec) -> Result<Option<options::Value>, ModelError> {
    use options::Value::{Double, Ids, Single, Stopping, Switch, Texts, Whole};
    let key = spec.name;
    let whole = |largest: u64| {
        let least = if let Bound::Included(least) = spec.range.0 { least as u64 } else { 0 };
        json.integer(key, least..=largest)
    };
    let number = || in_words(spec.range);
    Ok(match spec.kind {
        Kind::Switch => json.boolean(key)?.map(Switch),
        // Some servers switch it off so.
        _ if key == options::specs::top_k.name && json.get(key).and_then(Value::as_f64) == Some(-1.0) => Some(Whole(0)),
        Kind::Whole { largest } => whole(largest)?.map(Whole),
        Kind::Count => whole(u32::MAX.into())?.map(Whole),
        Kind::Single => json.number(key, &number(), |value| spec.contains(value.into()))?.map(Single),
        Kind::Double => {
            let valid = |value: &Value| value.as_f64().filter(|&number| spec.contains(number));
            json.value(key, number, valid)?.map(Double)
        }
        Kind::Stopping => {
            let word = |value: &Value| match value {
                Value::Bool(true) => Some(EarlyStopping::WhenEnoughEnded),
                Value::Bool(false) => Some(EarlyStopping::WhenUnlikely),
                Value::String(word) if word == "never" => Some(EarlyStopping::Never),
                _ => None,
            };
            json.value(key, || spec.kind.to_string(), word)?.map(Stopping)
        }
        Kind::Texts => {
            let texts = |value: &Value| value.as_array()?.iter().map(|text| Some(text.as_str()?.to_owned())).collect();
            json.value(key, || "a list of texts".to_owned(), texts)?.map(Texts)
        }
        Kind::Ids => json.token_ids(key)?.map(Ids),
        // Not in files.
        Kind::Biases => None,
    })
}

/// How messages call a range of numbers.
fn in_words(range: Range) -> String {
    let least = match range.0 {
        Bound::Included(least) => Some(format!("≥ {least}")),
        Bound::Excluded(limit) => Some(format!("> {limit}")),
        Bound::Unbounded => None,
    };
    let most = match range.1 {
        Bound::Included(most) => Some(format!("≤ {most}")),
        Bound::Excluded(limit) => Some(format!("< {limit}")),
        Bound::Unbounded => None,
    };
    match (range, least, most) {
        ((Bound::Included(least), Bound::Included(most)), ..) => format!("a number from {least} to {most}"),
        (_, None, None) => "a finite number".to_owned(),
        (_, Some(least), Some(most)) => format!("a number {least} and {most}"),
        (_, least, most) => format!("a number {}", least.or(most).unwrap_or_default()),
    }
}

/// Keys that Hugging Face's library obeys, with the number that switches each off, if one does.
const OTHERS_OBEY: [(&str, Option<f64>); 24] = [
    ("bad_words_ids", None),
    ("begin_suppress_tokens", None),
    ("constraints", None),
    ("diversity_penalty", Some(0.0)),
    ("dola_layers", None),
    ("encoder_no_repeat_ngram_size", Some(0.0)),
    ("encoder_repetition_penalty", Some(1.0)),
    ("epsilon_cutoff", Some(0.0)),
    ("eta_cutoff", Some(0.0)),
    ("exponential_decay_length_penalty", None),
    ("force_words_ids", None),
    ("forced_bos_token_id", None),
    ("forced_eos_token_id", None),
    ("guidance_scale", Some(1.0)),
    ("max_length", Some(20.0)),
    ("max_time", None),
    ("min_length", Some(0.0)),
    ("no_repeat_ngram_size", Some(0.0)),
    ("num_beam_groups", Some(1.0)),
    ("penalty_alpha", Some(0.0)),
    ("sequence_bias", None),
    ("stop_strings", None),
    ("suppress_tokens", None),
    ("typical_p", Some(1.0)),
];

/// A note about the keys in effect that other programs obey.
fn not_obeyed(json: &JsonFile) -> Option<String> {
    let in_effect = |key: &str, off: Option<f64>| match json.get(key) {
        None | Some(Value::Bool(false)) => false,
        Some(Value::Array(list)) => !list.is_empty(),
        // There, the number of new tokens wins.
        Some(_) if key == "max_length" && json.get("max_new_tokens").is_some() => false,
        Some(value) => off.is_none() || value.as_f64() != off,
    };
    let ignored = OTHERS_OBEY.iter().filter(|(key, _)| options::find(key).is_none());
    let keys: Vec<String> =
        ignored.filter(|&&(key, off)| in_effect(key, off)).map(|(key, _)| format!("{key:?}")).collect();
    if keys.is_empty() {
        return None;
    }
    Some(format!("{}: not used, though other programs obey: {}", json.path.display(), keys.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn notes(text: &str) -> Vec<String> {
        GenerationConfig::from_json(&JsonFile::parse(Path::new("g.json"), text.as_bytes()).unwrap()).1
    }

    #[test]
    fn keys_that_only_others_obey_are_named() {
        let all = r#"{"stop_strings": ["d"], "max_length": 3, "suppress_tokens": [99], "no_repeat_ngram_size": 2}"#;
        assert_eq!(
            notes(all),
            ["g.json: not used, though other programs obey: \"max_length\", \"no_repeat_ngram_size\", \
              \"stop_strings\", \"suppress_tokens\""]
        );
        let off = r#"{"stop_strings": null, "max_length": 20, "suppress_tokens": [], "no_repeat_ngram_size": 0,
            "typical_p": 1.0, "guidance_scale": 1, "forced_eos_token_id": null, "use_cache": true}"#;
        assert!(notes(off).is_empty());
        assert!(notes(r#"{"max_length": 512, "max_new_tokens": 9}"#).is_empty());
        assert!(OTHERS_OBEY.is_sorted_by_key(|(key, _)| *key));
    }

    #[test]
    fn values_that_cannot_be_used_are_left_out() {
        let json = JsonFile::parse(Path::new("g.json"), br#"{"top_p": 0, "top_k": -1, "eos_token_id": -1}"#).unwrap();
        let (config, notes) = GenerationConfig::from_json(&json);
        let problem = "g.json: key \"top_p\" is 0, expected a number > 0 and ≤ 1";
        assert_eq!((config.options.top_p, config.problem("top_p")), (None, Some(problem)));
        assert_eq!((config.options.top_k, config.options.eos_token_id.as_deref()), (Some(0), Some(&[][..])));
        assert_eq!((config.problem("top_k"), notes), (None, vec![format!("{problem}; it is not used")]));
    }
}
