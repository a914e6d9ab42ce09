//! Files that are complete or not there: written beside their place, then renamed.

use std::fs::{File, Metadata};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

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
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
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
        let mut prefix = std::ffi::OsString::from(".");
        prefix.push(name);
        prefix.push(".");
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".part");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // What the user's umask leaves of it, as for any new file.
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let file = BufWriter::new(builder.tempfile_in(folder)?);
        Ok(Self { sink: Sink::Beside { file, target, old: old.map(Box::new) } })
    }

    /// Puts the file in its place, with everything on disk.
    ///
    /// # Errors
    /// Where the rest cannot be written or the file cannot be renamed; what was there stays then.
    pub fn commit(self) -> io::Result<()> {
        match self.sink {
            Sink::Beside { file, target, old } => {
                let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
                if let Some(old) = old {
                    file.as_file().set_permissions(old.permissions())?;
                }
                file.as_file().sync_all()?;
                file.persist(&target).map_err(|error| error.error)?;
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
    }
}
