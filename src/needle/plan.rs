//! Which texts are read: where in the haystack the needle lies, and how long the haystack is.

use super::sentence::Sentence;
use super::{NeedleError, Places};

/// One text: some of the haystack, perhaps the needle, more of the haystack, the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// Tokens of the haystack before the needle, or before the question if there is no needle.
    pub before: usize,
    /// Tokens of the haystack between needle and question.
    pub after: usize,
    /// The needle, if there is one.
    pub needle: Needle,
    /// Index of the length: how many tokens come before the value that is asked for.
    pub row: usize,
    /// Index of the place: a depth or a distance.
    pub place: usize,
    /// Tokens from the needle's value to the one asked for.
    pub distance: usize,
}

/// The needle of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needle {
    /// None: the haystack goes on in its place.
    Absent,
    /// The sentence with the value that is asked for.
    Right,
    /// The sentence with another value.
    Other,
}

/// Tokens of the haystack that the longest text needs.
pub fn haystack_tokens(sentence: &Sentence, longest: usize) -> usize {
    longest.saturating_sub(sentence.question().len())
}

/// The texts of one needle, in the order in which the haystack's parts before them grow.
pub fn cases([right, other]: &[Sentence; 2], lengths: &[usize], places: &Places) -> Result<Vec<Case>, NeedleError> {
    let question = right.question().len();
    let mut cases = Vec::new();
    for (row, &length) in lengths.iter().enumerate() {
        let before = length.saturating_sub(question);
        cases.push(Case { before, after: 0, needle: Needle::Absent, row, place: 0, distance: 0 });
        for (needle, sentence) in [(Needle::Right, right), (Needle::Other, other)] {
            let least = sentence.tokens.len() + question;
            let Some(room) = length.checked_sub(least) else {
                return Err(NeedleError::LengthTooShort { length, least });
            };
            for place in 0..places.len() {
                let Some(before) = places.before(place, length, room, question)? else { continue };
                let distance = length - before - question;
                cases.push(Case { before, after: room - before, needle, row, place, distance });
            }
        }
    }
    cases.sort_by_key(|case| case.before);
    Ok(cases)
}

impl Places {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Depths(depths) => depths.len(),
            Self::Distances(distances) => distances.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The depth or the distance with an index.
    ///
    /// # Panics
    /// If there is none.
    pub fn value(&self, place: usize) -> usize {
        match self {
            Self::Depths(depths) => depths[place] as usize,
            Self::Distances(distances) => distances[place],
        }
    }

    /// Tokens of the haystack before the needle in a text of `length` tokens, `room` of which are haystack; none where
    /// the text is too short for the distance.
    fn before(&self, place: usize, length: usize, room: usize, question: usize) -> Result<Option<usize>, NeedleError> {
        match self {
            Self::Depths(depths) => Ok(Some((room as u64 * u64::from(depths[place]) + 50) as usize / 100)),
            Self::Distances(distances) => {
                let distance = distances[place];
                let least = length - room - question;
                if distance < least {
                    return Err(NeedleError::DistanceTooShort { distance, least });
                }
                Ok((length - question).checked_sub(distance))
            }
        }
    }
}

#[cfg(all(test, feature = "embedded-model"))]
mod tests {
    use super::*;
    use crate::model::Model;
    use crate::needle::sentence::Template;

    /// Question of 8 tokens, value of 6, one token after it.
    fn sentences() -> [Sentence; 2] {
        let model = Model::embedded().unwrap();
        let template = Template::new("The {key}{value}.").unwrap();
        template.sentences(&model, &model.tokenizer.stream(), 0, 0).unwrap()
    }

    /// Before, after and distance of each needle with the right value, row by row.
    fn places(lengths: &[usize], places: &Places) -> Vec<[usize; 5]> {
        let mut cases = cases(&sentences(), lengths, places).unwrap();
        assert!(cases.is_sorted_by_key(|case| case.before));
        cases.retain(|case| case.needle == Needle::Right);
        cases.sort_by_key(|case| (case.row, case.place));
        cases.iter().map(|case| [case.row, case.place, case.before, case.after, case.distance]).collect()
    }

    #[test]
    fn every_text_is_as_long_as_it_should_be() {
        let sentences = sentences();
        let lengths = [23, 24, 100];
        let found = cases(&sentences, &lengths, &Places::Depths(vec![0, 33, 100])).unwrap();
        assert_eq!(found.len(), 3 * (1 + 2 * 3));
        for case in found {
            let needle = if case.needle == Needle::Absent { 0 } else { 15 };
            assert_eq!(case.before + needle + case.after + 8, lengths[case.row], "{case:?}");
        }
    }

    #[test]
    fn needles_lie_at_depths_or_distances() {
        // A haystack of 77 tokens.
        let depths = [[0, 0, 0, 77, 92], [0, 1, 19, 58, 73], [0, 2, 77, 0, 15]];
        assert_eq!(places(&[100], &Places::Depths(vec![0, 25, 100])), depths);
        // Too far for the shorter text.
        let distances =
            [[0, 0, 77, 0, 15], [0, 1, 0, 77, 92], [1, 0, 177, 0, 15], [1, 1, 100, 77, 92], [1, 2, 92, 85, 100]];
        assert_eq!(places(&[100, 200], &Places::Distances(vec![15, 92, 100])), distances);
    }

    #[test]
    fn what_has_no_room_is_an_error() {
        let error = cases(&sentences(), &[100, 22], &Places::Depths(vec![0])).unwrap_err();
        assert!(matches!(error, NeedleError::LengthTooShort { length: 22, least: 23 }), "{error}");
        let error = cases(&sentences(), &[100], &Places::Distances(vec![20, 14])).unwrap_err();
        assert!(matches!(error, NeedleError::DistanceTooShort { distance: 14, least: 15 }), "{error}");
    }
}
