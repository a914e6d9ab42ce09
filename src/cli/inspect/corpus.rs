//! The atlas of a corpus.

use super::Watched;
use crate::cli::failure::Failure;
use crate::cli::input;
use crate::cli::interrupt::Writing;
use crate::cli::score::block_size;
use bdh_gpu::inspect::atlas::{self, AtlasError, Corpus, Outcome};
use clap::{Args, ValueHint};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A corpus, and where its atlas goes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Atlas")]
pub struct CorpusArgs {
    /// Read a corpus and write its atlas, a page for every neuron, into the folder --output; given
    /// again after an interruption, goes on where it stopped
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "output")]
    corpus: Option<PathBuf>,
    /// The atlas's folder; index.html is its first page
    #[arg(short, long, value_name = "DIR", value_hint = ValueHint::DirPath, requires = "corpus")]
    output: Option<PathBuf>,
    /// Tokens of the corpus that are read as one context [default: the model's trained context, 512
    /// at most]
    #[arg(long, value_name = "N", requires = "corpus", value_parser = block_size)]
    segment: Option<usize>,
}

impl CorpusArgs {
    /// The corpus and the folder, where there are any.
    pub fn given(&self) -> Option<[&Path; 2]> {
        Some([self.corpus.as_deref()?, self.output.as_deref()?])
    }

    /// Makes the atlas.
    pub fn run(&self, watched: &Watched, corpus: &Path, folder: &Path) -> Result<(), Failure> {
        let Watched { bdh, forgetting, notices, .. } = watched;
        let tokens = input::encode(&input::read_file(corpus)?, bdh.model())?;
        let name = corpus.file_name().unwrap_or(corpus.as_os_str()).to_string_lossy().into_owned();
        let segment = self.segment.unwrap_or_else(|| atlas::default_segment(bdh));
        let (start, mut first) = (Instant::now(), None);
        let bar = notices.progress("Reading the corpus", tokens.len());
        let writing = Writing::begin();
        let text = watched.page_text(format!("Neurons of {} on {name}", bdh.model().name));
        let corpus = Corpus { name: &name, tokens: &tokens, segment };
        let outcome = atlas::atlas(bdh, corpus, *forgetting, &text, folder, |read| {
            if first.replace(read).is_none() && read > 0 {
                notices.say(format_args!("{}: going on from token {read} of {}", folder.display(), tokens.len()));
            }
            bar.set_position(read);
            if writing.interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        bar.finish_and_clear();
        let outcome = outcome.map_err(|error| match error {
            AtlasError::Generation(error) => error.into(),
            other => Failure::Failed(other.to_string()),
        })?;
        match outcome {
            Outcome::Interrupted(read) => {
                let total = tokens.len();
                notices.say(format_args!(
                    "interrupted after {read} of {total} tokens; the same command goes on from there"
                ));
                Err(Failure::Interrupted)
            }
            Outcome::Complete => {
                let (time, count) = (start.elapsed().as_secs_f64(), tokens.len());
                let page = folder.join("index.html");
                notices.say(format_args!("{}: the atlas of {count} tokens, in {time:.0} s", page.display()));
                Ok(())
            }
        }
    }
}
