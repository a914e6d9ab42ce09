//! The tests, the tokens that they read, and one timed run.

use super::BenchOptions;
use crate::generation::batch::{Batch, Drawing, check_state};
use crate::generation::{Bdh, GenerationError, GenerationOptions};
use crate::model::forgetting::Forgetting;
use crate::sampling::{BiasRow, SamplerParams};
use std::time::Instant;

/// Tokens that are read untimed before a depth above 0: two windows.
pub(super) const HISTORY: usize = 32;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    /// Reading a prompt of so many tokens, up to the first token drawn.
    Prompt(usize),
    /// Decoding so many tokens.
    Decode(usize),
}

/// A test at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Case {
    pub test: Test,
    pub depth: u32,
}

impl BenchOptions {
    /// Every depth's tests.
    pub(super) fn cases(&self) -> Vec<Case> {
        let tests = [Test::Prompt(self.prompt_tokens), Test::Decode(self.new_tokens)];
        let wanted = |test: &Test| !matches!(test, Test::Prompt(0) | Test::Decode(0));
        let tests: Vec<Test> = tests.into_iter().filter(wanted).collect();
        self.depths.iter().flat_map(|&depth| tests.iter().map(move |&test| Case { test, depth })).collect()
    }
}

impl Case {
    /// Tokens of its history, and the position of the first of them.
    pub fn history(&self) -> (usize, u32) {
        let tokens = HISTORY.min(self.depth as usize);
        (tokens, self.depth - tokens as u32)
    }

    /// The tokens that each sequence is given to read, those of the history first.
    pub fn given(&self, vocab: usize, sequence: usize) -> Vec<u32> {
        let timed = match self.test {
            Test::Prompt(tokens) => tokens,
            Test::Decode(_) => 1,
        };
        text(vocab, self.history().0 + timed, sequence)
    }
}

/// A device with some sequences on it.
pub(super) struct Lane {
    pub bdh: Bdh,
    pub sequences: usize,
    batch: Batch,
}

/// A timed run.
pub(super) struct Timed {
    pub seconds: f64,
    /// What every sequence drew.
    pub drawn: Vec<Vec<u32>>,
}

impl Lane {
    /// Allocates the sequences.
    pub fn new(bdh: &Bdh, sequences: usize) -> Result<Self, GenerationError> {
        let config = &bdh.model().config;
        let of_model = Forgetting::of_model(config);
        let forgetting = match check_state(bdh.backend().state_type(), of_model) {
            Ok(()) => of_model,
            // The speed is the same.
            Err(_) => Forgetting::After { context: 256, tau: 128.0 },
        };
        let batch = Batch::new(bdh.backend(), config, sequences, forgetting)?;
        Ok(Self { bdh: bdh.clone(), sequences, batch })
    }

    /// Runs a case from its beginning.
    pub fn run(&mut self, case: &Case) -> Result<Timed, GenerationError> {
        let vocab = self.bdh.model().config.vocab_size;
        let (history, position) = case.history();
        let given: Vec<Vec<u32>> = (0..self.sequences).map(|sequence| case.given(vocab, sequence)).collect();
        for (slot, tokens) in given.iter().enumerate() {
            self.batch.clear_at(slot, position)?;
            // The token at the depth itself stays unread, as the last one pushed always does.
            self.batch.push(slot, &tokens[..=history])?;
        }
        while (0..self.sequences).any(|slot| self.batch.is_reading(slot)) {
            self.batch.advance()?;
        }
        match case.test {
            Test::Prompt(_) => {
                let start = Instant::now();
                for (slot, tokens) in given.iter().enumerate() {
                    self.batch.push(slot, &tokens[history + 1..])?;
                }
                self.sample(1)?;
                self.draw(1, start)
            }
            Test::Decode(tokens) => {
                self.sample(tokens)?;
                self.draw(tokens, Instant::now())
            }
        }
    }

    /// Sets the samplers going, with the model's own options but without an end of sequence.
    fn sample(&mut self, tokens: usize) -> Result<(), GenerationError> {
        let model = self.bdh.model();
        let options = GenerationOptions::of_model(model).sampling;
        let counts = vec![0; model.config.vocab_size];
        for slot in 0..self.sequences {
            let params = SamplerParams::new(&options, 1, slot as u32);
            let drawing = Drawing { params, counts: &counts, biases: &BiasRow::default(), drawn: 0 };
            self.batch.draw(slot, tokens, &drawing)?;
        }
        Ok(())
    }

    /// Runs until every sequence has drawn its tokens.
    fn draw(&mut self, tokens: usize, start: Instant) -> Result<Timed, GenerationError> {
        let mut drawn = vec![Vec::with_capacity(tokens); self.sequences];
        while drawn.iter().any(|drawn| drawn.len() < tokens) {
            for (progress, drawn) in self.batch.advance()?.into_iter().zip(&mut drawn) {
                if let Some(failure) = progress.failure {
                    return Err(failure);
                }
                drawn.extend_from_slice(&progress.drawn);
            }
        }
        Ok(Timed { seconds: start.elapsed().as_secs_f64(), drawn })
    }
}

/// English, where the model's tokens are bytes: what a trained model fires at depends on what it reads.
const TEXT: &[u8] = b"Shall I compare thee to a summer's day?\nThou art more lovely and more temperate:\n\
Rough winds do shake the darling buds of May,\nAnd summer's lease hath all too short a date;\n\
Sometime too hot the eye of heaven shines,\nAnd often is his gold complexion dimm'd;\n\
And every fair from fair sometime declines,\nBy chance or nature's changing course untrimm'd;\n\
But thy eternal summer shall not fade,\nNor lose possession of that fair thou ow'st;\n\
Nor shall death brag thou wander'st in his shade,\nWhen in eternal lines to time thou grow'st:\n\
So long as men can breathe or eyes can see,\nSo long lives this, and this gives life to thee.\n\n";

/// Tokens to read: a text over and over, from another place for every sequence; or, where the vocabulary has too
/// few tokens for that, ids that follow no pattern.
pub(super) fn text(vocab: usize, count: usize, sequence: usize) -> Vec<u32> {
    let start = 37 * sequence;
    if vocab >= 128 {
        let bytes = TEXT.iter().cycle().skip(start % TEXT.len());
        return bytes.take(count).map(|&byte| byte.into()).collect();
    }
    let id = |index: usize| ((index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % vocab as u64;
    (start..start + count).map(|index| id(index) as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stay_in_the_vocabulary() {
        for vocab in [1, 2, 100, 128, 256, 32_000] {
            for sequence in [0, 1, 500] {
                let tokens = text(vocab, 1500, sequence);
                assert_eq!(tokens.len(), 1500);
                assert!(tokens.iter().all(|&token| (token as usize) < vocab), "{vocab}");
            }
        }
        assert_ne!(text(256, 100, 0), text(256, 100, 1));
    }

    #[test]
    fn a_history_ends_at_the_depth() {
        let at = |depth| Case { test: Test::Prompt(10), depth };
        assert_eq!(at(0).history(), (0, 0));
        assert_eq!(at(5).history(), (5, 0));
        assert_eq!(at(1000).history(), (HISTORY, 1000 - HISTORY as u32));
        assert_eq!(at(1000).given(256, 0).len(), HISTORY + 10);
        assert_eq!(Case { test: Test::Decode(10), depth: 5 }.given(256, 0).len(), 6);
    }
}
