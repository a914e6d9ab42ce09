//! Tokens that are bytes.
//!
//! Text is UTF-8. Bytes that can never become part of valid UTF-8 are shown as `\xNN`.

use std::fmt::Write;

use super::EncodeError;

/// Token ids of a text: its bytes, each plus `offset`.
pub(super) fn encode(text: &[u8], vocab: usize, offset: u32) -> Result<Vec<u32>, EncodeError> {
    let id = |byte: u8| u32::from(byte) + offset;
    match text.iter().position(|&byte| id(byte) as usize >= vocab) {
        Some(offset) => Err(EncodeError::ByteOutOfRange { offset, byte: text[offset], vocab }),
        None => Ok(text.iter().map(|&byte| id(byte)).collect()),
    }
}

/// Turns bytes into text as they come.
#[derive(Clone, Debug, Default)]
pub(super) struct ByteStream {
    /// The start of a character that may yet become valid: at most three bytes between calls.
    held: Vec<u8>,
}

impl ByteStream {
    /// Takes a byte and appends to `text` what can be shown by now.
    pub(super) fn push(&mut self, byte: u8, text: &mut String) {
        self.held.push(byte);
        loop {
            let (valid, invalid) = match std::str::from_utf8(&self.held) {
                Ok(_) => (self.held.len(), 0),
                Err(error) => match error.error_len() {
                    Some(invalid) => (error.valid_up_to(), invalid),
                    None => (error.valid_up_to(), 0),
                },
            };
            show(&self.held[..valid], text);
            escape(&self.held[valid..valid + invalid], text);
            self.held.drain(..valid + invalid);
            if invalid == 0 {
                return;
            }
        }
    }

    /// Whether a character is incomplete.
    pub(super) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Appends what is still held back: no more bytes will complete it.
    pub(super) fn finish(&mut self, text: &mut String) {
        escape(&self.held, text);
        self.held.clear();
    }
}

/// Appends bytes that are known to be valid.
fn show(valid: &[u8], text: &mut String) {
    text.push_str(&String::from_utf8_lossy(valid));
}

fn escape(bytes: &[u8], text: &mut String) {
    for byte in bytes {
        let _ = write!(text, "\\x{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::{TextStream, Tokenizer};
    use proptest::prelude::*;

    fn bytes(text: &[u8]) -> Vec<u32> {
        Tokenizer::bytes(256).encode(text).expect("every byte has a token")
    }

    fn decode(tokens: &[u32]) -> String {
        Tokenizer::bytes(256).decode(tokens)
    }

    /// What the standard library makes of all the bytes at once.
    fn reference(tokens: &[u32]) -> String {
        let bytes: Vec<u8> = tokens.iter().filter_map(|&token| u8::try_from(token).ok()).collect();
        let mut text = String::new();
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            escape(chunk.invalid(), &mut text);
        }
        text
    }

    #[test]
    fn bytes_are_tokens() {
        assert_eq!(encode("é!".as_bytes(), 256, 0).unwrap(), [0xc3, 0xa9, 0x21]);
        assert_eq!(encode(b"", 1, 0).unwrap(), [0u32; 0]);
        let error = encode(b"ab~", 100, 0).unwrap_err();
        assert_eq!(error.to_string(), "byte 0x7e (at offset 2) has no token: the model's vocabulary has 100 ids");
    }

    #[test]
    fn byt5_shifts_every_byte_by_three() {
        let tokenizer = Tokenizer::byt5(259);
        assert_eq!(tokenizer.encode("é!".as_bytes()).unwrap(), [0xc6, 0xac, 0x24]);
        assert_eq!(tokenizer.encode(b"\xff").unwrap(), [258]);
        assert_eq!(tokenizer.decode(&[0, 0xc6, 1, 0xac, 2, 0x24, 259, 400]), "é!");
        assert_eq!(tokenizer.special_id("</s>"), Some(1));
        let error = Tokenizer::byt5(100).encode(b"ab").unwrap_err();
        assert_eq!(error.to_string(), "byte 0x61 (at offset 0) has no token: the model's vocabulary has 100 ids");
    }

    #[test]
    fn invalid_bytes_are_shown_as_python_shows_them() {
        // bytes.decode("utf-8", "backslashreplace"), Python 3.11
        for (raw, shown) in [
            (&b"\xff"[..], "\\xff"),
            (b"a\xc3", "a\\xc3"),
            (b"\xc3(", "\\xc3("),
            (b"\xe2\x82\xac", "€"),
            (b"\xe2\x82", "\\xe2\\x82"),
            (b"\xe2\x82A\xe2\x82\xac", "\\xe2\\x82A€"),
            (b"\xc0\x80", "\\xc0\\x80"),
            (b"\xed\xa0\x80", "\\xed\\xa0\\x80"),
            (b"\xf0\x9f\x90\x89", "🐉"),
            (b"\xf0\x9f\x90\xf0\x9f\x90\x89", "\\xf0\\x9f\\x90🐉"),
            (b"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"),
        ] {
            assert_eq!(decode(&bytes(raw)), shown);
        }
    }

    #[test]
    fn a_character_waits_until_it_is_complete() {
        let mut stream = TextStream::default();
        let mut pieces = Vec::new();
        for token in bytes("a🐉".as_bytes()) {
            let mut piece = String::new();
            stream.push(token, &mut piece);
            pieces.push(piece);
        }
        assert_eq!(pieces, ["a", "", "", "", "🐉"]);
    }

    #[test]
    fn special_tokens_print_nothing() {
        assert_eq!(decode(&[256, 104, 300, 105, u32::MAX]), "hi");
        assert_eq!(decode(&[0xc3, 256, 0xa9]), "é");
    }

    /// Bytes that make and break characters far more often than uniform ones do.
    fn tricky_token() -> impl Strategy<Value = u32> {
        let any = 0u32..256;
        let pieces = prop::sample::select("aé€🐉".bytes().map(u32::from).collect::<Vec<_>>());
        let edges = prop::sample::select(vec![0xc0, 0xe0, 0xed, 0xf0, 0xf4, 0xff, 0x80, 0x9f, 0xa0, 0xbf, 256, 70_000]);
        prop_oneof![any, pieces, edges]
    }

    proptest! {
        #[test]
        fn pieces_join_to_the_whole_text(
            tokens in prop::collection::vec(tricky_token(), 0..80),
            cuts in prop::collection::vec(0usize..80, 0..10),
        ) {
            let mut stream = TextStream::default();
            let mut pieces = vec![String::new()];
            for (index, &token) in tokens.iter().enumerate() {
                if cuts.contains(&index) {
                    pieces.push(String::new());
                }
                stream.push(token, pieces.last_mut().unwrap());
            }
            pieces.push(String::new());
            stream.finish(pieces.last_mut().unwrap());
            prop_assert_eq!(pieces.concat(), reference(&tokens));
            prop_assert_eq!(decode(&tokens), reference(&tokens));
        }

        #[test]
        fn a_text_comes_back_as_it_was(text in "\\PC{0,40}") {
            prop_assert_eq!(decode(&bytes(text.as_bytes())), text);
        }
    }
}
