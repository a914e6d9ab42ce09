//! Reader of zip archives as torch.save and NumPy write them.
//!
//! No size in the file is trusted: every member is checked to lie inside the file before it is looked
//! at, and what has to be unpacked or copied is counted against a budget before memory is asked for.

use std::cell::Cell;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::read::DeflateDecoder;

use super::error::{ModelError, clip};
use super::storage::Storage;

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
    budget: Cell<usize>,
}

/// One file of an archive.
pub(super) struct Member {
    pub(super) name: String,
    /// Where its bytes lie in the archive, as stored.
    stored: Range<usize>,
    deflated: bool,
    /// Bytes when unpacked.
    size: usize,
    checksum: u32,
}

/// A member's bytes: a part of the archive, or unpacked.
#[derive(Clone)]
pub(super) struct Contents {
    pub(super) storage: Storage,
    pub(super) range: Range<usize>,
}

impl Contents {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.storage.bytes()[self.range.clone()]
    }
}

impl Archive {
    /// Reads the central directory. At most the file's own length and `slack` bytes more will be
    /// unpacked and copied.
    pub(super) fn open(storage: &Storage, path: &Path, slack: usize) -> Result<Self, ModelError> {
        let bytes = storage.bytes();
        let members = directory(bytes).ok_or_else(|| ModelError::Malformed {
            path: path.to_owned(),
            found: "the directory at the end of the zip archive is damaged or missing".to_owned(),
            expected: "the whole file; copy or download it again".to_owned(),
        })?;
        let mut archive = Self {
            path: path.to_owned(),
            storage: storage.clone(),
            members: Vec::with_capacity(members.count),
            budget: Cell::new(bytes.len().saturating_add(slack)),
        };
        let mut rest = members.bytes;
        for _ in 0..members.count {
            let member = member(bytes, &mut rest)
                .map_err(|found| archive.malformed(found, "a sound zip archive; copy or download the file again"))?;
            archive.members.push(member);
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
        if member.checksum != 0 && crc32fast::hash(contents.bytes()) != member.checksum {
            let found = format!("the checksum of member {:?} is wrong", clip(&member.name));
            return Err(self.malformed(found, "undamaged bytes; copy or download the file again"));
        }
        Ok(contents)
    }

    /// Counts memory that is about to be asked for; refuses what the file's length does not justify.
    pub(super) fn spend(&self, bytes: usize, what: &str) -> Result<(), ModelError> {
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
        let mut bytes = vec![0; member.size];
        let mut decoder = DeflateDecoder::new(&self.storage.bytes()[member.stored.clone()]);
        let exact = decoder.read_exact(&mut bytes).is_ok() && matches!(decoder.read(&mut [0]), Ok(0));
        if exact {
            return Ok(bytes);
        }
        let found = format!("member {:?} does not unpack to {} bytes", clip(&member.name), member.size);
        Err(self.malformed(found, "undamaged bytes; copy or download the file again"))
    }
}

/// The central directory's bytes and the number of its entries.
struct Directory<'a> {
    bytes: &'a [u8],
    count: usize,
}

/// Finds the central directory by the record at the file's end, which only a comment may follow.
fn directory(bytes: &[u8]) -> Option<Directory<'_>> {
    const END_LENGTH: usize = 22;
    const LONGEST_COMMENT: usize = u16::MAX as usize;
    let last = bytes.len().checked_sub(END_LENGTH)?;
    let end = (last.saturating_sub(LONGEST_COMMENT)..=last)
        .rev()
        .find(|&at| bytes[at..].starts_with(END) && usize::from(u16_at(bytes, at + 20).unwrap_or(0)) == last - at)?;
    let mut count = u64::from(u16_at(bytes, end + 10)?);
    let mut size = u64::from(u32_at(bytes, end + 12)?);
    let mut start = u64::from(u32_at(bytes, end + 16)?);
    if let Some(locator) = end.checked_sub(20)
        && bytes[locator..].starts_with(END_64_LOCATOR)
    {
        let at = usize::try_from(u64_at(bytes, locator + 8)?).ok()?;
        if !bytes.get(at..)?.starts_with(END_64) {
            return None;
        }
        count = u64_at(bytes, at.checked_add(32)?)?;
        size = u64_at(bytes, at.checked_add(40)?)?;
        start = u64_at(bytes, at.checked_add(48)?)?;
    }
    if count > MAX_MEMBERS || size > MAX_DIRECTORY {
        return None;
    }
    let start = usize::try_from(start).ok()?;
    let stop = start.checked_add(usize::try_from(size).ok()?)?;
    if stop > end {
        return None;
    }
    Some(Directory { bytes: &bytes[start..stop], count: usize::try_from(count).ok()? })
}

/// Takes the next entry off the central directory and checks it against the file.
fn member(file: &[u8], rest: &mut &[u8]) -> Result<Member, String> {
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
    let raw_name = &entry[HEADER..name_end];
    let Ok(name) = str::from_utf8(raw_name) else {
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
    let stored = usize::try_from(header).ok().and_then(|header| data_range(file, header, raw_name, packed));
    match (stored, usize::try_from(size)) {
        (Some(stored), Ok(size)) => {
            Ok(Member { name: name.to_owned(), stored, deflated, size, checksum: u32_at(entry, 16).unwrap_or(0) })
        }
        _ => Err(of_member("does not lie inside the file".to_owned())),
    }
}

/// Where a member's bytes lie, by the header in front of them. That header may differ from the
/// directory's entry in the length of its extra field only.
fn data_range(file: &[u8], header: usize, name: &[u8], length: u64) -> Option<Range<usize>> {
    const HEADER: usize = 30;
    if !file.get(header..)?.starts_with(LOCAL_HEADER) {
        return None;
    }
    let name_start = header.checked_add(HEADER)?;
    let name_end = name_start.checked_add(usize::from(u16_at(file, header + 26)?))?;
    if file.get(name_start..name_end)? != name {
        return None;
    }
    let start = name_end.checked_add(usize::from(u16_at(file, header + 28)?))?;
    let end = start.checked_add(usize::try_from(length).ok()?)?;
    (end <= file.len()).then_some(start..end)
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
