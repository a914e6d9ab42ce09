//! Prompts, texts and token lists, from the command line, files or standard input.

use super::advice;
use super::failure::Failure;
use super::format;
use bdh_gpu::generation::GenerationError;
use bdh_gpu::model::{Config, Model};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Most bytes that are read of a file or a line: what has no end, as /dev/zero, must not fill the memory.
pub const LONGEST: u64 = 256 << 20;

/// Token ids as `--tokens` takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// Written on the command line.
    Ids(Vec<u32>),
    /// To be read from a file, `-` being standard input.
    File(PathBuf),
}

impl std::str::FromStr for TokenSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix('@') {
            Some("") => Err("a file name must follow the @".to_string()),
            Some(path) => Ok(Self::File(path.into())),
            None => parse_ids(text).map(Self::Ids),
        }
    }
}

impl TokenSource {
    /// The tokens, checked against the model's vocabulary.
    pub fn read(&self, config: &Config) -> Result<Vec<u32>, Failure> {
        let tokens = match self {
            Self::Ids(ids) => ids.clone(),
            Self::File(path) => {
                let bytes = read_file(path)?;
                let wrong = |what: String| Failure::Failed(format!("{}: {what}", path.display()));
                let text = str::from_utf8(without_mark(&bytes))
                    .map_err(|_| wrong("is not text; expected token ids".into()))?;
                parse_ids(text).map_err(wrong)?
            }
        };
        check_vocabulary(&tokens, config)?;
        Ok(tokens)
    }
}

/// Ids separated by spaces, commas or line ends, alone or as a list in square brackets.
fn parse_ids(text: &str) -> Result<Vec<u32>, String> {
    const LONGEST_SHOWN: usize = 20;
    let list = text.trim().strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let text = list.unwrap_or(text);
    let words = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
    words
        .map(|word| {
            word.parse().map_err(|_| {
                let shown: String = word.chars().take(LONGEST_SHOWN).collect();
                let more = if shown.len() < word.len() { "…" } else { "" };
                format!(
                    "{shown:?}{more} is not a token id; expected whole numbers from 0 to {}, separated by spaces or commas",
                    u32::MAX
                )
            })
        })
        .collect()
}

fn check_vocabulary(tokens: &[u32], config: &Config) -> Result<(), GenerationError> {
    let vocab = config.vocab_size;
    match tokens.iter().position(|&token| token as usize >= vocab) {
        Some(index) => Err(GenerationError::TokenOutOfRange { index, token: tokens[index], vocab }),
        None => Ok(()),
    }
}

/// Prompts to be continued, as token ids.
#[derive(Debug, Default)]
pub struct Prompts {
    pub tokens: Vec<Vec<u32>>,
    /// Their texts as they were given; `None` for token ids, and for bytes that are not valid UTF-8.
    pub texts: Vec<Option<String>>,
    /// Where each of them comes from, if there is more than one source: the file, and line numbers from 1.
    source: Option<(String, Vec<usize>)>,
}

impl Prompts {
    /// A single prompt of token ids.
    pub fn of_tokens(tokens: Vec<u32>) -> Self {
        Self { tokens: vec![tokens], texts: vec![None], source: None }
    }

    /// A single prompt.
    pub fn of_text(text: &[u8], model: &Model) -> Result<Self, Failure> {
        Ok(Self { tokens: vec![encode(text, model)?], texts: vec![valid(text)], source: None })
    }

    /// The lines of a file that are not blank (see [`prompt_lines`]).
    pub fn read(path: &Path, model: &Model) -> Result<Self, Failure> {
        let bytes = read_file(path)?;
        let name = path.display().to_string();
        let (mut tokens, mut texts, mut lines) = (Vec::new(), Vec::new(), Vec::new());
        for (number, line) in prompt_lines(&bytes) {
            let encoded = model.tokenizer.encode(line);
            tokens.push(
                encoded
                    .map_err(|error| Failure::Usage(format!("{name}: line {number}: {}", advice::encode(&error))))?,
            );
            texts.push(valid(line));
            lines.push(number);
        }
        Ok(Self { tokens, texts, source: Some((name, lines)) })
    }

    /// What to call a prompt in an error.
    pub fn name(&self, index: usize) -> String {
        match &self.source {
            Some((name, lines)) => format!("{name}: line {}", lines[index]),
            None => "the prompt".to_string(),
        }
    }
}

/// The lines of a prompts file with their numbers, from 1. Blank ones are left out. A byte order mark at the
/// start and the line ends of any system are no part of them; everything else is, spaces at the end and bytes
/// that are not valid UTF-8 included.
pub fn prompt_lines(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let lines = without_mark(bytes).split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    (1..).zip(lines).filter(|(_, line)| !line.trim_ascii().is_empty())
}

/// A text without the byte order mark that some editors begin it with.
pub fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// A whole file; `-` is standard input. Pipes and devices are read to their end.
pub fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(LONGEST + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes))
    };
    match read {
        Err(error) => {
            let expected = if path.is_dir() { "; expected a file" } else { "" };
            Err(Failure::Failed(format!("{}: cannot be read: {error}{expected}", path.display())))
        }
        Ok(_) if bytes.len() as u64 > LONGEST => Err(Failure::Failed(format!(
            "{}: is longer than {}; expected a shorter file, or one that ends",
            path.display(),
            format::bytes(LONGEST)
        ))),
        Ok(_) => Ok(bytes),
    }
}

fn valid(text: &[u8]) -> Option<String> {
    str::from_utf8(text).ok().map(str::to_owned)
}

/// Token ids of a text by the model's tokenizer.
pub fn encode(text: &[u8], model: &Model) -> Result<Vec<u32>, Failure> {
    Ok(model.tokenizer.encode(text).map_err(GenerationError::from)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_may_be_separated_in_any_way() {
        for text in ["1 2,3", " 1,\t2\n3\n", "1,,2 , 3,", "[1,2,3]", " [1, 2, 3]\n"] {
            assert_eq!(text.parse(), Ok(TokenSource::Ids(vec![1, 2, 3])));
        }
        assert_eq!("".parse(), Ok(TokenSource::Ids(vec![])));
        assert_eq!("@ids.txt".parse(), Ok(TokenSource::File("ids.txt".into())));
    }

    #[test]
    fn prompts_are_the_lines_that_are_not_blank() {
        let lines = |bytes: &'static [u8]| prompt_lines(bytes).collect::<Vec<_>>();
        let expected: [(usize, &[u8]); 2] = [(1, b"one "), (4, b" tw\xffo")];
        for text in
            [&b"one \n\n \t\n tw\xffo\n"[..], b"one \r\n\r\n \t\r\n tw\xffo", b"\xef\xbb\xbfone \n\n\r\n tw\xffo\n\n\n"]
        {
            assert_eq!(lines(text), expected, "{text:?}");
        }
        assert!(lines(b"").is_empty() && lines(b"\xef\xbb\xbf\r\n \n").is_empty());
        // Within a line, a carriage return is a byte like any other.
        assert_eq!(lines(b"a\rb\r\r\n"), [(1, &b"a\rb\r"[..])]);
    }

    #[test]
    fn what_is_no_id_is_named() {
        for wrong in ["-1", "4294967296", "1.5", "[1", "1]", "[[1]]", "x", "\u{1b}[31m", "１２"] {
            let error = format!("1 {wrong}").parse::<TokenSource>().unwrap_err();
            assert!(error.starts_with(&format!("{wrong:?} is not a token id")), "{error}");
        }
        assert!("9".repeat(1000).parse::<TokenSource>().unwrap_err().len() < 150);
        assert!("@".parse::<TokenSource>().is_err());
    }
}
