//! Files that are complete or not there: written beside their place, then renamed.
//!
//! Until then they are hidden, `.NAME.……….part`, and locked. What a killed program has left is not locked
//! any more, and goes when a file of the same name is next written.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tempfile::NamedTempFile;

const SUFFIX: &str = ".part";
/// A file may be without its lock for a moment while it is being made.
const ABANDONED: Duration = Duration::from_secs(60);

/// Files of this process that wait for their place.
static PENDING: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Removes every file that still waits for its place, and lets no other begin: for a program that ends here and now.
pub fn discard_pending() {
    let mut pending = PENDING.lock().unwrap_or_else(PoisonError::into_inner);
    for path in pending.drain(..) {
        let _ = std::fs::remove_file(path);
    }
    // Never let go: another thread must not begin a file now.
    std::mem::forget(pending);
}

/// Writes a whole file, which takes its place when it is complete.
///
/// # Errors
/// If the folder or the file cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = PendingFile::create(path)?;
    file.write_all(bytes)?;
    file.commit()
}

/// A file that takes its place only when it is complete. Dropped before that, it leaves what was there as it
/// was.
///
/// A target that is no regular file (a terminal, a pipe, `/dev/null`) cannot be replaced: it is written
/// directly.
pub struct PendingFile {
    sink: Sink,
}

enum Sink {
    /// Beside its place, which it takes in the end.
    Beside {
        file: BufWriter<NamedTempFile>,
        listed: Listed,
        target: PathBuf,
        old: Option<Box<Metadata>>,
    },
    Direct(BufWriter<File>),
}

impl PendingFile {
    /// Starts a file for `path`, following links.
    ///
    /// # Errors
    /// Where the folder or the target cannot be written.
    pub fn create(path: &Path) -> io::Result<Self> {
        let old = match std::fs::metadata(path) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if path.symlink_metadata().is_ok() {
                    return Err(io::Error::new(io::ErrorKind::NotFound, "is a link to a file that is not there"));
                }
                None
            }
            Err(error) => return Err(error),
        };
        if old.as_ref().is_some_and(Metadata::is_dir) {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a directory"));
        }
        if let Some(metadata) = &old {
            // Refuses what must not be written, and opens what cannot be replaced.
            let file = File::options().write(true).open(path)?;
            if !metadata.is_file() {
                return Ok(Self { sink: Sink::Direct(BufWriter::new(file)) });
            }
        }
        let target = if old.is_some() { path.canonicalize()? } else { path.to_owned() };
        let folder = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if !folder.is_dir() {
            let message = format!("there is no folder {}", folder.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        let name = target.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "names no file"))?;
        let mut prefix = OsString::from(".");
        prefix.push(name);
        prefix.push(".");
        remove_abandoned(folder, &prefix);
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(SUFFIX);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // What the user's umask leaves of it, as for any new file.
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let (file, listed) = Listed::begin(|| builder.tempfile_in(folder))?;
        // Where files cannot be locked, none is taken for abandoned either.
        let _ = file.as_file().try_lock();
        Ok(Self { sink: Sink::Beside { file: BufWriter::new(file), listed, target, old: old.map(Box::new) } })
    }

    /// Puts the file in its place, with everything on disk.
    ///
    /// # Errors
    /// Where the rest cannot be written or the file cannot be renamed; what was there stays then.
    pub fn commit(self) -> io::Result<()> {
        match self.sink {
            Sink::Beside { file, listed, target, old } => {
                let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
                if let Some(old) = old {
                    file.as_file().set_permissions(old.permissions())?;
                }
                file.as_file().sync_all()?;
                file.persist(&target).map_err(|error| error.error)?;
                drop(listed);
                sync_folder(&target);
                Ok(())
            }
            Sink::Direct(mut file) => file.flush(),
        }
    }
}

impl Write for PendingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.sink {
            Sink::Beside { file, .. } => file.write(bytes),
            Sink::Direct(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.sink {
            Sink::Beside { file, .. } => file.flush(),
            Sink::Direct(file) => file.flush(),
        }
    }
}

/// A path among [`PENDING`].
struct Listed(PathBuf);

impl Listed {
    /// Makes a file and lists it, with nothing between the two.
    fn begin(make: impl FnOnce() -> io::Result<NamedTempFile>) -> io::Result<(NamedTempFile, Self)> {
        let mut pending = PENDING.lock().unwrap_or_else(PoisonError::into_inner);
        let file = make()?;
        pending.push(file.path().to_owned());
        let listed = Self(file.path().to_owned());
        Ok((file, listed))
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        PENDING.lock().unwrap_or_else(PoisonError::into_inner).retain(|path| *path != self.0);
    }
}

/// Removes what programs that were killed have left of earlier files: hidden, of the same name, and not locked.
fn remove_abandoned(folder: &Path, prefix: &OsStr) {
    let is_ours = |name: &OsStr| {
        let name = name.as_encoded_bytes();
        name.starts_with(prefix.as_encoded_bytes()) && name.ends_with(SUFFIX.as_bytes())
    };
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten().filter(|entry| is_ours(&entry.file_name())) {
        let old = entry.metadata().is_ok_and(|metadata| {
            metadata.is_file() && metadata.modified().is_ok_and(|time| time.elapsed().is_ok_and(|age| age > ABANDONED))
        });
        if old && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Makes a renaming last where the system can: the file itself is complete either way.
fn sync_folder(target: &Path) {
    if let Some(folder) = target.parent()
        && let Ok(folder) = File::open(folder)
    {
        let _ = folder.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(folder: &Path) -> Vec<String> {
        let names = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_old_or_new() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        std::fs::write(&path, "old").unwrap();
        let mut file = PendingFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        file.flush().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        drop(file);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(entries(folder.path()), ["out"], "nothing is left behind");
        let mut file = PendingFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        file.commit().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(entries(folder.path()), ["out"]);
    }

    #[test]
    fn what_a_killed_program_left_goes_and_what_is_in_use_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let long_ago = std::time::SystemTime::now() - 2 * ABANDONED;
        for name in [".out.abandoned.part", ".other.file.part", ".out.part.txt", ".out.fresh.part"] {
            let file = File::create(folder.path().join(name)).unwrap();
            if name != ".out.fresh.part" {
                file.set_modified(long_ago).unwrap();
            }
        }
        let mut first = PendingFile::create(&path).unwrap();
        let Sink::Beside { file, .. } = &mut first.sink else { panic!("a regular file") };
        file.get_ref().as_file().set_modified(long_ago).unwrap();
        let second = PendingFile::create(&path).unwrap();
        first.commit().unwrap();
        drop(second);
        assert_eq!(entries(folder.path()), [".other.file.part", ".out.fresh.part", ".out.part.txt", "out"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_permissions_and_devices_stay_what_they_are() {
        use std::os::unix::fs::{FileTypeExt, PermissionsExt};
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("out"), folder.path().join("link"));
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("out", &link).unwrap();
        let mut file = PendingFile::create(&link).unwrap();
        file.write_all(b"new").unwrap();
        file.commit().unwrap();
        assert!(link.symlink_metadata().unwrap().is_symlink());
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o640);

        let mut null = PendingFile::create(Path::new("/dev/null")).unwrap();
        null.write_all(b"gone").unwrap();
        null.commit().unwrap();
        assert!(Path::new("/dev/null").metadata().unwrap().file_type().is_char_device());
    }

    #[test]
    fn what_cannot_be_written_is_refused_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        assert!(PendingFile::create(folder.path()).is_err(), "a folder");
        assert!(PendingFile::create(&folder.path().join("no/such/folder")).is_err());
        assert!(PendingFile::create(Path::new("")).is_err());
        #[cfg(unix)]
        {
            let link = folder.path().join("link");
            std::os::unix::fs::symlink("/no/such/file", &link).unwrap();
            assert!(PendingFile::create(&link).is_err());
        }
    }
}
