//! Reader of NumPy archives (.npz): a zip archive with one .npy member for each array.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Map;

use super::archive::{Archive, Contents};
use super::error::{ModelError, clip};
use super::storage::Storage;
use super::tensor::{Dtype, Tensor};
use super::weights_file::{Entry, Format, NamedTensors};

/// Memory that unpacking and copying may take beyond the file's length.
const SLACK: u64 = 40 << 20;
/// Longest header read, in bytes.
const MAX_HEADER: usize = 1 << 16;
/// Bytes before a header: magic, version and length.
const BEFORE_HEADER: u64 = 12;

const MAGIC: &[u8] = b"\x93NUMPY";

/// Reads every array of an archive.
pub(super) fn read(storage: &Storage, path: &Path) -> Result<NamedTensors, ModelError> {
    let archive = Archive::open(storage, path, SLACK)?;
    let mut entries = BTreeMap::new();
    for member in archive.members() {
        let Some(name) = member.name.strip_suffix(".npy") else {
            let found = format!("member {:?} is not a NumPy array", clip(&member.name));
            return Err(archive.malformed(found, "only .npy members"));
        };
        let contents = archive.contents(member)?;
        let entry = array(&archive, &contents, name)?;
        entries.insert(name.to_owned(), entry);
    }
    Ok(NamedTensors {
        path: path.to_owned(),
        format: Format::NumPy,
        entries,
        config: None,
        declared: Map::new(),
        vocabulary: Map::new(),
        notes: Vec::new(),
    })
}

fn array(archive: &Archive, contents: &Contents, name: &str) -> Result<Entry, ModelError> {
    let bytes = contents.start(BEFORE_HEADER + MAX_HEADER as u64)?;
    let of_array = |what: &str| format!("array {:?} {what}", clip(name));
    let damaged = |what: &str| archive.malformed(of_array(what), "a NumPy array of version 1, 2 or 3");
    let (text, start) = header(&bytes).ok_or_else(|| damaged("has no valid header"))?;
    let header = Header::parse(text).ok_or_else(|| damaged(&format!("is described as {}", clip(text))))?;
    if header.shape.is_empty() {
        return Ok(Entry::Scalar);
    }
    let dtype = match header.descr {
        "<f2" => Dtype::F16,
        "<f4" => Dtype::F32,
        "<f8" => Dtype::F64,
        other => return Ok(Entry::Other(other.to_owned())),
    };
    let mut sizes = header.shape.iter().map(|&size| size as u64);
    let size = sizes.try_fold(dtype.size() as u64, |product, size| product.checked_mul(size));
    let data = contents.range.start + start as u64..contents.range.end;
    let data_len = data.end - data.start;
    if size != Some(data_len) {
        let found = format!("has {data_len} bytes for {dtype} {}", clip(&format!("{:?}", header.shape)));
        return Err(archive.malformed(of_array(&found), "the whole array; copy or download the file again"));
    }
    let tensor = if header.fortran_order && header.shape.len() > 1 {
        archive.spend(data_len, &of_array("in Fortran order"))?;
        let mut stride = 1usize;
        // No overflow: the product of the sizes was computed above, or some size is 0.
        let strides: Vec<usize> = header
            .shape
            .iter()
            .map(|&size| {
                let here = stride;
                stride = here.saturating_mul(size);
                here
            })
            .collect();
        Tensor::gather(&contents.storage.read(data)?, dtype, 0, &header.shape, &strides)
    } else {
        Tensor::stored(contents.storage.clone(), data.start, dtype, &header.shape)
    };
    tensor.map(Entry::Tensor).ok_or_else(|| damaged("does not fit"))
}

/// The header's text and where the data begins.
fn header(bytes: &[u8]) -> Option<(&str, usize)> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (&[major, _minor], rest) = rest.split_first_chunk::<2>()?;
    let (length, rest) = match major {
        1 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        2 | 3 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::try_from(u32::from_le_bytes(*length)).ok()?, rest)
        }
        _ => return None,
    };
    if length > MAX_HEADER {
        return None;
    }
    let text = str::from_utf8(rest.get(..length)?).ok()?;
    Some((text, bytes.len() - rest.len() + length))
}

/// A header: a Python dict with three known keys.
#[derive(Debug, PartialEq)]
struct Header<'a> {
    descr: &'a str,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl<'a> Header<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
        while !rest.is_empty() {
            let (key, after) = quoted(rest)?;
            let value = after.trim_start().strip_prefix(':')?.trim_start();
            rest = match key {
                "descr" => {
                    let (text, after) = quoted(value)?;
                    descr = Some(text);
                    after
                }
                "fortran_order" => {
                    let (flag, after) = match value.strip_prefix("True") {
                        Some(after) => (true, after),
                        None => (false, value.strip_prefix("False")?),
                    };
                    fortran_order = Some(flag);
                    after
                }
                "shape" => {
                    let (list, after) = value.strip_prefix('(')?.split_once(')')?;
                    let sizes = list.split(',').map(str::trim).filter(|size| !size.is_empty());
                    // NumPy on Python 2 wrote an L behind long integers.
                    shape = Some(sizes.map(|size| size.trim_end_matches('L').parse().ok()).collect::<Option<_>>()?);
                    after
                }
                _ => return None,
            };
            rest = rest.trim_start();
            rest = match rest.strip_prefix(',') {
                Some(after) => after.trim_start(),
                None if rest.is_empty() => rest,
                None => return None,
            };
        }
        Some(Self { descr: descr?, fortran_order: fortran_order?, shape: shape? })
    }
}

/// A text in single or double quotes at the beginning, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
    text[1..].split_once(quote)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_parsed() {
        let header = Header::parse("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }      \n").unwrap();
        assert_eq!(header, Header { descr: "<f4", fortran_order: false, shape: vec![3, 4] });
        let header = Header::parse("{\"shape\": (), 'fortran_order': True, 'descr': '|V2'}").unwrap();
        assert_eq!(header, Header { descr: "|V2", fortran_order: true, shape: vec![] });
        assert_eq!(Header::parse("{'descr': '<f4', 'fortran_order': False, 'shape': (7L,)}").unwrap().shape, [7]);
        for wrong in [
            "",
            "{}",
            "{'descr': '<f4', 'fortran_order': False}",
            "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}",
            "{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'more': 1}",
            "{'descr': '<f4' 'fortran_order': False, 'shape': (1,)}",
            "{'",
        ] {
            assert_eq!(Header::parse(wrong), None, "{wrong}");
        }
    }
}
