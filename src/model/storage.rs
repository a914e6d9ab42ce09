//! Bytes of one file: in memory, or fetched from a source range by range.
//!
//! Files of the disk are read into memory rather than mapped: a mapped file that another program
//! cuts short ends this one with a signal, at whatever moment the missing part is looked at.

use std::borrow::Cow;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::error::ModelError;
use super::files::ReadAt;

/// Bytes that a source is read ahead by, where it is read in sequence.
const WINDOW: u64 = 1 << 20;

/// Bytes that are read at once where a whole file or tensor is gone through.
pub(crate) const PIECE: usize = 1 << 20;

/// Parts of a range, in order, of at most [`PIECE`] bytes.
pub(crate) fn pieces(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let end = range.end;
    range.step_by(PIECE).map(move |start| start..end.min(start + PIECE as u64))
}

/// The bytes of one file. Cloning shares them.
#[derive(Clone)]
pub(crate) enum Storage {
    #[cfg_attr(not(feature = "embedded-model"), allow(dead_code, reason = "only embedded models are static"))]
    Static(&'static [u8]),
    /// Read, unpacked or copied.
    Owned(Arc<Vec<u8>>),
    /// Fetched when needed.
    Source(Arc<Source>),
}

impl Storage {
    /// Length in bytes.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Static(bytes) => bytes.len() as u64,
            Self::Owned(bytes) => bytes.len() as u64,
            Self::Source(source) => source.len,
        }
    }

    /// All bytes, if they lie in memory.
    pub(crate) fn memory(&self) -> Option<&[u8]> {
        match self {
            Self::Static(bytes) => Some(bytes),
            Self::Owned(bytes) => Some(bytes),
            Self::Source(_) => None,
        }
    }

    /// Some of the bytes: borrowed from memory, or fetched.
    ///
    /// # Panics
    /// If the range reaches beyond the end.
    pub(crate) fn read(&self, range: Range<u64>) -> Result<Cow<'_, [u8]>, ModelError> {
        assert!(range.start <= range.end && range.end <= self.len(), "bytes {range:?} of {}", self.len());
        match self {
            // A range inside of memory fits usize.
            Self::Static(bytes) => Ok(Cow::Borrowed(&bytes[range.start as usize..range.end as usize])),
            Self::Owned(bytes) => Ok(Cow::Borrowed(&bytes[range.start as usize..range.end as usize])),
            Self::Source(source) => source.read(range).map(Cow::Owned),
        }
    }

    /// The first `count` bytes, or all if there are fewer.
    pub(crate) fn start(&self, count: u64) -> Result<Cow<'_, [u8]>, ModelError> {
        self.read(0..count.min(self.len()))
    }

    /// As [`Storage::read`], for callers without a way to report an error: bytes that cannot be
    /// fetched are zeros, and the failure is kept ([`Storage::failure`]). After one, nothing is
    /// fetched any more.
    pub(crate) fn read_or_zeros(&self, range: Range<u64>) -> Cow<'_, [u8]> {
        let count = (range.end - range.start) as usize;
        if let Self::Source(source) = self
            && source.failure.get().is_some()
        {
            return Cow::Owned(vec![0; count]);
        }
        match (self.read(range), self) {
            (Err(error), Self::Source(source)) => {
                source.failure.set(&source.path, error);
                Cow::Owned(vec![0; count])
            }
            (bytes, _) => bytes.unwrap_or_else(|error| unreachable!("memory cannot fail: {error}")),
        }
    }

    /// The first failure of [`Storage::read_or_zeros`], on this or any other file of the same
    /// loading.
    pub(crate) fn failure(&self) -> Option<ModelError> {
        match self {
            Self::Static(_) | Self::Owned(_) => None,
            Self::Source(source) => source.failure.get(),
        }
    }

    /// The same bytes in memory.
    pub(crate) fn into_memory(self) -> Result<Self, ModelError> {
        match &self {
            Self::Static(_) | Self::Owned(_) => Ok(self),
            Self::Source(source) => Ok(Self::Owned(Arc::new(source.read(0..source.len)?))),
        }
    }
}

/// A file that lies elsewhere.
pub(crate) struct Source {
    /// Its name in errors.
    path: PathBuf,
    len: u64,
    reader: Arc<dyn ReadAt>,
    window: Mutex<Window>,
    failure: Failure,
}

/// Bytes that were read ahead.
#[derive(Default)]
struct Window {
    /// Offset of the first.
    start: u64,
    bytes: Vec<u8>,
    /// Offset that a reader in sequence reads next.
    next: u64,
}

impl Source {
    /// A file of `len` bytes. Its first failure goes to `failure`.
    pub(crate) fn new(path: &Path, len: u64, reader: Arc<dyn ReadAt>, failure: Failure) -> Self {
        Self { path: path.to_owned(), len, reader, window: Mutex::default(), failure }
    }

    fn read(&self, range: Range<u64>) -> Result<Vec<u8>, ModelError> {
        let count = range.end - range.start;
        let mut bytes = Vec::new();
        let reserved = usize::try_from(count).ok().filter(|&count| bytes.try_reserve_exact(count).is_ok());
        let Some(reserved) = reserved else {
            return Err(ModelError::TooLarge { path: self.path.clone(), bytes: count });
        };
        bytes.resize(reserved, 0);
        let read = self.read_at(range.start, &mut bytes);
        read.map(|()| bytes).map_err(|source| ModelError::Io { path: self.path.clone(), source })
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let end = offset + into.len() as u64;
        // A reader that panicked leaves a window without bytes.
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let in_sequence = window.next == offset;
        window.next = end;
        let known = window.start..window.start + window.bytes.len() as u64;
        if !(known.contains(&offset) && end <= known.end) {
            let ahead = WINDOW.min(self.len - offset);
            if !in_sequence || into.len() as u64 >= ahead {
                return self.reader.read_at(offset, into);
            }
            let mut bytes = std::mem::take(&mut window.bytes);
            bytes.resize(ahead as usize, 0);
            self.reader.read_at(offset, &mut bytes)?;
            (window.start, window.bytes) = (offset, bytes);
        }
        let begin = (offset - window.start) as usize;
        into.copy_from_slice(&window.bytes[begin..][..into.len()]);
        Ok(())
    }
}

/// The first failure of several sources. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failure(Arc<OnceLock<(PathBuf, io::ErrorKind, String)>>);

impl Failure {
    fn set(&self, path: &Path, error: ModelError) {
        let (kind, reason) = match error {
            ModelError::Io { source, .. } => (source.kind(), source.to_string()),
            other => (io::ErrorKind::OutOfMemory, other.to_string()),
        };
        // Only the first counts.
        let _ = self.0.set((path.to_owned(), kind, reason));
    }

    /// The failure, as an error of its file.
    pub(crate) fn get(&self) -> Option<ModelError> {
        let (path, kind, reason) = self.0.get()?;
        Some(ModelError::Io { path: path.clone(), source: io::Error::new(*kind, reason.clone()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes 0, 1, 2, … modulo 251; notes every read and fails from `broken` on.
    struct Counting {
        reads: Mutex<Vec<Range<u64>>>,
        broken: u64,
    }

    impl ReadAt for Counting {
        fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
            let end = offset + into.len() as u64;
            self.reads.lock().unwrap().push(offset..end);
            if end > self.broken {
                return Err(io::Error::other("the cable is out"));
            }
            into.iter_mut().zip(offset..).for_each(|(byte, at)| *byte = (at % 251) as u8);
            Ok(())
        }
    }

    fn source(len: u64, broken: u64) -> (Storage, Arc<Counting>) {
        let reader = Arc::new(Counting { reads: Mutex::default(), broken });
        let source = Source::new(Path::new("a.bin"), len, reader.clone(), Failure::default());
        (Storage::Source(Arc::new(source)), reader)
    }

    fn expected(range: Range<u64>) -> Vec<u8> {
        range.map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn only_reads_in_sequence_read_ahead() {
        // More than 32 bits hold.
        let (storage, reader) = source(10 << 30, u64::MAX);
        let read = |range: Range<u64>| assert_eq!(storage.read(range.clone()).unwrap(), expected(range));
        let far = 9 << 30;
        read(far..far + 10);
        read(5..8);
        read(8..20);
        read(20..WINDOW);
        read(WINDOW..WINDOW + 10);
        read(12..14);
        read(far..far + 2 * WINDOW);
        let end = 10 << 30;
        read(end - 9..end - 5);
        read(end - 5..end - 1);
        read(end - 1..end);
        let expected = [
            far..far + 10,
            5..8,
            8..8 + WINDOW,
            WINDOW..2 * WINDOW,
            12..14,
            far..far + 2 * WINDOW,
            end - 9..end - 5,
            end - 5..end,
        ];
        assert_eq!(*reader.reads.lock().unwrap(), expected);
    }

    #[test]
    fn a_source_that_fails_gives_zeros_and_an_error() {
        let (storage, _) = source(1000, 500);
        assert_eq!(storage.read_or_zeros(100..200), expected(100..200));
        assert!(storage.failure().is_none());
        assert_eq!(storage.read(490..510).unwrap_err().to_string(), "a.bin: cannot be read: the cable is out");
        assert!(storage.failure().is_none());
        assert_eq!(storage.read_or_zeros(490..510), vec![0; 20]);
        assert_eq!(storage.failure().unwrap().to_string(), "a.bin: cannot be read: the cable is out");
        assert!(storage.into_memory().is_err());
    }
}
