//! The tokenizer that comes with a model.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::error::ModelError;
use super::json::JsonFile;
use super::storage::Storage;
use crate::tokenizer::Tokenizer;

pub(super) const TOKENIZER: &str = "tokenizer.json";
/// A folder beside the weights that may hold them.
const FOLDER: &str = "tokenizer";
/// Ids that can be bytes.
const BYTES: usize = 256;
pub(super) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// Keys of tokenizer_config.json that name one special token.
const SPECIAL: [&str; 7] = ["bos_token", "eos_token", "unk_token", "pad_token", "cls_token", "sep_token", "mask_token"];

/// The files of a tokenizer, opened; both may be absent.
#[derive(Clone, Default)]
pub(super) struct TokenizerFiles {
    json: Option<(PathBuf, Storage)>,
    config: Option<(PathBuf, Map<String, Value>)>,
}

/// A tokenizer and the tokens that its files declare for the ends of a text.
pub(super) struct LoadedTokenizer {
    pub(super) tokenizer: Tokenizer,
    pub(super) bos_token_id: Option<u32>,
    pub(super) eos_token_id: Option<u32>,
    /// What a user may want to know about it.
    pub(super) note: Option<String>,
}

impl TokenizerFiles {
    /// Opens `given`, a tokenizer.json or its folder, or else what a model directory holds.
    pub(super) fn open(directory: &Path, given: Option<&Path>) -> Result<Self, ModelError> {
        let Some(given) = given else {
            let files = Self::open_folder(directory)?;
            let inner = directory.join(FOLDER);
            // Some libraries save a tokenizer in a folder of its own.
            return if files.json.is_none() && inner.is_dir() { Self::open_folder(&inner) } else { Ok(files) };
        };
        if !given.is_dir() {
            let folder = given.parent().unwrap_or(Path::new(""));
            let json = Some((given.to_owned(), Storage::read(given)?));
            return Ok(Self { json, ..Self::open_folder(folder)? });
        }
        let files = Self::open_folder(given)?;
        match files.json {
            Some(_) => Ok(files),
            None => Err(ModelError::NotFound { path: given.join(TOKENIZER) }),
        }
    }

    fn open_folder(directory: &Path) -> Result<Self, ModelError> {
        let path = directory.join(TOKENIZER);
        let json = match Storage::read(&path) {
            Ok(storage) => Some((path, storage)),
            Err(ModelError::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        let config = JsonFile::read(directory.join(TOKENIZER_CONFIG))?.map(|file| (file.path, file.map));
        Ok(Self { json, config })
    }

    /// The tokenizer for a model of `vocab_size` tokens: that of tokenizer.json, else `characters`, else ByT5's bytes
    /// where tokenizer_config.json says so, else raw bytes, of which there are no more than 256.
    pub(super) fn load(
        &self,
        vocab_size: usize,
        characters: impl FnOnce() -> Result<Option<Tokenizer>, ModelError>,
    ) -> Result<LoadedTokenizer, ModelError> {
        let others = if self.json.is_none() { characters()? } else { None };
        if let Some(tokenizer) = others {
            return Ok(LoadedTokenizer { tokenizer, bos_token_id: None, eos_token_id: None, note: None });
        }
        let config = self.config.as_ref().map(|(_, map)| map);
        let class = config.and_then(|map| map.get("tokenizer_class")).and_then(Value::as_str).unwrap_or_default();
        let mut tokenizer = match (&self.json, class) {
            (Some((path, storage)), _) => Tokenizer::from_json(storage.bytes(), vocab_size)
                .map_err(|source| ModelError::Tokenizer { path: path.clone(), source })?,
            (None, "ByT5Tokenizer") => {
                let tokenizer = Tokenizer::byt5(vocab_size);
                let eos_token_id = tokenizer.special_id("</s>");
                return Ok(LoadedTokenizer { tokenizer, bos_token_id: None, eos_token_id, note: None });
            }
            (None, _) if vocab_size > BYTES => {
                let note = format!(
                    "the model has {vocab_size} tokens and no tokenizer: token ids work, text does not; \
                     --tokenizer names one"
                );
                let tokenizer = Tokenizer::unknown(vocab_size);
                return Ok(LoadedTokenizer { tokenizer, bos_token_id: None, eos_token_id: None, note: Some(note) });
            }
            (None, _) => Tokenizer::bytes(vocab_size),
        };
        let token = |key: &str| config.and_then(|map| map.get(key)).and_then(token_text);
        tokenizer.add_special(SPECIAL.iter().filter_map(|key| token(key)));
        let additional = config.and_then(|map| map.get("additional_special_tokens")).and_then(Value::as_array);
        tokenizer.add_special(additional.into_iter().flatten().filter_map(token_text));
        let added = config.and_then(|map| map.get("added_tokens_decoder")).and_then(Value::as_object);
        let special = added.into_iter().flat_map(Map::values).filter(|token| token["special"] == true);
        tokenizer.add_special(special.filter_map(token_text));
        let id = |key| token(key).and_then(|text| tokenizer.special_id(text));
        let (bos_token_id, eos_token_id) = (id("bos_token"), id("eos_token"));
        Ok(LoadedTokenizer { tokenizer, bos_token_id, eos_token_id, note: None })
    }

    /// Names and contents of the files there are.
    pub(super) fn contents(&self) -> Vec<(&'static str, Vec<u8>)> {
        let json = self.json.iter().map(|(_, storage)| (TOKENIZER, storage.bytes().to_vec()));
        let config = self
            .config
            .iter()
            .map(|(_, map)| (TOKENIZER_CONFIG, format!("{:#}\n", Value::from(map.clone())).into_bytes()));
        json.chain(config).collect()
    }
}

impl std::fmt::Debug for TokenizerFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let json = self.json.iter().map(|(path, _)| path);
        f.debug_list().entries(json.chain(self.config.iter().map(|(path, _)| path))).finish()
    }
}

/// A special token's text: a string, or an object that holds it.
fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}
