//! What can go wrong between a path and a model.

use std::io;
use std::path::PathBuf;

use super::hub::HubError;
use super::tensor::Dtype;
use crate::tokenizer::TokenizerError;

/// Why a model could not be loaded. Every message is one line: the file, what was found, what was
/// expected, and where it is not obvious, what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// Nothing exists at the path that was given.
    #[error("{path}: no such file or directory; expected a model directory or a weights file", path = path.display())]
    NotFound {
        /// The path as given.
        path: PathBuf,
    },

    /// A model's name on the Hugging Face Hub that leads to no files.
    #[error(transparent)]
    Hub(#[from] HubError),

    /// The operating system refused to open, read or map a file.
    #[error("{path}: cannot be read: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },

    /// A file is larger than the memory there is.
    #[error("{path}: has {bytes} bytes, more than fit into memory; expected a smaller file, or a machine with more memory", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },

    /// A path names a directory, pipe, socket or device where a file is needed.
    #[error("{path}: is {found}, expected a regular file", path = path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is instead.
        found: &'static str,
    },

    /// A model directory without weights, or with several files that may be the weights.
    #[error("{path}: holds {found}, expected model.safetensors, model.pt or model.npz in this directory{advice}", path = path.display(), advice = if *several { "; give the path of the file itself" } else { "" })]
    NoWeights {
        /// The directory.
        path: PathBuf,
        /// What it holds.
        found: String,
        /// Whether there are several files.
        several: bool,
    },

    /// The weights have no configuration beside them.
    #[error("{path}: not found; expected the model's configuration beside its weights, which carry none of their own", path = path.display())]
    NoConfig {
        /// Where config.json should be.
        path: PathBuf,
    },

    /// A JSON file that is not JSON, or not an object.
    #[error("{path}: {found}, expected a JSON object", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
    },

    /// A key that the configuration must have is not there.
    #[error("{path}: key \"{key}\" is missing, expected {expected}", path = path.display())]
    MissingKey {
        /// The JSON file.
        path: PathBuf,
        /// The absent key.
        key: &'static str,
        /// The values it may have.
        expected: String,
    },

    /// A key has a value of the wrong type or outside its range.
    #[error("{path}: key \"{key}\" is {found}, expected {expected}", path = path.display())]
    InvalidValue {
        /// The JSON file, or the model's name for a model made in memory.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// The values it may have.
        expected: String,
    },

    /// The configuration switches on something that this engine does not compute.
    #[error("{path}: {found}, which changes what the model computes and is not implemented; expected a model without it", path = path.display())]
    OtherVariant {
        /// The configuration, or the checkpoint that carries it.
        path: PathBuf,
        /// The keys in effect and their values.
        found: String,
    },

    /// Nothing tells which rotary embedding the model was trained with.
    #[error("{path}: the paper's names and no stored frequencies: they do not tell the rotary embedding; expected {kinds} as \"rope\" in config.json", path = path.display(), kinds = super::rotary::RopeError::EXPECTED)]
    UnknownRope {
        /// The weights file.
        path: PathBuf,
    },

    /// Stored rotary frequencies that are not those of the kind that was asked for.
    #[error("{path}: tensor {tensor:?} holds other frequencies than those of rope {rope}; expected the same, or no \"rope\" in config.json", path = path.display())]
    OtherFrequencies {
        /// The weights file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The kind asked for.
        rope: super::rotary::Rope,
    },

    /// Stored rotary frequencies of an unknown kind, which pairs neurons i and i + N/2.
    #[error("{path}: tensor {tensor:?} repeats its first half: neurons i and i + N/2 are a pair, expected their kind, as half-split:10000, as \"rope\" in config.json", path = path.display())]
    RepeatedFrequencies {
        /// The weights file.
        path: PathBuf,
        /// The tensor.
        tensor: &'static str,
    },

    /// A part of the weights is not where the index says.
    #[error("{path}: the part {part:?}, which {index:?} names, cannot be read: {reason}; expected it beside the index: copy or download it again", path = path.display())]
    MissingPart {
        /// Where it should be.
        path: PathBuf,
        /// Its name.
        part: String,
        /// The index.
        index: String,
        /// The system's or the reader's reason.
        reason: String,
    },

    /// The weights file is damaged, cut short, or something else altogether.
    #[error("{path}: {found}, expected {expected}", path = path.display())]
    Malformed {
        /// The weights file.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
        /// What a sound file has there.
        expected: String,
    },

    /// A format or layout that is known but not read.
    #[error("{path}: {what}, which this version does not read; expected safetensors, a PyTorch checkpoint or a NumPy archive", path = path.display())]
    Unsupported {
        /// The weights file.
        path: PathBuf,
        /// The format or layout.
        what: String,
    },

    /// A checkpoint's pickle names something that could do harm, had it been called.
    #[error("{path}: its pickle calls for {name:?}, which no checkpoint needs and which was not run; this file may be an attack: do not open it with Python", path = path.display())]
    Forbidden {
        /// The weights file.
        path: PathBuf,
        /// The name, with its module.
        name: String,
    },

    /// The model's tokenizer cannot be used.
    #[error("{path}: {source}", path = path.display())]
    Tokenizer {
        /// tokenizer.json.
        path: PathBuf,
        /// What is wrong with it.
        source: TokenizerError,
    },

    /// A model cannot be written.
    #[error("{path}: cannot be written: {reason}", path = path.display())]
    Save {
        /// The directory or file.
        path: PathBuf,
        /// What stands in the way.
        reason: String,
    },

    /// A model would be written over what is there.
    #[error("{path}: cannot be written: is there already", path = path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },

    /// A weight is too large for the type it is to be stored as.
    #[error("tensor {tensor:?} holds {value} at index {index:?}, which {dtype} cannot hold")]
    Overflow {
        /// The tensor.
        tensor: String,
        /// Where in the tensor, one index per dimension.
        index: Vec<usize>,
        /// The value.
        value: f32,
        /// The type asked for.
        dtype: Dtype,
    },

    /// Two models cannot be joined.
    #[error("{first} and {second} cannot be merged: {reason}")]
    Merge {
        /// Name of the first model.
        first: String,
        /// Name of the second model.
        second: String,
        /// What differs, and what is expected.
        reason: String,
    },

    /// The file has weights for each layer: a different model.
    #[error("{path}: tensor {tensor:?} belongs to one layer, expected weights that all layers share; this is not a BDH model", path = path.display())]
    WeightsPerLayer {
        /// The weights file.
        path: PathBuf,
        /// The first tensor of that kind.
        tensor: String,
    },

    /// A tensor the model has no use for.
    #[error("{path}: unknown tensor {tensor:?}, expected only {expected}", path = path.display())]
    UnknownTensor {
        /// The weights file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The names a model may have.
        expected: String,
    },

    /// A tensor the model needs is not in the file.
    #[error("{path}: tensor {tensor:?} is missing, expected shape {expected:?}; the file holds {found}", path = path.display())]
    MissingTensor {
        /// The weights file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape by the configuration.
        expected: Vec<usize>,
        /// The names in the file.
        found: String,
    },

    /// One tensor is stored twice under names that differ only in their prefixes.
    #[error("{path}: tensor {tensor:?} occurs twice, the second time as {found:?}, expected it once", path = path.display())]
    DuplicateTensor {
        /// The weights file.
        path: PathBuf,
        /// The name without prefixes.
        tensor: String,
        /// The second full name.
        found: String,
    },

    /// A tensor's shape disagrees with the configuration.
    #[error("{path}: tensor {tensor:?} has shape {found:?}, expected {expected:?} ({meaning})", path = path.display())]
    Shape {
        /// The weights file, or the model's name for a model made in memory.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape by the configuration.
        expected: Vec<usize>,
        /// What the expected dimensions are.
        meaning: &'static str,
    },

    /// The number of neurons per head is odd, so that they cannot be rotated in pairs.
    #[error("{path}: tensor {tensor:?} has shape {found:?}: {neurons} neurons per head, expected an even number", path = path.display())]
    OddNeurons {
        /// The weights file, or the model's name for a model made in memory.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// Its last dimension.
        neurons: usize,
    },

    /// A tensor has an element type that weights cannot have.
    #[error("{path}: tensor {tensor:?} has dtype {found:?}, expected F32, F16, BF16 or F64", path = path.display())]
    UnsupportedDtype {
        /// The weights file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The element type as the file spells it.
        found: String,
    },

    /// A weight is a NaN, an infinity, or too large for f32.
    #[error("{path}: tensor {tensor:?} holds {value} at index {index:?}, expected only numbers finite in f32", path = path.display())]
    NonFinite {
        /// The weights file, or the model's name for a model made in memory.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Where in the tensor, one index per dimension.
        index: Vec<usize>,
        /// The value.
        value: f64,
    },
}

/// Cuts text taken from a file down to what fits into a message of one line.
pub(crate) fn clip(text: &str) -> String {
    const LONGEST: usize = 80;
    let visible = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let mut clipped: String = text.chars().take(LONGEST).map(visible).collect();
    if text.chars().nth(LONGEST).is_some() {
        clipped.push('…');
    }
    clipped
}
