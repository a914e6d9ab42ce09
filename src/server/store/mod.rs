//! Where conversations' states lie besides memory: a place that servers share.
//!
//! | file | holds |
//! | --- | --- |
//! | `folder` | states as files of a folder |
//! | `objects` | states as objects of S3 and its like (feature `object-stores`) |

mod folder;
#[cfg(feature = "object-stores")]
mod objects;

use crate::generation::{Bdh, Snapshot, StateError};
use std::path::Path;
use std::time::Duration;

/// Why a state cannot be stored, or brought back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The place is no folder, and no address of a store.
    #[error("{place}: {reason}")]
    Place {
        /// The place that was given.
        place: String,
        /// The reason, or what was expected.
        reason: String,
    },
    /// An address, in a program without object stores.
    #[error("{place}: this program was built without object stores (the feature object-stores)")]
    NotBuilt {
        /// The place that was given.
        place: String,
    },
    /// A file of a state cannot be written, or is none.
    #[error(transparent)]
    State(#[from] StateError),
    /// The store refused, or does not answer.
    #[error("the store of states: {0}")]
    Io(#[from] std::io::Error),
}

/// Tells apart what a name stood for at different times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Version(String);

/// A place for states, by name. Every function blocks.
pub(super) trait Store: Send + Sync {
    /// Puts a state there; an earlier one of the name is replaced, whole.
    fn save(&self, bdh: &Bdh, name: &str, snapshot: &Snapshot) -> Result<Version, StoreError>;

    /// The version of a state, unless there is none, or nobody has used it for `ttl`.
    fn version(&self, name: &str, ttl: Duration) -> Result<Option<Version>, StoreError>;

    /// Brings a state back.
    fn load(&self, bdh: &Bdh, name: &str) -> Result<Snapshot, StoreError>;

    /// Notes that a state is being used.
    fn renew(&self, name: &str) -> Result<(), StoreError>;

    /// Deletes a state, if there is one.
    fn remove(&self, name: &str) -> Result<(), StoreError>;

    /// Deletes the states with this beginning of their name that nobody has used for `ttl`.
    fn sweep(&self, prefix: &str, ttl: Duration) -> Result<(), StoreError>;
}

/// A place for states that several servers may share.
pub struct StateStore(pub(super) Box<dyn Store>);

impl StateStore {
    /// A folder, which is made if need be, or an address: `s3://bucket/path`, `gs://…` or `az://…`.
    /// Keys and end points of object stores come from the environment, under the names that their
    /// own tools use (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, …).
    ///
    /// # Errors
    /// [`StoreError`] for a folder that cannot be made, and for an address that is none.
    pub fn open(place: &str) -> Result<Self, StoreError> {
        if !place.contains("://") {
            return Ok(Self(Box::new(folder::Folder::open(Path::new(place))?)));
        }
        #[cfg(feature = "object-stores")]
        return Ok(Self(Box::new(objects::Objects::open(place)?)));
        #[cfg(not(feature = "object-stores"))]
        Err(StoreError::NotBuilt { place: place.to_owned() })
    }
}
