//! Beam search: which beams live on, which texts are done, and when to stop. No device here.
//!
//! A device keeps the states of `num_beams` live beams. Every step it finds the best continuations over
//! all of them, the *candidates*; [`select`] is that in plain f32. [`BeamSearch::advance`] then says for
//! each place which beam to copy the state from and which token to read next. Semantics are those of
//! Hugging Face transformers 5.x, with one difference: a text that cannot occur is never returned.
//! Transformers fills the places it has no text for with copies of score −10⁹.

use std::cmp::Ordering;

use super::FinishReason;
use super::stop::StopScan;
use crate::model::EarlyStopping;
use crate::sampling::{COUNT_MASK, EOS_BIT, PROMPT_BIT, SamplerParams, SamplingError};
use crate::tokenizer::TextStream;

/// Largest number of beams.
pub const MAX_BEAMS: usize = 1024;

/// Score of a place that holds no text of its own: all but the first before the first step.
const NO_TEXT: f32 = -1e9;

/// How to search. What is done to each step's log-probabilities is for [`SamplerParams`] to say.
#[derive(Clone, Debug, PartialEq)]
pub struct BeamOptions {
    /// Texts that are followed at the same time, 1 to [`MAX_BEAMS`].
    pub num_beams: usize,
    /// Texts to return, 1 to `num_beams`.
    pub num_return_sequences: usize,
    /// Exponent of the length that a text's summed log-probability is divided by; finite. Above 0 it
    /// favours long texts.
    pub length_penalty: f64,
    /// When to stop looking for better texts.
    pub early_stopping: EarlyStopping,
    /// Tokens to generate at most.
    pub max_new_tokens: usize,
    /// Tokens that end a text.
    pub eos_token_ids: Vec<u32>,
    /// Texts that end a text, none of them empty. They count for its score, and are cut off in the end.
    pub stop: Vec<String>,
}

impl Default for BeamOptions {
    fn default() -> Self {
        Self {
            num_beams: 4,
            num_return_sequences: 1,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::WhenUnlikely,
            max_new_tokens: 100,
            eos_token_ids: Vec::new(),
            stop: Vec::new(),
        }
    }
}

impl BeamOptions {
    /// Checks every option against its valid range.
    ///
    /// # Errors
    /// [`BeamError`] for the first option that is out of range.
    pub fn validate(&self) -> Result<(), BeamError> {
        let Self { num_beams, num_return_sequences, length_penalty, .. } = *self;
        if !(1..=MAX_BEAMS).contains(&num_beams) {
            return Err(BeamError::NumBeams(num_beams));
        }
        if !(1..=num_beams).contains(&num_return_sequences) {
            return Err(BeamError::NumReturnSequences { value: num_return_sequences, num_beams });
        }
        if !length_penalty.is_finite() {
            return Err(BeamError::LengthPenalty(length_penalty));
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(BeamError::EmptyStop);
        }
        Ok(())
    }
}

/// A beam option out of its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BeamError {
    /// No beam at all, or more than are supported.
    #[error("--num-beams must be at least 1 and at most {MAX_BEAMS}, got {0}")]
    NumBeams(usize),
    /// More texts asked for than are followed, or none.
    #[error("--num-return-sequences must be at least 1 and at most --num-beams, which is {num_beams}, got {value}")]
    NumReturnSequences {
        /// The value that was given.
        value: usize,
        /// What it must not exceed.
        num_beams: usize,
    },
    /// A stop text without text.
    #[error("a stop text must not be empty")]
    EmptyStop,
    /// An infinite length penalty, or NaN.
    #[error("--length-penalty must be finite, got {0}")]
    LengthPenalty(f64),
}

/// A live beam with one more token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Summed log-probabilities of the beam's tokens, this one included, after the penalties.
    pub score: f32,
    /// Place of the beam.
    pub beam: u32,
    /// The token.
    pub token: u32,
}

/// What a place holds after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension {
    /// The place that the beam comes from: its state, its penalty counts and its text.
    pub parent: u32,
    /// The token that it goes on with.
    pub token: u32,
}

/// What follows from a step's candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The search goes on with these beams, one for each place, the best first.
    Continue(Vec<Extension>),
    /// The search is over.
    Over,
}

/// A text that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hypothesis {
    /// The new tokens, an end-of-sequence token included, a stop text left out.
    pub tokens: Vec<u32>,
    /// Summed log-probabilities over length^length_penalty, those of a stop text included.
    pub score: f64,
    /// Whether an end-of-sequence token or a stop text ended it.
    pub ended: bool,
}

impl Hypothesis {
    /// Why there are no more tokens, in a search with these end-of-sequence ids.
    pub fn finish_reason(&self, eos_token_ids: &[u32]) -> FinishReason {
        match (self.ended, self.tokens.last().is_some_and(|last| eos_token_ids.contains(last))) {
            (true, true) => FinishReason::Eos,
            (true, false) => FinishReason::Stop,
            (false, _) => FinishReason::Length,
        }
    }
}

/// A beam search in progress, for one prompt.
#[derive(Clone, Debug)]
pub struct BeamSearch {
    options: BeamOptions,
    /// Every token that a live beam has ever had; texts share their beginnings.
    nodes: Vec<Node>,
    /// One beam for each place, the best first.
    live: Vec<Beam>,
    /// Scores of `live`.
    scores: Vec<f32>,
    /// Texts that are done, the best first, at most `num_beams`.
    done: Vec<Done>,
    /// Tokens generated in each live beam.
    generated: usize,
    over: bool,
    /// How tokens become the text that stop texts are looked for in.
    stream: TextStream,
}

/// A token and the one before it.
#[derive(Clone, Copy, Debug)]
struct Node {
    token: u32,
    before: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Beam {
    /// The last token; none before the first step.
    node: Option<usize>,
    /// Whether it has a text of its own. The places after the first start as copies of it, and so do
    /// those that no candidate is left for.
    real: bool,
}

#[derive(Clone, Copy, Debug)]
struct Done {
    score: f64,
    node: Option<usize>,
    ended: bool,
}

impl BeamSearch {
    /// Starts a search. The first step's candidates come from `num_beams` copies of the prompt's state.
    ///
    /// # Errors
    /// [`BeamError`] for options out of range.
    pub fn new(mut options: BeamOptions) -> Result<Self, BeamError> {
        options.validate()?;
        options.eos_token_ids.sort_unstable();
        options.eos_token_ids.dedup();
        let places = options.num_beams;
        let nothing_to_do = options.max_new_tokens == 0;
        let mut scores = vec![NO_TEXT; places];
        scores[0] = 0.0;
        let empty = Done { score: 0.0, node: None, ended: false };
        Ok(Self {
            live: (0..places).map(|place| Beam { node: None, real: place == 0 }).collect(),
            scores,
            nodes: Vec::new(),
            done: if nothing_to_do { vec![empty] } else { Vec::new() },
            generated: 0,
            over: nothing_to_do,
            stream: TextStream::default(),
            options,
        })
    }

    /// Looks for stop texts in what `stream` makes of the tokens, instead of in bytes.
    pub fn with_text(self, stream: TextStream) -> Self {
        Self { stream, ..self }
    }

    /// How many candidates [`BeamSearch::advance`] needs: enough that `num_beams` of them go on however
    /// many end. Fewer will do where there are no more.
    pub fn candidates_per_step(&self) -> usize {
        self.options.num_beams * (1 + self.options.eos_token_ids.len()).max(2)
    }

    /// Scores of the live beams, one for each place: what a device adds to the log-probabilities.
    pub fn scores(&self) -> &[f32] {
        &self.scores
    }

    /// Tokens generated in each live beam.
    pub fn generated(&self) -> usize {
        self.generated
    }

    /// Whether there is nothing left to do.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Takes in one step's best candidates, the best first; of equal ones, the lower place or else the
    /// lower token first.
    ///
    /// # Panics
    /// If a candidate's beam is not below `num_beams`.
    pub fn advance(&mut self, candidates: &[Candidate]) -> Step {
        if self.over {
            return Step::Over;
        }
        let places = self.options.num_beams;
        self.generated += 1;
        let full_length = self.generated >= self.options.max_new_tokens;
        let (mut live, mut scores) = (Vec::with_capacity(places), Vec::with_capacity(places));
        let mut extensions = Vec::with_capacity(places);
        for (rank, &Candidate { score, beam, token }) in candidates.iter().enumerate() {
            let parent = self.live[beam as usize];
            let real = parent.real && score > f32::NEG_INFINITY;
            let ended = self.options.eos_token_ids.binary_search(&token).is_ok() || self.stops(parent.node, token);
            if ended || full_length {
                // The candidates after these are there only to fill the live beams.
                if real && rank < places {
                    let node = self.push(token, parent.node);
                    self.offer(Done { score: self.normalised(score, self.generated), node, ended });
                }
            } else if live.len() < places {
                let node = self.push(token, parent.node);
                live.push(Beam { node, real });
                scores.push(if real { score } else { NO_TEXT });
                extensions.push(Extension { parent: beam, token });
            }
        }
        let best = live.iter().zip(&scores).find(|(beam, _)| beam.real).map(|(_, &score)| score);
        self.over = !best.is_some_and(|best| self.may_improve(best));
        if let (Some(&first), Some(&extension)) = (live.first(), extensions.first()) {
            live.resize(places, Beam { real: false, ..first });
            scores.resize(places, NO_TEXT);
            extensions.resize(places, extension);
            (self.live, self.scores) = (live, scores);
        }
        if self.over { Step::Over } else { Step::Continue(extensions) }
    }

    /// The best texts, the best first: `num_return_sequences`, or fewer where there are no more. In a
    /// search that is not over, live beams count as texts cut short.
    pub fn finish(mut self) -> Vec<Hypothesis> {
        if !self.over {
            let texts = self.live.iter().zip(&self.scores).filter(|(beam, _)| beam.real);
            let cut: Vec<Done> = texts
                .map(|(beam, &score)| Done {
                    score: self.normalised(score, self.generated),
                    node: beam.node,
                    ended: false,
                })
                .collect();
            cut.into_iter().for_each(|text| self.offer(text));
        }
        let best = self.done.iter().take(self.options.num_return_sequences);
        best.map(|&Done { score, node, ended }| Hypothesis { tokens: self.text(node), score, ended }).collect()
    }

    /// Whether a live text of this score, the best there is, may still displace one that is done.
    fn may_improve(&self, best: f32) -> bool {
        let BeamOptions { num_beams, early_stopping, length_penalty, max_new_tokens, .. } = self.options;
        let Some(worst) = self.done.last().filter(|_| self.done.len() == num_beams) else { return true };
        let length = match early_stopping {
            EarlyStopping::WhenEnoughEnded => return false,
            EarlyStopping::Never if length_penalty > 0.0 => max_new_tokens,
            EarlyStopping::Never | EarlyStopping::WhenUnlikely => self.generated,
        };
        self.normalised(best, length) > worst.score
    }

    /// Puts a text among those that are done, after its equals, unless enough are better.
    fn offer(&mut self, text: Done) {
        let place = self.done.partition_point(|other| other.score >= text.score);
        self.done.insert(place, text);
        self.done.truncate(self.options.num_beams);
    }

    /// Sum over length^length_penalty, always a number.
    fn normalised(&self, sum: f32, length: usize) -> f64 {
        if sum == 0.0 {
            // Of a penalty that makes the divisor 0, too.
            return 0.0;
        }
        let divisor = (length as f64).powf(self.options.length_penalty);
        (f64::from(sum) / divisor).clamp(f64::MIN, f64::MAX)
    }

    fn push(&mut self, token: u32, before: Option<usize>) -> Option<usize> {
        self.nodes.push(Node { token, before });
        Some(self.nodes.len() - 1)
    }

    /// Whether a token after a node completes a stop text.
    fn stops(&self, before: Option<usize>, token: u32) -> bool {
        let mut scan = StopScan::new(&self.options.stop, self.stream.clone());
        scan.is_active() && {
            let mut tokens = self.path(before);
            tokens.push(token);
            scan.push(&tokens, &mut Vec::new())
        }
    }

    /// The tokens up to a node, those of a stop text left out.
    fn text(&self, last: Option<usize>) -> Vec<u32> {
        let mut scan = StopScan::new(&self.options.stop, self.stream.clone());
        let mut kept = Vec::new();
        if !scan.push(&self.path(last), &mut kept) {
            scan.finish(&mut kept);
        }
        kept
    }

    /// The tokens up to a node.
    fn path(&self, last: Option<usize>) -> Vec<u32> {
        let node = |index: Option<usize>| index.map(|index| self.nodes[index]);
        let backwards = std::iter::successors(node(last), |last| node(last.before));
        let mut tokens: Vec<u32> = backwards.map(|node| node.token).collect();
        tokens.reverse();
        tokens
    }
}

/// The `k` best continuations of all beams, the best first; of equal ones, the lower beam or else the
/// lower token first. Fewer where fewer are possible. A reference for what a device computes, in f32.
///
/// `logits` and `counts` are V numbers for each beam, the counts as the sampler keeps them (see
/// [`PROMPT_BIT`]); `scores` are those of [`BeamSearch::scores`]; of `params` the penalties and
/// `min_new_tokens` count; `generated` is the number of tokens generated in each beam so far.
///
/// # Errors
/// Logits that are NaN or plus infinity, and a step in which no token is possible.
///
/// # Panics
/// If the numbers of beams or of tokens disagree.
pub fn select(
    logits: &[&[f32]],
    counts: &[&[u32]],
    scores: &[f32],
    params: &SamplerParams,
    generated: u32,
    k: usize,
) -> Result<Vec<Candidate>, SamplingError> {
    assert!(logits.len() == scores.len() && counts.len() == scores.len(), "one score for each beam");
    if logits.iter().any(|logits| logits.iter().any(|logit| logit.is_nan())) {
        return Err(SamplingError::NanLogits);
    }
    if logits.iter().any(|logits| logits.contains(&f32::INFINITY)) {
        return Err(SamplingError::InfiniteLogits);
    }
    let mut candidates = Vec::new();
    let mut log_probs = Vec::new();
    for (beam, (logits, counts)) in logits.iter().zip(counts).enumerate() {
        log_softmax_penalised(logits, counts, params, generated, &mut log_probs);
        let possible = log_probs.iter().enumerate().filter(|&(_, &log_prob)| log_prob > f32::NEG_INFINITY);
        candidates.extend(possible.map(|(token, &log_prob)| Candidate {
            score: finite(scores[beam] + log_prob),
            beam: beam as u32,
            token: token as u32,
        }));
    }
    if candidates.is_empty() {
        return Err(SamplingError::NothingLeft);
    }
    let order = |a: &Candidate, b: &Candidate| {
        let by_score = b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal);
        by_score.then((a.beam, a.token).cmp(&(b.beam, b.token)))
    };
    if k < candidates.len() {
        candidates.select_nth_unstable_by(k, order);
        candidates.truncate(k);
    }
    candidates.sort_unstable_by(order);
    Ok(candidates)
}

/// Log-probabilities of one beam's next token after the penalties, into `out`: the logarithm of the
/// softmax first, then repetition, frequency and presence. A banned token has minus infinity.
///
/// The logits are neither NaN nor plus infinity.
///
/// # Panics
/// If there is not one count for each logit.
pub fn log_softmax_penalised(
    logits: &[f32],
    counts: &[u32],
    params: &SamplerParams,
    generated: u32,
    out: &mut Vec<f32>,
) {
    assert_eq!(logits.len(), counts.len(), "one count for each logit");
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let log_sum = sum_of_exponentials(logits, largest).ln();
    let banned_bits = if generated < params.min_new_tokens { EOS_BIT } else { 0 };
    out.clear();
    out.extend(logits.iter().zip(counts).map(|(&logit, &count)| {
        if logit == f32::NEG_INFINITY || count & banned_bits != 0 {
            return f32::NEG_INFINITY;
        }
        penalised(finite((logit - largest) - log_sum), count, params)
    }));
}

/// Σ exp(logit − largest), in the order of a workgroup: one sum for each thread, then halves of the
/// threads onto each other.
fn sum_of_exponentials(logits: &[f32], largest: f32) -> f32 {
    const THREADS: usize = 256;
    let mut sums = [0f32; THREADS];
    for logits in logits.chunks(THREADS) {
        for (sum, logit) in sums.iter_mut().zip(logits) {
            *sum += (logit - largest).exp();
        }
    }
    let mut half = THREADS / 2;
    while half > 0 {
        let (low, high) = sums.split_at_mut(half);
        low.iter_mut().zip(high).for_each(|(low, high)| *low += *high);
        half /= 2;
    }
    sums[0]
}

/// A log-probability after the repetition, frequency and presence penalties.
fn penalised(log_prob: f32, count: u32, params: &SamplerParams) -> f32 {
    let generated = count & COUNT_MASK;
    let mut log_prob = log_prob;
    if generated > 0 || count & PROMPT_BIT != 0 {
        let factor = if log_prob < 0.0 { params.repetition } else { params.repetition_inverse };
        log_prob = finite(log_prob * factor);
    }
    if generated > 0 {
        log_prob = finite(log_prob - finite(params.frequency * generated as f32));
        log_prob = finite(log_prob - params.presence);
    }
    log_prob
}

/// Only a banned token is infinitely bad.
fn finite(value: f32) -> f32 {
    value.clamp(f32::MIN, f32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::SamplingOptions;
    use rand::rngs::Xoshiro256PlusPlus;
    use rand::{RngExt, SeedableRng};

    /// Logits of the next token after a text.
    type Model<'a> = dyn Fn(&[u32]) -> Vec<f32> + 'a;

    /// Runs a search as a device would: texts and counts are copied from parent to child.
    fn run(model: &Model, prompt: &[u32], options: &BeamOptions, sampling: &SamplingOptions) -> Vec<Hypothesis> {
        let params = SamplerParams::new(sampling, 0, 0);
        let mut search = BeamSearch::new(options.clone()).unwrap();
        let mut counts = vec![0; model(prompt).len()];
        prompt.iter().for_each(|&token| counts[token as usize] |= PROMPT_BIT);
        options.eos_token_ids.iter().for_each(|&token| counts[token as usize] |= EOS_BIT);
        let mut beams = vec![(prompt.to_vec(), counts); options.num_beams];
        while !search.is_over() {
            let logits: Vec<Vec<f32>> = beams.iter().map(|(text, _)| model(text)).collect();
            let logits: Vec<&[f32]> = logits.iter().map(|logits| &logits[..]).collect();
            let counts: Vec<&[u32]> = beams.iter().map(|(_, counts)| &counts[..]).collect();
            let (generated, k) = (search.generated() as u32, search.candidates_per_step());
            let candidates = select(&logits, &counts, search.scores(), &params, generated, k).unwrap();
            let Step::Continue(extensions) = search.advance(&candidates) else { break };
            assert_eq!(extensions.len(), options.num_beams);
            let child = |extension: &Extension| {
                let (mut text, mut counts) = beams[extension.parent as usize].clone();
                text.push(extension.token);
                counts[extension.token as usize] += 1;
                (text, counts)
            };
            beams = extensions.iter().map(child).collect();
        }
        assert_eq!(search.advance(&[]), Step::Over);
        search.finish()
    }

    /// Next-token probabilities by last token.
    fn markov(text: &[u32]) -> Vec<f32> {
        let row: [f32; 4] = match text.last() {
            Some(0) => [0.05, 0.55, 0.25, 0.15],
            Some(1) => [0.20, 0.25, 0.45, 0.10],
            Some(2) => [0.35, 0.15, 0.20, 0.30],
            _ => [0.35, 0.05, 0.50, 0.10],
        };
        row.map(f32::ln).to_vec()
    }

    fn two_beams(max_new_tokens: usize) -> BeamOptions {
        BeamOptions {
            num_beams: 2,
            num_return_sequences: 2,
            max_new_tokens,
            eos_token_ids: vec![0],
            ..BeamOptions::default()
        }
    }

    #[track_caller]
    fn check(options: &BeamOptions, sampling: &SamplingOptions, expected: [(&[u32], f64); 2]) {
        let found = run(&markov, &[1], options, sampling);
        assert_eq!(found.len(), 2);
        for (found, (tokens, score)) in found.iter().zip(expected) {
            assert_eq!(found.tokens, tokens);
            assert!((found.score - score).abs() < 1e-6, "{tokens:?}: {} {score}", found.score);
            assert_eq!(found.ended, !options.eos_token_ids.is_empty() && tokens.ends_with(&[0]));
        }
    }

    const GREEDY: SamplingOptions = SamplingOptions {
        do_sample: false,
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        min_new_tokens: 0,
    };

    // The expected texts and scores of the next four tests are those of transformers.

    #[test]
    fn early_stopping_decides_how_long_to_look() {
        use EarlyStopping::{Never, WhenEnoughEnded, WhenUnlikely};
        for (early_stopping, expected) in [
            (WhenEnoughEnded, [(&[2, 0][..], -0.924165), (&[2, 3, 0], -1.017434)]),
            (WhenUnlikely, [(&[2, 0], -0.924165), (&[2, 3, 2, 0], -0.936362)]),
            (Never, [(&[2, 3, 2, 3, 2], -0.918550), (&[2, 0], -0.924165)]),
        ] {
            check(&BeamOptions { early_stopping, ..two_beams(5) }, &GREEDY, expected);
        }
    }

    #[test]
    fn length_penalty_favours_long_texts() {
        for (length_penalty, expected) in [
            (0.0, [(&[2, 0][..], -1.848330), (&[2, 3, 2], -2.695628)]),
            (1.0, [(&[2, 3, 2], -0.898543), (&[2, 0], -0.924165)]),
            (2.0, [(&[2, 3, 2], -0.299514), (&[2, 3, 0], -0.339145)]),
        ] {
            check(&BeamOptions { length_penalty, ..two_beams(3) }, &GREEDY, expected);
        }
    }

    #[test]
    fn min_new_tokens_bans_the_end() {
        let sampling = SamplingOptions { min_new_tokens: 3, ..GREEDY };
        check(&two_beams(3), &sampling, [(&[2, 3, 2], -0.898543), (&[1, 2, 3], -1.129592)]);
    }

    #[test]
    fn without_eos_every_beam_has_the_full_length() {
        let options = BeamOptions { eos_token_ids: Vec::new(), ..two_beams(3) };
        check(&options, &GREEDY, [(&[2, 0, 1], -0.815389), (&[2, 3, 2], -0.898543)]);
        let sampling = SamplingOptions { repetition_penalty: 2.0, ..GREEDY };
        check(&options, &sampling, [(&[2, 0, 1], -1.014668), (&[2, 3, 0], -1.017434)]);
    }

    #[test]
    fn options_out_of_range_are_refused() {
        let message = |change: &dyn Fn(&mut BeamOptions)| {
            let mut options = BeamOptions::default();
            change(&mut options);
            BeamSearch::new(options).unwrap_err().to_string()
        };
        assert_eq!(message(&|o| o.num_beams = 0), "--num-beams must be at least 1 and at most 1024, got 0");
        assert_eq!(message(&|o| o.num_beams = 1025), "--num-beams must be at least 1 and at most 1024, got 1025");
        let at_most_four = "--num-return-sequences must be at least 1 and at most --num-beams, which is 4, got";
        assert_eq!(message(&|o| o.num_return_sequences = 5), format!("{at_most_four} 5"));
        assert_eq!(message(&|o| o.num_return_sequences = 0), format!("{at_most_four} 0"));
        assert_eq!(message(&|o| o.length_penalty = f64::NAN), "--length-penalty must be finite, got NaN");
        assert_eq!(message(&|o| o.length_penalty = -f64::INFINITY), "--length-penalty must be finite, got -inf");
        let widest = BeamOptions { num_beams: MAX_BEAMS, num_return_sequences: MAX_BEAMS, ..BeamOptions::default() };
        assert!(BeamSearch::new(widest).is_ok());
    }

    #[test]
    fn candidates_suffice_however_many_end() {
        let count = |eos: &[u32]| {
            let options = BeamOptions { num_beams: 3, eos_token_ids: eos.to_vec(), ..BeamOptions::default() };
            BeamSearch::new(options).unwrap().candidates_per_step()
        };
        assert_eq!((count(&[]), count(&[7]), count(&[7, 9]), count(&[9, 7, 9, 1])), (6, 6, 9, 12));
    }

    fn candidate(score: f32, beam: u32, token: u32) -> Candidate {
        Candidate { score, beam, token }
    }

    #[test]
    fn an_end_beyond_the_first_num_beams_is_dropped() {
        let mut search = BeamSearch::new(two_beams(9)).unwrap();
        assert_eq!(search.scores(), [0.0, -1e9]);
        let first = [candidate(-0.5, 0, 3), candidate(-1.0, 0, 1), candidate(-1.5, 0, 0), candidate(-9.0, 0, 2)];
        let extension = |parent, token| Extension { parent, token };
        assert_eq!(search.advance(&first), Step::Continue(vec![extension(0, 3), extension(0, 1)]));
        assert_eq!(search.scores(), [-0.5, -1.0]);
        // The first ends, the third ends too far back to count, and the fourth lives in their place.
        let second = [candidate(-1.0, 1, 0), candidate(-1.0, 1, 2), candidate(-2.0, 0, 0), candidate(-3.0, 0, 2)];
        assert_eq!(search.advance(&second), Step::Continue(vec![extension(1, 2), extension(0, 2)]));
        assert_eq!(search.scores(), [-1.0, -3.0]);
        let texts = search.finish();
        // Cut short here, so that a live beam counts; it comes after the text that is as good.
        let text = |tokens: &[u32], ended| Hypothesis { tokens: tokens.to_vec(), score: -0.5, ended };
        assert_eq!(texts, [text(&[1, 0], true), text(&[1, 2], false)]);
    }

    #[test]
    fn a_live_text_must_be_better_not_as_good() {
        for (score, over) in [(-1.5, true), (-1.25, false)] {
            let options = BeamOptions { num_beams: 1, num_return_sequences: 1, ..two_beams(9) };
            let mut search = BeamSearch::new(options).unwrap();
            assert_ne!(search.advance(&[candidate(-0.25, 0, 1), candidate(-3.0, 0, 2)]), Step::Over);
            assert_eq!(search.advance(&[candidate(-1.5, 0, 0), candidate(score, 0, 1)]) == Step::Over, over);
        }
    }

    #[test]
    fn impossible_candidates_leave_places_without_a_text() {
        let mut search = BeamSearch::new(two_beams(9)).unwrap();
        let Step::Continue(extensions) = search.advance(&[candidate(-0.5, 0, 1), candidate(f32::NEG_INFINITY, 0, 2)])
        else {
            panic!("the search goes on")
        };
        assert_eq!((extensions.len(), search.scores()), (2, &[-0.5, NO_TEXT][..]));
        // When the only text ends, what is left has none, and nothing can come of it.
        assert_eq!(
            search.advance(&[candidate(-1.0, 0, 0), candidate(NO_TEXT, 1, 1), candidate(NO_TEXT, 1, 2)]),
            Step::Over
        );
        assert_eq!(search.finish(), [Hypothesis { tokens: vec![1, 0], score: -0.5, ended: true }]);
    }

    #[test]
    fn places_without_a_text_stay_out_of_the_result() {
        // Fewer texts than beams: of two tokens, in one step.
        let halves = |_: &[u32]| vec![0.0, 0.0];
        let options =
            BeamOptions { num_beams: 4, num_return_sequences: 4, max_new_tokens: 1, ..BeamOptions::default() };
        let found = run(&halves, &[0], &options, &GREEDY);
        assert_eq!(found.iter().map(|text| &text.tokens[..]).collect::<Vec<_>>(), [[0], [1]]);
        // A single token, and even fewer candidates than places.
        let alone = |_: &[u32]| vec![0.0];
        let found = run(&alone, &[0], &BeamOptions { max_new_tokens: 3, ..options.clone() }, &GREEDY);
        assert_eq!(found, [Hypothesis { tokens: vec![0; 3], score: 0.0, ended: false }]);
        // Tokens that are impossible do not count either.
        let certain = |_: &[u32]| vec![f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY];
        let found = run(&certain, &[0], &BeamOptions { max_new_tokens: 3, ..options.clone() }, &GREEDY);
        assert_eq!(found, [Hypothesis { tokens: vec![1; 3], score: 0.0, ended: false }]);
        // Every token ends the text.
        let both = BeamOptions { max_new_tokens: 9, eos_token_ids: vec![0, 1], ..options };
        let found = run(&halves, &[0], &both, &GREEDY);
        assert!(found.len() == 2 && found.iter().all(|text| text.ended && text.tokens.len() == 1));
    }

    #[test]
    fn no_new_tokens_are_one_empty_text() {
        let found = run(&markov, &[1], &two_beams(0), &GREEDY);
        assert_eq!(found, [Hypothesis { tokens: Vec::new(), score: 0.0, ended: false }]);
        let unstarted = BeamSearch::new(two_beams(3)).unwrap().finish();
        assert_eq!(unstarted, found);
    }

    #[test]
    fn extreme_length_penalties_give_numbers() {
        for length_penalty in [-1e300, -400.0, 400.0, 1e300, f64::MIN_POSITIVE] {
            for early_stopping in [EarlyStopping::Never, EarlyStopping::WhenUnlikely] {
                let options = BeamOptions { length_penalty, early_stopping, ..two_beams(20) };
                let found = run(&markov, &[1], &options, &GREEDY);
                assert!(found.len() == 2 && found.iter().all(|text| text.score.is_finite()), "{found:?}");
            }
        }
    }

    // --- candidates ---

    fn params(options: SamplingOptions) -> SamplerParams {
        SamplerParams::new(&options, 0, 0)
    }

    #[test]
    fn log_softmax_matches_f64() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(5);
        let mut found = Vec::new();
        for vocab in [1, 2, 97, 255, 256, 257, 4096, 65_536] {
            let logits: Vec<f32> = (0..vocab).map(|_| random.random_range(-20.0..20.0)).collect();
            log_softmax_penalised(&logits, &vec![PROMPT_BIT | 3; vocab], &params(GREEDY), 0, &mut found);
            let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
            for (&found, &logit) in found.iter().zip(&logits) {
                let expected = f64::from(logit) - sum.ln();
                assert!((f64::from(found) - expected).abs() < 1e-5, "V {vocab}: {found} {expected}");
            }
        }
    }

    #[test]
    fn penalties_are_those_of_log_probabilities() {
        let options = SamplingOptions {
            repetition_penalty: 2.0,
            frequency_penalty: 0.5,
            presence_penalty: 0.25,
            min_new_tokens: 2,
            ..GREEDY
        };
        let quarter = 0.25f32.ln();
        let mut found = Vec::new();
        let counts = [0, PROMPT_BIT, PROMPT_BIT | 3, EOS_BIT | 1];
        log_softmax_penalised(&[7.0; 4], &counts, &params(options), 1, &mut found);
        assert_eq!(found, [quarter, 2.0 * quarter, 2.0 * quarter - 1.75, f32::NEG_INFINITY]);
        log_softmax_penalised(&[7.0; 4], &counts, &params(options), 2, &mut found);
        assert_eq!(found[3], 2.0 * quarter - 0.75);
        // The largest numbers there are stay numbers, and ban nothing.
        let options = SamplingOptions { frequency_penalty: f32::MAX, presence_penalty: -f32::MAX, ..options };
        log_softmax_penalised(&[f32::MAX, f32::MIN, 0.0], &[9, PROMPT_BIT, 1], &params(options), 2, &mut found);
        assert!(found.iter().all(|value| value.is_finite()), "{found:?}");
    }

    #[test]
    fn of_equal_candidates_the_first_wins() {
        let (logits, counts) = ([[1.0; 3]; 2], [[0; 3]; 2]);
        let select = |scores: &[f32], k| {
            let logits = logits.each_ref().map(|logits| &logits[..]);
            let counts = counts.each_ref().map(|counts| &counts[..]);
            let found = select(&logits, &counts, scores, &params(GREEDY), 0, k).unwrap();
            found.iter().map(|candidate| (candidate.beam, candidate.token)).collect::<Vec<_>>()
        };
        assert_eq!(select(&[0.0, 0.0], 4), [(0, 0), (0, 1), (0, 2), (1, 0)]);
        assert_eq!(select(&[-1.0, 0.0], 4), [(1, 0), (1, 1), (1, 2), (0, 0)]);
        // Zeros of both signs are equal.
        assert_eq!(select(&[-0.0, 0.0], 2), [(0, 0), (0, 1)]);
        // Added to −10⁹, a log-probability rounds away.
        assert_eq!(select(&[-1e9, -1e9], 9).len(), 6);
    }

    #[test]
    fn logits_that_allow_no_choice_are_errors() {
        let options = SamplingOptions { min_new_tokens: 1, ..GREEDY };
        let select = |logits: [&[f32]; 2], counts: [&[u32]; 2]| {
            select(&logits, &counts, &[0.0, NO_TEXT], &params(options), 0, 4).map(|found| found.len())
        };
        let none = &[0, 0][..];
        assert_eq!(select([&[0.0, f32::INFINITY], &[f32::NAN, 0.0]], [none; 2]), Err(SamplingError::NanLogits));
        assert_eq!(select([&[0.0, f32::INFINITY], &[0.0; 2]], [none; 2]), Err(SamplingError::InfiniteLogits));
        assert_eq!(select([&[f32::NEG_INFINITY; 2]; 2], [none; 2]), Err(SamplingError::NothingLeft));
        assert_eq!(select([&[0.0; 2]; 2], [&[EOS_BIT; 2]; 2]), Err(SamplingError::NothingLeft));
        assert_eq!(select([&[0.0, f32::NEG_INFINITY], &[0.0; 2]], [none; 2]), Ok(3));
        assert_eq!(select([&[0.0; 2]; 2], [&[EOS_BIT, 0]; 2]), Ok(2));
    }

    // --- random models ---

    /// A model with a random row of logits for each last token and length.
    struct Random {
        vocab: usize,
        rows: Vec<Vec<f32>>,
    }

    const LONGEST: usize = 8;

    impl Random {
        fn new(seed: u64, vocab: usize) -> Self {
            let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
            let row = |random: &mut Xoshiro256PlusPlus| (0..vocab).map(|_| random.random_range(-3.0..3.0)).collect();
            Self { vocab, rows: (0..vocab * LONGEST).map(|_| row(&mut random)).collect() }
        }

        fn logits(&self, text: &[u32]) -> Vec<f32> {
            self.rows[text.len() % LONGEST * self.vocab + text[text.len() - 1] as usize].clone()
        }

        /// Summed log-probability of `tokens` after `prompt`, in f64.
        fn log_prob(&self, prompt: &[u32], tokens: &[u32]) -> f64 {
            let mut text = prompt.to_vec();
            let mut sum = 0.0;
            for &token in tokens {
                let logits = self.logits(&text);
                let all: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
                sum += f64::from(logits[token as usize]) - all.ln();
                text.push(token);
            }
            sum
        }
    }

    fn random_options(random: &mut Xoshiro256PlusPlus, vocab: u32) -> BeamOptions {
        use EarlyStopping::{Never, WhenEnoughEnded, WhenUnlikely};
        let num_beams = random.random_range(1..6);
        BeamOptions {
            num_beams,
            num_return_sequences: num_beams,
            length_penalty: random.random_range(-1.0..2.0),
            early_stopping: [WhenEnoughEnded, WhenUnlikely, Never][random.random_range(0..3)],
            max_new_tokens: random.random_range(1..LONGEST),
            eos_token_ids: (0..random.random_range(0..3)).map(|_| random.random_range(0..vocab)).collect(),
            stop: Vec::new(),
        }
    }

    const CASES: u64 = 500;

    #[test]
    fn one_beam_without_eos_is_greedy() {
        for seed in 0..CASES {
            let model = Random::new(seed, 2 + seed as usize % 7);
            let options =
                BeamOptions { num_beams: 1, max_new_tokens: 1 + seed as usize % LONGEST, ..BeamOptions::default() };
            let mut text = vec![0];
            for _ in 0..options.max_new_tokens {
                let logits = model.logits(&text);
                let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
                text.push(best as u32);
            }
            let found = run(&|text: &[u32]| model.logits(text), &[0], &options, &GREEDY);
            assert_eq!(found[0].tokens, text[1..], "seed {seed}");
        }
    }

    #[test]
    fn results_are_what_they_say() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        for seed in 0..CASES {
            let model = Random::new(seed, random.random_range(2..9));
            let options = random_options(&mut random, model.vocab as u32);
            let found = run(&|text: &[u32]| model.logits(text), &[1], &options, &GREEDY);
            assert!((1..=options.num_beams).contains(&found.len()), "seed {seed}");
            assert!(found.is_sorted_by(|a, b| a.score >= b.score), "seed {seed}: {found:?}");
            for (i, text) in found.iter().enumerate() {
                assert!(found[..i].iter().all(|other| other.tokens != text.tokens), "seed {seed}: {found:?}");
                let is_eos = |token| options.eos_token_ids.contains(token);
                let (last, before) = text.tokens.split_last().unwrap();
                assert_eq!(is_eos(last), text.ended);
                assert!(!before.iter().any(is_eos));
                assert!(text.ended || text.tokens.len() == options.max_new_tokens);
                let length = text.tokens.len() as f64;
                let score = model.log_prob(&[1], &text.tokens) / length.powf(options.length_penalty);
                assert!((text.score - score).abs() < 1e-4, "seed {seed}: {} {score}", text.score);
            }
        }
    }

    #[test]
    fn token_numbers_do_not_matter() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(2);
        for seed in 0..CASES {
            let model = Random::new(seed, random.random_range(2..9));
            let options = random_options(&mut random, model.vocab as u32);
            // Every id t becomes V − 1 − t.
            let other = |token: u32| model.vocab as u32 - 1 - token;
            let mirrored = |text: &[u32]| {
                let text: Vec<u32> = text.iter().map(|&token| other(token)).collect();
                model.logits(&text).into_iter().rev().collect()
            };
            let there = run(&|text: &[u32]| model.logits(text), &[1], &options, &GREEDY);
            let eos_token_ids = options.eos_token_ids.iter().map(|&token| other(token)).collect();
            let back = run(&mirrored, &[other(1)], &BeamOptions { eos_token_ids, ..options }, &GREEDY);
            assert_eq!(there.len(), back.len(), "seed {seed}");
            for (there, back) in there.iter().zip(&back) {
                let tokens: Vec<u32> = back.tokens.iter().map(|&token| other(token)).collect();
                assert_eq!(there.tokens, tokens, "seed {seed}");
            }
        }
    }

    #[test]
    fn without_eos_only_the_scores_depend_on_the_length_options() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(3);
        for seed in 0..CASES {
            let model = Random::new(seed, random.random_range(2..9));
            let options = BeamOptions { eos_token_ids: Vec::new(), ..random_options(&mut random, 2) };
            let other = BeamOptions { length_penalty: 0.0, early_stopping: EarlyStopping::Never, ..options.clone() };
            let texts = |options: &BeamOptions| {
                let found = run(&|text: &[u32]| model.logits(text), &[1], options, &GREEDY);
                found.into_iter().map(|text| text.tokens).collect::<Vec<_>>()
            };
            assert_eq!(texts(&options), texts(&other), "seed {seed}");
        }
    }

    #[test]
    fn enough_beams_find_the_best_of_all_texts() {
        for seed in 0..CASES {
            let (vocab, length) = [(2, 4), (3, 3), (4, 2), (5, 2), (3, 1)][seed as usize % 5];
            let model = Random::new(seed, vocab);
            let eos_token_ids = if seed % 2 == 0 { vec![0] } else { Vec::new() };
            let num_beams = vocab.pow(length);
            let options = BeamOptions {
                num_beams,
                num_return_sequences: num_beams,
                length_penalty: (seed % 4) as f64 - 1.0,
                early_stopping: EarlyStopping::Never,
                max_new_tokens: length as usize,
                eos_token_ids: eos_token_ids.clone(),
                stop: Vec::new(),
            };
            // Every text that ends, or has the full length.
            let (mut texts, mut open) = (Vec::new(), vec![Vec::new()]);
            while let Some(text) = open.pop() {
                for token in 0..vocab as u32 {
                    let text = [&text[..], &[token]].concat();
                    let done = eos_token_ids.contains(&token) || text.len() == length as usize;
                    if done { &mut texts } else { &mut open }.push(text);
                }
            }
            let score = |text: &[u32]| model.log_prob(&[1], text) / (text.len() as f64).powf(options.length_penalty);
            texts.sort_by(|a, b| score(b).total_cmp(&score(a)));
            let found = run(&|text: &[u32]| model.logits(text), &[1], &options, &GREEDY);
            assert_eq!(found.len(), texts.len(), "seed {seed}");
            for (found, text) in found.iter().zip(&texts) {
                // Texts closer than f32 can tell may change places.
                assert!((found.score - score(text)).abs() < 1e-4, "seed {seed}: {found:?} {text:?}");
                assert!((found.score - score(&found.tokens)).abs() < 1e-4, "seed {seed}: {found:?}");
            }
        }
    }
}
