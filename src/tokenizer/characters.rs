//! Tokens that are characters.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::EncodeError;

/// Characters and their ids. Cloning shares them.
#[derive(Clone)]
pub(super) struct Characters {
    maps: Arc<Maps>,
}

struct Maps {
    ids: BTreeMap<char, u32>,
    characters: BTreeMap<u32, char>,
    /// Tokens that stand for no character, by their texts.
    special: BTreeMap<String, u32>,
}

impl Characters {
    /// Takes the text of every id. Texts of more than one character are special tokens, in angle or square brackets.
    ///
    /// # Errors
    /// The text of a token that is neither, or that another token has too.
    pub(super) fn new(texts: BTreeMap<u32, String>) -> Result<Self, String> {
        let mut maps = Maps { ids: BTreeMap::new(), characters: BTreeMap::new(), special: BTreeMap::new() };
        for (id, text) in texts {
            let mut characters = text.chars();
            let other = match (characters.next(), characters.next()) {
                (Some(character), None) => {
                    maps.characters.insert(id, character);
                    maps.ids.insert(character, id)
                }
                _ if is_special(&text) => maps.special.insert(text.clone(), id),
                _ => return Err(text),
            };
            if other.is_some() {
                return Err(text);
            }
        }
        Ok(Self { maps: Arc::new(maps) })
    }

    pub(super) fn encode(&self, text: &[u8]) -> Result<Vec<u32>, EncodeError> {
        let text = str::from_utf8(text).map_err(|error| {
            let offset = error.valid_up_to();
            EncodeError::NotUtf8 { offset, byte: text.get(offset).copied().unwrap_or_default() }
        })?;
        let id = |(offset, character)| {
            let id = self.maps.ids.get(&character).copied();
            id.ok_or(EncodeError::CharacterWithoutToken { offset, character, count: self.maps.ids.len() })
        };
        text.char_indices().map(id).collect()
    }

    /// The text of every id.
    pub(super) fn texts(&self) -> BTreeMap<u32, String> {
        let characters = self.maps.characters.iter().map(|(&id, character)| (id, character.to_string()));
        characters.chain(self.maps.special.iter().map(|(text, &id)| (id, text.clone()))).collect()
    }

    pub(super) fn special_id(&self, token: &str) -> Option<u32> {
        self.maps.special.get(token).copied()
    }

    /// Appends a token's character; special tokens have none.
    pub(super) fn push(&self, token: u32, text: &mut String) {
        text.extend(self.maps.characters.get(&token));
    }
}

impl fmt::Display for Characters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} characters", self.maps.ids.len())
    }
}

impl fmt::Debug for Characters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Characters({self})")
    }
}

fn is_special(text: &str) -> bool {
    text.len() > 2 && (text.starts_with('<') && text.ends_with('>') || text.starts_with('[') && text.ends_with(']'))
}

#[cfg(test)]
mod tests {
    use crate::tokenizer::Tokenizer;

    #[test]
    fn characters_are_tokens() {
        let texts = ["a", "é", "<end>", "\n"].into_iter().map(str::to_owned);
        let tokenizer = Tokenizer::characters((0..).zip(texts).collect(), 6).unwrap();
        assert_eq!(tokenizer.encode("éa\n".as_bytes()).unwrap(), [1, 0, 3]);
        assert_eq!(tokenizer.decode(&[1, 2, 0, 5, 3, u32::MAX]), "éa\n");
        assert_eq!(tokenizer.special_id("<end>"), Some(2));
        assert_eq!(tokenizer.to_string(), "3 characters");
        let error = tokenizer.encode(b"aab").unwrap_err();
        assert_eq!(error.to_string(), "character 'b' (at offset 2) has no token: the model knows 3 characters");
        let error = tokenizer.encode(b"a\xff").unwrap_err();
        assert!(error.to_string().starts_with("byte 0xff (at offset 1) is not valid UTF-8"), "{error}");
    }
}
