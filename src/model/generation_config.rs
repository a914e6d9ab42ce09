//! Default generation options that come with a model.

use serde_json::{Map, Value};

use super::error::ModelError;
use super::json::JsonFile;

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

/// What generation_config.json says; `None` where it says nothing, or nothing that can be used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationConfig {
    /// Tokens to generate at most.
    pub max_new_tokens: Option<usize>,
    /// Tokens to generate before an end-of-sequence token may come.
    pub min_new_tokens: Option<usize>,
    /// Draw tokens (true) or take the likeliest (false).
    pub do_sample: Option<bool>,
    /// Divisor of the logits, ≥ 0; 0 takes the likeliest token.
    pub temperature: Option<f32>,
    /// Number of likeliest tokens to draw from; 0 is all.
    pub top_k: Option<usize>,
    /// Probability mass to draw from, in (0, 1].
    pub top_p: Option<f32>,
    /// Least probability relative to the likeliest token's, in [0, 1].
    pub min_p: Option<f32>,
    /// Factor against tokens of the prompt and the text, > 0; 1 does nothing.
    pub repetition_penalty: Option<f32>,
    /// Subtracted from the logits of tokens already generated.
    pub presence_penalty: Option<f32>,
    /// Subtracted from a generated token's logit for each time it was generated.
    pub frequency_penalty: Option<f32>,
    /// Beams, ≥ 1; 1 is no beam search.
    pub num_beams: Option<usize>,
    /// Exponent of the length that a beam's score is divided by.
    pub length_penalty: Option<f32>,
    /// When beam search stops.
    pub early_stopping: Option<EarlyStopping>,
    /// Texts to return per prompt, ≥ 1.
    pub num_return_sequences: Option<usize>,
    /// Tokens that end a text.
    pub eos_token_id: Option<Vec<u32>>,
    /// Token a generation without a prompt starts from.
    pub bos_token_id: Option<u32>,
    /// Seed of the random numbers.
    pub seed: Option<u64>,
    /// Keys whose values cannot be used, and why.
    problems: Vec<(&'static str, String)>,
}

impl GenerationConfig {
    /// The keys that are set, as generation_config.json has them.
    pub(crate) fn to_json(&self) -> Map<String, Value> {
        // 0.8 rather than the nearest f32 in all its digits.
        let decimal = |number: f32| number.to_string().parse::<f64>().map_or(Value::Null, Value::from);
        let stopping = self.early_stopping.map(|stopping| match stopping {
            EarlyStopping::WhenEnoughEnded => Value::from(true),
            EarlyStopping::WhenUnlikely => Value::from(false),
            EarlyStopping::Never => Value::from("never"),
        });
        let pairs = [
            ("max_new_tokens", self.max_new_tokens.map(Value::from)),
            ("min_new_tokens", self.min_new_tokens.map(Value::from)),
            ("do_sample", self.do_sample.map(Value::from)),
            ("temperature", self.temperature.map(decimal)),
            ("top_k", self.top_k.map(Value::from)),
            ("top_p", self.top_p.map(decimal)),
            ("min_p", self.min_p.map(decimal)),
            ("repetition_penalty", self.repetition_penalty.map(decimal)),
            ("presence_penalty", self.presence_penalty.map(decimal)),
            ("frequency_penalty", self.frequency_penalty.map(decimal)),
            ("num_beams", self.num_beams.map(Value::from)),
            ("length_penalty", self.length_penalty.map(decimal)),
            ("early_stopping", stopping),
            ("num_return_sequences", self.num_return_sequences.map(Value::from)),
            ("eos_token_id", self.eos_token_id.clone().map(Value::from)),
            ("bos_token_id", self.bos_token_id.map(Value::from)),
            ("seed", self.seed.map(Value::from)),
        ];
        let set = pairs.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        set.collect()
    }

    /// Reads the known keys of a file. Values that cannot be used are left out and kept as problems, for whoever uses
    /// them; a note names these, and another one the keys that Hugging Face's library obeys and this one does not.
    pub(crate) fn from_json(json: &JsonFile) -> (Self, Vec<String>) {
        let mut problems = Vec::new();
        let mut options = Self::default();
        {
            let mut read = Reader { json, problems: &mut problems };
            options.max_new_tokens = read.count("max_new_tokens", 0);
            options.min_new_tokens = read.count("min_new_tokens", 0);
            options.do_sample = read.value("do_sample", |json, key| json.boolean(key));
            options.temperature = read.number("temperature", "a number ≥ 0", |t| t >= 0.0);
            options.top_k = match json.get("top_k").and_then(Value::as_f64) {
                // Some servers switch it off so.
                Some(-1.0) => Some(0),
                _ => read.count("top_k", 0),
            };
            options.top_p = read.number("top_p", "a number > 0 and ≤ 1", |p| p > 0.0 && p <= 1.0);
            options.min_p = read.number("min_p", "a number from 0 to 1", |p| (0.0..=1.0).contains(&p));
            options.repetition_penalty = read.number("repetition_penalty", "a number > 0", |r| r > 0.0);
            options.presence_penalty = read.number("presence_penalty", "a finite number", |_| true);
            options.frequency_penalty = read.number("frequency_penalty", "a finite number", |_| true);
            options.num_beams = read.count("num_beams", 1);
            options.length_penalty = read.number("length_penalty", "a finite number", |_| true);
            options.early_stopping = read.value("early_stopping", |json, key| {
                json.value(
                    key,
                    || "true, false or \"never\"".to_owned(),
                    |value| match value {
                        Value::Bool(true) => Some(EarlyStopping::WhenEnoughEnded),
                        Value::Bool(false) => Some(EarlyStopping::WhenUnlikely),
                        Value::String(text) if text == "never" => Some(EarlyStopping::Never),
                        _ => None,
                    },
                )
            });
            options.num_return_sequences = read.count("num_return_sequences", 1);
            options.eos_token_id = read.value("eos_token_id", |json, key| json.token_ids(key));
            options.bos_token_id =
                read.value("bos_token_id", |json, key| json.token_ids(key)).and_then(|ids| ids.first().copied());
            options.seed = read.value("seed", |json, key| json.integer(key, 0..=u64::MAX));
        }
        let mut notes: Vec<String> = problems.iter().map(|(_, message)| format!("{message}; it is not used")).collect();
        notes.extend(not_obeyed(json));
        options.problems = problems;
        (options, notes)
    }

    /// Why a key's value cannot be used, in one line that names the file; `None` if it can, or is not given.
    pub fn problem(&self, key: &str) -> Option<&str> {
        self.problems.iter().find(|(name, _)| *name == key).map(|(_, message)| message.as_str())
    }
}

/// Reads keys, and keeps what is wrong with them.
struct Reader<'a> {
    json: &'a JsonFile,
    problems: &'a mut Vec<(&'static str, String)>,
}

impl Reader<'_> {
    fn value<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&JsonFile, &'static str) -> Result<Option<T>, ModelError>,
    ) -> Option<T> {
        read(self.json, key).unwrap_or_else(|error| {
            self.problems.push((key, error.to_string()));
            None
        })
    }

    fn count(&mut self, key: &'static str, least: u64) -> Option<usize> {
        let number = self.value(key, |json, key| json.integer(key, least..=u64::from(u32::MAX)));
        number.and_then(|number| usize::try_from(number).ok())
    }

    fn number(&mut self, key: &'static str, expected: &str, valid: impl Fn(f32) -> bool) -> Option<f32> {
        self.value(key, |json, key| json.number(key, expected, valid))
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
    let keys: Vec<String> =
        OTHERS_OBEY.iter().filter(|&&(key, off)| in_effect(key, off)).map(|(key, _)| format!("{key:?}")).collect();
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
        let (options, notes) = GenerationConfig::from_json(&json);
        let problem = "g.json: key \"top_p\" is 0, expected a number > 0 and ≤ 1";
        assert_eq!((options.top_p, options.problem("top_p")), (None, Some(problem)));
        assert_eq!((options.top_k, options.eos_token_id.as_deref()), (Some(0), Some(&[][..])));
        assert_eq!((options.problem("top_k"), notes), (None, vec![format!("{problem}; it is not used")]));
    }
}
