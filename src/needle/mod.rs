//! A needle in a haystack: what a model can look up at a distance.
//!
//! A sentence with a random key and a random value, the needle, lies somewhere in a long text. The
//! text ends with the same sentence up to the value. Does greedy decoding go on with the value, and
//! how many bits does the value take, compared with the text without the needle, and with the text
//! whose needle has another value?

mod plan;
mod sentence;

pub use sentence::DEFAULT_TEXT;

use crate::generation::score::log_softmax;
use crate::generation::{Bdh, GenerationError, Mean, Session};
use crate::model::Model;
use crate::model::forgetting::Forgetting;
use crate::options::OutOfRange;
use crate::sampling::SamplingError;
use plan::{Case, Needle};
use sentence::{Sentence, Template};
use std::ops::ControlFlow;

/// Most needles of a measurement.
pub const MOST_NEEDLES: u32 = 10_000;

/// Where needles lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Places {
    /// Share of the haystack that comes before the needle, percent: 100 lies right before the question.
    Depths(Vec<u32>),
    /// Tokens from the needle's value to the value that is asked for.
    Distances(Vec<usize>),
}

/// What to measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeedleOptions {
    /// The sentence, with `{value}` once, text before it, and `{key}` anywhere.
    pub text: String,
    /// Tokens before the value that is asked for.
    pub lengths: Vec<usize>,
    /// Where the needles lie.
    pub places: Places,
    /// How many needles to average over, each in a part of the text of its own; from 1 to [`MOST_NEEDLES`].
    pub needles: u32,
    /// The seed of keys and values.
    pub seed: u64,
}

impl Default for NeedleOptions {
    fn default() -> Self {
        Self {
            text: DEFAULT_TEXT.to_string(),
            lengths: vec![256, 512, 1024, 2048, 4096, 8192],
            places: Places::Depths(vec![0, 25, 50, 75, 100]),
            needles: 8,
            seed: 0,
        }
    }
}

/// Why needles cannot be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NeedleError {
    /// An option is out of its range, a text has no tokens, or the device failed.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// The needle's tokens make another text, or its question has no token of its own.
    #[error("the model's tokens cannot express {text:?}; give another needle_text")]
    NotExpressible {
        /// The needle.
        text: String,
    },
    /// The haystack is too short.
    #[error(
        "the text has {tokens} tokens, and a context of {length} needs {needed}; give a longer text or shorter lengths"
    )]
    TextTooShort {
        /// Tokens of the text.
        tokens: usize,
        /// The longest context.
        length: usize,
        /// Tokens of the text that it needs.
        needed: usize,
    },
    /// A context has no room for needle and question.
    #[error(
        "a context of {length} tokens has no room for needle and question, which take {least}; give longer lengths"
    )]
    LengthTooShort {
        /// The context.
        length: usize,
        /// Tokens of needle and question.
        least: usize,
    },
    /// A needle right before the question is further away.
    #[error(
        "a distance of {distance} tokens is too short: right before the question, the needle's value is {least} away"
    )]
    DistanceTooShort {
        /// The distance.
        distance: usize,
        /// The shortest one.
        least: usize,
    },
}

impl From<OutOfRange> for NeedleError {
    fn from(error: OutOfRange) -> Self {
        GenerationError::from(error).into()
    }
}

/// What was found at one length and place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NeedleCell {
    /// Tokens before the value that is asked for.
    pub length: usize,
    /// Depth in percent or distance in tokens, as it was asked for.
    pub place: usize,
    /// Tokens from the needle's value to the one asked for, on average.
    pub distance: usize,
    /// Needles.
    pub needles: u32,
    /// Needles whose value greedy decoding gives.
    pub hits: u32,
    /// Bits per byte of the value after the needle.
    pub with: Mean,
    /// The same without a needle.
    pub without: Mean,
    /// The same after a needle with another value.
    pub other: Mean,
    /// Bits per byte that the needle saves: `without` − `with`.
    pub gained: Mean,
    /// Bits per byte that the needle's value saves: `other` − `with`. A model that has learned from
    /// the needle how such a sentence goes on, but not the value, saves nothing here.
    pub looked_up: Mean,
}

/// One needle's bits in the three texts.
#[derive(Clone, Copy, Default)]
struct Sample {
    distance: usize,
    bytes: f64,
    hit: bool,
    with: f64,
    without: f64,
    other: f64,
}

/// Measures what a model finds in a text, at every length and place: cells by length, then by place.
/// Places that are too far away for a length have no cell.
///
/// The haystack before the needle is read once for all texts that begin with it. `progress` receives
/// how many tokens have been read and how many there are in all; it may end the measurement, whose
/// cells are then of the needles that were complete.
///
/// # Errors
/// [`NeedleError`] for options out of range, a text that is too short, a needle without tokens, and a
/// device that fails.
///
/// ```
/// # #[cfg(feature = "embedded-model")] {
/// use bdh_gpu::needle::{NeedleOptions, Places, measure};
/// use bdh_gpu::{Bdh, Forgetting};
/// use std::ops::ControlFlow;
///
/// let model = Bdh::embedded()?;
/// let text = model.encode("KING:\nWhat news?\n\n".repeat(8).as_bytes())?;
/// let options = NeedleOptions {
///     lengths: vec![128],
///     places: Places::Depths(vec![50]),
///     needles: 2,
///     ..NeedleOptions::default()
/// };
/// let cells = measure(&model, &text, &options, Forgetting::Full, |_, _| ControlFlow::Continue(()))?;
/// println!("found {} of {}, {:.2} bits per byte saved", cells[0].hits, cells[0].needles, cells[0].gained.bits);
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn measure(
    bdh: &Bdh,
    text: &[u32],
    options: &NeedleOptions,
    forgetting: Forgetting,
    mut progress: impl FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Vec<NeedleCell>, NeedleError> {
    let needles = prepare(bdh.model(), text, options)?;
    let total = needles.iter().map(Haystack::tokens).sum();
    let mut read = 0;
    let mut samples: Vec<Vec<Option<Sample>>> = Vec::new();
    for needle in &needles {
        let mut flow = ControlFlow::Continue(());
        let found = needle.read(bdh, options, forgetting, |tokens| {
            read += tokens;
            flow = progress(read, total);
            flow
        })?;
        samples.extend(found);
        if flow.is_break() {
            break;
        }
    }
    let places = options.places.len();
    let cells = (0..options.lengths.len() * places).filter_map(|cell| {
        let samples: Vec<Sample> = samples.iter().filter_map(|samples| samples[cell]).collect();
        summarise(&samples, options.lengths[cell / places], options.places.value(cell % places))
    });
    Ok(cells.collect())
}

/// Checks that needles can be measured in a text, before a device is opened.
///
/// # Errors
/// As [`measure`], unless the device fails.
pub fn check(model: &Model, text: &[u32], options: &NeedleOptions) -> Result<(), NeedleError> {
    prepare(model, text, options).map(drop)
}

/// One needle and the part of the text that it lies in.
struct Haystack<'a> {
    text: &'a [u32],
    sentences: [Sentence; 2],
    cases: Vec<Case>,
}

/// Checks the options, and makes the needles.
fn prepare<'a>(model: &Model, text: &'a [u32], options: &NeedleOptions) -> Result<Vec<Haystack<'a>>, NeedleError> {
    let template = Template::new(&options.text)?;
    if !(1..=MOST_NEEDLES).contains(&options.needles) {
        return Err(OutOfRange::new("needles", format!("from 1 to {MOST_NEEDLES}"), options.needles).into());
    }
    if let Places::Depths(depths) = &options.places
        && let Some(depth) = depths.iter().find(|depth| **depth > 100)
    {
        return Err(OutOfRange::new("depths", "from 0 to 100", depth).into());
    }
    let longest = options.lengths.iter().copied().max().unwrap_or(0);
    // The needle is never the first of a text, for tokenizers that put a space there.
    let mut before = model.tokenizer.stream();
    before.skip(&text[..text.len().min(1)]);
    before.settle();
    let of = |index: u32| {
        let sentences = template.sentences(model, &before, options.seed, index)?;
        let needed = plan::haystack_tokens(&sentences[0], longest);
        let Some(spare) = text.len().checked_sub(needed) else {
            return Err(NeedleError::TextTooShort { tokens: text.len(), length: longest, needed });
        };
        let cases = plan::cases(&sentences, &options.lengths, &options.places)?;
        // The parts of the text begin at even distances.
        let start = spare as u64 * u64::from(index) / u64::from(options.needles.max(2) - 1);
        Ok(Haystack { text: &text[start as usize..][..needed], sentences, cases })
    };
    (0..options.needles).map(of).collect()
}

impl Haystack<'_> {
    /// The needle of a text.
    fn needle(&self, case: &Case) -> &[u32] {
        match case.needle {
            Needle::Absent => &[],
            Needle::Right => &self.sentences[0].tokens,
            Needle::Other => &self.sentences[1].tokens,
        }
    }

    /// Tokens of a text after the haystack's first part.
    fn tail(&self, case: &Case) -> usize {
        let [right, _] = &self.sentences;
        self.needle(case).len() + case.after + right.question().len() + right.answer().len()
    }

    /// Tokens that will be read.
    fn tokens(&self) -> usize {
        let tails: usize = self.cases.iter().map(|case| self.tail(case)).sum();
        tails + self.cases.last().map_or(0, |case| case.before)
    }

    /// Reads all texts, and returns a sample for each length and place that has one; nothing if
    /// `progress`, which receives tokens as they are read, has ended the reading before the last one.
    fn read(
        &self,
        bdh: &Bdh,
        options: &NeedleOptions,
        forgetting: Forgetting,
        mut progress: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Option<Vec<Option<Sample>>>, NeedleError> {
        let (rows, places) = (options.lengths.len(), options.places.len());
        let answer = self.sentences[0].answer();
        let mut without = vec![0.0; rows];
        let mut with = vec![None; rows * places];
        let mut other = vec![None; rows * places];
        let mut session = bdh.session_with(forgetting)?;
        let mut position = 0;
        let mut beginning = session.snapshot()?;
        for (index, case) in self.cases.iter().enumerate() {
            session.restore(&beginning)?;
            let grown = &self.text[position..case.before];
            if !grown.is_empty() {
                session.feed(grown)?;
                position = case.before;
                beginning = session.snapshot()?;
            }
            let after = &self.text[case.before..][..case.after];
            session.feed(&[self.needle(case), after, self.sentences[0].question()].concat())?;
            let found = ask(&mut session, answer)?;
            let cell = case.row * places + case.place;
            match case.needle {
                Needle::Absent => without[case.row] = found.bits,
                Needle::Right => with[cell] = Some((found, case.distance)),
                Needle::Other => other[cell] = Some(found.bits),
            }
            let flow = progress(grown.len() + self.tail(case));
            if flow.is_break() && index + 1 < self.cases.len() {
                return Ok(None);
            }
        }
        let bytes = self.sentences[0].answer_bytes as f64;
        let sample = |cell: usize| {
            let (Found { bits: with, hit }, distance) = with[cell]?;
            Some(Sample { distance, bytes, hit, with, without: without[cell / places], other: other[cell]? })
        };
        Ok(Some((0..rows * places).map(sample).collect()))
    }
}

/// What a model makes of a question.
#[derive(Clone, Copy)]
struct Found {
    /// Bits that the answer takes.
    bits: f64,
    /// Whether greedy decoding gives the answer.
    hit: bool,
}

/// Reads the answer to a question that has been fed.
fn ask(session: &mut Session, answer: &[u32]) -> Result<Found, GenerationError> {
    let position = session.position();
    let mut found = Found { bits: 0.0, hit: true };
    // The question's last token is read now, and the answer's last token is not.
    session.trace(answer, |index, logits| {
        let target = answer[index] as usize;
        let logprob = log_softmax(logits, target);
        if logprob.is_nan() {
            let source = Some(SamplingError::NanLogits);
            return Err(GenerationError::Sampling { position: position - 1 + index as u64, sequence: 0, source });
        }
        found.bits -= logprob / std::f64::consts::LN_2;
        // Of equal logits the first is taken.
        let before = logits[..target].iter().all(|&logit| logit < logits[target]);
        found.hit &= before && logits[target..].iter().all(|&logit| logit <= logits[target]);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// The cell of some needles' samples; none without needles.
fn summarise(samples: &[Sample], length: usize, place: usize) -> Option<NeedleCell> {
    let mean = |bits: fn(&Sample) -> f64| {
        Mean::of(&samples.iter().map(|sample| (bits(sample), sample.bytes)).collect::<Vec<_>>())
    };
    let distance = samples.iter().map(|sample| sample.distance).sum::<usize>() / samples.len().max(1);
    Some(NeedleCell {
        length,
        place,
        distance,
        needles: samples.len() as u32,
        hits: samples.iter().filter(|sample| sample.hit).count() as u32,
        with: mean(|sample| sample.with)?,
        without: mean(|sample| sample.without)?,
        other: mean(|sample| sample.other)?,
        gained: mean(|sample| sample.without - sample.with)?,
        looked_up: mean(|sample| sample.other - sample.with)?,
    })
}
