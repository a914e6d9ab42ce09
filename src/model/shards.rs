//! Weights split over several files, with an index that says which tensor is in which.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

use super::error::{ModelError, clip};
use super::files::Files;
use super::json::JsonFile;
use super::storage::Storage;
use super::weights_file::{self, NamedTensors};

/// How the name of an index ends.
pub(super) const INDEX: &str = ".index.json";

/// More files than any model of this kind is split into.
const MAX_PARTS: usize = 1 << 10;

/// Reads every part that an index names. The parts lie beside it.
pub(super) fn read(files: &dyn Files, index: &Storage, path: &Path) -> Result<NamedTensors, ModelError> {
    let json = JsonFile::parse(path, &index.read(0..index.len())?)?;
    let malformed = |found, expected: &str| malformed(path, found, expected);
    let map = weight_map(&json)?;
    let parts = parts(&json)?;
    let mut whole: Option<NamedTensors> = None;
    for part in parts {
        let tensors = read_part(files, path, part)?;
        let Some(whole) = &mut whole else {
            whole = Some(tensors);
            continue;
        };
        whole.notes.extend(tensors.notes);
        whole.declared.extend(tensors.declared);
        for (name, entry) in tensors.entries {
            let shown = clip(&name);
            if whole.entries.insert(name, entry).is_some() {
                return Err(malformed(format!("tensor {shown:?} is in two of its parts"), "it in one"));
            }
        }
    }
    let Some(mut whole) = whole else {
        return Err(malformed("an empty \"weight_map\"".to_owned(), "the names of the parts"));
    };
    if let Some((tensor, part)) = map.iter().find(|(tensor, _)| !whole.entries.contains_key(*tensor)) {
        let found = format!("tensor {:?} is not in {}, where the index has it", clip(tensor), clip(&part.to_string()));
        return Err(malformed(found, "every part of the same model; copy or download them again"));
    }
    path.clone_into(&mut whole.path);
    Ok(whole)
}

/// The names of the parts.
pub(super) fn parts(index: &JsonFile) -> Result<BTreeSet<&str>, ModelError> {
    let mut parts = BTreeSet::new();
    for (tensor, part) in weight_map(index)? {
        match part.as_str().filter(|name| is_plain_name(name)) {
            Some(name) => drop(parts.insert(name)),
            None => {
                let found = format!("tensor {:?} lies in {}", clip(tensor), clip(&part.to_string()));
                return Err(malformed(&index.path, found, "the name of a file beside the index"));
            }
        }
    }
    if parts.len() > MAX_PARTS {
        return Err(malformed(&index.path, format!("{} parts", parts.len()), "at most 1024"));
    }
    Ok(parts)
}

fn weight_map(index: &JsonFile) -> Result<&Map<String, Value>, ModelError> {
    index.get("weight_map").and_then(Value::as_object).ok_or_else(|| {
        malformed(&index.path, "no \"weight_map\"".to_owned(), "an index that says which tensor is in which file")
    })
}

fn malformed(path: &Path, found: String, expected: &str) -> ModelError {
    ModelError::Malformed { path: path.to_owned(), found, expected: expected.to_owned() }
}

fn read_part(files: &dyn Files, index: &Path, part: &str) -> Result<NamedTensors, ModelError> {
    let path = index.with_file_name(part);
    let missing = |reason: String| ModelError::MissingPart {
        path: path.clone(),
        part: part.to_owned(),
        index: index.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        reason,
    };
    let storage = files.open(&path).map_err(|error| match error {
        ModelError::NotFound { .. } => missing("no such file".to_owned()),
        other => other,
    })?;
    weights_file::read_file(&storage, &path)
}

/// A file of the same folder: an index reaches no other.
fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(std::path::Component::Normal(_)), None)) && !name.ends_with(INDEX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_beside_the_index_are_parts() {
        assert!(is_plain_name("model-00001-of-00002.safetensors"));
        for name in ["", ".", "..", "../a", "a/b", "/etc/passwd", "model.safetensors.index.json"] {
            assert!(!is_plain_name(name), "{name}");
        }
    }
}
