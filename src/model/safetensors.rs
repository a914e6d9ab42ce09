//! Reader of the safetensors format: eight bytes of header length, a JSON header, the tensors' bytes.
//!
//! The header is read here rather than by the crate of that name because errors must name the tensor
//! and say what was found and expected, and because no size in the file may be trusted: the crate adds
//! up the tensors' lengths without a check.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::error::{ModelError, clip};
use super::storage::Storage;
use super::tensor::{Dtype, Tensor};
use super::weights_file::{Entry, Format, NamedTensors};

/// Longest header read, in bytes: enough for tens of thousands of tensors.
const MAX_HEADER: u64 = 4 << 20;

/// The dtype of 8-bit codes.
const CODES: &str = "I8";
/// What follows the name of a tensor of codes in that of its scales.
pub(super) const SCALES: &str = ".scale";

/// Reads the header and checks it against the file's length. No weight is looked at.
pub(crate) fn read(storage: &Storage, path: &Path) -> Result<NamedTensors, ModelError> {
    const LENGTH: u64 = 8;
    let malformed = |found: String, expected: &str| ModelError::Malformed {
        path: path.to_owned(),
        found,
        expected: expected.to_owned(),
    };
    let start = storage.start(LENGTH + 1)?;
    let Some((length, first)) = start.split_first_chunk::<8>() else {
        let found = match start.len() {
            0 => "the file is empty".to_owned(),
            count => format!("the file has {count} bytes"),
        };
        return Err(malformed(found, "a safetensors file"));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER || first.first() != Some(&b'{') {
        return Err(malformed("not a safetensors file".to_owned(), "a header of at most 4 MiB"));
    }
    let data_start = LENGTH + length;
    let Some(data_len) = storage.len().checked_sub(data_start) else {
        let found = format!("the file ends in its header, after {} of {length} bytes", storage.len() - LENGTH);
        return Err(malformed(found, "the whole file; copy or download it again"));
    };
    let header = match serde_json::from_slice(&storage.read(LENGTH..data_start)?) {
        Ok(Value::Object(header)) => header,
        Ok(_) => return Err(malformed("the header is not an object".to_owned(), "a safetensors header")),
        Err(reason) => {
            let found = format!("the header is not valid JSON ({reason})");
            return Err(malformed(found, "a safetensors header"));
        }
    };

    let mut entries = BTreeMap::new();
    let mut extents = Vec::new();
    let mut codes = Vec::new();
    for (name, info) in header.into_iter().filter(|(name, _)| name != "__metadata__") {
        let of_tensor =
            |found: String, expected: &str| malformed(format!("tensor {:?} {found}", clip(&name)), expected);
        let Some((dtype, shape, [begin, end])) = fields(&info) else {
            let found = format!("is described as {}", clip(&info.to_string()));
            return Err(of_tensor(found, "dtype, shape and data_offsets"));
        };
        if begin > end || end > data_len {
            let found = format!("lies at bytes {begin} to {end} of {data_len}");
            return Err(of_tensor(found, "it inside the file; copy or download the file again"));
        }
        extents.push((begin, end));
        let entry = match known_dtype(dtype) {
            _ if shape.is_empty() => Entry::Scalar,
            None if dtype == CODES => {
                codes.push((name.clone(), shape, data_start + begin, end - begin));
                Entry::Other(dtype.to_owned())
            }
            None => Entry::Other(dtype.to_owned()),
            Some(dtype) => {
                let size = bytes_of(dtype.size(), &shape);
                if size != Some(end - begin) {
                    let found = format!("has {} bytes for {dtype} {}", end - begin, clip(&format!("{shape:?}")));
                    let expected = size.map_or("a smaller shape".to_owned(), |size| format!("{size} bytes"));
                    return Err(of_tensor(found, &expected));
                }
                match Tensor::stored(storage.clone(), data_start + begin, dtype, &shape) {
                    Some(tensor) => Entry::Tensor(tensor),
                    None => return Err(of_tensor("does not fit".to_owned(), "it inside the file")),
                }
            }
        };
        entries.insert(name, entry);
    }

    for (name, shape, offset, length) in codes {
        let scales_name = format!("{name}{SCALES}");
        let Some(Entry::Tensor(scales)) = entries.get(&scales_name) else { continue };
        let size = bytes_of(1, &shape);
        let tensor = Tensor::of_codes(storage.clone(), offset, &shape, scales).filter(|_| size == Some(length));
        let Some(tensor) = tensor else {
            let found =
                format!("tensor {:?} or its scales {:?} have a wrong shape or value", clip(&name), clip(&scales_name));
            return Err(malformed(found, "codes of rank 2 or 3 and a finite scale for each row or column"));
        };
        entries.remove(&scales_name);
        entries.insert(name, Entry::Tensor(tensor));
    }

    // The format allows neither gaps nor overlaps: they are signs of damage.
    extents.sort_unstable();
    let mut covered = 0;
    for (begin, end) in extents {
        if begin != covered {
            let found = format!("the tensors leave a gap or overlap at byte {} of the data", begin.min(covered));
            return Err(malformed(found, "one tensor after the other"));
        }
        covered = end;
    }
    if covered != data_len {
        let found = format!("the last tensor ends at byte {covered} of {data_len} of the data");
        return Err(malformed(found, "it at the end"));
    }
    Ok(NamedTensors {
        path: path.to_owned(),
        format: Format::Safetensors,
        entries,
        config: None,
        declared: Map::new(),
        vocabulary: Map::new(),
        notes: Vec::new(),
    })
}

/// Dtype, shape and begin and end of the bytes from a tensor's description.
fn fields(info: &Value) -> Option<(&str, Vec<usize>, [u64; 2])> {
    let list = |key| info.get(key)?.as_array();
    let sizes = list("shape")?.iter().map(|size| size.as_u64().and_then(|size| usize::try_from(size).ok()));
    let offsets = list("data_offsets")?.iter().map(Value::as_u64).collect::<Option<Vec<u64>>>()?;
    let dtype = info.get("dtype")?.as_str()?;
    Some((dtype, sizes.collect::<Option<_>>()?, offsets.try_into().ok()?))
}

/// Bytes of a tensor whose elements take `size` each.
fn bytes_of(size: usize, shape: &[usize]) -> Option<u64> {
    shape.iter().try_fold(size as u64, |product, &size| product.checked_mul(size as u64))
}

fn known_dtype(name: &str) -> Option<Dtype> {
    match name {
        "F16" => Some(Dtype::F16),
        "BF16" => Some(Dtype::BF16),
        "F32" => Some(Dtype::F32),
        "F64" => Some(Dtype::F64),
        _ => None,
    }
}
