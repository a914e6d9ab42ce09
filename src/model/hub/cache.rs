//! The Hub's cache on disk, shared with its other programs.
//!
//! | path | what it is |
//! | --- | --- |
//! | `models--OWNER--NAME/blobs/ETAG` | a file's content, complete and checked |
//! | `models--OWNER--NAME/blobs/ETAG.incomplete` | as much of it as has arrived |
//! | `models--OWNER--NAME/snapshots/COMMIT/PATH` | a link to the blob |
//! | `models--OWNER--NAME/refs/REVISION` | the commit that a branch or a tag was last found to be |
//! | `.locks/models--OWNER--NAME/ETAG.lock` | locked while that file is downloaded |

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hf_hub::{Cache, Repo};

use super::HubError;
use super::watch::Events;
use crate::files;

/// How often a lock that another program holds is tried.
const LOCK_INTERVAL: Duration = Duration::from_millis(100);

/// Links that this process has made.
static LINKS: AtomicU64 = AtomicU64::new(0);

/// One model in the cache.
pub(super) struct ModelCache {
    cache: Cache,
    repo: Repo,
}

impl ModelCache {
    pub(super) fn new(cache: Cache, repo: Repo) -> Self {
        Self { cache, repo }
    }

    /// Where a snapshot is.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.cache.repo(self.repo.clone()).pointer_path(commit)
    }

    /// Where the content of an ETag is.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.cache.repo(self.repo.clone()).blob_path(etag)
    }

    /// The commit that the revision was last found to be.
    pub(super) fn commit(&self) -> Option<String> {
        let revision = self.repo.revision();
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let text = std::fs::read_to_string(self.reference()).ok()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// Writes down which commit the revision is.
    pub(super) fn set_commit(&self, commit: &str) -> Result<(), HubError> {
        if is_commit(self.repo.revision()) || self.commit().as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.reference();
        let write = || {
            create_folder_of(&path)?;
            files::write(&path, commit.as_bytes())
        };
        write().map_err(|source| HubError::Cache { path: path.clone(), source })
    }

    /// Makes a blob a file of a snapshot.
    pub(super) fn link(&self, commit: &str, file: &str, etag: &str) -> Result<(), HubError> {
        let path = self.snapshot(commit).join(file);
        let link = || {
            create_folder_of(&path)?;
            // Linked beside its place and renamed: another program may do the same at this moment.
            let number = LINKS.fetch_add(1, Relaxed);
            let beside = path.with_extension(format!("{}-{number}.link", std::process::id()));
            let _ = std::fs::remove_file(&beside);
            let up = "../".repeat(2 + file.matches('/').count());
            symlink(Path::new(&format!("{up}blobs/{etag}")), &self.blob(etag), &beside)?;
            std::fs::rename(&beside, &path)
        };
        link().map_err(|source| HubError::Cache { path: path.clone(), source })
    }

    /// Waits until no other program downloads a content; dropped, the lock lets the next one do so.
    pub(super) fn lock(&self, etag: &str, events: &Events) -> Result<File, HubError> {
        let folder = self.cache.path().join(".locks").join(self.repo.folder_name());
        let path = folder.join(format!("{etag}.lock"));
        let failed = |source| HubError::Cache { path: path.clone(), source };
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(std::fs::TryLockError::WouldBlock) => {
                    events.alive()?;
                    std::thread::sleep(LOCK_INTERVAL);
                }
                // Some file systems have no locks.
                Err(std::fs::TryLockError::Error(_)) => return Ok(file),
            }
        }
    }

    fn reference(&self) -> PathBuf {
        self.cache.path().join(self.repo.folder_name()).join("refs").join(self.repo.revision())
    }
}

/// Whether a text is the hash of a commit.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Makes the folder that a file is to lie in.
pub(super) fn create_folder_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)
}

#[cfg(unix)]
fn symlink(relative: &Path, _blob: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(relative, link)
}

/// Symbolic links need a privilege on some systems: a hard link does as well, and a copy where
/// there is none.
#[cfg(not(unix))]
fn symlink(_relative: &Path, blob: &Path, link: &Path) -> io::Result<()> {
    std::fs::hard_link(blob, link).or_else(|_| std::fs::copy(blob, link).map(|_| ()))
}
