//! The files of a model: on disk, or a set of named sources.
//!
//! The loader reads through the trait `Files` alone, so that a model loads in the same way, and
//! fails with the same words, in a browser, which has no disk.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, FileType};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::error::ModelError;
use super::json::JsonFile;
use super::storage::{Failure, Source, Storage};
use super::{CONFIG, GENERATION_CONFIG, TRAINING_ARGS, directory, shards, tokenizer_files};

/// Kind of the thing at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file.
    File,
    Folder,
    /// A pipe, a socket or a device.
    Other,
}

/// The place of a model's files.
pub(crate) trait Files {
    /// Kind of the thing that a path leads to. Nothing is an error of kind `NotFound`.
    fn kind(&self, path: &Path) -> io::Result<Kind>;

    /// Whether a folder has an entry of this path, wherever that leads.
    fn lists(&self, path: &Path) -> bool {
        self.kind(path).is_ok()
    }

    /// The files of a folder; none if it cannot be listed.
    fn list(&self, folder: &Path) -> Vec<PathBuf>;

    /// Opens a regular file.
    fn open(&self, path: &Path) -> Result<Storage, ModelError>;

    /// The first `count` bytes of a regular file, or all if there are fewer.
    fn start(&self, path: &Path, count: u64) -> Result<Vec<u8>, ModelError>;

    /// A path without `.` and `..`, if there is one.
    fn absolute(&self, path: &Path) -> Option<PathBuf>;

    /// The first read that failed of weights in opened files; see [`Storage::read_or_zeros`].
    fn failure(&self) -> Option<ModelError> {
        None
    }

    /// Whether a path leads to a regular file.
    fn is_file(&self, path: &Path) -> bool {
        self.kind(path).is_ok_and(|kind| kind == Kind::File)
    }

    /// Whether a path leads to a folder.
    fn is_folder(&self, path: &Path) -> bool {
        self.kind(path).is_ok_and(|kind| kind == Kind::Folder)
    }
}

/// The files of the operating system. They are read once, whole.
pub(crate) struct Disk;

impl Files for Disk {
    fn kind(&self, path: &Path) -> io::Result<Kind> {
        let kind = std::fs::metadata(path)?.file_type();
        Ok(if kind.is_file() {
            Kind::File
        } else if kind.is_dir() {
            Kind::Folder
        } else {
            Kind::Other
        })
    }

    fn lists(&self, path: &Path) -> bool {
        path.symlink_metadata().is_ok()
    }

    fn list(&self, folder: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.filter(|path| path.is_file()).collect()
    }

    /// Reads the file, once its length has been found to fit into memory.
    fn open(&self, path: &Path) -> Result<Storage, ModelError> {
        let (file, length) = open_regular(path)?;
        let too_large = || ModelError::TooLarge { path: path.to_owned(), bytes: length };
        let length = usize::try_from(length).map_err(|_| too_large())?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length).map_err(|_| too_large())?;
        let io_error = |source| ModelError::Io { path: path.to_owned(), source };
        // No more than was reserved: the file may be growing.
        file.take(length as u64).read_to_end(&mut bytes).map_err(io_error)?;
        if bytes.len() < length {
            let found = format!("the file became shorter while it was read: {} of {length} bytes", bytes.len());
            let expected = "it to stay as it is; load it again once it is written".to_owned();
            return Err(ModelError::Malformed { path: path.to_owned(), found, expected });
        }
        Ok(Storage::Owned(Arc::new(bytes)))
    }

    fn start(&self, path: &Path, count: u64) -> Result<Vec<u8>, ModelError> {
        let (file, _) = open_regular(path)?;
        let mut bytes = Vec::new();
        match file.take(count).read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(source) => Err(ModelError::Io { path: path.to_owned(), source }),
        }
    }

    fn absolute(&self, path: &Path) -> Option<PathBuf> {
        path.canonicalize().ok()
    }
}

/// Opens a file and returns it with its length in bytes. What is not a regular file is refused
/// before it is opened, since opening a pipe would wait for its writer.
fn open_regular(path: &Path) -> Result<(File, u64), ModelError> {
    let io_error = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ModelError::NotFound { path: path.to_owned() },
        _ => ModelError::Io { path: path.to_owned(), source },
    };
    let metadata = std::fs::metadata(path).map_err(io_error)?;
    if !metadata.is_file() {
        let found = describe(metadata.file_type());
        return Err(ModelError::NotAFile { path: path.to_owned(), found });
    }
    let file = File::open(path).map_err(io_error)?;
    let length = file.metadata().map_err(io_error)?.len();
    Ok((file, length))
}

const DIRECTORY: &str = "a directory";

fn describe(kind: FileType) -> &'static str {
    if kind.is_dir() {
        return DIRECTORY;
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return "a named pipe";
        }
        if kind.is_socket() {
            return "a socket";
        }
        if kind.is_char_device() || kind.is_block_device() {
            return "a device";
        }
    }
    "not a regular file"
}

/// Bytes that are read by their place: a file of a browser, a download, memory.
pub trait ReadAt: Send + Sync {
    /// Fills `into` with the bytes from `offset` on. Never asked for bytes beyond the file's
    /// length.
    ///
    /// # Errors
    /// Anything that keeps the bytes from being read. Loading the model, or its way to a device,
    /// then fails with that reason.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;
}

/// Files by name, without a disk; see [`Model::from_file_set`](super::Model::from_file_set).
///
/// Names are paths with `/` between their parts, relative to nothing: `"config.json"` or
/// `"my-model/config.json"`. A folder exists where a file is in it. Cloning shares the bytes.
#[derive(Clone, Default)]
pub struct FileSet {
    files: BTreeMap<PathBuf, Content>,
}

#[derive(Clone)]
enum Content {
    Bytes(Arc<Vec<u8>>),
    Source(u64, Arc<dyn ReadAt>),
}

impl FileSet {
    /// A set without files.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file that lies in memory, or replaces the one of that name.
    pub fn insert_bytes(&mut self, path: impl AsRef<Path>, bytes: Vec<u8>) {
        self.files.insert(plain(path.as_ref()), Content::Bytes(Arc::new(bytes)));
    }

    /// Adds a file of `len` bytes that is read by ranges, or replaces the one of that name. Its
    /// weights are never in memory as a whole, unless they are compressed or must be put in another
    /// order.
    pub fn insert_source(&mut self, path: impl AsRef<Path>, len: u64, source: Arc<dyn ReadAt>) {
        self.files.insert(plain(path.as_ref()), Content::Source(len, source));
    }

    /// The set for one loading, with its own memory of failures.
    pub(crate) fn opened(&self) -> OpenedSet<'_> {
        OpenedSet { set: self, failure: Failure::default() }
    }
}

impl fmt::Debug for FileSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.files.keys()).finish()
    }
}

/// A [`FileSet`] that a model is loaded from.
pub(crate) struct OpenedSet<'a> {
    set: &'a FileSet,
    failure: Failure,
}

impl Files for OpenedSet<'_> {
    fn kind(&self, path: &Path) -> io::Result<Kind> {
        let path = plain(path);
        if self.set.files.contains_key(&path) {
            return Ok(Kind::File);
        }
        let is_folder = path.as_os_str().is_empty() || self.set.files.keys().any(|file| file.starts_with(&path));
        if is_folder { Ok(Kind::Folder) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn list(&self, folder: &Path) -> Vec<PathBuf> {
        let plain = plain(folder);
        let inside = self.set.files.keys().filter(|file| file.parent() == Some(&plain));
        inside.filter_map(|file| Some(folder.join(file.file_name()?))).collect()
    }

    fn open(&self, path: &Path) -> Result<Storage, ModelError> {
        match self.set.files.get(&plain(path)) {
            Some(Content::Bytes(bytes)) => Ok(Storage::Owned(bytes.clone())),
            Some(Content::Source(len, reader)) => {
                let source = Source::new(path, *len, reader.clone(), self.failure.clone());
                Ok(Storage::Source(Arc::new(source)))
            }
            None if self.is_folder(path) => Err(ModelError::NotAFile { path: path.to_owned(), found: DIRECTORY }),
            None => Err(ModelError::NotFound { path: path.to_owned() }),
        }
    }

    fn start(&self, path: &Path, count: u64) -> Result<Vec<u8>, ModelError> {
        Ok(self.open(path)?.start(count)?.into_owned())
    }

    fn absolute(&self, path: &Path) -> Option<PathBuf> {
        Some(plain(path))
    }

    fn failure(&self) -> Option<ModelError> {
        self.failure.get()
    }
}

/// A path without roots, `.` and `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    plain
}

/// Names that the weights file of a folder may have, the preferred one first. Under other names,
/// the only file with an extension of weights counts.
pub fn weights_names() -> &'static [&'static str] {
    &directory::WEIGHTS
}

/// Names of all other files that a model may consist of, by path from its folder: configurations
/// and tokenizers. None of them must exist, except for a configuration unless the weights carry
/// their own.
///
/// A configuration may name another tokenizer by its key `tokenizer_path`.
pub fn companion_names() -> Vec<String> {
    let configurations = [CONFIG, GENERATION_CONFIG, TRAINING_ARGS].map(str::to_owned);
    let beside = tokenizer_files::names().map(str::to_owned);
    let inside = tokenizer_files::names().map(|name| format!("{}/{name}", tokenizer_files::FOLDER));
    configurations.into_iter().chain(beside).chain(inside).collect()
}

/// Whether a weights file is an index of others by its name; see [`shard_names`].
pub fn is_shard_index(path: impl AsRef<Path>) -> bool {
    path.as_ref().file_name().is_some_and(|name| name.to_string_lossy().ends_with(shards::INDEX))
}

/// Names of the files that an index of shards consists of, which lie beside it. Errors call it
/// `path`.
///
/// # Errors
/// Bytes that are no index.
pub fn shard_names(path: impl AsRef<Path>, index: &[u8]) -> Result<Vec<String>, ModelError> {
    let json = JsonFile::parse(path.as_ref(), index)?;
    Ok(shards::parts(&json)?.into_iter().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_files_and_their_folders() {
        let mut set = FileSet::new();
        set.insert_bytes("m/tokenizer/tokenizer.json", vec![1, 2, 3]);
        set.insert_bytes("./m/x/../config.json", vec![4]);
        let files = set.opened();
        let kind = |path: &str| files.kind(Path::new(path)).ok();
        assert_eq!(kind("m/config.json"), Some(Kind::File));
        assert_eq!(kind("/m/./tokenizer/../config.json"), Some(Kind::File));
        assert_eq!([kind(""), kind("m"), kind("m/tokenizer/")], [Some(Kind::Folder); 3]);
        assert_eq!([kind("m/x"), kind("m/conf"), kind("mm"), kind("m/config.json/x")], [None; 4]);
        assert_eq!(files.list(Path::new("m/.")), [Path::new("m/./config.json")]);
        assert_eq!(files.start(Path::new("m/tokenizer/tokenizer.json"), 2).unwrap(), [1, 2]);
        let message = |path: &str| files.start(Path::new(path), 1).unwrap_err().to_string();
        assert_eq!(message("m/tokenizer"), "m/tokenizer: is a directory, expected a regular file");
        assert!(message("m/a.json").starts_with("m/a.json: no such file or directory"));
    }

    #[test]
    fn names_are_known() {
        assert_eq!(weights_names()[0], "model.safetensors");
        let names = companion_names();
        for name in ["config.json", "tokenizer.json", "tokenizer/vocab.json", "generation_config.json"] {
            assert!(names.iter().any(|other| other == name), "{name}");
        }
        let index = br#"{"weight_map": {"a": "1.safetensors", "b": "2.safetensors", "c": "1.safetensors"}}"#;
        assert_eq!(shard_names("i", index).unwrap(), ["1.safetensors", "2.safetensors"]);
        let message = shard_names("i", b"{}").unwrap_err().to_string();
        assert!(message.starts_with("i: no \"weight_map\""), "{message}");
        assert!(is_shard_index("a/model.safetensors.index.json") && !is_shard_index("model.safetensors"));
    }
}
