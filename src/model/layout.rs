//! Formats of weights files and the names tensors have in them.
//!
//! A layout is how one code base names and shapes BDH's weights. [`detect`] tells which one a file has;
//! each layout that is read has one function that turns its tensors into [`Weights`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::Weights;
use super::config::Config;
use super::error::{ModelError, clip};
use super::rotary::default_freqs;
use super::safetensors::{self, Entry, NamedTensors};
use super::storage::Storage;
use super::tensor::Tensor;

/// Prefixes that torch.compile and DataParallel put before every name.
const WRAPPERS: [&str; 2] = ["_orig_mod.", "module."];

/// Whose names the tensors have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    Official,
    HuggingFace,
    Mlx,
    Paper,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Official => "the official layout",
            Self::HuggingFace => "the Hugging Face port's layout",
            Self::Mlx => "the MLX port's layout",
            Self::Paper => "the layout with the paper's names",
        })
    }
}

/// What a weights file holds.
pub(crate) struct Loaded {
    pub(crate) weights: Weights,
    /// Whether the rotary frequencies are the file's own.
    pub(crate) stored_freqs: bool,
    /// What was left out of it.
    pub(crate) notes: Vec<String>,
}

/// The tensors of a weights file under their bare names, their layout recognised.
pub(crate) struct WeightsFile {
    tensors: NamedTensors,
}

impl WeightsFile {
    /// Recognises format and layout; refuses those that are not read.
    pub(crate) fn open(storage: &Storage, path: &Path) -> Result<Self, ModelError> {
        let unsupported = |what: String| Err(ModelError::Unsupported { path: path.to_owned(), what });
        if storage.bytes().starts_with(b"version https://git-lfs") {
            return Err(ModelError::Malformed {
                path: path.to_owned(),
                found: "a Git LFS pointer in place of the weights".to_owned(),
                expected: "the weights themselves; fetch them with `git lfs pull`".to_owned(),
            });
        }
        if let Some(format) = foreign_format(storage.bytes(), path) {
            return unsupported(format.to_owned());
        }
        let tensors = strip_wrappers(safetensors::read(storage, path)?)?;
        if let Some(tensor) = tensors.entries.keys().find(|name| is_per_layer(name)) {
            return Err(ModelError::WeightsPerLayer { path: path.to_owned(), tensor: clip(tensor) });
        }
        match detect(&tensors) {
            (Layout::Official, _) => Ok(Self { tensors }),
            (layout, sign) => unsupported(format!("tensor {:?} belongs to {layout}", clip(&sign))),
        }
    }

    /// Checks every tensor against the configuration and takes the weights.
    pub(crate) fn weights(self, config: &Config) -> Result<Loaded, ModelError> {
        official(self.tensors, config)
    }
}

/// The official PyTorch implementation's tensors.
fn official(mut tensors: NamedTensors, config: &Config) -> Result<Loaded, ModelError> {
    let path = tensors.path.clone();
    let held = list(tensors.entries.keys().map(String::as_str));
    let specs = WeightSpec::all(config);
    let mut take = |spec: &WeightSpec| match tensors.entries.remove(spec.name) {
        Some(entry) => {
            let tensor = weight(entry, spec.name, &path)?;
            spec.check(&tensor, &path)?;
            Ok(tensor)
        }
        None => Err(ModelError::MissingTensor {
            path: path.clone(),
            tensor: spec.name.to_owned(),
            expected: spec.shape.clone(),
            found: held.clone(),
        }),
    };
    let [encoder, encoder_v, decoder, embed, lm_head] = [
        take(&specs.encoder)?,
        take(&specs.encoder_v)?,
        take(&specs.decoder)?,
        take(&specs.embed)?,
        take(&specs.lm_head)?,
    ];
    let freqs = tensors.entries.remove(FREQS).map(|entry| stored_freqs(entry, config, &path)).transpose()?;

    let mut notes = Vec::new();
    for name in tensors.entries.keys() {
        if !is_known_extra(name) {
            return Err(ModelError::UnknownTensor {
                path: path.clone(),
                tensor: clip(name),
                expected: list(specs.names().into_iter().chain([FREQS])),
            });
        }
        notes.push(format!("{}: tensor {:?} is not used", path.display(), clip(name)));
    }
    // Last, because it alone reads the whole file.
    for (spec, tensor) in specs.each().iter().zip([&encoder, &encoder_v, &decoder, &embed, &lm_head]) {
        check_finite(tensor, spec.name, &path)?;
    }
    let stored_freqs = freqs.is_some();
    let freqs = freqs.unwrap_or_else(|| default_freqs(config.neurons_per_head));
    Ok(Loaded { weights: Weights { embed, encoder, encoder_v, decoder, lm_head, freqs }, stored_freqs, notes })
}

/// Name of the rotary frequencies.
const FREQS: &str = "attn.freqs";

/// Name and shape of one weight.
struct WeightSpec {
    name: &'static str,
    shape: Vec<usize>,
    meaning: &'static str,
}

/// Names and shapes of all weights of a model.
struct WeightSpecs {
    encoder: WeightSpec,
    encoder_v: WeightSpec,
    decoder: WeightSpec,
    embed: WeightSpec,
    lm_head: WeightSpec,
}

impl WeightSpec {
    fn all(config: &Config) -> WeightSpecs {
        let Config { n_embd, n_head, neurons_per_head, vocab_size, .. } = *config;
        let spec = |name, shape: &[usize], meaning| Self { name, shape: shape.to_vec(), meaning };
        let encoder = [n_head, n_embd, neurons_per_head];
        WeightSpecs {
            encoder: spec("encoder", &encoder, "n_head, n_embd, N from config.json"),
            encoder_v: spec("encoder_v", &encoder, "n_head, n_embd, N from config.json"),
            decoder: spec("decoder", &[config.neurons(), n_embd], "n_head·N, n_embd from config.json"),
            embed: spec("embed.weight", &[vocab_size, n_embd], "vocab_size, n_embd from config.json"),
            lm_head: spec("lm_head", &[n_embd, vocab_size], "n_embd, vocab_size from config.json"),
        }
    }

    fn check(&self, tensor: &Tensor, path: &Path) -> Result<(), ModelError> {
        let found = tensor.shape().to_vec();
        if let ("encoder" | "encoder_v", &[_, _, neurons]) = (self.name, &found[..])
            && !neurons.is_multiple_of(2)
        {
            return Err(ModelError::OddNeurons { path: path.to_owned(), tensor: self.name.to_owned(), found, neurons });
        }
        if found != self.shape {
            return Err(ModelError::Shape {
                path: path.to_owned(),
                tensor: self.name.to_owned(),
                found,
                expected: self.shape.clone(),
                meaning: self.meaning,
            });
        }
        Ok(())
    }
}

impl WeightSpecs {
    fn each(&self) -> [&WeightSpec; 5] {
        [&self.encoder, &self.encoder_v, &self.decoder, &self.embed, &self.lm_head]
    }

    fn names(&self) -> [&'static str; 5] {
        self.each().map(|spec| spec.name)
    }
}

/// Checks shapes and values of weights made in memory. `source` is what errors name.
pub(crate) fn check(weights: &Weights, config: &Config, source: &Path) -> Result<(), ModelError> {
    let tensors = [&weights.encoder, &weights.encoder_v, &weights.decoder, &weights.embed, &weights.lm_head];
    for (spec, tensor) in WeightSpec::all(config).each().into_iter().zip(tensors) {
        spec.check(tensor, source)?;
        check_finite(tensor, spec.name, source)?;
    }
    let freqs = Tensor::from_f32(&[weights.freqs.len()], weights.freqs.clone());
    check_freqs(&freqs, config, source)
}

fn stored_freqs(entry: Entry, config: &Config, path: &Path) -> Result<Vec<f32>, ModelError> {
    let tensor = weight(entry, FREQS, path)?;
    check_freqs(&tensor, config, path)?;
    Ok(tensor.to_vec())
}

/// Any number of leading ones may precede N.
fn check_freqs(tensor: &Tensor, config: &Config, path: &Path) -> Result<(), ModelError> {
    let fits = tensor
        .shape()
        .split_last()
        .is_some_and(|(&last, leading)| last == config.neurons_per_head && leading.iter().all(|&size| size == 1));
    if !fits {
        return Err(ModelError::Shape {
            path: path.to_owned(),
            tensor: FREQS.to_owned(),
            found: tensor.shape().to_vec(),
            expected: vec![1, 1, 1, config.neurons_per_head],
            meaning: "1, 1, 1, N from config.json",
        });
    }
    check_finite(tensor, FREQS, path)
}

fn weight(entry: Entry, name: &str, path: &Path) -> Result<Tensor, ModelError> {
    match entry {
        Entry::Tensor(tensor) => Ok(tensor),
        Entry::Other(dtype) => {
            Err(ModelError::UnsupportedDtype { path: path.to_owned(), tensor: name.to_owned(), found: clip(&dtype) })
        }
    }
}

fn check_finite(tensor: &Tensor, name: &str, path: &Path) -> Result<(), ModelError> {
    match tensor.first_non_finite() {
        None => Ok(()),
        Some((place, value)) => Err(ModelError::NonFinite {
            path: path.to_owned(),
            tensor: name.to_owned(),
            index: tensor.index(place),
            value,
        }),
    }
}

/// The format of a file that is known not to be safetensors.
fn foreign_format(bytes: &[u8], path: &Path) -> Option<&'static str> {
    if path.file_name().is_some_and(|name| name == super::SHARD_INDEX) {
        return Some("the index of weights split over several files");
    }
    // A safetensors header starts here, whatever its length happens to look like.
    if bytes.get(8) == Some(&b'{') {
        return None;
    }
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if bytes.starts_with(b"PK\x03\x04") {
        return Some(match extension {
            "npz" => "a NumPy archive (the MLX port's .npz)",
            _ => "a PyTorch checkpoint (a zip written by torch.save)",
        });
    }
    if bytes.starts_with(b"\x80\x02") {
        return Some("a legacy PyTorch checkpoint (a pickle that is not in a zip)");
    }
    if bytes.starts_with(b"GGUF") {
        return Some("a GGUF file");
    }
    None
}

/// Removes the wrappers' prefixes, in whatever order they come.
fn strip_wrappers(tensors: NamedTensors) -> Result<NamedTensors, ModelError> {
    let NamedTensors { path, entries } = tensors;
    let mut stripped = BTreeMap::new();
    for (full, entry) in entries {
        let mut name = full.as_str();
        while let Some(rest) = WRAPPERS.iter().find_map(|prefix| name.strip_prefix(prefix)) {
            name = rest;
        }
        if stripped.insert(name.to_owned(), entry).is_some() {
            return Err(ModelError::DuplicateTensor { path, tensor: clip(name), found: clip(&full) });
        }
    }
    Ok(NamedTensors { path, entries: stripped })
}

/// The layout and, unless it is the official one, the name that gave it away.
fn detect(tensors: &NamedTensors) -> (Layout, String) {
    for name in tensors.entries.keys() {
        let layout = match name.strip_suffix(".weight").unwrap_or(name) {
            "embed_weight" | "attn_freqs" => Layout::Mlx,
            "wte" | "decoder_x" | "decoder_y" | "readout" => Layout::Paper,
            other if other.starts_with("backbone.") => Layout::HuggingFace,
            _ => continue,
        };
        return (layout, name.clone());
    }
    (Layout::Official, String::new())
}

/// `encoders.{l}`, `encoder.{l}` or `layers.{l}`, alone or as part of a longer name.
fn is_per_layer(name: &str) -> bool {
    let parts: Vec<&str> = name.split('.').collect();
    parts.windows(2).any(|pair| matches!(pair[0], "encoders" | "encoder" | "layers") && is_number(pair[1]))
}

/// Tensors that some versions of the official code save and none uses.
fn is_known_extra(name: &str) -> bool {
    let per_layer_freqs = || name.strip_prefix("attns.")?.strip_suffix(".freqs");
    name == "lm_gate" || per_layer_freqs().is_some_and(is_number)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The first few names for a message.
fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const MOST: usize = 8;
    let names: Vec<&str> = names.collect();
    let shown: Vec<String> = names.iter().take(MOST).map(|name| format!("{:?}", clip(name))).collect();
    match names.len() {
        0 => "no tensors".to_owned(),
        count if count > MOST => format!("{} and {} more", shown.join(", "), count - MOST),
        _ => shown.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_layers_from_known_extras() {
        for name in ["encoders.0", "encoder.11", "layers.3.encoder", "model.layers.0.mlp.weight"] {
            assert!(is_per_layer(name), "{name}");
        }
        for name in ["encoder", "encoder_v", "attns.0.freqs", "encoder.weight", "layers", "encoder."] {
            assert!(!is_per_layer(name), "{name}");
        }
        assert!(is_known_extra("lm_gate") && is_known_extra("attns.12.freqs"));
        assert!(!is_known_extra("attns..freqs") && !is_known_extra("attns.x.freqs"));
    }
}
