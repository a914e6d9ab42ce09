//! One sequence's text, made of its tokens as they come.

use super::request::{Completion, Prompt, text_before};
use crate::generation::engine::{Ended, WatchedToken};
use crate::generation::{Bdh, FinishReason, TokenLogprobs};
use crate::server::metrics::finish_word;
use crate::tokenizer::TextStream;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Stands for the logarithm of 0, which JSON cannot hold.
const LEAST_LOGPROB: f32 = -9999.0;

/// A piece of a sequence's text.
#[derive(Debug, Default)]
pub(super) struct Piece {
    pub text: String,
    pub token_ids: Vec<u32>,
    pub neurons: Vec<WatchedToken>,
    logprobs: Listed,
}

/// Log-probabilities in the form of the completions API: four lists of one length.
#[derive(Debug, Default)]
struct Listed {
    tokens: Vec<Value>,
    token_logprobs: Vec<Value>,
    top_logprobs: Vec<Value>,
    text_offset: Vec<usize>,
}

/// A sequence's text as it comes.
pub(super) struct Choice {
    bdh: Bdh,
    options: Arc<Completion>,
    /// Index of its prompt.
    prompt: usize,
    /// Turns tokens into text.
    stream: TextStream,
    /// Characters so far.
    characters: usize,
    /// Log-probabilities of the prompt's tokens, until these are shown.
    prompt_logprobs: Vec<TokenLogprobs>,
    /// Neurons of the tokens that are shown next.
    neurons: Vec<WatchedToken>,
    begun: bool,
    /// The last token drawn.
    last: Option<u32>,
    /// Sum of the drawn tokens' log-probabilities, and their number.
    likelihood: (f64, usize),
}

impl Choice {
    /// The text of a sequence that continues the request's prompt number `prompt`.
    pub fn new(bdh: &Bdh, options: &Arc<Completion>, prompt: usize) -> Self {
        Self {
            stream: text_before(bdh, options.from.as_deref()),
            bdh: bdh.clone(),
            options: options.clone(),
            prompt,
            characters: 0,
            prompt_logprobs: Vec::new(),
            neurons: Vec::new(),
            begun: false,
            last: None,
            likelihood: (0.0, 0),
        }
    }

    /// Takes in log-probabilities of the prompt's tokens.
    pub fn read(&mut self, logprobs: Vec<TokenLogprobs>) {
        self.prompt_logprobs.extend(logprobs);
    }

    /// Takes in neurons of the tokens that come next, or of the prompt's.
    pub fn watched(&mut self, tokens: Vec<WatchedToken>) {
        self.neurons.extend(tokens);
    }

    /// Takes in drawn tokens.
    pub fn drawn(&mut self, tokens: &[u32], logprobs: &[TokenLogprobs]) -> Piece {
        let mut piece = self.begin();
        for (index, &token) in tokens.iter().enumerate() {
            let start = self.characters;
            // A token that ends the text is no part of it.
            let ends = self.options.stop_token_ids.contains(&token) && index + 1 == tokens.len();
            if !ends || self.options.include_stop {
                self.push(token, &mut piece.text);
            }
            if let Some(logprobs) = logprobs.get(index) {
                self.likelihood.0 += f64::from(logprobs.logprob);
                self.list(&mut piece, Some(logprobs), token, start);
            }
        }
        self.likelihood.1 += tokens.len();
        self.last = tokens.last().copied();
        piece.token_ids.extend_from_slice(tokens);
        piece
    }

    /// The rest of the text, once no more tokens come.
    pub fn end(&mut self, ended: &Ended) -> Piece {
        let mut piece = self.begin();
        let before = piece.text.len();
        self.stream.finish(&mut piece.text);
        piece.text.push_str(&ended.tail);
        if let Some(stop) = ended.stop.filter(|_| self.options.include_stop) {
            piece.text.push_str(&self.options.settings.options.stop[stop]);
        }
        self.characters += piece.text[before..].chars().count();
        piece
    }

    /// Why it ended: `finish_reason` and `stop_reason`.
    pub fn reasons(&self, ended: &Ended) -> (Value, Value) {
        let stop = match (ended.stop, self.last) {
            (Some(stop), _) => self.options.settings.options.stop[stop].clone().into(),
            (None, Some(token)) if ended.finish_reason == FinishReason::Eos => token.into(),
            _ => Value::Null,
        };
        (finish_word(ended.finish_reason).into(), stop)
    }

    /// Mean log-probability of its tokens.
    pub fn likelihood(&self) -> f64 {
        self.likelihood.0 / self.likelihood.1.max(1) as f64
    }

    /// The prompt's log-probabilities as vLLM has them: per token, its own and the likeliest.
    pub fn prompt_logprobs(&self) -> Value {
        let Some(top) = self.options.prompt_logprobs else { return Value::Null };
        let unpredicted = self.prompt().tokens.len().saturating_sub(self.prompt_logprobs.len());
        let listed = self.prompt_logprobs.iter().map(|token| {
            let best = token.top.iter().take(top).enumerate().map(|(index, &(id, logprob))| (id, logprob, index + 1));
            let own = (token.token, token.logprob, token.rank as usize);
            let entries = best.chain([own]).map(|(id, logprob, rank)| {
                let shown = json!({"logprob": number(logprob), "rank": rank, "decoded_token": self.name(id)});
                (id.to_string(), shown)
            });
            Value::Object(entries.collect())
        });
        std::iter::repeat_n(Value::Null, unpredicted).chain(listed).collect()
    }

    /// Begins a piece: with the prompt, if it is to be shown and was not yet.
    fn begin(&mut self) -> Piece {
        let mut piece = Piece { neurons: std::mem::take(&mut self.neurons), ..Piece::default() };
        if std::mem::replace(&mut self.begun, true) {
            return piece;
        }
        let options = self.options.clone();
        let Prompt { tokens: prompt, text } = &options.prompts[self.prompt];
        if !options.echo {
            self.stream.begin(prompt, text.as_deref());
            return piece;
        }
        let logprobs = std::mem::take(&mut self.prompt_logprobs);
        let unpredicted = prompt.len().saturating_sub(logprobs.len());
        for (index, &token) in prompt.iter().enumerate() {
            let start = self.characters;
            self.push(token, &mut piece.text);
            if self.options.logprobs.is_some() {
                let logprobs = index.checked_sub(unpredicted).map(|index| &logprobs[index]);
                self.list(&mut piece, logprobs, token, start);
            }
        }
        if let Some(text) = text {
            // Exactly as it was given, also if its last character is incomplete.
            self.stream.settle();
            self.characters = text.chars().count();
            piece.text.clone_from(text);
        }
        self.prompt_logprobs = logprobs;
        piece.token_ids.clone_from(prompt);
        piece
    }

    fn prompt(&self) -> &Prompt {
        &self.options.prompts[self.prompt]
    }

    fn push(&mut self, token: u32, text: &mut String) {
        let before = text.len();
        self.stream.push(token, text);
        self.characters += text[before..].chars().count();
    }

    /// Lists a token's log-probabilities.
    fn list(&self, piece: &mut Piece, logprobs: Option<&TokenLogprobs>, token: u32, start: usize) {
        let listed = &mut piece.logprobs;
        let name = self.name(token);
        listed.tokens.push(name.clone().into());
        listed.text_offset.push(start);
        listed.token_logprobs.push(logprobs.map_or(Value::Null, |own| number(own.logprob)));
        let top = logprobs.map(|own| {
            let count = self.options.logprobs.unwrap_or(0).max(1);
            let mut top = Map::new();
            for &(id, logprob) in own.top.iter().take(count) {
                let name = self.name(id);
                // Two tokens of one text are told apart by their ids.
                let name = if top.contains_key(&name) { id_name(id) } else { name };
                top.insert(name, number(logprob));
            }
            if !own.top.iter().take(count).any(|&(id, _)| id == token) {
                let name = if top.contains_key(&name) { id_name(token) } else { name };
                top.insert(name, number(own.logprob));
            }
            Value::Object(top)
        });
        listed.top_logprobs.push(top.unwrap_or(Value::Null));
    }

    /// A token's name, which tells it from others.
    fn name(&self, token: u32) -> String {
        token_name(&self.bdh, token)
    }
}

impl Piece {
    /// Adds what comes next.
    pub fn append(&mut self, next: Self) {
        self.text.push_str(&next.text);
        self.token_ids.extend(next.token_ids);
        self.neurons.extend(next.neurons);
        let (own, next) = (&mut self.logprobs, next.logprobs);
        own.tokens.extend(next.tokens);
        own.token_logprobs.extend(next.token_logprobs);
        own.top_logprobs.extend(next.top_logprobs);
        own.text_offset.extend(next.text_offset);
    }

    /// Whether there is nothing to show.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.logprobs.tokens.is_empty() && self.neurons.is_empty()
    }

    /// The log-probabilities as the completions API has them.
    pub fn logprobs(&mut self) -> Value {
        let Listed { tokens, token_logprobs, top_logprobs, text_offset } = std::mem::take(&mut self.logprobs);
        json!({
            "tokens": tokens,
            "token_logprobs": token_logprobs,
            "top_logprobs": top_logprobs,
            "text_offset": text_offset,
        })
    }
}

/// A token by its text; bytes that are no text by themselves as `bytes:\xe2`, others by their ids.
pub(in crate::server) fn token_name(bdh: &Bdh, token: u32) -> String {
    match bdh.model().tokenizer.byte(token) {
        Some(byte) if byte.is_ascii() => char::from(byte).to_string(),
        Some(byte) => format!("bytes:\\x{byte:02x}"),
        None => match bdh.decode(&[token]) {
            text if text.is_empty() || text.contains('\u{fffd}') => id_name(token),
            text => text,
        },
    }
}

fn id_name(token: u32) -> String {
    format!("token_id:{token}")
}

/// A log-probability in JSON.
fn number(logprob: f32) -> Value {
    shortest(if logprob.is_finite() { logprob } else { LEAST_LOGPROB })
}

/// The shortest number in JSON that is this one in 32 bits.
pub(in crate::server) fn shortest(number: f32) -> Value {
    number.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}
