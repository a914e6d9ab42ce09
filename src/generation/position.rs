//! How well a model predicts at which position: losses by ranges of positions that double in length.

use super::{Bdh, GenerationError};
use crate::model::forgetting::Forgetting;
use crate::tokenizer::Tokenizer;
use maybe_async::maybe_async;
use std::ops::ControlFlow;

/// Positions in the first range of [`Bdh::score_by_position`].
pub const FIRST_RANGE: usize = 256;

/// A mean of several texts, in bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// All bits of the texts over all their units: tokens or bytes.
    pub bits: f64,
    /// The standard error of `bits`, from the differences between the texts; none for a single text.
    pub standard_error: Option<f64>,
}

impl Mean {
    /// The mean of texts given as (bits, units); none without units.
    pub fn of(texts: &[(f64, f64)]) -> Option<Self> {
        let units: f64 = texts.iter().map(|(_, units)| units).sum();
        if units <= 0.0 {
            return None;
        }
        let bits = texts.iter().map(|(bits, _)| bits).sum::<f64>() / units;
        let count = texts.len() as f64;
        // That of a ratio: texts may differ in length.
        let squares: f64 = texts.iter().map(|(own, units)| (own - bits * units).powi(2)).sum();
        let standard_error = (texts.len() > 1).then(|| (count / (count - 1.0) * squares).sqrt() / units);
        Some(Self { bits, standard_error })
    }
}

/// How well tokens of a range of positions are predicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PositionRange {
    /// The first position, counted from 0.
    pub first: usize,
    /// The last position.
    pub last: usize,
    /// Texts that have predicted tokens in it.
    pub pieces: usize,
    /// Predicted tokens.
    pub tokens: usize,
    /// Bits per predicted token.
    pub per_token: Mean,
    /// Bits per byte of the predicted tokens' text, if that is known.
    pub per_byte: Option<Mean>,
}

/// One text's predictions in one range.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    bits: f64,
    tokens: usize,
    bytes: usize,
}

impl Part {
    fn add(&mut self, other: Self) {
        self.bits += other.bits;
        self.tokens += other.tokens;
        self.bytes += other.bytes;
    }
}

/// Collects the log-probabilities of texts by position. It keeps three numbers for each range of each text.
///
/// ```
/// use bdh_gpu::generation::PositionLosses;
///
/// let mut losses = PositionLosses::new(2);
/// // The first token has no prediction; the others have one bit each, and two from position 4 on.
/// let logprobs = [0.0, -1.0, -1.0, -1.0, -2.0, -2.0].map(|bits: f64| Some(bits * std::f64::consts::LN_2));
/// losses.add(&[&[None], &logprobs[1..]].concat(), None);
/// let ranges = losses.ranges();
/// assert_eq!(ranges.iter().map(|range| (range.first, range.last)).collect::<Vec<_>>(), [(0, 1), (2, 3), (4, 5)]);
/// assert_eq!(ranges.iter().map(|range| range.tokens).collect::<Vec<_>>(), [1, 2, 2]);
/// assert_eq!(ranges[2].per_token.bits, 2.0);
/// ```
#[derive(Clone, Debug)]
pub struct PositionLosses {
    first_range: usize,
    /// Positions of the longest text.
    longest: usize,
    /// Whether the bytes of every text are known.
    has_bytes: bool,
    /// Each text's parts, range by range.
    pieces: Vec<Vec<Part>>,
}

impl PositionLosses {
    /// Nothing yet. The first two ranges have `first_range` positions (at least 1), and every other
    /// one twice as many as the one before it.
    pub fn new(first_range: usize) -> Self {
        Self { first_range: first_range.max(1), longest: 0, has_bytes: true, pieces: Vec::new() }
    }

    /// Adds a text that starts at position 0: the natural log-probability of each of its tokens, none
    /// where there is no prediction, and the bytes that each token is long ([`token_bytes`]).
    ///
    /// # Panics
    /// If `bytes` is not as long as `logprobs`.
    pub fn add(&mut self, logprobs: &[Option<f64>], bytes: Option<&[usize]>) {
        if let Some(bytes) = bytes {
            assert_eq!(bytes.len(), logprobs.len(), "one length for each token");
        }
        self.has_bytes &= bytes.is_some();
        self.longest = self.longest.max(logprobs.len());
        let (mut piece, mut first) = (Vec::new(), 0);
        while first < logprobs.len() {
            let end = self.end(piece.len()).min(logprobs.len());
            let mut part = Part::default();
            for position in first..end {
                if let Some(logprob) = logprobs[position] {
                    let bytes = bytes.map_or(0, |bytes| bytes[position]);
                    part.add(Part { bits: -logprob / std::f64::consts::LN_2, tokens: 1, bytes });
                }
            }
            piece.push(part);
            first = end;
        }
        self.pieces.push(piece);
    }

    /// The position after a range.
    fn end(&self, range: usize) -> usize {
        let factor = u32::try_from(range).ok().and_then(|range| 1usize.checked_shl(range)).unwrap_or(usize::MAX);
        self.first_range.saturating_mul(factor)
    }

    /// The ranges that have predictions, by position.
    pub fn ranges(&self) -> Vec<PositionRange> {
        let count = self.pieces.iter().map(Vec::len).max().unwrap_or(0);
        let range = |index: usize| {
            let first = if index == 0 { 0 } else { self.end(index - 1) };
            let parts = self.pieces.iter().filter_map(|piece| piece.get(index).copied());
            self.range(first, self.end(index).min(self.longest) - 1, parts)
        };
        (0..count).filter_map(range).collect()
    }

    /// All positions as one range; none without predictions.
    pub fn all(&self) -> Option<PositionRange> {
        let whole = |piece: &Vec<Part>| {
            let mut whole = Part::default();
            piece.iter().for_each(|&part| whole.add(part));
            whole
        };
        self.range(0, self.longest.saturating_sub(1), self.pieces.iter().map(whole))
    }

    /// A range of which each text has a part.
    fn range(&self, first: usize, last: usize, parts: impl Iterator<Item = Part>) -> Option<PositionRange> {
        let parts: Vec<Part> = parts.filter(|part| part.tokens > 0).collect();
        let mean = |units: fn(&Part) -> usize| {
            Mean::of(&parts.iter().map(|part| (part.bits, units(part) as f64)).collect::<Vec<_>>())
        };
        Some(PositionRange {
            first,
            last,
            pieces: parts.len(),
            tokens: parts.iter().map(|part| part.tokens).sum(),
            per_token: mean(|part| part.tokens)?,
            per_byte: mean(|part| part.bytes).filter(|_| self.has_bytes),
        })
    }
}

/// The bytes of text that each token adds; none where the model has no tokenizer. A character of
/// several tokens counts for its last.
pub fn token_bytes(tokenizer: &Tokenizer, tokens: &[u32]) -> Option<Vec<usize>> {
    if tokens.iter().all(|&token| tokenizer.byte(token).is_some()) {
        return Some(vec![1; tokens.len()]);
    }
    tokenizer.check().ok()?;
    Some(tokenizer.stream().pieces(tokens).iter().map(String::len).collect())
}

/// Tokens of each piece of a text: all of them unless a length is asked for.
///
/// # Errors
/// As [`Bdh::score_by_position`], for a length below 2 and for one that is longer than the text.
pub fn piece_length(tokens: usize, asked: Option<usize>) -> Result<usize, GenerationError> {
    match asked.unwrap_or(tokens) {
        length @ 0..2 => Err(GenerationError::TooShort(length)),
        length if length > tokens => Err(GenerationError::ShortText { tokens, length }),
        length => Ok(length),
    }
}

/// A text's score by position.
#[derive(Clone, Debug, PartialEq)]
pub struct ByPosition {
    /// Conversations that the text was read as.
    pub pieces: usize,
    /// Tokens of each.
    pub length: usize,
    /// Tokens at the end of the text that make up no piece and were not read.
    pub left_out: usize,
    /// The ranges of positions, in order.
    pub ranges: Vec<PositionRange>,
    /// All positions.
    pub all: PositionRange,
}

#[maybe_async]
impl Bdh {
    /// Scores a text by position: as one conversation, or as consecutive pieces of `length` tokens, each a conversation
    /// of its own. `progress` hears how many tokens have been read, and may end the reading: the score is then of those.
    ///
    /// # Errors
    /// [`GenerationError::ShortText`] for a text shorter than a piece; else as [`Bdh::score`].
    pub async fn score_by_position(
        &self,
        tokens: &[u32],
        length: Option<usize>,
        forgetting: Forgetting,
        mut progress: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<ByPosition, GenerationError> {
        let length = piece_length(tokens.len(), length)?;
        let tokenizer = &self.model().tokenizer;
        let mut losses = PositionLosses::new(FIRST_RANGE);
        let (mut pieces, mut flow) = (0, ControlFlow::Continue(()));
        for piece in tokens.chunks_exact(length) {
            let before = pieces * length;
            let score = self
                .score(piece, forgetting, |read| {
                    flow = progress(before + read);
                    flow
                })
                .await?;
            losses.add(&score.logprobs, token_bytes(tokenizer, &score.tokens).as_deref());
            pieces += 1;
            if flow.is_break() {
                break;
            }
        }
        let all = losses.all().ok_or(GenerationError::TooShort(length))?;
        Ok(ByPosition { pieces, length, left_out: tokens.len() % length, ranges: losses.ranges(), all })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_of_equal_texts_has_the_usual_standard_error() {
        let bits = [1.0, 2.0, 4.0, 5.0];
        let mean = Mean::of(&bits.map(|bits| (10.0 * bits, 10.0))).unwrap();
        let deviation = (bits.iter().map(|bits| (bits - 3.0) * (bits - 3.0)).sum::<f64>() / 3.0).sqrt();
        assert_eq!(mean.bits, 3.0);
        assert!((mean.standard_error.unwrap() - deviation / 2.0).abs() < 1e-12);
        // A text twice as long counts twice.
        assert_eq!(Mean::of(&[(10.0, 10.0), (40.0, 20.0)]).unwrap().bits, 50.0 / 30.0);
        assert_eq!(Mean::of(&[(3.0, 2.0)]), Some(Mean { bits: 1.5, standard_error: None }));
        assert_eq!([Mean::of(&[]), Mean::of(&[(0.0, 0.0)])], [None, None]);
    }

    #[test]
    fn ranges_double_and_end_with_the_longest_text() {
        let mut losses = PositionLosses::new(4);
        assert_eq!((losses.ranges(), losses.all()), (Vec::new(), None));
        losses.add(&[], Some(&[]));
        assert_eq!((losses.ranges(), losses.all()), (Vec::new(), None));
        let text = |length: usize| -> Vec<Option<f64>> {
            (0..length).map(|t| (t > 0).then_some(-std::f64::consts::LN_2 * t as f64)).collect()
        };
        for length in [1, 5, 21] {
            losses.add(&text(length), Some(&vec![2; length]));
        }
        let found: Vec<_> = losses.ranges().iter().map(|r| (r.first, r.last, r.pieces, r.tokens)).collect();
        assert_eq!(found, [(0, 3, 2, 6), (4, 7, 2, 5), (8, 15, 1, 8), (16, 20, 1, 5)]);
        let range = losses.ranges()[1];
        assert_eq!(range.per_token.bits, (4.0 + 4.0 + 5.0 + 6.0 + 7.0) / 5.0);
        assert_eq!(range.per_byte.unwrap().bits, range.per_token.bits / 2.0);
        let all = losses.all().unwrap();
        assert_eq!((all.first, all.last, all.pieces, all.tokens), (0, 20, 2, 24));
        assert_eq!(all.per_token.bits, (210.0 + 10.0) / 24.0);
        // The bytes of one text are not known.
        losses.add(&text(2), None);
        assert!(losses.ranges().iter().all(|range| range.per_byte.is_none()));
    }

    #[test]
    fn a_range_without_predictions_is_left_out() {
        let mut losses = PositionLosses::new(1);
        losses.add(&[None, Some(-1.0), None, None, Some(-1.0)], None);
        let found: Vec<_> = losses.ranges().iter().map(|range| (range.first, range.last, range.tokens)).collect();
        assert_eq!(found, [(1, 1, 1), (4, 4, 1)]);
    }
}
