//! Why a model cannot be fetched from the Hub.

use std::io;
use std::path::PathBuf;

/// Why a model could not be fetched from the Hugging Face Hub. Every message is one line: what is
/// wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// A name whose revision or file cannot be one.
    #[error("{name:?}: {reason}; expected owner/name[@revision][:file]")]
    Name {
        /// The name as given.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// This library was built without the Hub.
    #[error(
        "{name}: no such file or directory; to load it by this name from the Hugging Face Hub, build with the feature hub"
    )]
    NotBuilt {
        /// The name as given.
        name: String,
    },

    /// Neither a file nor a model of this name exists.
    #[error("{repository}: no such file or directory, and no such model at {endpoint}; check the spelling")]
    NotFound {
        /// `owner/name`.
        repository: String,
        /// Where it was looked for.
        endpoint: String,
    },

    /// The Hub shows the model to nobody without the right token.
    #[error("{repository}: no such file or directory, and {endpoint} {found}; {advice}", found = if *token { "does not accept the token" } else { "shows no such model without a token: it does not exist, or is private" }, advice = if *token { "renew HF_TOKEN, or log in with `hf auth login`" } else { "check the spelling, or set HF_TOKEN" })]
    Denied {
        /// `owner/name`.
        repository: String,
        /// Where it was asked for.
        endpoint: String,
        /// Whether a token was sent.
        token: bool,
    },

    /// The model's owner decides who may download it.
    #[error(
        "{repository}: access is restricted{reason}; ask for it at {endpoint}/{repository}, and set HF_TOKEN to a token of that account"
    )]
    Gated {
        /// `owner/name`.
        repository: String,
        /// Where it was asked for.
        endpoint: String,
        /// What the Hub says, after a colon, or nothing.
        reason: String,
    },

    /// The model has no such revision.
    #[error(
        "{repository}: has no revision {revision:?}; expected a branch, a tag or a commit hash, as listed at {endpoint}/{repository}/tree/main"
    )]
    NoRevision {
        /// `owner/name`.
        repository: String,
        /// Where it was asked for.
        endpoint: String,
        /// The revision.
        revision: String,
    },

    /// The model has no such file.
    #[error("{repository}: has no file {file:?} at revision {revision}; expected one of its weights: {found}")]
    NoFile {
        /// `owner/name`.
        repository: String,
        /// The revision.
        revision: String,
        /// The file.
        file: String,
        /// The weights it has.
        found: String,
    },

    /// A repository without weights, or with several files that may be the weights.
    #[error("{name}: holds {found}, expected one weights file{advice}", advice = if *several { "; name one, as owner/name:file" } else { "" })]
    NoWeights {
        /// The name as given.
        name: String,
        /// What it holds.
        found: String,
        /// Whether there are several files.
        several: bool,
    },

    /// The Hub does not answer, and the cache does not hold the model.
    #[error("{endpoint}: cannot be reached: {reason}; {name} is not in the cache {cache}; check the connection, or HF_ENDPOINT", cache = cache.display())]
    Unreachable {
        /// Where the Hub should be.
        endpoint: String,
        /// Why it cannot be reached.
        reason: String,
        /// The name as given.
        name: String,
        /// The cache.
        cache: PathBuf,
    },

    /// The cache does not hold the model, and `HF_HUB_OFFLINE` is set.
    #[error("{name}: no such file or directory, and not in the cache {cache}; HF_HUB_OFFLINE is set: unset it to download the model", cache = cache.display())]
    Offline {
        /// The name as given.
        name: String,
        /// The cache.
        cache: PathBuf,
    },

    /// An answer that the Hub's protocol does not have.
    #[error("{url}: {found}, expected {expected}; check HF_ENDPOINT, or try again later")]
    Answer {
        /// The address asked.
        url: String,
        /// What it answered.
        found: String,
        /// What it should have answered.
        expected: &'static str,
    },

    /// A connection broke several times.
    #[error("{file}: the download broke off after {done} of {total} bytes: {reason}; run it again to go on from there")]
    Broken {
        /// The file's address.
        file: String,
        /// Bytes that have arrived, and are kept.
        done: u64,
        /// Bytes of the file.
        total: u64,
        /// Why the last attempt ended.
        reason: String,
    },

    /// A download has another length than the Hub says.
    #[error(
        "{file}: has {found} bytes, expected {expected}; it was removed: try again later, or report it to the model's owner"
    )]
    Size {
        /// The file's address.
        file: String,
        /// The length, or that it is too long.
        found: String,
        /// The length by the Hub.
        expected: u64,
    },

    /// A download holds something else than the Hub says.
    #[error(
        "{file}: has the {kind} hash {found}, expected {expected}; it was removed: try again later, or report it to the model's owner"
    )]
    Hash {
        /// The file's address.
        file: String,
        /// The hash function.
        kind: &'static str,
        /// The hash, in hexadecimal digits.
        found: String,
        /// The hash by the Hub.
        expected: String,
    },

    /// The cache cannot be written.
    #[error("{path}: cannot be written: {source}; {advice}", path = path.display(), advice = if source.kind() == io::ErrorKind::StorageFull { "free some space, or set HF_HOME to a folder on another disk" } else { "set HF_HOME to a folder that can be written" })]
    Cache {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },

    /// There is no home directory to keep the cache in.
    #[error("no home directory to keep downloads in; set HF_HOME to a folder that can be written")]
    NoHome,

    /// Whoever watched the download stopped it.
    #[error("{name}: the download was stopped; what has arrived is kept")]
    Stopped {
        /// The name as given.
        name: String,
    },
}

impl HubError {
    /// Whether there is no such model, revision or file.
    pub fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::NotBuilt { .. }
                | Self::NotFound { .. }
                | Self::NoRevision { .. }
                | Self::NoFile { .. }
                | Self::NoWeights { .. }
                | Self::Offline { .. }
        )
    }
}
