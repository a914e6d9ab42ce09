//! The end of the model's turn, and the line ends before the next one.

use bdh_gpu::Bdh;
use clap::ValueEnum;

/// The end of a turn: a line end, an empty line, or its greatest length. Stop texts come before
/// these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Turns {
    Line,
    #[default]
    Paragraph,
    Length,
}

impl Turns {
    /// Line ends between an unfinished turn and what is typed next.
    pub fn separator(self) -> &'static str {
        match self {
            Self::Line => "\n",
            Self::Paragraph => "\n\n",
            Self::Length => "",
        }
    }
}

/// Looks for the end of a turn in its text. White space before the first word ends nothing.
pub struct TurnEnd {
    turns: Turns,
    /// Whether there was a word.
    written: bool,
    /// Whether the last line is blank so far.
    blank: bool,
}

impl TurnEnd {
    pub fn new(turns: Turns) -> Self {
        Self { turns, written: false, blank: false }
    }

    /// Takes the text that comes next, and says whether the turn ends within it.
    pub fn push(&mut self, text: &str) -> bool {
        let mut ended = false;
        for letter in text.chars() {
            if letter == '\n' {
                ended |= self.written
                    && match self.turns {
                        Turns::Line => true,
                        Turns::Paragraph => self.blank,
                        Turns::Length => false,
                    };
                self.blank = true;
            } else if !letter.is_whitespace() {
                (self.written, self.blank) = (true, false);
            }
        }
        ended
    }
}

/// Tokens whose text has a line end: a turn can end with these only.
pub fn line_ends(bdh: &Bdh) -> Vec<u32> {
    let vocabulary = 0..bdh.model().config.vocab_size as u32;
    vocabulary.filter(|&token| bdh.decode(&[token]).contains('\n')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The places at which turns end in a text that comes letter by letter.
    fn ends(turns: Turns, text: &str) -> Vec<usize> {
        let mut end = TurnEnd::new(turns);
        let letters = text.char_indices().map(|(at, letter)| (at, letter.to_string()));
        letters.filter_map(|(at, letter)| end.push(&letter).then_some(at)).collect()
    }

    #[test]
    fn a_turn_ends_after_its_first_line_or_paragraph() {
        assert_eq!(ends(Turns::Line, "\n \na\nb\n"), [4, 6]);
        assert_eq!(ends(Turns::Paragraph, "\n\na\nb \n\t\r\nc\n\n"), [9, 12]);
        assert!(ends(Turns::Paragraph, "a\nb\nc\n").is_empty());
        assert!(ends(Turns::Length, "a\n\n").is_empty());
        assert!(TurnEnd::new(Turns::Paragraph).push("a.\n\nb"), "within a token");
    }
}
