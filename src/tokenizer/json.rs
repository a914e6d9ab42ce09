//! The tokens of a tokenizer.json, by the crate of the format's authors.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use tokenizers::{ModelWrapper, Tokenizer as HuggingFace};

use super::guard::guarded;
use super::{EncodeError, TokenizerError};

/// A character has at most this many bytes, and so is spread over at most as many tokens.
const LONGEST_CHARACTER: usize = 4;
/// Tokens kept before those that are being turned into text: some decoders treat a first token in its own way.
const CONTEXT: usize = 8;

/// A tokenizer.json. Cloning shares it.
#[derive(Clone)]
pub(super) struct JsonTokenizer {
    tokenizer: Arc<HuggingFace>,
    special: Arc<BTreeSet<u32>>,
}

impl JsonTokenizer {
    pub(super) fn new(json: &[u8], vocab: usize) -> Result<Self, TokenizerError> {
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
        Ok(Self { tokenizer: Arc::new(tokenizer), special: Arc::new(special) })
    }

    pub(super) fn add_special<'a>(&mut self, tokens: impl IntoIterator<Item = &'a str>) {
        let ids: Vec<u32> = tokens.into_iter().filter_map(|token| self.id(token)).collect();
        Arc::make_mut(&mut self.special).extend(ids);
    }

    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    pub(super) fn encode(&self, text: &[u8], vocab: usize) -> Result<Vec<u32>, EncodeError> {
        let text = str::from_utf8(text).map_err(|error| {
            let offset = error.valid_up_to();
            EncodeError::NotUtf8 { offset, byte: text.get(offset).copied().unwrap_or_default() }
        })?;
        let encoding = guarded(|| self.tokenizer.encode_fast(text, false));
        let encoding = encoding.ok_or_else(|| EncodeError::Failed("it cannot deal with this text".to_owned()))?;
        let encoding = encoding.map_err(|error| EncodeError::Failed(one_line(&error)))?;
        let ids = encoding.get_ids().to_vec();
        match ids.iter().find(|&&id| id as usize >= vocab) {
            Some(&token) => Err(EncodeError::TokenOutOfRange { token, vocab }),
            None => Ok(ids),
        }
    }

    pub(super) fn stream(&self) -> JsonStream {
        JsonStream { tokenizer: self.clone(), context: Vec::new(), pending: Vec::new() }
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
}

impl JsonStream {
    pub(super) fn is_holding(&self) -> bool {
        !self.pending.is_empty()
    }

    pub(super) fn push(&mut self, token: u32, text: &mut String) {
        if self.tokenizer.special.contains(&token) {
            return;
        }
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
