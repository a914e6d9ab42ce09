//! Stop texts: found in the text as its tokens come, whatever tokens they are spread over.

use crate::tokenizer::TextStream;
use std::collections::VecDeque;

/// Looks for stop texts and holds back the tokens that may yet turn out to be part of one.
#[derive(Clone, Debug, Default)]
pub(super) struct StopScan {
    stops: Vec<String>,
    stream: TextStream,
    /// The text of the tokens held back.
    text: String,
    /// The tokens held back, each with the length of `text` after it; none in the midst of a character.
    held: VecDeque<(u32, Option<usize>)>,
    /// The text between the tokens kept and the stop text that was found.
    tail: String,
    /// Index of the stop text that was found.
    found: Option<usize>,
    /// Tokens taken in, up to the one that completed the stop text.
    taken: usize,
}

impl StopScan {
    /// Looks for any of these texts, none of them empty, in what `stream` makes of tokens.
    pub fn new(stops: &[String], stream: TextStream) -> Self {
        Self { stops: stops.to_vec(), stream, ..Self::default() }
    }

    /// Whether there is anything to look for.
    pub fn is_active(&self) -> bool {
        !self.stops.is_empty()
    }

    /// Takes tokens in. Adds those to `kept` that lie before every stop text that there is or may be. Says
    /// whether one was found: what follows is to be dropped then.
    pub fn push(&mut self, tokens: &[u32], kept: &mut Vec<u32>) -> bool {
        if !self.is_active() {
            kept.extend_from_slice(tokens);
            self.taken += tokens.len();
            return false;
        }
        for &token in tokens {
            self.taken += 1;
            let before = self.text.len();
            let mut unfinished = String::new();
            if self.stream.is_holding() {
                self.stream.clone().finish(&mut unfinished);
            }
            self.stream.push(token, &mut self.text);
            if !unfinished.is_empty() && self.text[before..].starts_with(&unfinished) {
                // The tokens in the midst of a character are not completed by this one: they end before it.
                let incomplete = self.held.iter_mut().rev().take_while(|(_, end)| end.is_none());
                incomplete.for_each(|(_, end)| *end = Some(before + unfinished.len()));
            }
            self.held.push_back((token, (!self.stream.is_holding()).then_some(self.text.len())));
            let starts = self.stops.iter().enumerate().filter_map(|(index, stop)| Some((self.text.find(stop)?, index)));
            if let Some((start, index)) = starts.min() {
                self.found = Some(index);
                let released = self.release(start, kept);
                self.tail = self.text[..start - released].to_owned();
                return true;
            }
            self.release(self.possible_start(), kept);
        }
        false
    }

    /// The text before the stop text that belongs to no token that was kept: the beginning of the token that the stop
    /// text begins within.
    pub fn take_tail(&mut self) -> String {
        std::mem::take(&mut self.tail)
    }

    /// Index of the stop text that was found.
    pub fn found(&self) -> Option<usize> {
        self.found
    }

    /// Tokens taken in, up to the one that completed the stop text.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// Adds what is still held back: no more tokens will come.
    pub fn finish(&mut self, kept: &mut Vec<u32>) {
        kept.extend(self.held.drain(..).map(|(token, _)| token));
        self.text.clear();
    }

    /// Where the earliest stop text would begin that the end of the text may be the start of.
    fn possible_start(&self) -> usize {
        let begins = |at: &usize| self.stops.iter().any(|stop| stop.starts_with(&self.text[*at..]));
        self.text.char_indices().map(|(at, _)| at).find(begins).unwrap_or(self.text.len())
    }

    /// Lets go of the tokens whose text ends at or before `start`, and says how much text they have.
    fn release(&mut self, start: usize, kept: &mut Vec<u32>) -> usize {
        let count = self.held.iter().rposition(|(_, end)| end.is_some_and(|end| end <= start)).map_or(0, |at| at + 1);
        let mut released = 0;
        for (token, end) in self.held.drain(..count) {
            kept.push(token);
            released = end.unwrap_or(released);
        }
        self.text.drain(..released);
        for end in self.held.iter_mut().filter_map(|(_, end)| end.as_mut()) {
            *end -= released;
        }
        released
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::Tokenizer;
    use proptest::prelude::*;

    fn tokens(text: &[u8]) -> Vec<u32> {
        text.iter().map(|&byte| u32::from(byte)).collect()
    }

    /// What is kept of a text, and whether it was stopped.
    fn scan(stops: &[&str], text: &[u8]) -> (Vec<u32>, bool) {
        let mut scan =
            StopScan::new(&stops.iter().map(|stop| stop.to_string()).collect::<Vec<_>>(), TextStream::default());
        let mut kept = Vec::new();
        let found = scan.push(&tokens(text), &mut kept);
        if !found {
            scan.finish(&mut kept);
        }
        (kept, found)
    }

    #[test]
    fn text_is_cut_before_the_first_stop() {
        for (stops, text, kept, found) in [
            (&["END"][..], &b"the END of"[..], &b"the "[..], true),
            (&["END"], b"EENDE", b"E", true),
            (&["END"], b"the EN", b"the EN", false),
            (&["aab"], b"aaab", b"a", true),
            (&["b", "aab"], b"aaab", b"a", true),
            (&["x", "\n\n"], b"a\n\nx", b"a", true),
            (&["\u{e9}"], "caf\u{e9}!".as_bytes(), b"caf", true),
            (&["\u{1f409}"], "\u{1f408}\u{1f409}".as_bytes(), "\u{1f408}".as_bytes(), true),
            (&["\\xff"], b"a\xffb", b"a", true),
            (&["a"], b"a", b"", true),
            (&[], b"anything", b"anything", false),
        ] {
            assert_eq!(scan(stops, text), (tokens(kept), found), "{stops:?} in {text:?}");
        }
    }

    #[test]
    fn special_tokens_are_no_obstacle() {
        let mut scan = StopScan::new(&["ab".to_string()], TextStream::default());
        let mut kept = Vec::new();
        assert!(scan.push(&[99, 97, 300, 98], &mut kept));
        assert_eq!(kept, [99]);
    }

    #[test]
    fn tokens_are_held_back_only_while_they_may_be_part_of_a_stop() {
        let mut scan = StopScan::new(&["END".to_string()], TextStream::default());
        let mut kept = Vec::new();
        for (byte, released) in [(b'E', 0), (b'N', 0), (b'E', 2), (b'!', 4)] {
            assert!(!scan.push(&[byte.into()], &mut kept));
            assert_eq!(kept.len(), released);
        }
    }

    proptest! {
        #[test]
        fn every_cut_agrees_with_a_search_of_the_whole_text(
            text in prop::collection::vec(prop::sample::select(vec![103u32, 104, 0xc3, 0xa9, 0xff, 300]), 0..40),
            stop in "[ghé]{1,4}",
            pieces in prop::collection::vec(1usize..5, 0..20),
        ) {
            let mut scan = StopScan::new(std::slice::from_ref(&stop), TextStream::default());
            let mut kept = Vec::new();
            let (mut rest, mut found) = (&text[..], false);
            for piece in pieces.into_iter().chain(std::iter::once(text.len())) {
                let (now, later) = rest.split_at(piece.min(rest.len()));
                rest = later;
                found = scan.push(now, &mut kept);
                if found {
                    break;
                }
            }
            if !found {
                scan.finish(&mut kept);
                prop_assert_eq!(&kept, &text);
            }
            let decode = |tokens: &[u32]| Tokenizer::bytes(256).decode(tokens);
            let whole = decode(&text);
            prop_assert_eq!(found, whole.contains(&stop));
            if let Some(at) = whole.find(&stop) {
                prop_assert_eq!(decode(&kept) + &scan.take_tail(), &whole[..at]);
            }
        }
    }
}
