//! States as files of a folder. A file's time is that of the state's last use, and its checksum at
//! the end is the version.

use super::{Store, StoreError, Version};
use crate::generation::{Bdh, Snapshot};
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// See [`Store`].
pub struct Folder(PathBuf);

impl Folder {
    /// Makes the folder, if need be.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |error: std::io::Error| StoreError::Place {
            place: path.display().to_string(),
            reason: format!("the folder cannot be made ({error})"),
        };
        fs::create_dir_all(path).map_err(failed)?;
        Ok(Self(path.to_owned()))
    }
}

/// Whether a file was used within `ttl`.
fn is_fresh(path: &Path, ttl: Duration) -> bool {
    let modified = fs::metadata(path).and_then(|file| file.modified());
    modified.is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age < ttl))
}

/// The checksum at a file's end.
fn version(path: &Path) -> std::io::Result<Version> {
    let mut file = File::open(path)?;
    let mut checksum = [0; 32];
    file.seek(SeekFrom::End(-(checksum.len() as i64)))?;
    file.read_exact(&mut checksum)?;
    Ok(Version(blake3::Hash::from_bytes(checksum).to_hex().to_string()))
}

impl Store for Folder {
    fn save(&self, bdh: &Bdh, name: &str, snapshot: &Snapshot) -> Result<Version, StoreError> {
        let path = self.0.join(name);
        snapshot.save(bdh, &path)?;
        Ok(version(&path)?)
    }

    fn version(&self, name: &str, ttl: Duration) -> Result<Option<Version>, StoreError> {
        let path = self.0.join(name);
        match version(&path) {
            Ok(version) => Ok(Some(version).filter(|_| is_fresh(&path, ttl))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn load(&self, bdh: &Bdh, name: &str) -> Result<Snapshot, StoreError> {
        Ok(Snapshot::load(bdh, &self.0.join(name))?)
    }

    fn renew(&self, name: &str) -> Result<(), StoreError> {
        Ok(File::open(self.0.join(name))?.set_modified(SystemTime::now())?)
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        match fs::remove_file(self.0.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn sweep(&self, prefix: &str, ttl: Duration) -> Result<(), StoreError> {
        for entry in fs::read_dir(&self.0)?.flatten() {
            let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix));
            if ours && !is_fresh(&entry.path(), ttl) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}
