//! The atlas of a corpus: every neuron's page, from one pass over the text.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `tally` | what is counted, segment by segment |
//! | `progress` | the file that an interrupted pass goes on from |
//! | `entries` | what is counted as a neuron's entry, and the files of the atlas |
//!
//! The corpus is read in segments, each a context of its own: memory is bounded, and a pass can go
//! on where it was interrupted. Sums and samples do not depend on that, nor on the number of
//! threads.

mod entries;
mod progress;
mod tally;

use super::document::PageText;
use crate::generation::{Bdh, GenerationError, TokenTrace};
use crate::model::forgetting::Forgetting;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tally::{Sizes, Tally};

/// Tokens of a segment where the model declares no trained context, and most of them.
const SEGMENT: u32 = 512;
/// Time between two saves.
const SAVE_EVERY: Duration = Duration::from_secs(10);

/// Why there is no atlas.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AtlasError {
    /// The device failed, or a token is not in the vocabulary.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// There is nothing to read.
    #[error("the corpus is empty; expected at least one token")]
    Empty,
    /// A file or folder cannot be written.
    #[error("{path}: cannot be written: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// A corpus.
#[derive(Clone, Copy, Debug)]
pub struct Corpus<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its tokens.
    pub tokens: &'a [u32],
    /// Tokens that are read as one context.
    pub segment: usize,
}

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The atlas is complete.
    Complete,
    /// It was interrupted, and goes on from this token when it is asked for again.
    Interrupted(u64),
}

/// The number of tokens that are read as one context by default: the model's trained context, 512
/// at most.
pub fn default_segment(bdh: &Bdh) -> usize {
    bdh.model().config.trained_context.unwrap_or(SEGMENT).clamp(1, SEGMENT) as usize
}

/// Reads a corpus and writes its atlas into a folder: `index.html`, `shards/NNNN.js` and
/// `neurons.jsonl`, an entry per line. `progress` hears how many tokens are counted, and may end
/// the pass; the folder then holds `progress.bin`, and the same call goes on from there.
///
/// # Errors
/// [`AtlasError`], for instance where the folder cannot be written.
pub fn atlas(
    bdh: &Bdh,
    corpus: Corpus,
    forgetting: Forgetting,
    text: &PageText,
    folder: &Path,
    mut progress: impl FnMut(u64) -> ControlFlow<()>,
) -> Result<Outcome, AtlasError> {
    if corpus.tokens.is_empty() {
        return Err(AtlasError::Empty);
    }
    let config = &bdh.model().config;
    let sizes = Sizes {
        layers: config.n_layer,
        neurons: config.neurons(),
        vocab: config.vocab_size,
        tokens: corpus.tokens.len() as u64,
        segment: corpus.segment.max(1),
    };
    std::fs::create_dir_all(folder).map_err(|error| AtlasError::File { path: folder.to_owned(), error })?;
    let saved = progress::Saved::new(folder, bdh, &corpus, forgetting);
    let mut tally = saved.load(sizes).unwrap_or_else(|| Tally::new(sizes));
    let mut reader = Reader::new(bdh, forgetting)?;
    let mut last_save = Instant::now();
    while let Some(rest) = corpus.tokens.get(tally.tokens as usize..).filter(|rest| !rest.is_empty()) {
        if progress(tally.tokens).is_break() {
            saved.save(&tally)?;
            return Ok(Outcome::Interrupted(tally.tokens));
        }
        if last_save.elapsed() > SAVE_EVERY {
            saved.save(&tally)?;
            last_save = Instant::now();
        }
        tally.count(&reader.read(&rest[..sizes.segment.min(rest.len())])?);
    }
    saved.save(&tally)?;
    let _ = progress(tally.tokens);
    entries::write(bdh, &corpus, forgetting, text, &tally, folder)?;
    saved.remove();
    Ok(Outcome::Complete)
}

/// Reads segments, each as a context of its own.
struct Reader {
    session: crate::generation::Session,
    seen: Arc<Mutex<Vec<TokenTrace>>>,
}

impl Reader {
    fn new(bdh: &Bdh, forgetting: Forgetting) -> Result<Self, GenerationError> {
        let mut session = bdh.session_with(forgetting)?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let all = seen.clone();
        session.watch(move |token| all.lock().unwrap_or_else(PoisonError::into_inner).push(token));
        Ok(Self { session, seen })
    }

    fn read(&mut self, tokens: &[u32]) -> Result<Vec<TokenTrace>, GenerationError> {
        // A session reads a token when there is one after it. The one added here is never read.
        self.session.feed(&[tokens, &[0]].concat())?;
        self.session.reset()?;
        let mut seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        // A conversation that has moved to the CPU was read again, unseen.
        if seen.len() != tokens.len() {
            self.session.feed(&[tokens, &[0]].concat())?;
            self.session.reset()?;
            seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        }
        Ok(seen)
    }
}
