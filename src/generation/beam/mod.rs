//! Beam search: which beams live on, which texts are done, and when to stop. No device here.
//!
//! A device keeps the states of `num_beams` live beams. Every step it finds the best continuations over
//! all of them, the *candidates*; [`select`] is that in plain f32. [`BeamSearch::advance`] then says for
//! each place which beam to copy the state from and which token to read next. Semantics are those of
//! Hugging Face transformers 5.x, with one difference: a text that cannot occur is never returned.
//! Transformers fills the places it has no text for with copies of score −10⁹.

mod candidates;
mod options;
#[cfg(test)]
mod tests;

use super::FinishReason;
use super::stop::StopScan;
use crate::model::EarlyStopping;
use crate::tokenizer::TextStream;
pub use candidates::{Candidate, log_softmax_penalised, select};
pub use options::{BeamError, BeamOptions, MAX_BEAMS};

/// Score of a place that holds no text of its own: all but the first before the first step.
const NO_TEXT: f32 = -1e9;

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
    /// Text after those tokens: what the token that a stop text begins within has before it. Mostly empty.
    pub tail: String,
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
        best.map(|&Done { score, node, ended }| {
            let (tokens, tail) = self.text(node);
            Hypothesis { tokens, tail, score, ended }
        })
        .collect()
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

    /// The tokens up to a node, those of a stop text left out, and the text between them and that.
    fn text(&self, last: Option<usize>) -> (Vec<u32>, String) {
        let mut scan = StopScan::new(&self.options.stop, self.stream.clone());
        let mut kept = Vec::new();
        if !scan.push(&self.path(last), &mut kept) {
            scan.finish(&mut kept);
        }
        (kept, scan.take_tail())
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
