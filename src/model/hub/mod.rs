//! Models by their name on the Hugging Face Hub: `owner/name[@revision][:file]`.
//!
//! A name is looked up at the Hub, the files that a local model directory would be read from are
//! downloaded into the cache that all of the Hub's programs share, and the snapshot there is loaded
//! as any other directory.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `name` | names, and how they differ from paths |
//! | `error` | why a model cannot be fetched |
//! | `settings` | the Hub's environment variables |
//! | `listing` | which files of a repository a model needs |
//! | `client` | requests to the Hub |
//! | `answer` | what its answers mean |
//! | `cache` | blobs, snapshots and references on disk |
//! | `download` | one file, resumed and checked |
//! | `fetch` | the files of a model |
//! | `watch` | progress and interruption |
//!
//! The crate hf-hub knows the Hub's API and addresses. Its own downloads are not used: they trust
//! an answer's ETag as a path, put files in place unchecked, and panic at some answers.

mod error;
mod name;

#[cfg(feature = "hub")]
mod answer;
#[cfg(feature = "hub")]
mod cache;
#[cfg(feature = "hub")]
mod client;
#[cfg(feature = "hub")]
mod download;
#[cfg(feature = "hub")]
mod fetch;
#[cfg(feature = "hub")]
mod listing;
#[cfg(feature = "hub")]
mod settings;
#[cfg(feature = "hub")]
mod watch;

pub use self::error::HubError;
pub use self::name::HubName;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::{LoadOptions, Model, ModelError};

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The file that is being downloaded.
    pub file: &'a str,
    /// Bytes that are here.
    pub done: u64,
    /// Bytes to download in all, as far as is known; 0 before anything is.
    pub total: u64,
}

/// Hears how far a download is, several times a second, and may stop it.
pub type Watch<'a> = dyn FnMut(Progress<'_>) -> ControlFlow<()> + 'a;

/// A model's files on disk.
struct Local {
    path: PathBuf,
    /// What was out of the ordinary: one line each.
    notes: Vec<String>,
}

impl Model {
    /// Loads a model by its path, as [`Model::from_path_with`], or by its name on the Hugging Face
    /// Hub, `owner/name[@revision][:file]`. What is on disk wins over a name. Files that are not in
    /// the Hub's cache are downloaded into it, which `watch` hears of and may stop.
    ///
    /// The environment variables of the Hub's programs count: `HF_HOME`, `HF_HUB_CACHE`,
    /// `HF_TOKEN`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`. If the Hub cannot be reached, the revision that
    /// was last downloaded is loaded, with a note.
    ///
    /// # Errors
    /// As [`Model::from_path`]; [`ModelError::Hub`] if the model cannot be fetched, or if this
    /// library was built without the feature `hub`.
    pub fn from_pretrained(
        model: impl AsRef<Path>,
        options: &LoadOptions,
        watch: &mut Watch<'_>,
    ) -> Result<Self, ModelError> {
        let path = model.as_ref();
        let name = match path.to_str().and_then(HubName::parse) {
            Some(name) if path.symlink_metadata().is_err() => name?,
            _ => return Self::from_path_with(path, options),
        };
        let Local { path, notes } = locate(&name, watch)?;
        let mut model = Self::from_path_with(path, options)?;
        model.name = name.name;
        model.notes.splice(0..0, notes);
        Ok(model)
    }
}

#[cfg(feature = "hub")]
fn locate(name: &HubName, watch: &mut Watch<'_>) -> Result<Local, ModelError> {
    fetch::locate(name, watch)
}

#[cfg(not(feature = "hub"))]
fn locate(name: &HubName, _watch: &mut Watch<'_>) -> Result<Local, ModelError> {
    Err(HubError::NotBuilt { name: name.to_string() }.into())
}
