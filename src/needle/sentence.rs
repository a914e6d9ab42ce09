//! The needle: a sentence about a random key and a random value, and its tokens.

use super::NeedleError;
use crate::generation::GenerationError;
use crate::model::Model;
use crate::options::OutOfRange;
use crate::sampling::draw_word;
use crate::tokenizer::TextStream;

/// The sentence unless another is given, on a line of its own.
pub const DEFAULT_TEXT: &str = "\nThe secret word of {key} is {value}.\n";

const CONSONANTS: &[u8] = b"bdfgklmnprstvz";
const VOWELS: &[u8] = b"aeiou";
/// Syllables of a key and of a value: 70^3 values, 18.4 bits.
const SYLLABLES: [u32; 2] = [2, 3];

/// What a random word is for. Each purpose has a stream of random numbers of its own.
#[derive(Clone, Copy)]
enum Purpose {
    Key = 1,
    Value = 2,
    OtherValue = 3,
}

/// A sentence with places for the key and the value.
#[derive(Clone, Debug)]
pub struct Template {
    /// The text before the value.
    before: String,
    /// The text after it.
    after: String,
}

impl Template {
    /// Reads a text with `{value}` once and `{key}` any number of times.
    pub fn new(text: &str) -> Result<Self, OutOfRange> {
        match text.split("{value}").collect::<Vec<_>>()[..] {
            [before, after] if !before.is_empty() => Ok(Self { before: before.into(), after: after.into() }),
            _ => Err(OutOfRange::new("needle_text", "a text with {value} once, and with text before it", text)),
        }
    }

    /// The sentence number `index` of a seed, with its value and with another one. `before` is the text before it.
    pub fn sentences(
        &self,
        model: &Model,
        before: &TextStream,
        seed: u64,
        index: u32,
    ) -> Result<[Sentence; 2], NeedleError> {
        let mut key = word(seed, index, Purpose::Key);
        key[..1].make_ascii_uppercase();
        let value = word(seed, index, Purpose::Value);
        // The other value differs, whatever the numbers.
        let other = word(seed, index, Purpose::OtherValue);
        let other = if other == value { value.chars().rev().collect() } else { other };
        let with = |value| Sentence::new(self, model, before, &key, value);
        Ok([with(&value)?, with(&other)?])
    }
}

/// A pronounceable word.
fn word(seed: u64, index: u32, purpose: Purpose) -> String {
    let syllables = SYLLABLES[usize::from(!matches!(purpose, Purpose::Key))];
    let syllable = |number: u32| {
        let word = draw_word(seed, number, index, purpose as u32);
        let consonant = CONSONANTS[(word % CONSONANTS.len() as u64) as usize];
        let vowel = VOWELS[((word >> 32) % VOWELS.len() as u64) as usize];
        [char::from(consonant), char::from(vowel)]
    };
    (0..syllables).flat_map(syllable).collect()
}

/// A sentence's tokens. The question is the part before the value, and the answer is the value.
#[derive(Clone, Debug)]
pub struct Sentence {
    /// All tokens.
    pub tokens: Vec<u32>,
    /// Index of the answer's first token: as many tokens make up the question.
    question: usize,
    /// Index of the token after the answer.
    end: usize,
    /// Bytes of the answer's text.
    pub answer_bytes: usize,
}

impl Sentence {
    /// Encodes a sentence that goes on with the text `before`.
    fn new(
        template: &Template,
        model: &Model,
        before: &TextStream,
        key: &str,
        value: &str,
    ) -> Result<Self, NeedleError> {
        let question = template.before.replace("{key}", key);
        let text = format!("{question}{value}{}", template.after.replace("{key}", key));
        let tokens = model.tokenizer.encode_after(before, text.as_bytes()).map_err(GenerationError::from)?;
        let pieces = before.clone().pieces(&tokens);
        if pieces.concat() != text {
            return Err(NeedleError::NotExpressible { text });
        }
        // The first token that reaches into the value belongs to the answer.
        let ends: Vec<usize> = pieces
            .iter()
            .scan(0, |end, piece| {
                *end += piece.len();
                Some(*end)
            })
            .collect();
        let start = ends.iter().position(|&end| end > question.len()).unwrap_or(0);
        let end = ends.iter().position(|&end| end >= question.len() + value.len()).map_or(tokens.len(), |at| at + 1);
        if start == 0 {
            return Err(NeedleError::NotExpressible { text });
        }
        let answer_bytes = pieces[start..end].iter().map(String::len).sum();
        Ok(Self { tokens, question: start, end, answer_bytes })
    }

    /// The tokens before the value.
    pub fn question(&self) -> &[u32] {
        &self.tokens[..self.question]
    }

    /// The value's tokens.
    pub fn answer(&self) -> &[u32] {
        &self.tokens[self.question..self.end]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_depend_on_the_seed_the_index_and_the_purpose() {
        let words =
            [(1, 0, Purpose::Value), (2, 0, Purpose::Value), (1, 1, Purpose::Value), (1, 0, Purpose::OtherValue)];
        let mut words: Vec<String> = words.map(|(seed, index, purpose)| word(seed, index, purpose)).into();
        assert!(words.iter().all(|word| word.len() == 6 && word.is_ascii()), "{words:?}");
        assert_eq!(word(1, 0, Purpose::Key).len(), 4);
        words.sort();
        words.dedup();
        assert_eq!(words.len(), 4);
    }

    #[test]
    fn a_template_has_one_value_and_text_before_it() {
        for wrong in ["", "no value", "{value}", "{value} is it", "a {value} and a {value}"] {
            let error = Template::new(wrong).unwrap_err();
            assert_eq!(error.option, "needle_text");
        }
        let template = Template::new("{key}, {key}: {value}").unwrap();
        assert_eq!((&template.before[..], &template.after[..]), ("{key}, {key}: ", ""));
    }

    #[cfg(feature = "embedded-model")]
    #[test]
    fn question_and_answer_make_up_the_sentence() {
        let model = Model::embedded().unwrap();
        let before = crate::model::Tokenizer::bytes(256).stream();
        let template = Template::new("Say {key} é {value}!").unwrap();
        let sentence = Sentence::new(&template, &model, &before, "Ab", "cdef").unwrap();
        assert_eq!(sentence.question(), "Say Ab é ".bytes().map(u32::from).collect::<Vec<_>>());
        assert_eq!(sentence.answer(), "cdef".bytes().map(u32::from).collect::<Vec<_>>());
        assert_eq!((sentence.tokens.len(), sentence.answer_bytes), (15, 4));
    }
}
