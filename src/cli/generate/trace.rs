//! The neurons of a text that is generated, written to a file.

use crate::cli::failure::Failure;
use crate::cli::inspect::{Rows, page_text, unwritable, write_file};
use bdh_gpu::generation::{Bdh, Session, TokenTrace};
use bdh_gpu::inspect::{self, Trace};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

/// Neurons that a line names of each layer.
const TOP: usize = 16;

/// A file, and its form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceFile {
    pub path: PathBuf,
    pub form: Form,
}

/// Forms of a trace, by the file's ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An object for each token.
    Lines,
    /// All neurons, as NumPy's archive.
    Archive,
    /// A page for a browser.
    Page,
}

impl FromStr for TraceFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = PathBuf::from(text);
        let form = match path.extension().and_then(|ending| ending.to_str()) {
            Some("jsonl") => Form::Lines,
            Some("npz") => Form::Archive,
            Some("html") => Form::Page,
            _ => return Err("expected a file that ends in .jsonl, .npz or .html".to_string()),
        };
        Ok(Self { path, form })
    }
}

/// Tokens seen by position: those of a stop text, which the text goes back from, are seen twice.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<Vec<TokenTrace>>>);

impl Seen {
    /// Watches a session from now on.
    pub fn watch(session: &mut Session) -> Self {
        let seen = Self::default();
        let all = seen.clone();
        session.watch(move |token| {
            let mut all = all.0.lock().unwrap_or_else(PoisonError::into_inner);
            let kept = all.partition_point(|other| other.position < token.position);
            all.truncate(kept);
            all.push(token);
        });
        seen
    }

    /// The tokens that are part of the conversation.
    fn of(&self, session: &Session) -> Vec<TokenTrace> {
        let mut all = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        all.retain(|token| u64::from(token.position) < session.position());
        all
    }
}

impl TraceFile {
    /// Writes what has been seen of a session; the file takes its place when it is complete. The
    /// last token of a text has not been read, and is not there.
    pub fn write(&self, bdh: &Bdh, session: &Session, seen: &Seen) -> Result<(), Failure> {
        let seen = seen.of(session);
        let path: &Path = &self.path;
        match self.form {
            Form::Lines => {
                let rows = Rows::new(bdh, TOP, false);
                let lines: String = seen.iter().map(|token| format!("{}\n", rows.object(token, f32::NAN))).collect();
                write_file(path, lines.as_bytes())
            }
            Form::Archive => {
                let mut trace = Trace::new(bdh);
                seen.iter().for_each(|token| trace.push(token, f32::NAN));
                trace.write_npz(path).map_err(|error| unwritable(path, &error))
            }
            Form::Page => {
                let tokens: Vec<u32> = seen.iter().map(|token| token.token).collect();
                let text = page_text(bdh.decode(&tokens[..tokens.len().min(40)]), Default::default());
                let page =
                    inspect::text_page(bdh, &tokens, session.forgetting(), &text, |_| ControlFlow::Continue(()))?;
                write_file(path, page.as_bytes())
            }
        }
    }
}
