//! State files: a conversation on disk. The format is described in `docs/state-files.md`.

use super::snapshot::{Snapshot, past_len};
use super::tally::Tally;
use super::{Bdh, GenerationError};
use crate::backend::{SavedMemory, StateType};
use crate::model::forgetting::{Clock, Forgetting};
use crate::model::{Config, Model};
use crate::sampling::EOS_BIT;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: [u8; 8] = *b"BDHSTATE";
/// Version of the format that is written, and the only one that is read.
const VERSION: u32 = 1;
/// Types of the state, by their numbers in the file.
const STATE_TYPES: [(u32, StateType); 3] = [(1, StateType::F32), (2, StateType::I16), (3, StateType::I8)];
/// Bytes before the first list.
const HEADER: usize = 144;
/// Bytes of the checksum at the end.
const CHECKSUM: usize = 32;
/// Number of positions there are.
const POSITIONS: u64 = 1 << 32;

const HAS_CONTEXT: u32 = 1;
const HAS_SEED: u32 = 2;
const HAS_WINDOW: u32 = 4;

/// Why a state file cannot be written or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The file cannot be written.
    #[error("{}: the state cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be read.
    #[error("{}: the state cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The path leads to something else.
    #[error("{}: is not a regular file; expected a state file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file is of another kind.
    #[error("{}: is not a state file: it does not begin with BDHSTATE", path.display())]
    NotAState {
        /// The file.
        path: PathBuf,
    },
    /// The file is of another version of the format.
    #[error("{}: is a state file of version {found}, and this program reads version {VERSION}; use {} version of bdh-gpu", path.display(), if *found > VERSION { "a newer" } else { "an older" })]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The file is not as long as it says.
    #[error("{}: the state file is damaged: it has {found} bytes and should have {expected}; use another copy", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        found: u64,
        /// The length that follows from its beginning, or the least that there is.
        expected: u128,
    },
    /// The checksum disagrees.
    #[error("{}: the state file is damaged: its checksum does not match its content; use another copy", path.display())]
    Checksum {
        /// The file.
        path: PathBuf,
    },
    /// The state belongs to a model of other sizes or with other weights.
    #[error("{}: is the state of another model ({found}), not of {model}", path.display())]
    OtherModel {
        /// The file.
        path: PathBuf,
        /// Sizes of the state's model.
        found: String,
        /// The model in use.
        model: String,
    },
    /// The checksum is right, but the content makes no sense.
    #[error("{}: the state file holds {what}; it was not written by this program", path.display())]
    Inconsistent {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The state does not fit the device.
    #[error(transparent)]
    Device(#[from] GenerationError),
}

/// Writes a state file.
#[cfg(not(target_family = "wasm"))]
pub(super) fn save(snapshot: &Snapshot, bdh: &Bdh, path: &Path) -> Result<(), StateError> {
    let save = || {
        let mut file = crate::files::PendingFile::create(path)?;
        write(snapshot, bdh, &mut file)?;
        file.commit()
    };
    save().map_err(|source| StateError::Write { path: path.to_owned(), source })
}

/// Writes a state file's bytes.
pub(super) fn write(snapshot: &Snapshot, bdh: &Bdh, to: &mut impl Write) -> io::Result<()> {
    let mut file = Summed { file: to, hasher: blake3::Hasher::new() };
    file.write(&header(snapshot, bdh))?;
    file.write_words(&snapshot.unread)?;
    file.write_words(&snapshot.tally.counts)?;
    file.write_words(&snapshot.memory.words)?;
    file.write_words(&snapshot.memory.past)?;
    let checksum = file.hasher.finalize();
    file.file.write_all(checksum.as_bytes())
}

/// A file and the checksum of what has been written to it.
struct Summed<'a, W> {
    file: &'a mut W,
    hasher: blake3::Hasher,
}

impl<W: Write> Summed<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes)
    }

    fn write_words(&mut self, words: &[u32]) -> io::Result<()> {
        const BLOCK: usize = 1 << 14;
        let mut bytes = Vec::with_capacity(4 * BLOCK.min(words.len()));
        for block in words.chunks(BLOCK) {
            bytes.clear();
            bytes.extend(block.iter().flat_map(|word| word.to_le_bytes()));
            self.write(&bytes)?;
        }
        Ok(())
    }
}

fn sizes(config: &Config) -> [u32; 5] {
    let Config { n_layer, n_embd, n_head, neurons_per_head, vocab_size, .. } = *config;
    // At most 2^24 each: the configuration was checked when the model was loaded.
    [n_layer, n_embd, n_head, neurons_per_head, vocab_size].map(|size| size as u32)
}

fn header(snapshot: &Snapshot, bdh: &Bdh) -> Vec<u8> {
    let clock = snapshot.clock;
    let (context, tau, mut flags) = match clock.forgetting() {
        Forgetting::Full => (0, 0.0, 0),
        Forgetting::After { context, tau } => (context, tau, HAS_CONTEXT),
        Forgetting::Window { tokens } => (tokens, 0.0, HAS_WINDOW),
    };
    if snapshot.seed.is_some() {
        flags |= HAS_SEED;
    }
    let mut bytes = Vec::with_capacity(HEADER);
    bytes.extend(MAGIC);
    let dtype = STATE_TYPES.iter().find(|(_, state_type)| *state_type == snapshot.memory.state_type);
    let (dtype, _) = dtype.expect("every type has a number");
    bytes.extend([VERSION, *dtype].map(u32::to_le_bytes).as_flattened());
    bytes.extend(bdh.fingerprint());
    bytes.extend(sizes(&bdh.model().config).map(u32::to_le_bytes).as_flattened());
    bytes.extend(
        [flags, context, snapshot.tally.drawn, snapshot.tally.generated, 0].map(u32::to_le_bytes).as_flattened(),
    );
    bytes.extend(clock.position().to_le_bytes());
    bytes.extend([tau, clock.reference()].map(f64::to_le_bytes).as_flattened());
    bytes.extend(snapshot.seed.unwrap_or(0).to_le_bytes());
    let words = snapshot.memory.words.len() + snapshot.memory.past.len();
    let lengths = [snapshot.unread.len() as u64, words as u64, 0];
    bytes.extend(lengths.map(u64::to_le_bytes).as_flattened());
    debug_assert_eq!(bytes.len(), HEADER);
    bytes
}

/// Reads numbers from the front of a list of bytes that is long enough.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let (first, rest) = self.0.split_first_chunk().expect("as many bytes as were checked for");
        self.0 = rest;
        *first
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    fn f64(&mut self) -> f64 {
        f64::from_le_bytes(self.array())
    }

    fn words(&mut self, count: usize) -> Vec<u32> {
        let (words, rest) = self.0.split_at(4 * count);
        self.0 = rest;
        words.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().expect("four bytes"))).collect()
    }
}

/// A header's fields.
struct Header {
    dtype: u32,
    fingerprint: [u8; 32],
    sizes: [u32; 5],
    flags: u32,
    context: u32,
    drawn: u32,
    generated: u32,
    position: u64,
    tau: f64,
    reference: f64,
    seed: u64,
    unread: u64,
    numbers: u64,
    unused: u64,
}

impl Header {
    /// Reads what follows the version.
    fn read(bytes: &[u8]) -> Self {
        let mut reader = Reader(bytes);
        let dtype = reader.u32();
        let fingerprint = reader.array();
        let sizes = std::array::from_fn(|_| reader.u32());
        let [flags, context, drawn, generated, unused] = std::array::from_fn(|_| reader.u32());
        Self {
            dtype,
            fingerprint,
            sizes,
            flags,
            context,
            drawn,
            generated,
            position: reader.u64(),
            tau: reader.f64(),
            reference: reader.f64(),
            seed: reader.u64(),
            unread: reader.u64(),
            numbers: reader.u64(),
            unused: reader.u64() | u64::from(unused),
        }
    }

    /// Length of the whole file, in bytes.
    fn file_length(&self) -> u128 {
        let words = u128::from(self.unread) + u128::from(self.sizes[4]) + u128::from(self.numbers);
        (HEADER + CHECKSUM) as u128 + 4 * words
    }

    fn describe(&self) -> String {
        let [layers, width, heads, neurons, vocab] = self.sizes;
        format!("{layers} layers, width {width}, {heads} heads of {neurons} neurons, {vocab} tokens")
    }

    fn of_another_model(&self, path: &Path, model: &Model) -> StateError {
        StateError::OtherModel { path: path.to_owned(), found: self.describe(), model: model.name.clone() }
    }

    /// The clock, if it can have been one.
    fn clock(&self) -> Option<Clock> {
        let (forgetting, sound) = match self.flags & (HAS_CONTEXT | HAS_WINDOW) {
            0 => (Forgetting::Full, true),
            HAS_CONTEXT => {
                let sound_tau = self.tau.is_finite() && self.tau > 0.0;
                (Forgetting::After { context: self.context, tau: self.tau }, sound_tau)
            }
            HAS_WINDOW => (Forgetting::Window { tokens: self.context }, self.context > 0),
            _ => return None,
        };
        let sound = sound && self.reference.is_finite() && self.position <= POSITIONS;
        sound.then(|| Clock::resume(forgetting, self.position, self.reference))
    }
}

/// Reads a state file.
pub(super) fn load(bdh: &Bdh, path: &Path) -> Result<Snapshot, StateError> {
    let read_error = |source| StateError::Read { path: path.to_owned(), source };
    // Opening a pipe would wait for its writer.
    if !std::fs::metadata(path).map_err(read_error)?.is_file() {
        return Err(StateError::NotAFile { path: path.to_owned() });
    }
    let mut file = File::open(path).map_err(read_error)?;
    let length = file.metadata().map_err(read_error)?.len();
    read(bdh, &mut file, length, path)
}

/// Reads a state file of `length` bytes, which errors call `path`.
pub(super) fn read(bdh: &Bdh, file: &mut impl Read, length: u64, path: &Path) -> Result<Snapshot, StateError> {
    let bytes = read_checked(file, length, path, bdh.model())?;
    let header = Header::read(&bytes[MAGIC.len() + 4..HEADER]);
    let model = bdh.model();
    if header.sizes != sizes(&model.config) || header.fingerprint != *bdh.fingerprint() {
        return Err(header.of_another_model(path, model));
    }
    let path = || path.to_owned();
    let inconsistent = |what| StateError::Inconsistent { path: path(), what };
    let Some(&(_, state_type)) = STATE_TYPES.iter().find(|(number, _)| *number == header.dtype) else {
        return Err(inconsistent("fields of an unknown kind"));
    };
    if header.unused != 0 || header.flags & !(HAS_CONTEXT | HAS_SEED | HAS_WINDOW) != 0 {
        return Err(inconsistent("fields of an unknown kind"));
    }
    let clock = header.clock().ok_or_else(|| inconsistent("a position or a context out of range"))?;
    let (words, past) = (SavedMemory::len(&model.config, state_type), past_len(&model.config, clock));
    if header.numbers != words as u64 + past {
        return Err(inconsistent("a state of another size than its model's"));
    }
    let mut lists = Reader(&bytes[HEADER..]);
    // The lengths add up to the file's, so they fit in memory.
    let unread = lists.words(header.unread as usize);
    let counts = lists.words(model.config.vocab_size);
    let memory = Arc::new(SavedMemory { state_type, words: lists.words(words), past: lists.words(past as usize) });
    let vocab = model.config.vocab_size as u32;
    if unread.iter().any(|&token| token >= vocab) || counts.iter().any(|count| count & EOS_BIT != 0) {
        return Err(inconsistent("tokens that the model does not have"));
    }
    if clock.remaining() < unread.len() as u64 || (clock.position() > 0 && unread.is_empty()) {
        return Err(inconsistent("a conversation that does not go on"));
    }
    if header.generated > header.drawn {
        return Err(inconsistent("more tokens than were generated"));
    }
    let seed = (header.flags & HAS_SEED != 0).then_some(header.seed);
    let tally = Tally { counts, drawn: header.drawn, generated: header.generated };
    Ok(Snapshot { clock, unread, tally, seed, memory })
}

/// A whole file whose length and checksum are right; its length is checked before memory is taken for it.
fn read_checked(file: &mut impl Read, found: u64, path: &Path, model: &Model) -> Result<Vec<u8>, StateError> {
    let read_error = |source| StateError::Read { path: path.to_owned(), source };
    let mut bytes = vec![0; HEADER.min(usize::try_from(found).unwrap_or(HEADER))];
    file.read_exact(&mut bytes).map_err(read_error)?;
    let begins_right = bytes.starts_with(&MAGIC) || (found > 0 && MAGIC.starts_with(&bytes));
    if !begins_right {
        return Err(StateError::NotAState { path: path.to_owned() });
    }
    let damaged = |expected| StateError::Length { path: path.to_owned(), found, expected };
    let least = (HEADER + CHECKSUM) as u128;
    if bytes.len() >= MAGIC.len() + 4 {
        let version = Reader(&bytes[MAGIC.len()..]).u32();
        if version != VERSION {
            return Err(StateError::Version { path: path.to_owned(), found: version });
        }
    }
    if bytes.len() < HEADER {
        return Err(damaged(least));
    }
    let header = Header::read(&bytes[MAGIC.len() + 4..]);
    let expected = header.file_length();
    if expected != u128::from(found) {
        return Err(damaged(expected));
    }
    let largest = STATE_TYPES.iter().map(|&(_, state_type)| SavedMemory::len(&model.config, state_type)).max();
    let past = header.clock().map_or(0, |clock| past_len(&model.config, clock));
    let numbers = largest.unwrap_or(0) as u64 + past;
    if header.numbers > numbers && header.sizes != sizes(&model.config) {
        // However large that model's states are, this one's memory need not hold them.
        return Err(header.of_another_model(path, model));
    }
    if header.numbers > numbers || header.unread > POSITIONS {
        return Err(StateError::Inconsistent { path: path.to_owned(), what: "more numbers than its model's states" });
    }
    file.take(found).read_to_end(&mut bytes).map_err(read_error)?;
    if bytes.len() as u128 != expected {
        return Err(StateError::Length { path: path.to_owned(), found: bytes.len() as u64, expected });
    }
    let (content, checksum) = bytes.split_at(bytes.len() - CHECKSUM);
    if blake3::hash(content).as_bytes() != checksum {
        return Err(StateError::Checksum { path: path.to_owned() });
    }
    bytes.truncate(content.len());
    Ok(bytes)
}
