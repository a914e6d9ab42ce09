//! Models: from bytes on disk to typed weights.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `config` | the sizes of a model |
//! | `config_keys` | which keys of a configuration are harmless, and which change the computation |
//! | `tensor` | weights, converted to f32 when read |
//! | `generation_config` | default generation options |
//! | `directory` | which of a directory's files are its weights |
//! | `hub` | models by their name on the Hugging Face Hub |
//! | `weights_file` | formats of weights files |
//! | `safetensors`, `torch`, `npz` | the reader of each |
//! | `shards` | weights split over several files |
//! | `archive`, `pickle` | what torch.save and NumPy wrap their tensors in |
//! | `layout` | names and shapes of the tensors in them |
//! | `tokenizer_files` | the tokenizer that comes with a model |
//! | `tokenizer_parts` | tokenizers in the files of before tokenizer.json |
//! | `characters` | vocabularies of characters in a configuration or a checkpoint |
//! | `save` | writing a model directory |
//! | `merge` | joining two models |
//! | `neuron` | names of neurons |
//! | `edit` | neurons ablated or clamped |
//! | `files` | where files are: on disk, or a set of named sources |
//! | `storage` | the bytes of a file: in memory, or fetched range by range |
//! | `streamed` | tensors from such files in another order |
//! | `json` | JSON files, read key by key |
//! | `embedded` | the model inside the program |
//! | `synthetic` | random models of a chosen density |
//! | `rotary` | phases of the rotary embedding |
//! | `forgetting` | how old tokens fade |

mod archive;
mod characters;
pub mod config;
mod config_keys;
mod directory;
mod edit;
mod eight_bits;
mod embedded;
pub mod error;
pub mod files;
pub mod forgetting;
pub mod generation_config;
pub mod hub;
mod json;
mod layout;
mod merge;
mod neuron;
mod npz;
mod pickle;
pub mod rotary;
mod safetensors;
mod save;
mod shards;
mod storage;
mod streamed;
pub mod synthetic;
pub mod tensor;
mod tokenizer_files;
mod tokenizer_parts;
mod torch;
mod weights_file;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

pub use self::config::Config;
pub use self::edit::{EditError, NeuronEdit};
pub use self::error::ModelError;
pub use self::files::{FileSet, ReadAt};
pub use self::generation_config::GenerationConfig;
pub use self::hub::HubError;
pub use self::layout::Layout;
pub use self::neuron::{NeuronError, NeuronName};
pub use self::rotary::{Frequencies, Rope, RopeError};
pub use self::save::SaveOptions;
pub use self::synthetic::SyntheticSpec;
pub use self::tensor::{Dtype, Tensor};
pub use self::weights_file::Format;
pub use crate::options::EarlyStopping;
pub use crate::tokenizer::Tokenizer;

use self::config::declared_context;
use self::files::{Disk, Files, Kind};
use self::json::JsonFile;
use self::layout::WeightsFile;
use self::storage::Storage;
use self::tokenizer_files::TokenizerFiles;

const CONFIG: &str = "config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const TRAINING_ARGS: &str = "training_args.json";
/// The weights that all layers share. Sizes as in [`Config`]: D `n_embd`, H `n_head`, N
/// `neurons_per_head`, V `vocab_size`.
#[derive(Clone, Debug)]
pub struct Weights {
    /// Token embedding, `[V, D]`.
    pub embed: Tensor,
    /// Residual to neurons, `[H, D, N]`.
    pub encoder: Tensor,
    /// Attention output to neurons, `[H, D, N]`.
    pub encoder_v: Tensor,
    /// Neurons to residual, `[H·N, D]`; row h·N + i.
    pub decoder: Tensor,
    /// Residual to logits, `[D, V]`.
    pub lm_head: Tensor,
    /// Rotary frequencies, `[N]`, in turns per position.
    pub freqs: Vec<f32>,
}

impl Weights {
    /// A copy with tensors of element type f16; see [`Tensor::to_f16`]. Rotary frequencies stay as they are.
    pub fn to_f16(&self) -> Self {
        Self {
            embed: self.embed.to_f16(),
            encoder: self.encoder.to_f16(),
            encoder_v: self.encoder_v.to_f16(),
            decoder: self.decoder.to_f16(),
            lm_head: self.lm_head.to_f16(),
            freqs: self.freqs.clone(),
        }
    }

    /// Why some of them could not be read, if that has happened; see [`Tensor::failure`].
    pub fn failure(&self) -> Option<ModelError> {
        let tensors = [&self.embed, &self.encoder, &self.encoder_v, &self.decoder, &self.lm_head];
        tensors.into_iter().find_map(Tensor::failure)
    }

    /// A copy whose encoders and decoder are 8-bit codes with a scale per neuron, and whose
    /// embedding and head are of element type f16.
    pub fn to_int8(&self) -> Self {
        Self {
            embed: self.embed.to_f16(),
            encoder: self.encoder.to_int8(),
            encoder_v: self.encoder_v.to_int8(),
            decoder: self.decoder.to_int8(),
            lm_head: self.lm_head.to_f16(),
            freqs: self.freqs.clone(),
        }
    }
}

/// A model as loaded: its weights are checked, and still where they were stored.
#[derive(Clone, Debug)]
pub struct Model {
    /// The name of the model's directory, or its name on the Hugging Face Hub without the owner.
    pub name: String,
    /// Sizes and special tokens.
    pub config: Config,
    /// The weights; every one is finite.
    pub weights: Weights,
    /// Default generation options.
    pub generation: GenerationConfig,
    /// training_args.json, if there is one.
    pub training_args: Option<Map<String, Value>>,
    /// What a user may want to know about the loading: one line each.
    pub notes: Vec<String>,
    /// Whether the rotary frequencies were stored with the weights rather than computed.
    pub stored_freqs: bool,
    /// Where the rotary frequencies come from.
    pub frequencies: Frequencies,
    /// The kind of rotary embedding that the weights were trained with. Here, the two neurons of a pair are always
    /// neighbours.
    pub rope: Rope,
    /// How the weights file is written and whose names it uses; `None` for a model made in memory.
    pub source: Option<(Format, Layout)>,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// The files that the tokenizer was read from, if any.
    tokenizer_files: TokenizerFiles,
    /// Activations of edited neurons; see [`Model::edit`].
    edits: BTreeMap<NeuronName, f32>,
}

/// What to put in the place of what a model's files say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Layers. With it, a weights file without any configuration loads: the other sizes are those of its
    /// tensors.
    pub n_layer: Option<usize>,
    /// The kind of rotary embedding that the model was trained with.
    pub rope: Option<Rope>,
    /// A tokenizer.json, or the folder that holds it.
    pub tokenizer: Option<PathBuf>,
}

/// The files of a model, opened.
struct ModelFiles {
    name: String,
    weights_path: PathBuf,
    weights: Storage,
    config: Option<JsonFile>,
    config_path: PathBuf,
    generation: Option<JsonFile>,
    training_args: Option<JsonFile>,
    tokenizer: TokenizerFiles,
    /// What was left out so far.
    notes: Vec<String>,
}

impl Model {
    /// The chat template of tokenizer_config.json, and the texts of the tokens that begin and end a
    /// text, as far as the file names them.
    #[cfg(feature = "server")]
    pub fn chat(&self) -> (Option<String>, Option<String>, Option<String>) {
        self.tokenizer_files.chat()
    }

    /// Loads a model directory, or one weights file with config.json beside it. Files are read once, whole; what
    /// becomes of them afterwards does not matter.
    ///
    /// # Errors
    /// Anything that is missing, unreadable, damaged, of an unknown format, or at odds with the
    /// configuration; see [`ModelError`].
    pub fn from_path(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        Self::from_path_with(path, &LoadOptions::default())
    }

    /// As [`Model::from_path`], with some of what the files say replaced.
    ///
    /// # Errors
    /// As [`Model::from_path`].
    pub fn from_path_with(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Self, ModelError> {
        Self::from_files(&Disk, path.as_ref(), options)
    }

    /// Loads a model from files that are not on disk: a folder, or one weights file with
    /// config.json beside it, by their names in the set. The empty path is the folder of names
    /// without one. [`files`] says which names are looked for.
    ///
    /// Weights of a file that is read by ranges stay there. They are checked once here, and read
    /// again where the model is put on a device, piece by piece.
    ///
    /// # Errors
    /// As [`Model::from_path`]; [`ModelError::Io`] also if a file cannot be read.
    pub fn from_file_set(files: &FileSet, path: impl AsRef<Path>, options: &LoadOptions) -> Result<Self, ModelError> {
        Self::from_files(&files.opened(), path.as_ref(), options)
    }

    /// The model inside the program.
    ///
    /// # Errors
    /// As [`Model::from_path`]; none in a program that was built from sound files.
    #[cfg(feature = "embedded-model")]
    pub fn embedded() -> Result<Self, ModelError> {
        Self::assemble(&Disk, embedded::files()?, &LoadOptions::default())
    }

    /// Makes a model from weights in memory.
    ///
    /// # Errors
    /// Sizes out of range, a tensor whose shape disagrees with the configuration, or a number that is
    /// not finite. The error names the model where others name a file.
    pub fn from_parts(name: impl Into<String>, config: Config, weights: Weights) -> Result<Self, ModelError> {
        let name = name.into();
        let source = Path::new(&name);
        config.check(source, None)?;
        layout::check(&weights, &config, source)?;
        let stored_freqs = weights.freqs != rotary::default_freqs(config.neurons_per_head);
        let frequencies = if stored_freqs { Frequencies::Stored } else { Frequencies::Formula };
        Ok(Self {
            name,
            tokenizer: Tokenizer::bytes(config.vocab_size),
            config,
            weights,
            generation: GenerationConfig::default(),
            training_args: None,
            notes: Vec::new(),
            stored_freqs,
            frequencies,
            rope: Rope::default(),
            source: None,
            tokenizer_files: TokenizerFiles::default(),
            edits: BTreeMap::new(),
        })
    }

    /// Element type of the encoder, the largest weight.
    pub fn weights_dtype(&self) -> Dtype {
        self.weights.encoder.dtype()
    }

    fn from_files(source: &dyn Files, path: &Path, options: &LoadOptions) -> Result<Self, ModelError> {
        let loaded = ModelFiles::open(source, path, options).and_then(|files| Self::assemble(source, files, options));
        // Whatever was found after a failure may have come from zeros in place of weights.
        match source.failure() {
            Some(failure) => Err(failure),
            None => loaded,
        }
    }

    fn assemble(source: &dyn Files, files: ModelFiles, options: &LoadOptions) -> Result<Self, ModelError> {
        let mut notes = files.notes;
        // The prefixes of names say nothing about the computation; the configuration does, and is checked first.
        let mut rope = named_rope(options.rope, files.config.as_ref())?;
        notes.extend(files.config.as_ref().map(|json| config_keys::check(json, rope)).transpose()?.flatten());
        // What the weights are decides how the configuration is to be read.
        let mut weights_file = WeightsFile::open(source, &files.weights, &files.weights_path)?;
        let kind = Some((weights_file.format(), weights_file.layout()));
        let inner = weights_file.take_config();
        if let Some(inner) = &inner {
            rope = named_rope(rope, Some(inner))?;
            notes.extend(config_keys::check(inner, rope)?);
        }
        notes.extend(config_keys::check(&weights_file.take_declared(), rope)?);
        weights_file.check_layers()?;
        if let (Some(inner), Some(outer)) = (&inner, &files.config)
            && let (Some(inside), Some(beside)) = (inner.get(N_LAYER), outer.get(N_LAYER))
            && inside.as_f64() != beside.as_f64()
        {
            notes.push(format!(
                "{}: its own configuration has {N_LAYER} {inside}; {CONFIG} has {beside}, which counts",
                inner.path.display()
            ));
        }
        let mut vocabulary = (weights_file.take_vocabulary(), files.weights_path.clone());
        let mut tokenizer_files = files.tokenizer;
        let mut config = match (files.config.or(inner), options.n_layer) {
            (Some(mut json), n_layer) => {
                if let Some(path) = json.get(TOKENIZER_PATH).and_then(Value::as_str) {
                    let directory = files.config_path.parent().unwrap_or(Path::new(""));
                    tokenizer_files = tokenizer_files.or_at(source, directory, path)?;
                }
                if let Some(n_layer) = n_layer {
                    json.map.insert(N_LAYER.to_owned(), n_layer.into());
                }
                let config = Config::from_json(&json, weights_file.ties_embeddings())?;
                if vocabulary.0.is_empty() {
                    vocabulary = (json.map, json.path);
                }
                config
            }
            (None, Some(n_layer)) => {
                let config = weights_file.config_by_shapes(n_layer);
                let config = config.ok_or_else(|| ModelError::NoConfig { path: files.config_path.clone() })?;
                config.check(&files.weights_path, None)?;
                config
            }
            (None, None) => return Err(ModelError::NoConfig { path: files.config_path }),
        };
        let generation = match &files.generation {
            Some(json) => {
                let (generation, found) = GenerationConfig::from_json(json);
                notes.extend(found);
                generation
            }
            None => GenerationConfig::default(),
        };
        if let Some(json) = &files.training_args
            && config.trained_context.is_none()
        {
            match declared_context(json) {
                Ok(context) => config.trained_context = context,
                Err(error) => notes.push(format!("{error}; it is not used")),
            }
        }
        let tokenizer = tokenizer_files.load(config.vocab_size, || {
            let (map, path) = &vocabulary;
            characters::tokenizer(map, path, config.vocab_size)
        })?;
        config.bos_token_id = generation.bos_token_id.or(config.bos_token_id).or(tokenizer.bos_token_id);
        if let Some(ids) = &generation.options.eos_token_id {
            config.eos_token_ids.clone_from(ids);
        } else if config.eos_token_ids.is_empty() {
            config.eos_token_ids.extend(tokenizer.eos_token_id);
        }
        notes.extend(drop_ids_outside_vocabulary(&mut config));
        let loaded = weights_file.weights(&config, rope)?;
        notes.extend(loaded.notes);
        Ok(Self {
            name: files.name,
            config,
            weights: loaded.weights,
            generation,
            training_args: files.training_args.map(|json| json.map),
            notes,
            stored_freqs: loaded.frequencies == Frequencies::Stored,
            frequencies: loaded.frequencies,
            rope: rope.unwrap_or_default(),
            source: kind,
            tokenizer: tokenizer.tokenizer,
            tokenizer_files,
            edits: BTreeMap::new(),
        })
    }
}

/// The kind of rotary embedding that was given, else the configuration's.
fn named_rope(given: Option<Rope>, config: Option<&JsonFile>) -> Result<Option<Rope>, ModelError> {
    let key = "rope";
    let named = |json: &JsonFile| {
        json.value(key, || rotary::RopeError::EXPECTED.to_owned(), |value| value.as_str()?.parse().ok())
    };
    match given {
        Some(rope) => Ok(Some(rope)),
        None => Ok(config.map(named).transpose()?.flatten()),
    }
}

/// The configuration's key that says where the tokenizer is.
const TOKENIZER_PATH: &str = "tokenizer_path";

/// The one size that no tensor tells.
const N_LAYER: &str = "n_layer";

impl ModelFiles {
    fn open(files: &dyn Files, path: &Path, options: &LoadOptions) -> Result<Self, ModelError> {
        let kind = files.kind(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => ModelError::NotFound { path: path.to_owned() },
            _ => ModelError::Io { path: path.to_owned(), source },
        })?;
        let (directory, weights_path) = match kind {
            Kind::Folder => (path, directory::weights(files, path)?),
            Kind::File | Kind::Other => (path.parent().unwrap_or(Path::new("")), path.to_owned()),
        };
        let config_path = directory.join(CONFIG);
        let mut notes = Vec::new();
        // It is only shown.
        let training_args = JsonFile::read(files, directory.join(TRAINING_ARGS)).unwrap_or_else(|error| {
            notes.push(format!("{error}; it is not used"));
            None
        });
        Ok(Self {
            name: directory_name(files, directory),
            weights: files.open(&weights_path)?,
            weights_path,
            config: JsonFile::read(files, config_path.clone())?,
            config_path,
            generation: JsonFile::read(files, directory.join(GENERATION_CONFIG))?,
            training_args,
            tokenizer: TokenizerFiles::open(files, directory, options.tokenizer.as_deref())?,
            notes,
        })
    }
}

/// The last part of a directory's path, also where it is written as `.`, `..` or nothing.
fn directory_name(files: &dyn Files, directory: &Path) -> String {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    name(directory)
        .or_else(|| {
            let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
            name(&files.absolute(directory)?)
        })
        .unwrap_or_else(|| "model".to_owned())
}

/// Special tokens that the model cannot produce do no harm, but are worth a note.
fn drop_ids_outside_vocabulary(config: &mut Config) -> Vec<String> {
    let mut notes = Vec::new();
    let vocab_size = config.vocab_size;
    let mut keep = |key: &str, id: u32| {
        let known = (id as usize) < vocab_size;
        if !known {
            notes.push(format!("{key} {id} is ignored: it is not below vocab_size {vocab_size}"));
        }
        known
    };
    config.bos_token_id = config.bos_token_id.filter(|&id| keep("bos_token_id", id));
    config.eos_token_ids.retain(|&id| keep("eos_token_id", id));
    notes
}
