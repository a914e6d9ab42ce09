//! What a completion request asks for.

use crate::generation::engine::Neurons;
use crate::generation::{Bdh, GenerationError, Settings, Snapshot};
use crate::options::Request;
use crate::options::ids;
use crate::server::error::ApiError;
use crate::server::fields::{Fields, shown};
use crate::server::{neurons, options};
use crate::tokenizer::TextStream;
use serde_json::Value;
use std::sync::Arc;

/// Tokens to generate unless a request says otherwise, as in the OpenAI API.
const MAX_TOKENS: usize = 16;
/// Sequences per prompt at most.
const MAX_SEQUENCES: u64 = 128;
/// Prompts of a request at most, and sequences in all.
const MAX_PROMPTS: usize = 2048;
const MAX_IN_ALL: usize = 4096;
/// Stop texts of a request at most, and bytes of each.
const MAX_STOPS: usize = 64;
const MAX_STOP_BYTES: usize = 1024;

/// A prompt.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Its text, if it was given as one.
    pub text: Option<String>,
}

/// A completion request.
#[derive(Clone, Debug)]
pub struct Completion {
    pub prompts: Vec<Prompt>,
    /// Options with the model's own under them.
    pub settings: Settings,
    /// Sequences for each prompt.
    pub n: usize,
    /// Sequences that are drawn for each prompt; the likeliest `n` are returned.
    pub best_of: usize,
    pub stream: bool,
    pub include_usage: bool,
    pub continuous_usage: bool,
    /// Alternatives to list per token, if log-probabilities are wanted.
    pub logprobs: Option<usize>,
    /// The same for the prompt, in the form of vLLM.
    pub prompt_logprobs: Option<usize>,
    /// Neurons of the tokens, if they are wanted.
    pub neurons: Option<Neurons>,
    pub echo: bool,
    pub include_stop: bool,
    pub return_token_ids: bool,
    pub timings: bool,
    /// The conversation to go on with.
    pub from: Option<Arc<Snapshot>>,
    pub keep_state: bool,
    /// Token ids that end a sequence because the request says so.
    pub stop_token_ids: Vec<u32>,
}

impl Completion {
    /// Reads a request that goes on with the conversation `from`, if there is one. Texts have few
    /// tokens unless the request says otherwise (`brief`), as in the OpenAI API.
    pub fn read(fields: &mut Fields, bdh: &Bdh, from: Option<Arc<Snapshot>>, brief: bool) -> Result<Self, ApiError> {
        let vocab = bdh.model().config.vocab_size;
        let reader = Reader { bdh, before: text_before(bdh, from.as_deref()) };
        let prompts = reader.prompts(fields)?;
        let mut request = options::read(fields)?;
        if brief {
            request.max_new_tokens.get_or_insert(MAX_TOKENS);
        }
        check_stops(&request)?;
        let n = fields.whole("n", 1, MAX_SEQUENCES)?.unwrap_or(1) as usize;
        let best_of = fields.whole("best_of", 1, MAX_SEQUENCES)?.map_or(n, |best_of| best_of as usize);
        if best_of < n {
            return Err(ApiError::invalid("best_of", format!("best_of must be at least n ({n}), got {best_of}")));
        }
        if prompts.len() * best_of > MAX_IN_ALL {
            let message =
                format!("a request may have {MAX_IN_ALL} sequences, this one has {}", prompts.len() * best_of);
            return Err(ApiError::invalid("n", message));
        }
        if fields.switch("use_beam_search")? == Some(true) {
            request.num_beams.get_or_insert(best_of.max(2));
        }
        let stream = fields.switch("stream")?.unwrap_or(false);
        if stream && best_of > n {
            return Err(ApiError::invalid("best_of", "best_of above n cannot be streamed: it compares whole texts"));
        }
        let mut stream_options = fields.object("stream_options")?;
        let mut stream_switch = |name| match &mut stream_options {
            Some(options) => Ok(options.switch(name)?.unwrap_or(false)),
            None => Ok::<bool, ApiError>(false),
        };
        let (include_usage, continuous_usage) =
            (stream_switch("include_usage")?, stream_switch("continuous_usage_stats")?);
        if fields.text("suffix")?.is_some_and(|suffix| !suffix.is_empty()) {
            return Err(ApiError::invalid("suffix", "suffix is not supported: the model only reads forwards"));
        }
        let stop_token_ids = fields.ids("stop_token_ids")?.unwrap_or_default();
        if let Some(id) = stop_token_ids.iter().find(|&&id| id as usize >= vocab) {
            let message = format!("stop_token_ids must be ids below the vocabulary size {vocab}, got {id}");
            return Err(ApiError::invalid("stop_token_ids", message));
        }
        let mut settings = Settings::new(&request, bdh.model()).map_err(|error| ApiError::of_generation(&error))?;
        settings.options.eos_token_ids.extend(&stop_token_ids);
        if !settings.options.stop.is_empty() {
            // Where tokens have no texts there are none to stop at.
            bdh.check_text().map_err(|error| ApiError::of_generation(&error).param("stop"))?;
        }
        let echo = fields.switch("echo")?.unwrap_or(false);
        if settings.options.max_new_tokens == 0 && !echo && fields.value("prompt_logprobs").is_none() {
            return Err(ApiError::invalid("max_tokens", "max_tokens must be at least 1 without echo, got 0"));
        }
        let neurons = neurons::read(fields, bdh, echo)?;
        if let Some(neurons) = &neurons {
            let of_prompts = if neurons.prompt { prompts.iter().map(|prompt| prompt.tokens.len()).sum() } else { 0 };
            // Streamed tokens are not kept.
            let drawn = if stream { 0 } else { settings.options.max_new_tokens.saturating_mul(prompts.len()) };
            neurons::check_size(neurons, bdh, drawn.saturating_add(of_prompts).saturating_mul(best_of))?;
        }
        fields.text("user")?;
        Ok(Self {
            prompts,
            settings,
            n,
            best_of,
            stream,
            include_usage: include_usage || continuous_usage,
            continuous_usage,
            logprobs: count(fields, "logprobs", vocab)?,
            prompt_logprobs: count(fields, "prompt_logprobs", vocab)?,
            neurons,
            echo,
            include_stop: fields.switch("include_stop_str_in_output")?.unwrap_or(false),
            return_token_ids: fields.switch("return_token_ids")?.unwrap_or(false),
            timings: fields.switch("timings")?.unwrap_or(false),
            from,
            keep_state: fields.switch("keep_state")?.unwrap_or(false),
            stop_token_ids,
        })
    }
}

/// How many alternatives to list; −1 lists all.
fn count(fields: &mut Fields, name: &'static str, vocab: usize) -> Result<Option<usize>, ApiError> {
    if fields.value(name).and_then(Value::as_i64) == Some(-1) {
        return Ok(Some(vocab));
    }
    // Clients of the chat API send false.
    if fields.value(name) == Some(&Value::Bool(false)) {
        return Ok(None);
    }
    Ok(fields.whole(name, 0, vocab as u64)?.map(|count| count as usize))
}

/// The text of a conversation, as far as what follows depends on it.
pub fn text_before(bdh: &Bdh, from: Option<&Snapshot>) -> TextStream {
    let mut text = bdh.text_stream();
    if let Some(last) = from.and_then(Snapshot::last_token) {
        text.skip(&[last]);
    }
    text
}

/// Reads prompts.
struct Reader<'a> {
    bdh: &'a Bdh,
    /// The text that they continue.
    before: TextStream,
}

impl Reader<'_> {
    /// Texts or lists of ids, one or several; none stands for an empty prompt.
    fn prompts(&self, fields: &mut Fields) -> Result<Vec<Prompt>, ApiError> {
        let Some(value) = fields.value("prompt") else {
            return Ok(vec![Prompt { tokens: Vec::new(), text: Some(String::new()) }]);
        };
        let wrong = || {
            let expected = "a string, a list of strings, a list of token ids or a list of such lists";
            ApiError::invalid("prompt", format!("prompt must be {expected}, got {}", shown(value)))
        };
        match value {
            Value::Array(list) if list.is_empty() => {
                Err(ApiError::invalid("prompt", "prompt must not be an empty list"))
            }
            Value::Array(list) if list.len() > MAX_PROMPTS && !list[0].is_number() => {
                let message = format!("prompt must have at most {MAX_PROMPTS} entries, got {}", list.len());
                Err(ApiError::invalid("prompt", message))
            }
            Value::Array(list) if list.iter().all(|part| part.is_string() || part.is_array()) => {
                list.iter().map(|prompt| self.prompt(prompt).ok_or_else(wrong)?).collect()
            }
            one => Ok(vec![self.prompt(one).ok_or_else(wrong)??]),
        }
    }

    /// A prompt, unless the value is of no kind that prompts have.
    fn prompt(&self, value: &Value) -> Option<Result<Prompt, ApiError>> {
        let prompt = match value {
            Value::String(text) => {
                let tokens = self.bdh.model().tokenizer.encode_after(&self.before, text.as_bytes());
                tokens.map(|tokens| Prompt { tokens, text: Some(text.clone()) }).map_err(GenerationError::from)
            }
            _ => self.check(ids(value)?),
        };
        Some(prompt.map_err(|error| ApiError::of_generation(&error)))
    }

    /// Refuses ids that are no tokens.
    fn check(&self, tokens: Vec<u32>) -> Result<Prompt, GenerationError> {
        let vocab = self.bdh.model().config.vocab_size;
        match tokens.iter().position(|&token| token as usize >= vocab) {
            Some(index) => Err(GenerationError::TokenOutOfRange { index, token: tokens[index], vocab }),
            None => Ok(Prompt { tokens, text: None }),
        }
    }
}

fn check_stops(request: &Request) -> Result<(), ApiError> {
    let stops = request.stop.as_deref().unwrap_or_default();
    if stops.len() > MAX_STOPS || stops.iter().any(|stop| stop.len() > MAX_STOP_BYTES) {
        let message = format!("stop must have at most {MAX_STOPS} texts of at most {MAX_STOP_BYTES} bytes");
        return Err(ApiError::invalid("stop", message));
    }
    Ok(())
}
