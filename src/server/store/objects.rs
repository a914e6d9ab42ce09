//! States as objects of S3 and its like.
//!
//! An object's time cannot be changed. Beside a state, `NAME.used` is therefore written at each use:
//! an empty object, whose time is that of the use.

use super::{Store, StoreError, Version};
use crate::files::PendingFile;
use crate::generation::{Bdh, Snapshot};
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload, parse_url_opts};
use std::collections::HashMap;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;

/// Ends the name of the object that says when a state was used.
const USED: &str = ".used";

/// See [`Store`]. Its functions run on threads where a runtime's tasks may be waited for.
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    /// Names begin with this.
    folder: Path,
    /// Where files that come and go lie for a moment.
    scratch: TempDir,
}

/// An object that is not there, or no object.
fn found<T>(result: object_store::Result<T>) -> Result<Option<T>, StoreError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

fn failed(error: object_store::Error) -> StoreError {
    std::io::Error::other(error).into()
}

fn version(object: &ObjectMeta) -> Version {
    Version(object.e_tag.clone().unwrap_or_else(|| object.last_modified.to_string()))
}

fn is_fresh(time: SystemTime, ttl: Duration) -> bool {
    // A time ahead of this machine's clock is no age at all.
    SystemTime::now().duration_since(time).map_or(true, |age| age < ttl)
}

impl Objects {
    /// Opens a store by its address; see [`StateStore::open`](super::StateStore::open).
    pub fn open(place: &str) -> Result<Self, StoreError> {
        let wrong = |reason: String| StoreError::Place { place: place.to_owned(), reason };
        let url = reqwest::Url::parse(place).map_err(|error| wrong(format!("not an address ({error})")))?;
        if !matches!(url.scheme(), "s3" | "gs" | "az") {
            return Err(wrong("expected a folder, s3://…, gs:// or az://…".to_owned()));
        }
        // The first provider stays, should there be one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let environment =
            std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
        let (store, folder) = parse_url_opts(&url, environment).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { store: store.into(), folder, scratch: tempfile::tempdir()? })
    }

    fn path(&self, name: &str) -> Path {
        self.folder.clone().join(name)
    }

    async fn upload(&self, name: &str, file: &std::path::Path) -> Result<Version, StoreError> {
        let mut file = tokio::fs::File::open(file).await?;
        // In parts, if it is large; the object is there once the last one is.
        let mut object = object_store::buffered::BufWriter::new(self.store.clone(), self.path(name));
        tokio::io::copy(&mut file, &mut object).await?;
        object.shutdown().await?;
        Ok(version(&self.store.head(&self.path(name)).await.map_err(failed)?))
    }

    async fn download(&self, name: &str, file: &std::path::Path) -> Result<(), StoreError> {
        let object = self.store.get(&self.path(name)).await.map_err(failed)?;
        let (mut parts, mut file) = (object.into_stream(), PendingFile::create(file)?);
        while let Some(part) = parts.next().await {
            file.write_all(&part.map_err(failed)?)?;
        }
        Ok(file.commit()?)
    }

    async fn delete(&self, path: &Path) -> Result<(), StoreError> {
        found(self.store.delete(path).await).map(drop)
    }

    /// A file of its own for a state on its way.
    fn file(&self) -> std::path::PathBuf {
        self.scratch.path().join(format!("{:032x}", rand::random::<u128>()))
    }
}

impl Store for Objects {
    fn save(&self, bdh: &Bdh, name: &str, snapshot: &Snapshot) -> Result<Version, StoreError> {
        let file = self.file();
        snapshot.save(bdh, &file)?;
        let sent = Handle::current().block_on(self.upload(name, &file));
        let _ = std::fs::remove_file(file);
        sent
    }

    fn version(&self, name: &str, ttl: Duration) -> Result<Option<Version>, StoreError> {
        Handle::current().block_on(async {
            let Some(state) = found(self.store.head(&self.path(name)).await)? else { return Ok(None) };
            let used = found(self.store.head(&self.path(&format!("{name}{USED}"))).await)?;
            let used = used.map_or(state.last_modified, |used| used.last_modified.max(state.last_modified));
            Ok(Some(version(&state)).filter(|_| is_fresh(used.into(), ttl)))
        })
    }

    fn load(&self, bdh: &Bdh, name: &str) -> Result<Snapshot, StoreError> {
        let file = self.file();
        let brought = Handle::current().block_on(self.download(name, &file));
        let snapshot = brought.and_then(|()| Ok(Snapshot::load(bdh, &file)?));
        let _ = std::fs::remove_file(file);
        snapshot
    }

    fn renew(&self, name: &str) -> Result<(), StoreError> {
        let path = self.path(&format!("{name}{USED}"));
        Handle::current().block_on(self.store.put(&path, PutPayload::new())).map(drop).map_err(failed)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        Handle::current().block_on(async {
            self.delete(&self.path(name)).await?;
            self.delete(&self.path(&format!("{name}{USED}"))).await
        })
    }

    fn sweep(&self, prefix: &str, ttl: Duration) -> Result<(), StoreError> {
        Handle::current().block_on(async {
            let objects: Vec<_> = self.store.list(Some(&self.folder)).try_collect().await.map_err(failed)?;
            // A state's last use is the later time of its two objects.
            let mut last_use: HashMap<&str, SystemTime> = HashMap::new();
            for object in &objects {
                let Some(name) = object.location.filename().filter(|name| name.starts_with(prefix)) else { continue };
                let time = last_use.entry(name.strip_suffix(USED).unwrap_or(name)).or_insert(SystemTime::UNIX_EPOCH);
                *time = (*time).max(object.last_modified.into());
            }
            for name in last_use.iter().filter(|(_, time)| !is_fresh(**time, ttl)).map(|(name, _)| name) {
                self.delete(&self.path(name)).await?;
                self.delete(&self.path(&format!("{name}{USED}"))).await?;
            }
            Ok(())
        })
    }
}
