//! The tokens of a tokenizer.json, by the crate of the format's authors.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, OnceLock};

use serde_json::Value;
use tokenizers::{ModelWrapper, NormalizerWrapper, PreTokenizerWrapper, Tokenizer as HuggingFace};

use super::guard::guarded;
use super::{EncodeError, TokenizerError};

/// A character has at most this many bytes, and so is spread over at most as many tokens.
const LONGEST_CHARACTER: usize = 4;
/// Tokens kept before those that are being turned into text: some decoders treat a first token in its own way.
const CONTEXT: usize = 8;
/// Tokens before a text that may tell how it begins.
const RECENT: usize = 32;

/// A tokenizer.json. Cloning shares it.
#[derive(Clone)]
pub(super) struct JsonTokenizer {
    tokenizer: Arc<HuggingFace>,
    special: Arc<BTreeSet<u32>>,
    /// As `tokenizer`, for texts that go on with others: it puts no space before them. Made when first asked for;
    /// `None` where it would be the same.
    within: Arc<OnceLock<Option<HuggingFace>>>,
}

impl JsonTokenizer {
    pub(super) fn new(json: &[u8], vocab: usize) -> Result<Self, TokenizerError> {
        let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json);
        let malformed = |error: &dyn fmt::Display| TokenizerError::Malformed(one_line(error));
        let read =
            guarded(|| HuggingFace::from_bytes(json)).ok_or_else(|| malformed(&"its parts do not fit together"))?;
        let mut tokenizer = read.map_err(|error| malformed(&error))?;
        // Set for training batches; a prompt is neither cut nor filled up.
        tokenizer.with_truncation(None).map_err(|error| malformed(&error))?;
        tokenizer.with_padding(None);
        let largest = tokenizer.get_vocab(true).into_iter().max_by_key(|(_, id)| *id);
        if let Some((token, id)) = largest.filter(|(_, id)| *id as usize >= vocab) {
            return Err(TokenizerError::VocabularyTooLarge { token, id, vocab });
        }
        let added = tokenizer.get_added_tokens_decoder();
        let special = added.iter().filter(|(_, token)| token.special).map(|(&id, _)| id).collect();
        Ok(Self { tokenizer: Arc::new(tokenizer), special: Arc::new(special), within: Arc::default() })
    }

    pub(super) fn add_special<'a>(&mut self, tokens: impl IntoIterator<Item = &'a str>) {
        let ids: Vec<u32> = tokens.into_iter().filter_map(|token| self.id(token)).collect();
        Arc::make_mut(&mut self.special).extend(ids);
    }

    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    pub(super) fn encode(&self, text: &[u8], vocab: usize) -> Result<Vec<u32>, EncodeError> {
        encode(&self.tokenizer, text, vocab)
    }

    /// As [`JsonTokenizer::encode`], for a text that goes on with the one `before`.
    pub(super) fn encode_after(&self, before: &JsonStream, text: &[u8], vocab: usize) -> Result<Vec<u32>, EncodeError> {
        if before.recent.is_empty() {
            return self.encode(text, vocab);
        }
        let within = self.within.get_or_init(|| within(&self.tokenizer)).as_ref().unwrap_or(&self.tokenizer);
        match self.rest_of_word(within, before, text) {
            Some(ids) => Ok(ids),
            None => encode(within, text, vocab),
        }
    }

    /// Token ids of a text that goes on within a word, where the vocabulary tells the beginnings of words from the
    /// rest as WordPiece does.
    fn rest_of_word(&self, within: &HuggingFace, before: &JsonStream, text: &[u8]) -> Option<Vec<u32>> {
        let ModelWrapper::WordPiece(model) = self.tokenizer.get_model() else { return None };
        let text = str::from_utf8(text).ok().filter(|text| text.starts_with(char::is_alphanumeric))?;
        let known = self.decode(&before.recent);
        let word = known.rsplit(char::is_whitespace).next()?;
        let word = word.strip_prefix(model.continuing_subword_prefix.as_str()).unwrap_or(word);
        let ids = |text: &str| encode(within, text.as_bytes(), usize::MAX).ok();
        let (first, whole) = (ids(word).filter(|ids| !ids.is_empty())?, ids(&format!("{word}{text}"))?);
        let rest = whole.strip_prefix(first.as_slice())?;
        // What the vocabulary cannot spell is no part of a word.
        let known = |id: &u32| self.tokenizer.id_to_token(*id).is_some_and(|token| token != model.unk_token);
        (!rest.is_empty() && whole.iter().all(known)).then(|| rest.to_vec())
    }

    pub(super) fn stream(&self) -> JsonStream {
        JsonStream { tokenizer: self.clone(), context: Vec::new(), pending: Vec::new(), recent: Vec::new() }
    }

    fn decode(&self, tokens: &[u32]) -> String {
        guarded(|| self.tokenizer.decode(tokens, false)).and_then(Result::ok).unwrap_or_default()
    }

    /// What `tokens` add to the text of `context`.
    fn text_after(&self, context: &[u32], tokens: &[u32]) -> String {
        if context.is_empty() {
            return self.decode(tokens);
        }
        let whole = self.decode(&[context, tokens].concat());
        match whole.strip_prefix(&self.decode(context)) {
            Some(text) => text.to_owned(),
            // Bytes that make the context's bytes invalid, which are already shown as what they were.
            None => self.decode(tokens),
        }
    }
}

impl fmt::Display for JsonTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let model = match self.tokenizer.get_model() {
            ModelWrapper::BPE(_) => "BPE",
            ModelWrapper::Unigram(_) => "Unigram",
            ModelWrapper::WordPiece(_) => "WordPiece",
            ModelWrapper::WordLevel(_) => "WordLevel",
        };
        write!(f, "tokenizer.json: {model}, {} tokens", self.tokenizer.get_vocab_size(true))
    }
}

impl fmt::Debug for JsonTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JsonTokenizer({self})")
    }
}

/// Tokens on their way to text.
#[derive(Clone, Debug)]
pub(super) struct JsonStream {
    tokenizer: JsonTokenizer,
    /// The last tokens that were turned into text: whole characters.
    context: Vec<u32>,
    /// Tokens that end in the middle of a character: fewer than four between calls.
    pending: Vec<u32>,
    /// The last tokens that came, special ones aside.
    recent: Vec<u32>,
}

impl JsonStream {
    pub(super) fn is_holding(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Takes tokens whose text is known already. Of many, the last ones tell how the next one begins.
    pub(super) fn skip(&mut self, tokens: &[u32]) {
        let with_text = |token: &&u32| !self.tokenizer.special.contains(token);
        let mut last: Vec<u32> = tokens.iter().rev().filter(with_text).take(RECENT + 1).copied().collect();
        last.reverse();
        if last.len() > RECENT {
            *self = self.tokenizer.stream();
        }
        let mut known = String::new();
        for token in last {
            self.push(token, &mut known);
            known.clear();
        }
    }

    pub(super) fn push(&mut self, token: u32, text: &mut String) {
        if self.tokenizer.special.contains(&token) {
            return;
        }
        self.recent.push(token);
        let excess = self.recent.len().saturating_sub(RECENT);
        self.recent.drain(..excess);
        self.pending.push(token);
        let piece = self.tokenizer.text_after(&self.context, &self.pending);
        if !piece.ends_with(char::REPLACEMENT_CHARACTER) {
            text.push_str(&piece);
            self.settle(self.pending.len(), &piece);
        } else if self.pending.len() >= LONGEST_CHARACTER {
            // No character is this long: the first tokens, as many as stand for themselves, are invalid.
            let count = (1..self.pending.len()).find(|&count| self.stands_alone(count, &piece));
            let count = count.unwrap_or(self.pending.len());
            let piece = self.tokenizer.text_after(&self.context, &self.pending[..count]);
            text.push_str(&piece);
            self.settle(count, &piece);
        }
    }

    pub(super) fn finish(&mut self, text: &mut String) {
        let piece = self.tokenizer.text_after(&self.context, &self.pending);
        text.push_str(&piece);
        self.settle(self.pending.len(), &piece);
    }

    /// Whether the text of the pending tokens is that of the first `count` and that of the rest.
    fn stands_alone(&self, count: usize, whole: &str) -> bool {
        let (first, rest) = self.pending.split_at(count);
        let after = self.tokenizer.text_after(&[&self.context[..], first].concat(), rest);
        whole.strip_suffix(after.as_str()) == Some(self.tokenizer.text_after(&self.context, first).as_str())
    }

    /// Counts the first pending tokens, which gave `text`, among those that were turned into text.
    fn settle(&mut self, count: usize, text: &str) {
        // Tokens without text of their own do not tell how the next one begins.
        if !text.is_empty() {
            self.context.clear();
        }
        self.context.extend(self.pending.drain(..count));
        let excess = self.context.len().saturating_sub(CONTEXT);
        self.context.drain(..excess);
    }
}

fn encode(tokenizer: &HuggingFace, text: &[u8], vocab: usize) -> Result<Vec<u32>, EncodeError> {
    let text = str::from_utf8(text).map_err(|error| {
        let offset = error.valid_up_to();
        EncodeError::NotUtf8 { offset, byte: text.get(offset).copied().unwrap_or_default() }
    })?;
    let encoding = guarded(|| tokenizer.encode_fast(text, false));
    let encoding = encoding.ok_or_else(|| EncodeError::Failed("it cannot deal with this text".to_owned()))?;
    let encoding = encoding.map_err(|error| EncodeError::Failed(one_line(&error)))?;
    let ids = encoding.get_ids().to_vec();
    match ids.iter().find(|&&id| id as usize >= vocab) {
        Some(&token) => Err(EncodeError::TokenOutOfRange { token, vocab }),
        None => Ok(ids),
    }
}

/// A tokenizer without what it puts before the texts it is given; `None` where it puts nothing there.
fn within(tokenizer: &HuggingFace) -> Option<HuggingFace> {
    guarded(|| {
        let mut inner = tokenizer.clone();
        let mut changed = false;
        if let Some(part) = tokenizer.get_normalizer().and_then(|part| serde_json::to_value(part).ok())
            && let Some(part) = without_prefix(part)
        {
            inner.with_normalizer(Some(serde_json::from_value::<NormalizerWrapper>(part).ok()?)).ok()?;
            changed = true;
        }
        if let Some(part) = tokenizer.get_pre_tokenizer().and_then(|part| serde_json::to_value(part).ok())
            && let Some(part) = without_prefix(part)
        {
            inner.with_pre_tokenizer(Some(serde_json::from_value::<PreTokenizerWrapper>(part).ok()?));
            changed = true;
        }
        changed.then_some(inner)
    })
    .flatten()
}

/// A part of a tokenizer.json that puts nothing before a text; `None` where it did not before.
fn without_prefix(mut part: Value) -> Option<Value> {
    fn change(part: &mut Value, changed: &mut bool) {
        let mut replace = |part: &mut Value, key: &str, value: Value| {
            if part.get(key).is_some_and(|old| *old != value) {
                part[key] = value;
                *changed = true;
            }
        };
        match part["type"].as_str().unwrap_or_default() {
            "Metaspace" => replace(part, "prepend_scheme", "never".into()),
            "ByteLevel" => replace(part, "add_prefix_space", false.into()),
            "Prepend" => replace(part, "prepend", "".into()),
            _ => {
                for list in ["normalizers", "pretokenizers"] {
                    let parts = part.get_mut(list).and_then(Value::as_array_mut);
                    parts.into_iter().flatten().for_each(|part| change(part, changed));
                }
            }
        }
    }
    let mut changed = false;
    change(&mut part, &mut changed);
    changed.then_some(part)
}

fn one_line(error: &dyn fmt::Display) -> String {
    const LONGEST: usize = 200;
    let text: String = error.to_string().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(LONGEST) {
        line.truncate(end);
        line.push('…');
    }
    line
}
