//! Weights files of any format: a name and a tensor, many times.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::error::{ModelError, clip};
use super::files::{Files, is_shard_index};
use super::json::JsonFile;
use super::storage::Storage;
use super::tensor::Tensor;
use super::{npz, safetensors, shards, torch};

/// Prefixes that torch.compile, DataParallel and modules around the model put before every name.
const WRAPPERS: [&str; 5] = ["_orig_mod.", "module.", "model.", "network.", "bdh."];
/// The prefix that the Hugging Face port puts before every name but the output's. It says whose names they are.
pub(super) const BACKBONE: &str = "backbone.";

/// How a weights file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// safetensors.
    Safetensors,
    /// What torch.save writes: a zip archive with a pickle.
    PyTorch,
    /// What numpy.savez writes: a zip archive of arrays.
    NumPy,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Safetensors => "safetensors",
            Self::PyTorch => "PyTorch checkpoint",
            Self::NumPy => "NumPy archive",
        })
    }
}

/// A file's tensors by name.
pub(super) struct NamedTensors {
    pub(super) path: PathBuf,
    pub(super) format: Format,
    pub(super) entries: BTreeMap<String, Entry>,
    /// The configuration that a training checkpoint carries.
    pub(super) config: Option<JsonFile>,
    /// What it says about the computation outside of that.
    pub(super) declared: Map<String, Value>,
    /// What the checkpoint says about its characters: `chars`, `stoi` or `itos`.
    pub(super) vocabulary: Map<String, Value>,
    /// What was left out.
    pub(super) notes: Vec<String>,
}

/// A tensor of a file.
pub(super) enum Entry {
    Tensor(Tensor),
    /// One whose elements cannot be weights, with its dtype as the file spells it.
    Other(String),
    /// A single number: a step, a loss.
    Scalar,
}

/// Recognises a file's format and reads its tensors, under their bare names.
pub(super) fn read(files: &dyn Files, storage: &Storage, path: &Path) -> Result<NamedTensors, ModelError> {
    if is_shard_index(path) {
        return strip_prefixes(shards::read(files, storage, path)?);
    }
    strip_prefixes(read_file(storage, path)?)
}

/// Reads the tensors of one file under their full names.
pub(super) fn read_file(storage: &Storage, path: &Path) -> Result<NamedTensors, ModelError> {
    let bytes = storage.start(LONGEST_START)?;
    let unsupported = |what: &str| Err(ModelError::Unsupported { path: path.to_owned(), what: what.to_owned() });
    let malformed = |found: &str, expected: &str| {
        Err(ModelError::Malformed { path: path.to_owned(), found: found.to_owned(), expected: expected.to_owned() })
    };
    if bytes.starts_with(b"version https://git-lfs") {
        return malformed(
            "a Git LFS pointer in place of the weights",
            "the weights themselves; fetch them with `git lfs pull`",
        );
    }
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match *bytes {
        // A safetensors header starts at byte 8, whatever its length happens to look like.
        [_, _, _, _, _, _, _, _, b'{', ..] => safetensors::read(storage, path),
        [b'P', b'K', 3 | 5, 4 | 6, ..] if extension == "npz" => npz::read(storage, path),
        [b'P', b'K', 3 | 5, 4 | 6, ..] => torch::read(storage, path),
        [0x80, 1..=5, ..] => malformed(
            "a legacy PyTorch checkpoint (a pickle that is not in a zip)",
            "the format of PyTorch 1.6 and later; save it again with torch.save(torch.load(path), new_path)",
        ),
        [b'G', b'G', b'U', b'F', ..] => unsupported("a GGUF file"),
        [b'\x89', b'H', b'D', b'F', ..] => unsupported("an HDF5 file"),
        _ => safetensors::read(storage, path),
    }
}

/// Bytes that tell a format.
const LONGEST_START: u64 = 32;

/// Removes the prefixes of wrappers, in whatever order they come, and leaves out single numbers. `backbone.` moves
/// to the front.
fn strip_prefixes(tensors: NamedTensors) -> Result<NamedTensors, ModelError> {
    let NamedTensors { path, entries, mut notes, .. } = tensors;
    let mut stripped = BTreeMap::new();
    for (full, entry) in entries {
        if let Entry::Scalar = entry {
            notes.push(format!("{}: {:?} is a single number and not used", path.display(), clip(&full)));
            continue;
        }
        let (mut name, mut backbone) = (full.as_str(), "");
        loop {
            if let Some(rest) = WRAPPERS.iter().find_map(|prefix| name.strip_prefix(prefix)) {
                name = rest;
            } else if let Some(rest) = name.strip_prefix(BACKBONE) {
                (name, backbone) = (rest, BACKBONE);
            } else {
                break;
            }
        }
        let bare = format!("{backbone}{name}");
        let shown = clip(&bare);
        if stripped.insert(bare, entry).is_some() {
            return Err(ModelError::DuplicateTensor { path, tensor: shown, found: clip(&full) });
        }
    }
    if stripped.contains_key("backbone.lm_head") {
        // The port has an output of another name, outside the backbone: these are the official names.
        stripped = stripped
            .into_iter()
            .map(|(name, entry)| (name.strip_prefix(BACKBONE).map_or(name.clone(), str::to_owned), entry))
            .collect();
    }
    Ok(NamedTensors { path, entries: stripped, notes, ..tensors })
}
