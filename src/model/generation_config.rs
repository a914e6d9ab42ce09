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

/// What generation_config.json says; `None` where it says nothing. Ranges are checked on reading.
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

    /// Reads the known keys of a file. Unknown keys are ignored.
    pub(crate) fn from_json(json: &JsonFile) -> Result<Self, ModelError> {
        let count = |key, least| {
            let number = json.integer(key, least..=u64::from(u32::MAX))?;
            Ok(number.and_then(|number| usize::try_from(number).ok()))
        };
        Ok(Self {
            max_new_tokens: count("max_new_tokens", 0)?,
            min_new_tokens: count("min_new_tokens", 0)?,
            do_sample: json.boolean("do_sample")?,
            temperature: json.number("temperature", "a number ≥ 0", |t| t >= 0.0)?,
            top_k: count("top_k", 0)?,
            top_p: json.number("top_p", "a number > 0 and ≤ 1", |p| p > 0.0 && p <= 1.0)?,
            min_p: json.number("min_p", "a number from 0 to 1", |p| (0.0..=1.0).contains(&p))?,
            repetition_penalty: json.number("repetition_penalty", "a number > 0", |r| r > 0.0)?,
            presence_penalty: json.number("presence_penalty", "a finite number", |_| true)?,
            frequency_penalty: json.number("frequency_penalty", "a finite number", |_| true)?,
            num_beams: count("num_beams", 1)?,
            length_penalty: json.number("length_penalty", "a finite number", |_| true)?,
            early_stopping: json.value(
                "early_stopping",
                || "true, false or \"never\"".to_owned(),
                |value| match value {
                    Value::Bool(true) => Some(EarlyStopping::WhenEnoughEnded),
                    Value::Bool(false) => Some(EarlyStopping::WhenUnlikely),
                    Value::String(text) if text == "never" => Some(EarlyStopping::Never),
                    _ => None,
                },
            )?,
            num_return_sequences: count("num_return_sequences", 1)?,
            eos_token_id: json.token_ids("eos_token_id")?,
            bos_token_id: json.token_ids("bos_token_id")?.and_then(|ids| ids.first().copied()),
            seed: json.integer("seed", 0..=u64::MAX)?,
        })
    }
}
