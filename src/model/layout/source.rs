//! Taking weights out of a file, each checked against its specification.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::is_number;
use super::specs::{WeightSpec, WeightSpecs};
use crate::model::config::{Config, TIED};
use crate::model::error::{ModelError, clip};
use crate::model::rotary::{Frequencies, Rope};
use crate::model::tensor::Tensor;
use crate::model::weights_file::{Entry, NamedTensors};
use crate::model::{CONFIG, Weights};

/// A file's tensors while they are being taken out of it.
pub(super) struct Source {
    pub(super) path: PathBuf,
    entries: BTreeMap<String, Entry>,
    /// The names the file holds, for messages.
    held: String,
}

/// The weights that every layout stores alike.
pub(super) struct Body {
    pub(super) encoder: Tensor,
    pub(super) encoder_v: Tensor,
    pub(super) decoder: Tensor,
    pub(super) embed: Tensor,
}

impl Source {
    pub(super) fn new(tensors: NamedTensors) -> Self {
        let held = list(tensors.entries.keys().map(String::as_str));
        Self { path: tensors.path, entries: tensors.entries, held }
    }

    pub(super) fn take_body(&mut self, specs: &WeightSpecs) -> Result<Body, ModelError> {
        Ok(Body {
            encoder: self.take(&specs.encoder)?,
            encoder_v: self.take(&specs.encoder_v)?,
            decoder: self.take(&specs.decoder)?,
            embed: self.take(&specs.embed)?,
        })
    }

    pub(super) fn take(&mut self, spec: &WeightSpec) -> Result<Tensor, ModelError> {
        let taken = self.take_optional(spec)?;
        taken.ok_or_else(|| self.missing(spec, ""))
    }

    /// Takes an output that the configuration does not tie to the embedding.
    pub(super) fn take_untied(&mut self, spec: &WeightSpec) -> Result<Tensor, ModelError> {
        let taken = self.take_optional(spec)?;
        taken.ok_or_else(|| self.missing(spec, &format!(", and {} says \"{TIED}\": false", CONFIG)))
    }

    pub(super) fn take_optional(&mut self, spec: &WeightSpec) -> Result<Option<Tensor>, ModelError> {
        let Some(entry) = self.entries.remove(spec.name) else { return Ok(None) };
        let tensor = weight(entry, spec.name, &self.path)?;
        spec.check(&tensor, &self.path)?;
        Ok(Some(tensor))
    }

    fn missing(&self, spec: &WeightSpec, why: &str) -> ModelError {
        ModelError::MissingTensor {
            path: self.path.clone(),
            tensor: spec.name.to_owned(),
            expected: spec.shape.clone(),
            found: format!("{}{why}", self.held),
        }
    }

    /// Rotary frequencies once the members of a pair are neighbours, and where they come from. `given` is the kind that
    /// the user or the configuration names; `known` says that the layout has the official kind otherwise.
    pub(super) fn take_freqs(
        &mut self,
        specs: &WeightSpecs,
        config: &Config,
        given: Option<Rope>,
        known: bool,
    ) -> Result<(Vec<f32>, Frequencies), ModelError> {
        let rope = given.unwrap_or_default();
        let formula = rope.freqs(config.neurons_per_head);
        let Some(entry) = self.entries.remove(specs.freqs) else {
            if given.is_none() && !known {
                return Err(ModelError::UnknownRope { path: self.path.clone() });
            }
            return Ok((formula, Frequencies::Formula));
        };
        let mut tensor = weight(entry, specs.freqs, &self.path)?;
        check_freqs(&tensor, specs.freqs, config, &self.path)?;
        if rope.is_half_split() {
            tensor = tensor.interleaved(1, config.neurons_per_head, 1);
        }
        let stored = tensor.to_vec();
        let frequencies = Frequencies::of(&stored, tensor.dtype(), &formula);
        if frequencies != Frequencies::Stored {
            return Ok((formula, frequencies));
        }
        let differs = |(stored, formula): (&f32, &f32)| (stored - formula).abs() > 1e-5 * formula.abs();
        if given.is_some() && stored.iter().zip(&formula).any(differs) {
            let tensor = specs.freqs.to_owned();
            return Err(ModelError::OtherFrequencies { path: self.path.clone(), tensor, rope });
        }
        let (first, second) = stored.split_at(stored.len() / 2);
        if first == second && stored.chunks(2).any(|pair| pair[0] != pair[pair.len() - 1]) {
            return Err(ModelError::RepeatedFrequencies { path: self.path.clone(), tensor: specs.freqs });
        }
        Ok((stored, frequencies))
    }

    /// A note for each of the tensors that are left; refuses those that are not known to be unused.
    pub(super) fn take_extras(&mut self, specs: &WeightSpecs, prefix: &str) -> Result<Vec<String>, ModelError> {
        let path = &self.path;
        let note = |name: String| {
            if !name.strip_prefix(prefix).is_some_and(is_known_extra) {
                return Err(ModelError::UnknownTensor {
                    path: path.clone(),
                    tensor: clip(&name),
                    expected: list(specs.names().into_iter().chain([specs.freqs])),
                });
            }
            Ok(format!("{}: tensor {:?} is not used", path.display(), clip(&name)))
        };
        std::mem::take(&mut self.entries).into_keys().map(note).collect()
    }

    /// Checks the values of what was taken; last, because it alone reads the whole file.
    pub(super) fn check_finite(
        &self,
        specs: &WeightSpecs,
        body: &Body,
        lm_head: Option<&Tensor>,
    ) -> Result<(), ModelError> {
        let Body { encoder, encoder_v, decoder, embed } = body;
        let tensors = [Some(encoder), Some(encoder_v), Some(decoder), Some(embed), lm_head];
        for (spec, tensor) in specs.each().into_iter().zip(tensors) {
            if let Some(tensor) = tensor {
                check_finite(tensor, spec.name, &self.path)?;
            }
        }
        Ok(())
    }
}

impl Body {
    /// Puts a file's parts together. Where the two neurons of a pair are half a head apart, all that neurons have an
    /// order in is put in that of neighbours.
    pub(super) fn with(self, lm_head: Tensor, freqs: Vec<f32>, config: &Config, rope: Rope) -> Weights {
        let Self { mut encoder, mut encoder_v, mut decoder, embed } = self;
        if rope.is_half_split() {
            let Config { n_embd, n_head, neurons_per_head, .. } = *config;
            encoder = encoder.interleaved(n_head * n_embd, neurons_per_head, 1);
            encoder_v = encoder_v.interleaved(n_head * n_embd, neurons_per_head, 1);
            decoder = decoder.interleaved(n_head, neurons_per_head, n_embd);
        }
        Weights { embed, encoder, encoder_v, decoder, lm_head, freqs }
    }
}

/// Any number of leading ones may precede N.
pub(super) fn check_freqs(tensor: &Tensor, name: &str, config: &Config, path: &Path) -> Result<(), ModelError> {
    let fits = tensor
        .shape()
        .split_last()
        .is_some_and(|(&last, leading)| last == config.neurons_per_head && leading.iter().all(|&size| size == 1));
    if !fits {
        return Err(ModelError::Shape {
            path: path.to_owned(),
            tensor: name.to_owned(),
            found: tensor.shape().to_vec(),
            expected: vec![1, 1, 1, config.neurons_per_head],
            meaning: "1, 1, 1, N from the configuration",
        });
    }
    check_finite(tensor, name, path)
}

fn weight(entry: Entry, name: &str, path: &Path) -> Result<Tensor, ModelError> {
    match entry {
        Entry::Tensor(tensor) => Ok(tensor),
        Entry::Scalar => unreachable!("single numbers were left out"),
        Entry::Other(dtype) => {
            Err(ModelError::UnsupportedDtype { path: path.to_owned(), tensor: name.to_owned(), found: clip(&dtype) })
        }
    }
}

pub(super) fn check_finite(tensor: &Tensor, name: &str, path: &Path) -> Result<(), ModelError> {
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

/// Tensors that some versions of the official code save and none uses.
fn is_known_extra(name: &str) -> bool {
    let per_layer_freqs = || name.strip_prefix("attns.")?.strip_suffix(".freqs");
    name == "lm_gate" || per_layer_freqs().is_some_and(is_number)
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
    fn knows_the_extras() {
        assert!(is_known_extra("lm_gate") && is_known_extra("attns.12.freqs"));
        assert!(!is_known_extra("attns..freqs") && !is_known_extra("attns.x.freqs"));
    }
}
