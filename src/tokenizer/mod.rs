//! Between text and tokens.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `bytes` | tokens that are bytes, and UTF-8 as it comes byte by byte |
//! | `characters` | tokens that are characters |
//! | `guard` | panics of the crate that reads tokenizer.json, caught |
//! | `json` | the tokens of a tokenizer.json (feature `tokenizers`) |
//!
//! Special tokens print nothing. Text that continues other text is a slice of the whole: it has the space
//! before its first word that the whole has, and no other.

mod bytes;
mod characters;
#[cfg_attr(not(feature = "tokenizers"), allow(dead_code, reason = "bytes do not panic"))]
mod guard;
#[cfg(feature = "tokenizers")]
mod json;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use self::bytes::ByteStream;
use self::characters::Characters;
pub use self::guard::panic_is_caught;

/// First byte's id in ByT5's vocabulary: pad, eos and unk come before it.
const BYT5_OFFSET: u32 = 3;

/// Why a text has no tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A byte of a text has no token.
    #[error("byte {byte:#04x} (at offset {offset}) has no token: the model's vocabulary has {vocab} ids")]
    ByteOutOfRange {
        /// Offset in the text.
        offset: usize,
        /// The byte.
        byte: u8,
        /// V.
        vocab: usize,
    },
    /// The tokenizer reads text only.
    #[error("byte {byte:#04x} (at offset {offset}) is not valid UTF-8, which this model's tokenizer needs")]
    NotUtf8 {
        /// Offset in the text.
        offset: usize,
        /// The byte.
        byte: u8,
    },
    /// A character of a text has no token.
    #[error("character {character:?} (at offset {offset}) has no token: the model knows {count} characters")]
    CharacterWithoutToken {
        /// Offset in the text, in bytes.
        offset: usize,
        /// The character.
        character: char,
        /// Characters that have a token.
        count: usize,
    },
    /// The tokenizer itself gave up.
    #[error("the model's tokenizer cannot read this text: {0}")]
    Failed(String),
    /// There is no tokenizer, and tokens are not bytes.
    #[error(
        "the model has {vocab} tokens and {why}, so that text cannot be turned into tokens or back; give its tokenizer \
         (a tokenizer.json or its folder), or use token ids"
    )]
    NoTokenizer {
        /// V.
        vocab: usize,
        /// What was found in its place.
        why: String,
    },
    /// The tokenizer gave an id that the model does not have.
    #[error("the model's tokenizer gave token {token}, but the model's vocabulary has {vocab} ids")]
    TokenOutOfRange {
        /// The id.
        token: u32,
        /// V.
        vocab: usize,
    },
}

/// Why a tokenizer.json cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// It is not a tokenizer.
    #[error("not a tokenizer of the Hugging Face format ({0})")]
    Malformed(String),
    /// It has ids that the model does not have.
    #[error("token {token:?} has id {id}, expected ids below the model's vocab_size {vocab}")]
    VocabularyTooLarge {
        /// The token with the largest id.
        token: String,
        /// Its id.
        id: u32,
        /// V.
        vocab: usize,
    },
    /// The program was built without the crate that reads it.
    #[error("this program was built without the feature \"tokenizers\", which reads it; build it with that feature")]
    NotBuiltIn,
}

/// Turns text into token ids and back. Cloning is cheap.
#[derive(Clone)]
pub struct Tokenizer {
    kind: Kind,
    vocab: usize,
}

#[derive(Clone)]
enum Kind {
    /// Token 0 is byte 0 where the offset is 0.
    Bytes {
        offset: u32,
    },
    Characters(Characters),
    /// Token ids only, and why.
    Absent(Arc<str>),
    #[cfg(feature = "tokenizers")]
    Json(json::JsonTokenizer),
}

impl Tokenizer {
    /// Raw bytes: the id is the byte. Ids from 256 up are special.
    pub fn bytes(vocab_size: usize) -> Self {
        Self { kind: Kind::Bytes { offset: 0 }, vocab: vocab_size }
    }

    /// ByT5's bytes: the id is the byte + 3. Ids 0 (pad), 1 (eos), 2 (unk) and from 259 up are special.
    pub fn byt5(vocab_size: usize) -> Self {
        Self { kind: Kind::Bytes { offset: BYT5_OFFSET }, vocab: vocab_size }
    }

    /// Characters: `texts` holds the text of every id. Texts in angle or square brackets are special tokens.
    ///
    /// # Errors
    /// The text of a token that is neither one character nor in brackets, or that another token has too.
    pub fn characters(texts: BTreeMap<u32, String>, vocab_size: usize) -> Result<Self, String> {
        Ok(Self { kind: Kind::Characters(Characters::new(texts)?), vocab: vocab_size })
    }

    /// The text of every id where tokens are characters.
    pub(crate) fn texts(&self) -> Option<BTreeMap<u32, String>> {
        match &self.kind {
            Kind::Characters(characters) => Some(characters.texts()),
            _ => None,
        }
    }

    /// None: token ids work and text does not. `why` says what there is instead, as in "no tokenizer".
    pub fn absent(vocab_size: usize, why: &str) -> Self {
        Self { kind: Kind::Absent(why.into()), vocab: vocab_size }
    }

    /// Checks that there are texts at all.
    ///
    /// # Errors
    /// [`EncodeError::NoTokenizer`] for [`Tokenizer::absent`].
    pub fn check(&self) -> Result<(), EncodeError> {
        match &self.kind {
            Kind::Absent(why) => Err(EncodeError::NoTokenizer { vocab: self.vocab, why: why.to_string() }),
            _ => Ok(()),
        }
    }

    /// The contents of a tokenizer.json for a model of `vocab_size` tokens.
    ///
    /// # Errors
    /// [`TokenizerError`] where it is not a tokenizer or has ids from `vocab_size` up, or where the program
    /// was built without the feature `tokenizers`.
    pub fn from_json(json: &[u8], vocab_size: usize) -> Result<Self, TokenizerError> {
        #[cfg(feature = "tokenizers")]
        return Ok(Self { kind: Kind::Json(json::JsonTokenizer::new(json, vocab_size)?), vocab: vocab_size });
        #[cfg(not(feature = "tokenizers"))]
        {
            let _ = (json, vocab_size);
            Err(TokenizerError::NotBuiltIn)
        }
    }

    /// Makes tokens special by their texts, as tokenizer_config.json names them. Texts that are no tokens
    /// and tokenizers of bytes are left alone.
    pub fn add_special<'a>(&mut self, tokens: impl IntoIterator<Item = &'a str>) {
        match &mut self.kind {
            Kind::Bytes { .. } | Kind::Characters(_) | Kind::Absent(_) => drop(tokens),
            #[cfg(feature = "tokenizers")]
            Kind::Json(json) => json.add_special(tokens),
        }
    }

    /// Id of a special token by its text.
    pub fn special_id(&self, token: &str) -> Option<u32> {
        match &self.kind {
            Kind::Bytes { offset: 0 } | Kind::Absent(_) => None,
            Kind::Characters(characters) => characters.special_id(token),
            Kind::Bytes { .. } => {
                let id = ["<pad>", "</s>", "<unk>"].iter().position(|&special| special == token)?;
                u32::try_from(id).ok()
            }
            #[cfg(feature = "tokenizers")]
            Kind::Json(json) => json.id(token),
        }
    }

    /// The byte that a token is; `None` for special tokens and where tokens are not bytes.
    pub fn byte(&self, token: u32) -> Option<u8> {
        match &self.kind {
            Kind::Bytes { offset } => token.checked_sub(*offset)?.try_into().ok(),
            Kind::Characters(_) | Kind::Absent(_) => None,
            #[cfg(feature = "tokenizers")]
            Kind::Json(_) => None,
        }
    }

    /// Token ids of a text, none of them added: no beginning or end of sequence.
    ///
    /// # Errors
    /// [`EncodeError`] for the first byte that has no token.
    pub fn encode(&self, text: &[u8]) -> Result<Vec<u32>, EncodeError> {
        match &self.kind {
            &Kind::Bytes { offset } => bytes::encode(text, self.vocab, offset),
            Kind::Characters(characters) => characters.encode(text),
            Kind::Absent(_) if text.is_empty() => Ok(Vec::new()),
            Kind::Absent(_) => self.check().map(|()| Vec::new()),
            #[cfg(feature = "tokenizers")]
            Kind::Json(json) => json.encode(text, self.vocab),
        }
    }

    /// Token ids of a text that goes on with the one `before`: no space is put before it that it does not begin with.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_after(&self, before: &TextStream, text: &[u8]) -> Result<Vec<u32>, EncodeError> {
        match (&self.kind, &before.0) {
            #[cfg(feature = "tokenizers")]
            (Kind::Json(json), Stream::Json(before)) => json.encode_after(before, text, self.vocab),
            _ => self.encode(text),
        }
    }

    /// The text of a whole sequence of tokens. Bytes that can never become part of valid UTF-8 are shown as
    /// `\xNN` by the tokenizers of bytes and as U+FFFD by others.
    pub fn decode(&self, tokens: &[u32]) -> String {
        self.stream().text(tokens)
    }

    /// Starts to turn tokens into text as they come.
    pub fn stream(&self) -> TextStream {
        TextStream(match &self.kind {
            &Kind::Bytes { offset } => Stream::Bytes { bytes: ByteStream::default(), offset },
            Kind::Characters(characters) => Stream::Characters(characters.clone()),
            Kind::Absent(_) => Stream::Absent,
            #[cfg(feature = "tokenizers")]
            Kind::Json(json) => Stream::Json(json.stream()),
        })
    }
}

impl fmt::Display for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Bytes { offset: 0 } => f.pad("raw bytes"),
            Kind::Bytes { offset } => f.pad(&format!("ByT5: bytes, ids from {offset}")),
            Kind::Characters(characters) => f.pad(&characters.to_string()),
            Kind::Absent(why) => f.pad(&format!("none: token ids only ({why})")),
            #[cfg(feature = "tokenizers")]
            Kind::Json(json) => f.pad(&json.to_string()),
        }
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tokenizer({self})")
    }
}

/// Turns tokens into text as they come.
///
/// A character spread over several tokens is held back until it is complete. The pieces together are what
/// [`Tokenizer::decode`] makes of all the tokens. The default is that of raw bytes.
#[derive(Clone, Debug)]
pub struct TextStream(Stream);

#[derive(Clone, Debug)]
enum Stream {
    Bytes {
        bytes: ByteStream,
        offset: u32,
    },
    Characters(Characters),
    /// Tokens without texts.
    Absent,
    #[cfg(feature = "tokenizers")]
    Json(json::JsonStream),
}

impl Default for TextStream {
    fn default() -> Self {
        Self(Stream::Bytes { bytes: ByteStream::default(), offset: 0 })
    }
}

impl TextStream {
    /// Takes a token and appends to `text` what can be shown by now.
    pub fn push(&mut self, token: u32, text: &mut String) {
        match &mut self.0 {
            Stream::Bytes { bytes, offset } => {
                if let Some(Ok(byte)) = token.checked_sub(*offset).map(u8::try_from) {
                    bytes.push(byte, text);
                }
            }
            Stream::Characters(characters) => characters.push(token, text),
            Stream::Absent => {}
            #[cfg(feature = "tokenizers")]
            Stream::Json(json) => json.push(token, text),
        }
    }

    /// Takes tokens whose text is known already. A character that they end in the midst of is held back as ever.
    pub fn skip(&mut self, tokens: &[u32]) {
        #[cfg(feature = "tokenizers")]
        if let Stream::Json(json) = &mut self.0 {
            return json.skip(tokens);
        }
        let mut known = String::new();
        for &token in tokens {
            self.push(token, &mut known);
            known.clear();
        }
    }

    /// Takes the tokens of a prompt and returns its text: as it was `given`, or as far as its tokens make characters. A
    /// character that ends after them is part of what follows.
    pub fn begin(&mut self, tokens: &[u32], given: Option<&str>) -> String {
        let Some(given) = given else { return self.take(tokens) };
        self.skip(tokens);
        self.settle();
        given.to_owned()
    }

    /// Gives up an incomplete character: its text is known already, or of no interest.
    pub fn settle(&mut self) {
        self.finish(&mut String::new());
    }

    /// The text of tokens after which no more will come.
    pub fn text(mut self, tokens: &[u32]) -> String {
        let mut text = self.take(tokens);
        self.finish(&mut text);
        text
    }

    /// The text of each of the tokens after which no more will come: joined, they are
    /// [`TextStream::text`]. A character of several tokens is the text of its last.
    pub fn pieces(mut self, tokens: &[u32]) -> Vec<String> {
        let mut pieces: Vec<String> = tokens.iter().map(|&token| self.take(&[token])).collect();
        if let Some(last) = pieces.last_mut() {
            self.finish(last);
        }
        pieces
    }

    /// Takes tokens and returns what can be shown of them by now.
    pub fn take(&mut self, tokens: &[u32]) -> String {
        let mut text = String::with_capacity(tokens.len());
        for &token in tokens {
            self.push(token, &mut text);
        }
        text
    }

    /// Whether a character is incomplete.
    pub fn is_holding(&self) -> bool {
        match &self.0 {
            Stream::Bytes { bytes, .. } => bytes.is_holding(),
            Stream::Characters(_) | Stream::Absent => false,
            #[cfg(feature = "tokenizers")]
            Stream::Json(json) => json.is_holding(),
        }
    }

    /// Appends what is still held back: no more tokens will complete it.
    pub fn finish(&mut self, text: &mut String) {
        match &mut self.0 {
            Stream::Bytes { bytes, .. } => bytes.finish(text),
            Stream::Characters(_) | Stream::Absent => {}
            #[cfg(feature = "tokenizers")]
            Stream::Json(json) => json.finish(text),
        }
    }
}
