//! Reader of PyTorch checkpoints: a zip archive with a pickle and one member for each storage.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::archive::{Archive, Contents};
use super::characters::VOCABULARY;
use super::config::SIZE_KEYS;
use super::config_keys::declares;
use super::error::{ModelError, clip};
use super::json::JsonFile;
use super::pickle::{self, ElementType, Id, Node, Pickle, PickleError, TensorView};
use super::storage::Storage;
use super::tensor::Tensor;
use super::weights_file::{Entry, Format, NamedTensors};

/// Memory that unpacking and copying may take beyond the file's length; the pickle's values take more.
const SLACK: u64 = 8 << 20;

/// Keys of a training checkpoint under which its state dict may stand, the first present one counts.
const STATE_DICTS: [&str; 3] = ["model_state_dict", "state_dict", "model"];
/// Keys under which its configuration may stand.
const CONFIGS: [&str; 7] = ["config", "model_config", "model_args", "cfg", "args", "hparams", "hyper_parameters"];

/// How to get rid of what cannot be read.
const SAVE_AGAIN: &str = "a state dict; save it again with torch.save(model.state_dict(), path)";

/// Reads a checkpoint's state dict and, if there is one, the configuration beside it.
pub(super) fn read(storage: &Storage, path: &Path) -> Result<NamedTensors, ModelError> {
    let archive = Archive::open(storage, path, SLACK)?;
    let Some(pickle) = archive.members().iter().find(|member| is_pickle(&member.name)) else {
        return Err(archive.malformed("a zip archive without data.pkl".to_owned(), "what torch.save writes"));
    };
    let folder = &pickle.name[..pickle.name.len() - PICKLE.len()];
    if archive.find(&format!("{folder}constants.pkl")).is_some() {
        return Err(archive.malformed("a TorchScript program".to_owned(), SAVE_AGAIN));
    }
    if let Some(order) = archive.find(&format!("{folder}byteorder"))
        && *archive.contents(order)?.bytes()? != *b"little"
    {
        return Err(archive.malformed("written on a big-endian machine".to_owned(), "little-endian numbers"));
    }
    let program = archive.contents(pickle)?;
    let program_bytes = program.bytes()?;
    let pickle = pickle::run(&program_bytes).map_err(|error| match error {
        PickleError::Forbidden { name } => ModelError::Forbidden { path: path.to_owned(), name: clip(&name) },
        PickleError::Malformed { offset, what } => {
            archive.malformed(format!("data.pkl holds {} at byte {offset}", clip(&what)), "what torch.save writes")
        }
    })?;
    let checkpoint = Checkpoint { archive: &archive, folder, pickle: &pickle, storages: BTreeMap::new() };
    checkpoint.read()
}

const PICKLE: &str = "data.pkl";

fn is_pickle(name: &str) -> bool {
    name.strip_suffix(PICKLE).is_some_and(|folder| folder.is_empty() || folder.ends_with('/'))
}

struct Checkpoint<'a> {
    archive: &'a Archive,
    /// What comes before the names of the members, with its slash.
    folder: &'a str,
    pickle: &'a Pickle<'a>,
    /// Storages that were looked at; several tensors may share one.
    storages: BTreeMap<&'a str, Contents>,
}

impl<'a> Checkpoint<'a> {
    fn read(mut self) -> Result<NamedTensors, ModelError> {
        let pickle = self.pickle;
        let root = pickle.root();
        let Some(state_dict) = self.state_dict() else {
            let found = match pickle.node(root) {
                Node::Object(_) => "a whole pickled model, or another object",
                Node::Tensor(_) => "a single tensor",
                Node::Dict(_) => "a dict without tensors",
                _ => "no dict",
            };
            return Err(self.archive.malformed(found.to_owned(), SAVE_AGAIN));
        };
        let mut entries = BTreeMap::new();
        let mut notes = Vec::new();
        for (name, value) in pickle.entries(state_dict).into_iter().flatten() {
            let entry = match pickle.tensor(value) {
                Some(view) => self.entry(name, view)?,
                None => {
                    notes.push(format!(
                        "{}: {:?} is not a tensor and not used",
                        self.archive.path.display(),
                        clip(name)
                    ));
                    continue;
                }
            };
            // As in Python, the last entry of a name counts.
            entries.insert(name.to_owned(), entry);
        }
        let path = self.archive.path.clone();
        let (config, vocabulary) = (self.config(), self.vocabulary());
        let declared = pickle.attributes(root).into_iter().filter(|(key, value)| declares(key, value)).collect();
        Ok(NamedTensors { path, format: Format::PyTorch, entries, config, declared, vocabulary, notes })
    }

    /// The dict of tensors: inside a training checkpoint, or all there is.
    fn state_dict(&self) -> Option<Id> {
        let pickle = self.pickle;
        let root = pickle.root();
        let holds_tensors = |dict: Id| {
            pickle.entries(dict).is_some_and(|mut entries| entries.any(|(_, value)| pickle.tensor(value).is_some()))
        };
        let inner = STATE_DICTS.iter().filter_map(|key| pickle.get(root, key)).find(|&dict| holds_tensors(dict));
        inner.or_else(|| holds_tensors(root).then_some(root))
    }

    /// The first of the checkpoint's values that looks like a configuration, or its own entries.
    fn config(&self) -> Option<JsonFile> {
        let root = self.pickle.root();
        let candidates = CONFIGS.iter().filter_map(|key| self.pickle.get(root, key)).chain([root]);
        let map = candidates.map(|id| self.pickle.attributes(id)).find(has_sizes)?;
        Some(JsonFile { path: self.archive.path.clone(), map })
    }

    /// The first description of the model's characters: beside its tensors, in its configuration, or in what else
    /// people keep it in.
    fn vocabulary(&self) -> Map<String, Value> {
        const HOLDERS: [&str; 4] = ["vocab", "vocabulary", "meta", "tokenizer"];
        let root = self.pickle.root();
        let inner = CONFIGS.iter().chain(&HOLDERS).filter_map(|key| self.pickle.get(root, key));
        let keys = |holder: Id| {
            let keys = VOCABULARY.iter().filter_map(|&key| {
                let value = self.pickle.characters(self.pickle.attribute(holder, key)?)?;
                Some((key.to_owned(), value))
            });
            keys.collect::<Map<_, _>>()
        };
        std::iter::once(root).chain(inner).map(keys).find(|map| !map.is_empty()).unwrap_or_default()
    }

    fn entry(&mut self, name: &str, view: &TensorView<'a>) -> Result<Entry, ModelError> {
        if view.shape.is_empty() {
            return Ok(Entry::Scalar);
        }
        let dtype = match view.element {
            ElementType::Weight(dtype) => dtype,
            ElementType::Other(other) => return Ok(Entry::Other(other.to_owned())),
            ElementType::Untyped => return Ok(Entry::Other("untyped".to_owned())),
        };
        let of_tensor = |what: String| format!("tensor {:?} {what}", clip(name));
        let contents = self.storage(name, view)?;
        let bytes = contents.len();
        let TensorView { offset, shape, strides, .. } = view;
        let unit = match view.storage.element {
            ElementType::Weight(stored) => stored.size(),
            _ => 1,
        };
        if Some(bytes) != view.storage.len.checked_mul(unit as u64) {
            let found =
                of_tensor(format!("lies in a storage of {bytes} bytes declared as {} elements", view.storage.len));
            return Err(self.archive.malformed(found, "the whole file; copy or download it again"));
        }
        let outside = || {
            let found = of_tensor(format!("of shape {} reaches beyond its storage", clip(&format!("{shape:?}"))));
            self.archive.malformed(found, "it inside; copy or download the file again")
        };
        let size = dtype.size() as u64;
        let len = shape.iter().try_fold(size, |product, &size| product.checked_mul(size as u64)).ok_or_else(outside)?;
        if is_contiguous(shape, strides) {
            let end = (*offset as u64).checked_mul(size).and_then(|start| Some((start, start.checked_add(len)?)));
            let (start, _) = end.filter(|&(_, end)| end <= bytes).ok_or_else(outside)?;
            let start = contents.range.start + start;
            return Tensor::stored(contents.storage.clone(), start, dtype, shape)
                .map(Entry::Tensor)
                .ok_or_else(outside);
        }
        self.archive.spend(len, &of_tensor("is a view with gaps or repetitions, and copying it".to_owned()))?;
        let copy = Tensor::gather(&contents.bytes()?, dtype, *offset, shape, strides);
        copy.map(Entry::Tensor).ok_or_else(outside)
    }

    /// The bytes of a tensor's storage.
    fn storage(&mut self, name: &str, view: &TensorView<'a>) -> Result<Contents, ModelError> {
        let key = view.storage.key;
        if let Some(contents) = self.storages.get(key) {
            return Ok(contents.clone());
        }
        let Some(member) = self.archive.find(&format!("{}data/{key}", self.folder)) else {
            let found = format!("tensor {:?} has no storage {:?} in the file", clip(name), clip(key));
            return Err(self.archive.malformed(found, "what torch.save writes"));
        };
        let contents = self.archive.contents(member)?;
        self.storages.insert(key, contents.clone());
        Ok(contents)
    }
}

fn has_sizes(map: &Map<String, Value>) -> bool {
    SIZE_KEYS.iter().any(|key| map.contains_key(*key))
}

/// Whether a tensor's elements follow each other in row-major order.
fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = Some(1usize);
    if shape.contains(&0) {
        return true;
    }
    shape.iter().zip(strides).rev().all(|(&size, &stride)| {
        let fits = size == 1 || expected == Some(stride);
        expected = expected.and_then(|product| product.checked_mul(size));
        fits
    })
}
