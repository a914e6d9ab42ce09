//! Bytes of a weights file: mapped from disk, built into the program, or unpacked.

use std::fs::{File, FileType};
use std::io;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

use super::error::ModelError;

/// The bytes of one file. Cloning shares them.
#[derive(Clone)]
pub(crate) enum Storage {
    Mapped(Arc<Mmap>),
    #[cfg_attr(not(feature = "embedded-model"), allow(dead_code, reason = "only embedded models are static"))]
    Static(&'static [u8]),
    /// Unpacked or copied, because it does not lie in its file as it is needed.
    Owned(Arc<Vec<u8>>),
}

impl Storage {
    /// Maps a regular file into memory.
    pub(crate) fn map(path: &Path) -> Result<Self, ModelError> {
        let (file, length) = open_regular(path)?;
        // Mapping nothing is an error on some systems.
        if length == 0 {
            return Ok(Self::Static(&[]));
        }
        // SAFETY: the map is read-only and private to this process's view of a regular file. As with
        // every mapped file, it must not be truncated or rewritten while the model is in use; tensors
        // read it as plain bytes, for which every bit pattern is valid.
        let map = unsafe { Mmap::map(&file) }.map_err(|source| ModelError::Io { path: path.to_owned(), source })?;
        Ok(Self::Mapped(Arc::new(map)))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Static(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

/// Opens a file and returns it with its length in bytes. What is not a regular file is refused before
/// it is opened, since opening a pipe would wait for its writer.
pub(crate) fn open_regular(path: &Path) -> Result<(File, u64), ModelError> {
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

fn describe(kind: FileType) -> &'static str {
    if kind.is_dir() {
        return "a directory";
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
