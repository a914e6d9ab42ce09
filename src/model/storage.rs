//! Bytes of a weights file: read from disk, built into the program, or unpacked.
//!
//! Files are read rather than mapped: a mapped file that another program cuts short ends this one with a
//! signal, at whatever moment the missing part is looked at.

use std::fs::{File, FileType};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::error::ModelError;

/// The bytes of one file. Cloning shares them.
#[derive(Clone)]
pub(crate) enum Storage {
    #[cfg_attr(not(feature = "embedded-model"), allow(dead_code, reason = "only embedded models are static"))]
    Static(&'static [u8]),
    /// Read, unpacked or copied.
    Owned(Arc<Vec<u8>>),
}

impl Storage {
    /// Reads a regular file, once its length has been found to fit into memory.
    pub(crate) fn read(path: &Path) -> Result<Self, ModelError> {
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
        Ok(Self::Owned(Arc::new(bytes)))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
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
