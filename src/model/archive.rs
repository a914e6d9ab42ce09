//! Reader of zip archives as torch.save and NumPy write them.
//!
//! No size in the file is trusted: every member is checked to lie inside the file before it is looked
//! at, and what has to be unpacked or copied is counted against a budget before memory is asked for.

use std::borrow::Cow;
use std::cell::Cell;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::DeflateDecoder;

use super::error::{ModelError, clip};
use super::storage::{Storage, pieces};

/// More members than any checkpoint has.
const MAX_MEMBERS: u64 = 1 << 14;
/// Longest central directory read, in bytes.
const MAX_DIRECTORY: u64 = 4 << 20;

const LOCAL_HEADER: &[u8; 4] = b"PK\x03\x04";
const DIRECTORY_ENTRY: &[u8; 4] = b"PK\x01\x02";
const END: &[u8; 4] = b"PK\x05\x06";
const END_64: &[u8; 4] = b"PK\x06\x06";
const END_64_LOCATOR: &[u8; 4] = b"PK\x06\x07";

/// An archive whose directory was read and checked.
pub(super) struct Archive {
    pub(super) path: PathBuf,
    storage: Storage,
    members: Vec<Member>,
    budget: Cell<u64>,
}

/// One file of an archive.
pub(super) struct Member {
    pub(super) name: String,
    /// Where its bytes lie in the archive, as stored.
    stored: Range<u64>,
    deflated: bool,
    /// Bytes when unpacked.
    size: u64,
    checksum: u32,
}

/// A member's bytes: a part of the archive, or unpacked.
#[derive(Clone)]
pub(super) struct Contents {
    pub(super) storage: Storage,
    pub(super) range: Range<u64>,
}

impl Contents {
    pub(super) fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// All of them.
    pub(super) fn bytes(&self) -> Result<Cow<'_, [u8]>, ModelError> {
        self.storage.read(self.range.clone())
    }

    /// The first `count` bytes, or all if there are fewer.
    pub(super) fn start(&self, count: u64) -> Result<Cow<'_, [u8]>, ModelError> {
        self.storage.read(self.range.start..self.range.start + count.min(self.len()))
    }

    fn checksum(&self) -> Result<u32, ModelError> {
        let mut hasher = crc32fast::Hasher::new();
        for piece in pieces(self.range.clone()) {
            hasher.update(&self.storage.read(piece)?);
        }
        Ok(hasher.finalize())
    }
}

impl Archive {
    /// Reads the central directory. At most the file's own length and `slack` bytes more will be
    /// unpacked and copied.
    pub(super) fn open(storage: &Storage, path: &Path, slack: u64) -> Result<Self, ModelError> {
        let directory = directory(storage)?.ok_or_else(|| ModelError::Malformed {
            path: path.to_owned(),
            found: "the directory at the end of the zip archive is damaged or missing".to_owned(),
            expected: "the whole file; copy or download it again".to_owned(),
        })?;
        let mut archive = Self {
            path: path.to_owned(),
            storage: storage.clone(),
            members: Vec::with_capacity(directory.count),
            budget: Cell::new(storage.len().saturating_add(slack)),
        };
        let bytes = storage.read(directory.range)?;
        let mut rest = &*bytes;
        for _ in 0..directory.count {
            let unsound = |found| archive.malformed(found, "a sound zip archive; copy or download the file again");
            let entry = entry(&mut rest).map_err(unsound)?;
            let Some(stored) = data_range(storage, &entry)? else {
                return Err(unsound(format!("member {:?} does not lie inside the file", clip(entry.name))));
            };
            let Entry { name, size, deflated, checksum, .. } = entry;
            archive.members.push(Member { name: name.to_owned(), stored, deflated, size, checksum });
        }
        archive.members.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = archive.members.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(archive.malformed(format!("member {:?} occurs twice", clip(&pair[0].name)), "it once"));
        }
        Ok(archive)
    }

    /// Every member, by name.
    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    pub(super) fn find(&self, name: &str) -> Option<&Member> {
        let place = self.members.binary_search_by(|member| member.name.as_str().cmp(name)).ok()?;
        self.members.get(place)
    }

    /// A member's bytes, unpacked where they are compressed, and checked against their checksum.
    pub(super) fn contents(&self, member: &Member) -> Result<Contents, ModelError> {
        let contents = if member.deflated {
            let storage = Storage::Owned(Arc::new(self.inflate(member)?));
            Contents { storage, range: 0..member.size }
        } else {
            Contents { storage: self.storage.clone(), range: member.stored.clone() }
        };
        // PyTorch can be told to save without checksums; it then writes zeros.
        if member.checksum != 0 && contents.checksum()? != member.checksum {
            let found = format!("the checksum of member {:?} is wrong", clip(&member.name));
            return Err(self.malformed(found, "undamaged bytes; copy or download the file again"));
        }
        Ok(contents)
    }

    /// Counts memory that is about to be asked for; refuses what the file's length does not justify.
    pub(super) fn spend(&self, bytes: u64, what: &str) -> Result<(), ModelError> {
        match self.budget.get().checked_sub(bytes) {
            Some(rest) => {
                self.budget.set(rest);
                Ok(())
            }
            None => Err(self.malformed(
                format!("{what} takes {bytes} bytes of memory, far more than the file holds"),
                "contiguous weights, not compressed (np.savez rather than np.savez_compressed)",
            )),
        }
    }

    pub(super) fn malformed(&self, found: String, expected: &str) -> ModelError {
        ModelError::Malformed { path: self.path.clone(), found, expected: expected.to_owned() }
    }

    fn inflate(&self, member: &Member) -> Result<Vec<u8>, ModelError> {
        let what = format!("unpacking member {:?}", clip(&member.name));
        self.spend(member.size, &what)?;
        let too_large = || ModelError::TooLarge { path: self.path.clone(), bytes: member.size };
        let size = usize::try_from(member.size).map_err(|_| too_large())?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(size).map_err(|_| too_large())?;
        bytes.resize(size, 0);
        let mut packed = Packed { storage: &self.storage, rest: member.stored.clone(), failure: None };
        let mut decoder = DeflateDecoder::new(&mut packed);
        let exact = decoder.read_exact(&mut bytes).is_ok() && matches!(decoder.read(&mut [0]), Ok(0));
        if exact {
            return Ok(bytes);
        }
        if let Some(failure) = packed.failure {
            return Err(failure);
        }
        let found = format!("member {:?} does not unpack to {} bytes", clip(&member.name), member.size);
        Err(self.malformed(found, "undamaged bytes; copy or download the file again"))
    }
}

/// A range of a storage, read in sequence.
struct Packed<'a> {
    storage: &'a Storage,
    rest: Range<u64>,
    /// Why the last read failed, if it did.
    failure: Option<ModelError>,
}

impl Read for Packed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let end = self.rest.end.min(self.rest.start + into.len() as u64);
        match self.storage.read(self.rest.start..end) {
            Ok(bytes) => {
                into[..bytes.len()].copy_from_slice(&bytes);
                self.rest.start = end;
                Ok(bytes.len())
            }
            Err(error) => {
                self.failure = Some(error);
                Err(io::ErrorKind::Other.into())
            }
        }
    }
}

/// The central directory: where it lies, and the number of its entries.
struct Directory {
    range: Range<u64>,
    count: usize,
}

/// Finds the central directory by the record at the file's end, which only a comment may follow.
fn directory(storage: &Storage) -> Result<Option<Directory>, ModelError> {
    const LOCATOR_LENGTH: usize = 20;
    const END_64_LENGTH: u64 = 56;
    let length = storage.len();
    let tail_start = length.saturating_sub((LOCATOR_LENGTH + END_LENGTH + LONGEST_COMMENT) as u64);
    let tail = storage.read(tail_start..length)?;
    let Some(end) = end_record(&tail) else { return Ok(None) };
    let mut sizes = (|| {
        let (count, size, start) = (u16_at(&tail, end + 10)?, u32_at(&tail, end + 12)?, u32_at(&tail, end + 16)?);
        Some([u64::from(count), u64::from(size), u64::from(start)])
    })();
    if let Some(locator) = end.checked_sub(LOCATOR_LENGTH)
        && tail[locator..].starts_with(END_64_LOCATOR)
    {
        let Some(at) = u64_at(&tail, locator + 8).filter(|&at| at <= length) else { return Ok(None) };
        let record = storage.read(at..length.min(at.saturating_add(END_64_LENGTH)))?;
        if !record.starts_with(END_64) {
            return Ok(None);
        }
        sizes = (|| Some([u64_at(&record, 32)?, u64_at(&record, 40)?, u64_at(&record, 48)?]))();
    }
    let Some([count, size, start]) = sizes else { return Ok(None) };
    if count > MAX_MEMBERS || size > MAX_DIRECTORY {
        return Ok(None);
    }
    let stop = start.checked_add(size).filter(|&stop| stop <= tail_start + end as u64);
    // A count of at most 16,384 fits any usize.
    Ok(stop.map(|stop| Directory { range: start..stop, count: count as usize }))
}

/// Bytes of the record at a file's end.
const END_LENGTH: usize = 22;
/// Bytes of the longest comment behind it.
const LONGEST_COMMENT: usize = u16::MAX as usize;

/// Place of the record at a file's end among the file's last bytes.
fn end_record(tail: &[u8]) -> Option<usize> {
    let last = tail.len().checked_sub(END_LENGTH)?;
    (last.saturating_sub(LONGEST_COMMENT)..=last)
        .rev()
        .find(|&at| tail[at..].starts_with(END) && usize::from(u16_at(tail, at + 20).unwrap_or(0)) == last - at)
}

/// An entry of the central directory.
struct Entry<'a> {
    name: &'a str,
    /// Offset of the header in front of the member's bytes.
    header: u64,
    packed: u64,
    size: u64,
    deflated: bool,
    checksum: u32,
}

/// Takes the next entry off the central directory.
fn entry<'a>(rest: &mut &'a [u8]) -> Result<Entry<'a>, String> {
    const HEADER: usize = 46;
    let cut_short = || "the zip archive's directory ends inside an entry".to_owned();
    let entry = *rest;
    if !entry.starts_with(DIRECTORY_ENTRY) || entry.len() < HEADER {
        return Err(cut_short());
    }
    let short = |at| usize::from(u16_at(entry, at).unwrap_or(0));
    let long = |at| u64::from(u32_at(entry, at).unwrap_or(0));
    let (flags, method) = (short(8), short(10));
    let name_end = HEADER + short(28);
    let extra_end = name_end + short(30);
    let end = extra_end + short(32);
    if end > entry.len() {
        return Err(cut_short());
    }
    *rest = &entry[end..];
    let Ok(name) = str::from_utf8(&entry[HEADER..name_end]) else {
        return Err("a name in the zip archive is not UTF-8".to_owned());
    };
    let of_member = |what: String| format!("member {:?} {what}", clip(name));

    let [mut size, mut packed, mut header] = [long(24), long(20), long(42)];
    // What does not fit 32 bits stands in an extra field, in this order.
    let wide = [&mut size, &mut packed, &mut header].into_iter().filter(|value| **value == u64::from(u32::MAX));
    let mut extra = zip64_field(&entry[name_end..extra_end]);
    for value in wide {
        let Some((number, rest)) = extra.split_first_chunk::<8>() else {
            return Err(of_member("lacks its 64-bit sizes".to_owned()));
        };
        *value = u64::from_le_bytes(*number);
        extra = rest;
    }
    if flags & 1 != 0 {
        return Err(of_member("is encrypted".to_owned()));
    }
    let deflated = match method {
        0 if size == packed => false,
        0 => return Err(of_member("is stored with two different lengths".to_owned())),
        8 => true,
        other => return Err(of_member(format!("is compressed by method {other}"))),
    };
    Ok(Entry { name, header, packed, size, deflated, checksum: u32_at(entry, 16).unwrap_or(0) })
}

/// The range of a member's bytes, by the header in front of them. That header may differ from the
/// directory's entry in the length of its extra field only. `None` if the header says something
/// else, or they do not lie inside the file.
fn data_range(storage: &Storage, entry: &Entry) -> Result<Option<Range<u64>>, ModelError> {
    const HEADER: u64 = 30;
    let name = entry.name.as_bytes();
    let header_end = entry.header.saturating_add(HEADER + name.len() as u64);
    if header_end > storage.len() {
        return Ok(None);
    }
    let header = storage.read(entry.header..header_end)?;
    let field = |at| u16_at(&header, at).map_or(0, usize::from);
    let matches = header.starts_with(LOCAL_HEADER) && field(26) == name.len() && &header[HEADER as usize..] == name;
    let start = header_end + field(28) as u64;
    let end = start.checked_add(entry.packed).filter(|&end| matches && end <= storage.len());
    Ok(end.map(|end| start..end))
}

/// The contents of the extra field that holds 64-bit sizes; nothing if there is none.
fn zip64_field(mut extra: &[u8]) -> &[u8] {
    const ZIP64: u16 = 1;
    while let (Some(kind), Some(length)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        let end = 4 + usize::from(length);
        let Some(field) = extra.get(4..end) else { break };
        if kind == ZIP64 {
            return field;
        }
        extra = &extra[end..];
    }
    &[]
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|&bytes| u16::from_le_bytes(bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|&bytes| u32::from_le_bytes(bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|&bytes| u64::from_le_bytes(bytes))
}
