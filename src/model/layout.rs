//! Formats of weights files and the names tensors have in them.
//!
//! A layout is how one code base names and shapes BDH's weights. [`detect`] tells which one a file has;
//! each layout that is read has one function that turns its tensors into [`Weights`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::Weights;
use super::config::Config;
use super::config::TIED;
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
    layout: Layout,
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
            (layout @ (Layout::Official | Layout::HuggingFace), _) => Ok(Self { tensors, layout }),
            (layout, sign) => unsupported(format!("tensor {:?} belongs to {layout}", clip(&sign))),
        }
    }

    /// Whether the embedding is also the output, unless the configuration says otherwise.
    pub(crate) fn ties_embeddings(&self) -> bool {
        self.layout == Layout::HuggingFace
    }

    /// Checks every tensor against the configuration and takes the weights.
    pub(crate) fn weights(self, config: &Config) -> Result<Loaded, ModelError> {
        match self.layout {
            Layout::HuggingFace => hugging_face(self.tensors, config),
            // `open` lets no other layout through.
            _ => official(self.tensors, config),
        }
    }
}

/// The official PyTorch implementation's tensors.
fn official(tensors: NamedTensors, config: &Config) -> Result<Loaded, ModelError> {
    let specs = WeightSpecs::official(config);
    let mut file = Source::new(tensors);
    let stored = file.take_body(&specs)?;
    let lm_head = file.take(&specs.lm_head)?;
    let freqs = file.take_freqs(&specs, config)?;
    let notes = file.take_extras(&specs, "")?;
    file.check_finite(&specs, &stored, Some(&lm_head))?;
    Ok(stored.with(lm_head, freqs, notes, config))
}

/// The Hugging Face port's tensors: a prefix before every name but the output's, which is transposed
/// and, where it is tied to the embedding, not stored.
fn hugging_face(tensors: NamedTensors, config: &Config) -> Result<Loaded, ModelError> {
    let specs = WeightSpecs::hugging_face(config);
    let tied = config.tied_embeddings;
    let mut file = Source::new(tensors);
    let stored = file.take_body(&specs)?;
    let stored_head = if tied { file.take_optional(&specs.lm_head)? } else { Some(file.take_untied(&specs.lm_head)?) };
    let freqs = file.take_freqs(&specs, config)?;
    let mut notes = file.take_extras(&specs, HUGGING_FACE_PREFIX)?;
    file.check_finite(&specs, &stored, stored_head.as_ref())?;
    if tied && let Some(head) = &stored_head {
        check_equal((head, specs.lm_head.name), (&stored.embed, specs.embed.name), &file.path)?;
        notes.push(format!(
            "{}: tensor {:?} is not used: it is tied to {:?}, which equals it",
            file.path.display(),
            specs.lm_head.name,
            specs.embed.name
        ));
    }
    let lm_head = transposed(stored_head.as_ref().unwrap_or(&stored.embed));
    Ok(stored.with(lm_head, freqs, notes, config))
}

/// What comes before the names of the Hugging Face port's tensors.
const HUGGING_FACE_PREFIX: &str = "backbone.";

/// Refuses two tensors of one shape that should be the same and are not.
fn check_equal(
    (tensor, name): (&Tensor, &str),
    (other, other_name): (&Tensor, &str),
    path: &Path,
) -> Result<(), ModelError> {
    let (values, others) = (tensor.to_vec(), other.to_vec());
    match values.iter().zip(&others).position(|(value, other)| value != other) {
        None => Ok(()),
        Some(place) => Err(ModelError::Malformed {
            path: path.to_owned(),
            found: format!(
                "tensor {name:?} holds {} at index {:?} where {other_name:?} holds {}",
                values[place],
                tensor.index(place),
                others[place]
            ),
            expected: format!("them equal, or \"{}\": false in {}", TIED, super::CONFIG),
        }),
    }
}

/// The transpose of a matrix, in f32.
fn transposed(matrix: &Tensor) -> Tensor {
    // Rows at a time, so that every store is of several neighbours.
    const ROWS: usize = 16;
    let &[rows, columns] = matrix.shape() else { unreachable!("checked against a shape of rank 2") };
    let mut values = vec![0.0; matrix.len()];
    let mut block = vec![0.0; ROWS.min(rows) * columns];
    for start in (0..rows).step_by(ROWS) {
        let count = ROWS.min(rows - start);
        let block = &mut block[..count * columns];
        matrix.read(start * columns, block);
        for column in 0..columns {
            let to = &mut values[column * rows + start..][..count];
            for (row, to) in to.iter_mut().enumerate() {
                *to = block[row * columns + column];
            }
        }
    }
    Tensor::from_f32(&[columns, rows], values)
}

/// A file's tensors while they are being taken out of it.
struct Source {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
    /// The names the file holds, for messages.
    held: String,
}

/// The weights that every layout stores alike.
struct Body {
    encoder: Tensor,
    encoder_v: Tensor,
    decoder: Tensor,
    embed: Tensor,
}

impl Source {
    fn new(tensors: NamedTensors) -> Self {
        let held = list(tensors.entries.keys().map(String::as_str));
        Self { path: tensors.path, entries: tensors.entries, held }
    }

    fn take_body(&mut self, specs: &WeightSpecs) -> Result<Body, ModelError> {
        Ok(Body {
            encoder: self.take(&specs.encoder)?,
            encoder_v: self.take(&specs.encoder_v)?,
            decoder: self.take(&specs.decoder)?,
            embed: self.take(&specs.embed)?,
        })
    }

    fn take(&mut self, spec: &WeightSpec) -> Result<Tensor, ModelError> {
        let taken = self.take_optional(spec)?;
        taken.ok_or_else(|| self.missing(spec, ""))
    }

    /// Takes an output that the configuration does not tie to the embedding.
    fn take_untied(&mut self, spec: &WeightSpec) -> Result<Tensor, ModelError> {
        let taken = self.take_optional(spec)?;
        taken.ok_or_else(|| self.missing(spec, &format!(", and {} says \"{TIED}\": false", super::CONFIG)))
    }

    fn take_optional(&mut self, spec: &WeightSpec) -> Result<Option<Tensor>, ModelError> {
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

    fn take_freqs(&mut self, specs: &WeightSpecs, config: &Config) -> Result<Option<Vec<f32>>, ModelError> {
        let Some(entry) = self.entries.remove(specs.freqs) else { return Ok(None) };
        let tensor = weight(entry, specs.freqs, &self.path)?;
        check_freqs(&tensor, specs.freqs, config, &self.path)?;
        Ok(Some(tensor.to_vec()))
    }

    /// A note for each of the tensors that are left; refuses those that are not known to be unused.
    fn take_extras(&mut self, specs: &WeightSpecs, prefix: &str) -> Result<Vec<String>, ModelError> {
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
    fn check_finite(&self, specs: &WeightSpecs, body: &Body, lm_head: Option<&Tensor>) -> Result<(), ModelError> {
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
    /// Puts a file's parts together; frequencies that it does not hold are those of the formula.
    fn with(self, lm_head: Tensor, freqs: Option<Vec<f32>>, notes: Vec<String>, config: &Config) -> Loaded {
        let Self { encoder, encoder_v, decoder, embed } = self;
        let stored_freqs = freqs.is_some();
        let freqs = freqs.unwrap_or_else(|| default_freqs(config.neurons_per_head));
        Loaded { weights: Weights { embed, encoder, encoder_v, decoder, lm_head, freqs }, stored_freqs, notes }
    }
}

/// Name and shape of one weight.
struct WeightSpec {
    name: &'static str,
    shape: Vec<usize>,
    meaning: &'static str,
}

/// Names and shapes of all weights of a model in one layout.
struct WeightSpecs {
    encoder: WeightSpec,
    encoder_v: WeightSpec,
    decoder: WeightSpec,
    embed: WeightSpec,
    lm_head: WeightSpec,
    /// Name of the rotary frequencies.
    freqs: &'static str,
}

impl WeightSpec {
    fn new(name: &'static str, shape: &[usize], meaning: &'static str) -> Self {
        Self { name, shape: shape.to_vec(), meaning }
    }

    fn check(&self, tensor: &Tensor, path: &Path) -> Result<(), ModelError> {
        let found = tensor.shape().to_vec();
        // Of the weights only the encoders have rank 3.
        if let (3, &[_, _, neurons]) = (self.shape.len(), &found[..])
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
    fn official(config: &Config) -> Self {
        let Config { n_embd, n_head, neurons_per_head, vocab_size, .. } = *config;
        let spec = WeightSpec::new;
        let encoder = [n_head, n_embd, neurons_per_head];
        Self {
            encoder: spec("encoder", &encoder, "n_head, n_embd, N from config.json"),
            encoder_v: spec("encoder_v", &encoder, "n_head, n_embd, N from config.json"),
            decoder: spec("decoder", &[config.neurons(), n_embd], "n_head·N, n_embd from config.json"),
            embed: spec("embed.weight", &[vocab_size, n_embd], "vocab_size, n_embd from config.json"),
            lm_head: spec("lm_head", &[n_embd, vocab_size], "n_embd, vocab_size from config.json"),
            freqs: "attn.freqs",
        }
    }

    fn hugging_face(config: &Config) -> Self {
        let Config { n_embd, n_head, neurons_per_head, vocab_size, .. } = *config;
        let spec = WeightSpec::new;
        let encoder = [n_head, n_embd, neurons_per_head];
        let of_encoder = "num_attention_heads, hidden_size, N from config.json";
        let of_decoder = "num_attention_heads·N, hidden_size from config.json";
        let by_token = "vocab_size, hidden_size from config.json";
        Self {
            encoder: spec("backbone.encoder", &encoder, of_encoder),
            encoder_v: spec("backbone.encoder_v", &encoder, of_encoder),
            decoder: spec("backbone.decoder", &[config.neurons(), n_embd], of_decoder),
            embed: spec("backbone.embed.weight", &[vocab_size, n_embd], by_token),
            lm_head: spec("lm_head.weight", &[vocab_size, n_embd], by_token),
            freqs: "backbone.attn.freqs",
        }
    }

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
    let specs = WeightSpecs::official(config);
    for (spec, tensor) in specs.each().into_iter().zip(tensors) {
        spec.check(tensor, source)?;
        check_finite(tensor, spec.name, source)?;
    }
    let freqs = Tensor::from_f32(&[weights.freqs.len()], weights.freqs.clone());
    check_freqs(&freqs, specs.freqs, config, source)
}

/// Any number of leading ones may precede N.
fn check_freqs(tensor: &Tensor, name: &str, config: &Config, path: &Path) -> Result<(), ModelError> {
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
            meaning: "1, 1, 1, N from config.json",
        });
    }
    check_finite(tensor, name, path)
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
            other if other.starts_with(HUGGING_FACE_PREFIX) => Layout::HuggingFace,
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
