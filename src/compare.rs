//! What smaller numbers cost: a text read with two types of numbers, token by token, and how far
//! the predictions part.

use crate::backend::{Input, Output, Plan, SlotStep, Slots};
use crate::bench::{self, BenchError};
use crate::generation::batch::{check_state, step_at};
use crate::generation::score::log_sum;
use crate::generation::{Bdh, GenerationError};
use crate::model::forgetting::{Clock, Forgetting};
use crate::sampling::{SampleOutcome, Sampler, SamplerParams, SamplingError, SamplingOptions};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Tokens that a device reads at once.
const BURST: usize = 64;

/// A text as one device reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// Sum of −ln p over the predicted tokens.
    pub loss: f64,
    /// Time that the reading took.
    pub time: Duration,
    /// Bytes that a token moves; see [`bench::traffic`].
    pub bytes_per_token: f64,
}

/// Differences between the predictions of two devices for the same text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Predicted tokens.
    pub predicted: usize,
    /// The reference.
    pub exact: Reading,
    /// What is compared with it.
    pub other: Reading,
    /// Kullback-Leibler divergence from the reference's distribution of the next token, nats: the
    /// mean of every block of the text.
    pub divergence_by_block: Vec<f64>,
    /// Mean divergence.
    pub divergence: f64,
    /// Largest divergence.
    pub largest_divergence: f64,
    /// Share of tokens at which both find the same token likeliest.
    pub same_greedy: f64,
    /// Share of tokens at which both draw the same token with the same random number, from the
    /// model's own distribution.
    pub same_drawn: f64,
}

impl Comparison {
    /// Bits per predicted token of the reference and of the other.
    pub fn bits(&self) -> [f64; 2] {
        [self.exact, self.other].map(|reading| reading.loss / self.predicted.max(1) as f64 / std::f64::consts::LN_2)
    }
}

/// Why two devices cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A device failed, or the text is too short.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// Counting the bytes failed.
    #[error(transparent)]
    Bench(#[from] BenchError),
}

/// Reads a text with both and compares their predictions of every token, the divergence also by
/// blocks of `block` predictions. Both read as decoding does, one token at a time. `progress` hears
/// how many tokens have been read, and may end the reading.
///
/// # Errors
/// [`CompareError`] for fewer than two tokens, an id outside the vocabulary, a state that does not
/// suit the forgetting, logits that are not numbers, or a device that fails.
pub fn compare(
    exact: &Bdh,
    other: &Bdh,
    tokens: &[u32],
    forgetting: Forgetting,
    block: usize,
    mut progress: impl FnMut(usize) -> ControlFlow<()>,
) -> Result<Comparison, CompareError> {
    let vocab = exact.model().config.vocab_size;
    if tokens.len() < 2 {
        return Err(GenerationError::TooShort(tokens.len()).into());
    }
    if let Some(index) = tokens.iter().position(|&token| token as usize >= vocab) {
        return Err(GenerationError::TokenOutOfRange { index, token: tokens[index], vocab }.into());
    }
    let mut readers = [Reader::new(exact, forgetting)?, Reader::new(other, forgetting)?];
    let mut judge = Judge::new(vocab, block.max(1));
    let mut read = 0;
    while read + 1 < tokens.len() {
        let given = &tokens[read..(read + BURST).min(tokens.len() - 1)];
        let mut rows = [Vec::new(), Vec::new()];
        for (reader, rows) in readers.iter_mut().zip(&mut rows) {
            *rows = reader.read(given)?;
        }
        let targets = &tokens[read + 1..];
        let [exact, other] = rows;
        for (index, ((exact, other), &target)) in exact.iter().zip(&other).zip(targets).enumerate() {
            judge.compare(exact, other, target as usize, read + index)?;
        }
        read += given.len();
        if progress(read).is_break() {
            break;
        }
    }
    let mut comparison = judge.finish(readers.map(|reader| reader.time));
    comparison.exact.bytes_per_token = bench::bytes_per_token(exact, tokens)?;
    comparison.other.bytes_per_token = bench::bytes_per_token(other, tokens)?;
    Ok(comparison)
}

/// A sequence that is read token by token.
struct Reader {
    slots: Box<dyn Slots>,
    clock: Clock,
    time: Duration,
}

impl Reader {
    fn new(bdh: &Bdh, forgetting: Forgetting) -> Result<Self, GenerationError> {
        check_state(bdh.backend().state_type(), forgetting)?;
        Ok(Self { slots: bdh.backend().create_slots(1)?, clock: Clock::new(forgetting), time: Duration::ZERO })
    }

    /// The logits after each of some tokens.
    fn read(&mut self, tokens: &[u32]) -> Result<Vec<Vec<f32>>, GenerationError> {
        if (tokens.len() as u64) > self.clock.remaining() {
            return Err(GenerationError::PositionsExhausted);
        }
        let step =
            |&token: &u32| -> Vec<SlotStep> { vec![step_at(self.clock.tick(), Input::Token(token), Output::Logits)] };
        let plan = Plan { steps: tokens.iter().map(step).collect(), trace_logits: true };
        let start = Instant::now();
        let run = self.slots.run(&plan)?;
        self.time += start.elapsed();
        Ok(run.logits.into_iter().flatten().collect())
    }
}

/// Compares predictions.
struct Judge {
    samplers: [Sampler; 2],
    params: SamplerParams,
    counts: Vec<u32>,
    block: usize,
    /// Divergence of every prediction's block so far.
    blocks: Vec<f64>,
    same_greedy: usize,
    same_drawn: usize,
    result: Comparison,
}

impl Judge {
    fn new(vocab: usize, block: usize) -> Self {
        Self {
            samplers: [Sampler::new(), Sampler::new()],
            params: SamplerParams::new(&SamplingOptions::default(), 1, 0),
            counts: vec![0; vocab],
            block,
            blocks: Vec::new(),
            same_greedy: 0,
            same_drawn: 0,
            result: Comparison::default(),
        }
    }

    fn compare(&mut self, exact: &[f32], other: &[f32], target: usize, index: usize) -> Result<(), GenerationError> {
        let (p, q) = (log_softmax(exact), log_softmax(other));
        let divergence: f64 =
            p.iter().zip(&q).map(|(p, q)| if *p == f64::NEG_INFINITY { 0.0 } else { p.exp() * (p - q) }).sum();
        if !p[target].is_finite() || divergence.is_nan() {
            let source = Some(SamplingError::NanLogits);
            return Err(GenerationError::Sampling { position: index as u64, sequence: 0, source });
        }
        self.result.exact.loss -= p[target];
        self.result.other.loss -= q[target];
        self.result.largest_divergence = self.result.largest_divergence.max(divergence);
        if index.is_multiple_of(self.block) {
            self.blocks.push(0.0);
        }
        *self.blocks.last_mut().expect("a block was begun") += divergence;
        self.result.predicted += 1;
        self.same_greedy += usize::from(likeliest(exact) == likeliest(other));
        let [a, b] = [(0, exact), (1, other)].map(|(k, logits)| self.draw(k, logits, index));
        self.same_drawn += usize::from(a.token == b.token);
        Ok(())
    }

    /// Draws from the model's own distribution.
    fn draw(&mut self, sampler: usize, logits: &[f32], index: usize) -> SampleOutcome {
        // Without penalties, what has been counted has no influence.
        self.samplers[sampler].sample(logits, &mut self.counts, &self.params, index as u32)
    }

    fn finish(self, [exact, other]: [Duration; 2]) -> Comparison {
        let count = self.result.predicted.max(1) as f64;
        let block =
            |(index, sum): (usize, &f64)| sum / self.block.min(self.result.predicted - index * self.block) as f64;
        Comparison {
            exact: Reading { time: exact, ..self.result.exact },
            other: Reading { time: other, ..self.result.other },
            divergence: self.blocks.iter().sum::<f64>() / count,
            divergence_by_block: self.blocks.iter().enumerate().map(block).collect(),
            same_greedy: self.same_greedy as f64 / count,
            same_drawn: self.same_drawn as f64 / count,
            ..self.result
        }
    }
}

/// The first of the largest logits.
fn likeliest(logits: &[f32]) -> usize {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = index;
        }
    }
    best
}

/// ln softmax, in f64.
fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let [highest, sum] = log_sum(logits);
    logits.iter().map(|&logit| logit as f64 - highest - sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergences_and_shares_are_those_of_the_distributions() {
        let mut judge = Judge::new(2, 2);
        // p = (1/2, 1/2), q = (1/4, 3/4): KL = ln(2 / √3).
        let third = 3f32.ln();
        for index in 0..3 {
            judge.compare(&[0.0, 0.0], &[0.0, third], 1, index).unwrap();
        }
        judge.compare(&[1.0, 2.0], &[1.0, 2.0], 0, 3).unwrap();
        let result = judge.finish([Duration::ZERO; 2]);
        let divergence = (2.0 / 3f64.sqrt()).ln();
        let near = |a: f64, b: f64| (a - b).abs() < 1e-7;
        assert!(near(result.largest_divergence, divergence) && near(result.divergence, 0.75 * divergence));
        assert!(
            near(result.divergence_by_block[0], divergence) && near(result.divergence_by_block[1], divergence / 2.0)
        );
        assert_eq!((result.predicted, result.same_greedy), (4, 0.25));
        assert!((0.25..=1.0).contains(&result.same_drawn));
        // −ln 3/4 thrice, −ln 1/2 thrice, and the last one's twice.
        let last = (1.0 + 1f64.exp()).ln();
        let [exact, other] = result.bits().map(|bits| 4.0 * bits * std::f64::consts::LN_2);
        assert!(near(exact, 3.0 * 2f64.ln() + last) && near(other, 3.0 * (4.0 / 3f64).ln() + last));
    }

    #[test]
    fn logits_that_are_not_numbers_are_an_error() {
        let mut judge = Judge::new(2, 1);
        let error = judge.compare(&[0.0, 1.0], &[f32::NAN, 1.0], 1, 0).unwrap_err();
        assert!(error.to_string().contains("NaN"), "{error}");
    }
}
