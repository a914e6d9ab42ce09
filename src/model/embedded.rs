//! The model inside the program.
#![cfg(feature = "embedded-model")]

use std::path::{Path, PathBuf};

use super::error::ModelError;
use super::json::JsonFile;
use super::storage::Storage;
use super::tokenizer_files::TokenizerFiles;
use super::{CONFIG, GENERATION_CONFIG, ModelFiles, TRAINING_ARGS};

macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/models/bdh-shakespeare/", $name))
    };
}

/// The files of `models/bdh-shakespeare` as they were when the program was built.
pub(super) fn files() -> Result<ModelFiles, ModelError> {
    let directory = Path::new("<embedded>");
    let json = |name: &str, bytes: &[u8]| JsonFile::parse(&directory.join(name), bytes).map(Some);
    Ok(ModelFiles {
        name: "bdh-shakespeare".to_owned(),
        weights_path: PathBuf::from("<embedded>/model.safetensors"),
        weights: Storage::Static(file!("model.safetensors")),
        config: json(CONFIG, file!("config.json"))?,
        config_path: directory.join(CONFIG),
        generation: json(GENERATION_CONFIG, file!("generation_config.json"))?,
        training_args: json(TRAINING_ARGS, file!("training_args.json"))?,
        tokenizer: TokenizerFiles::default(),
        notes: Vec::new(),
    })
}
