//! Layouts: how one code base or another names and shapes BDH's weights.
//!
//! [`detect`] tells which one a file has by a name that only that layout knows. What differs between them
//! is in their [`WeightSpecs`], but for the output, which the Hugging Face port stores in its own way.

mod source;
mod specs;

use std::fmt;
use std::path::Path;

use serde_json::{Map, Value};

use self::source::{Source, check_finite, check_freqs};
use self::specs::WeightSpecs;
use super::config::{Config, TIED};
use super::error::{ModelError, clip};
use super::files::Files;
use super::json::JsonFile;
use super::rotary::{Frequencies, Rope};
use super::storage::Storage;
use super::tensor::Tensor;
use super::weights_file::{self, BACKBONE, Entry, Format, NamedTensors};
use super::{CONFIG, Weights};

/// Whose names the tensors of a weights file have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The official PyTorch implementation's.
    Official,
    /// The Hugging Face port's.
    HuggingFace,
    /// The MLX port's.
    Mlx,
    /// Those of the code in the paper's appendix.
    Paper,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Official => "official names",
            Self::HuggingFace => "the Hugging Face port's names",
            Self::Mlx => "the MLX port's names",
            Self::Paper => "the paper's names",
        })
    }
}

/// What a weights file holds.
pub(super) struct Loaded {
    pub(super) weights: Weights,
    /// Where the rotary frequencies come from.
    pub(super) frequencies: Frequencies,
    /// What was left out of it.
    pub(super) notes: Vec<String>,
}

/// The tensors of a weights file under their bare names, their layout recognised.
pub(super) struct WeightsFile {
    tensors: NamedTensors,
    layout: Layout,
}

impl WeightsFile {
    /// Recognises format and layout.
    pub(super) fn open(files: &dyn Files, storage: &Storage, path: &Path) -> Result<Self, ModelError> {
        let mut tensors = weights_file::read(files, storage, path)?;
        let layout = detect(&tensors);
        if layout == Layout::Paper && !tensors.entries.contains_key(WTE_OF_MODULE) {
            // A bare parameter in place of an embedding module.
            let embed = tensors.entries.remove(WTE);
            tensors.entries.extend(embed.map(|entry| (WTE_OF_MODULE.to_owned(), entry)));
        }
        Ok(Self { tensors, layout })
    }

    /// Refuses a model with weights for each layer.
    pub(super) fn check_layers(&self) -> Result<(), ModelError> {
        match self.tensors.entries.keys().find(|name| is_per_layer(name)) {
            Some(tensor) => Err(ModelError::WeightsPerLayer { path: self.tensors.path.clone(), tensor: clip(tensor) }),
            None => Ok(()),
        }
    }

    pub(super) fn format(&self) -> Format {
        self.tensors.format
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// The configuration that the file carries, if it does.
    pub(super) fn take_config(&mut self) -> Option<JsonFile> {
        self.tensors.config.take()
    }

    /// What the file says about the computation outside of that.
    pub(super) fn take_declared(&mut self) -> JsonFile {
        JsonFile { path: self.tensors.path.clone(), map: std::mem::take(&mut self.tensors.declared) }
    }

    /// The characters that the file describes, if it does.
    pub(super) fn take_vocabulary(&mut self) -> Map<String, Value> {
        std::mem::take(&mut self.tensors.vocabulary)
    }

    /// Whether the embedding is also the output, unless the configuration says otherwise.
    pub(super) fn ties_embeddings(&self) -> bool {
        self.layout == Layout::HuggingFace
    }

    /// The configuration by the tensors' shapes, which tell all but the number of layers. `None` where
    /// tensors are missing or of another rank.
    pub(super) fn config_by_shapes(&self, n_layer: usize) -> Option<Config> {
        let shape = |name: &str| match self.tensors.entries.get(name)? {
            Entry::Tensor(tensor) => Some(tensor.shape()),
            Entry::Other(_) | Entry::Scalar => None,
        };
        // Only the names count here.
        let specs = WeightSpecs::new(self.layout, &Config::unset());
        let &[n_head, n_embd, neurons_per_head] = shape(specs.encoder.name)? else { return None };
        let &[vocab_size, _] = shape(specs.embed.name)? else { return None };
        let tied_embeddings = self.ties_embeddings() && !self.tensors.entries.contains_key(specs.lm_head.name);
        Some(Config { n_layer, n_embd, n_head, neurons_per_head, vocab_size, tied_embeddings, ..Config::unset() })
    }

    /// Checks every tensor against the configuration and takes the weights. `rope` is the kind of rotary embedding,
    /// where the user or the configuration names one.
    pub(super) fn weights(self, config: &Config, rope: Option<Rope>) -> Result<Loaded, ModelError> {
        let specs = WeightSpecs::new(self.layout, config);
        let mut earlier = self.tensors.notes.clone();
        let loaded = match self.layout {
            Layout::HuggingFace => hugging_face(self.tensors, &specs, config, rope),
            Layout::Official | Layout::Mlx => plain(self.tensors, &specs, config, rope, true),
            Layout::Paper => plain(self.tensors, &specs, config, rope, false),
        }?;
        earlier.extend(loaded.notes);
        if self.layout == Layout::Paper {
            earlier.push(PAPER_NOTE.to_owned());
        }
        Ok(Loaded { notes: earlier, ..loaded })
    }
}

const PAPER_NOTE: &str = "the paper's names: taken for a model with a norm after every layer; models of these names \
    without one give other results than here";

/// Tensors shaped as the official implementation's, whatever their names.
fn plain(
    tensors: NamedTensors,
    specs: &WeightSpecs,
    config: &Config,
    rope: Option<Rope>,
    known: bool,
) -> Result<Loaded, ModelError> {
    let mut file = Source::new(tensors);
    let stored = file.take_body(specs)?;
    let lm_head = file.take(&specs.lm_head)?;
    let (freqs, frequencies) = file.take_freqs(specs, config, rope, known)?;
    let notes = file.take_extras(specs, "")?;
    file.check_finite(specs, &stored, Some(&lm_head))?;
    let weights = stored.with(lm_head, freqs, config, rope.unwrap_or_default());
    Ok(Loaded { weights, frequencies, notes })
}

/// The Hugging Face port's tensors: a prefix before every name but the output's, which is transposed
/// and, where it is tied to the embedding, not stored.
fn hugging_face(
    tensors: NamedTensors,
    specs: &WeightSpecs,
    config: &Config,
    rope: Option<Rope>,
) -> Result<Loaded, ModelError> {
    let tied = config.tied_embeddings;
    let mut file = Source::new(tensors);
    let stored = file.take_body(specs)?;
    let stored_head = if tied { file.take_optional(&specs.lm_head)? } else { Some(file.take_untied(&specs.lm_head)?) };
    let (freqs, frequencies) = file.take_freqs(specs, config, rope, true)?;
    let mut notes = file.take_extras(specs, BACKBONE)?;
    file.check_finite(specs, &stored, stored_head.as_ref())?;
    if tied && let Some(head) = &stored_head {
        check_equal((head, specs.lm_head.name), (&stored.embed, specs.embed.name), &file.path)?;
        notes.push(format!(
            "{}: tensor {:?} is not used: it is tied to {:?}, which equals it",
            file.path.display(),
            specs.lm_head.name,
            specs.embed.name
        ));
    }
    let lm_head = stored_head.as_ref().unwrap_or(&stored.embed).transposed();
    let weights = stored.with(lm_head, freqs, config, rope.unwrap_or_default());
    Ok(Loaded { weights, frequencies, notes })
}

/// Refuses two tensors of one shape that should be the same and are not.
fn check_equal(
    (tensor, name): (&Tensor, &str),
    (other, other_name): (&Tensor, &str),
    path: &Path,
) -> Result<(), ModelError> {
    const BLOCK: usize = 1024;
    let (mut values, mut others) = ([0.0; BLOCK], [0.0; BLOCK]);
    for start in (0..tensor.len()).step_by(BLOCK) {
        let count = BLOCK.min(tensor.len() - start);
        tensor.read(start, &mut values[..count]);
        other.read(start, &mut others[..count]);
        if let Some(place) = (0..count).find(|&place| values[place] != others[place]) {
            return Err(ModelError::Malformed {
                path: path.to_owned(),
                found: format!(
                    "tensor {name:?} holds {} at index {:?} where {other_name:?} holds {}",
                    values[place],
                    tensor.index(start + place),
                    others[place]
                ),
                expected: format!("them equal, or \"{TIED}\": false in {CONFIG}"),
            });
        }
    }
    Ok(())
}

/// Checks shapes and values of weights made in memory. `source` is what errors name.
pub(super) fn check(weights: &Weights, config: &Config, source: &Path) -> Result<(), ModelError> {
    let tensors = [&weights.encoder, &weights.encoder_v, &weights.decoder, &weights.embed, &weights.lm_head];
    let specs = WeightSpecs::new(Layout::Official, config);
    for (spec, tensor) in specs.each().into_iter().zip(tensors) {
        spec.check(tensor, source)?;
        check_finite(tensor, spec.name, source)?;
    }
    let freqs = Tensor::from_f32(&[weights.freqs.len()], weights.freqs.clone());
    check_freqs(&freqs, specs.freqs, config, source)
}

const WTE: &str = "wte";
const WTE_OF_MODULE: &str = "wte.weight";

/// The layout, by the first name that gives it away.
fn detect(tensors: &NamedTensors) -> Layout {
    let layout = |name: &String| match name.as_str() {
        "embed_weight" | "attn_freqs" => Some(Layout::Mlx),
        WTE | WTE_OF_MODULE | "decoder_x" | "decoder_y" | "readout" => Some(Layout::Paper),
        other if other.starts_with(BACKBONE) => Some(Layout::HuggingFace),
        _ => None,
    };
    tensors.entries.keys().find_map(layout).unwrap_or(Layout::Official)
}

/// `encoders.{l}`, `encoder.{l}` or `layers.{l}`, alone or as part of a longer name.
fn is_per_layer(name: &str) -> bool {
    let parts: Vec<&str> = name.split('.').collect();
    parts.windows(2).any(|pair| matches!(pair[0], "encoders" | "encoder" | "layers") && is_number(pair[1]))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_layers_from_shared_weights() {
        for name in ["encoders.0", "encoder.11", "layers.3.encoder", "model.layers.0.mlp.weight"] {
            assert!(is_per_layer(name), "{name}");
        }
        for name in ["encoder", "encoder_v", "attns.0.freqs", "encoder.weight", "layers", "encoder."] {
            assert!(!is_per_layer(name), "{name}");
        }
    }
}
