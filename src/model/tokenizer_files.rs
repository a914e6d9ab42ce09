//! The tokenizer that comes with a model.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::error::ModelError;
use super::files::Files;
use super::json::JsonFile;
use super::storage::Storage;
use super::tokenizer_parts::{self, Parts};
use crate::tokenizer::Tokenizer;

pub(super) const TOKENIZER: &str = "tokenizer.json";
/// A folder beside the weights that may hold them.
pub(super) const FOLDER: &str = "tokenizer";
/// The class whose tokens are bytes after three others.
const BYT5: &str = "ByT5Tokenizer";
/// Files that make up a tokenizer without being one.
const OTHER_PARTS: [&str; 4] = ["vocab.json", "merges.txt", "vocab.txt", TOKENIZER_CONFIG];
/// Ids that can be bytes.
const BYTES: usize = 256;
pub(super) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// Keys of tokenizer_config.json that name one special token.
const SPECIAL: [&str; 7] = ["bos_token", "eos_token", "unk_token", "pad_token", "cls_token", "sep_token", "mask_token"];

/// Names of all files that a folder's tokenizer may consist of.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    [TOKENIZER, tokenizer_parts::ADDED_TOKENS].into_iter().chain(OTHER_PARTS).chain(tokenizer_parts::SENTENCE_PIECE)
}

/// The files of a tokenizer, opened; both may be absent.
#[derive(Clone, Default)]
pub(super) struct TokenizerFiles {
    /// In memory.
    json: Option<(PathBuf, Storage)>,
    config: Option<(PathBuf, Map<String, Value>)>,
    /// What there is that cannot be read.
    unreadable: Option<String>,
}

/// A tokenizer and the tokens that its files declare for the ends of a text.
pub(super) struct LoadedTokenizer {
    pub(super) tokenizer: Tokenizer,
    pub(super) bos_token_id: Option<u32>,
    pub(super) eos_token_id: Option<u32>,
}

impl TokenizerFiles {
    /// Opens `given`, a tokenizer.json or its folder, or else what a model directory holds.
    pub(super) fn open(files: &dyn Files, directory: &Path, given: Option<&Path>) -> Result<Self, ModelError> {
        if let Some(given) = given {
            return Self::open_at(files, given);
        }
        let beside = Self::open_folder(files, directory)?;
        let inner = directory.join(FOLDER);
        if beside.is_usable() || !files.is_folder(&inner) {
            return Ok(beside);
        }
        // Some libraries save a tokenizer in a folder of its own.
        let inside = Self::open_folder(files, &inner)?;
        Ok(if inside.is_usable() || beside.unreadable.is_none() { inside } else { beside })
    }

    /// Opens the tokenizer that a configuration's `tokenizer_path` names, where none has been found so far.
    pub(super) fn or_at(self, files: &dyn Files, directory: &Path, path: &str) -> Result<Self, ModelError> {
        let named = directory.join(path);
        if self.is_usable() || path.is_empty() {
            return Ok(self);
        }
        if files.kind(&named).is_err() {
            let unreadable = Some(format!("the configuration's tokenizer_path, {path:?}, is not there"));
            return Ok(Self { unreadable, ..self });
        }
        Self::open_at(files, &named).or_else(|error| {
            let unreadable = Some(format!("the configuration's tokenizer_path: {error}"));
            Ok(Self { unreadable, ..self })
        })
    }

    /// Opens a tokenizer.json, or the folder that holds a tokenizer.
    fn open_at(files: &dyn Files, path: &Path) -> Result<Self, ModelError> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let refuse = |found: String| {
            let expected = format!("{TOKENIZER}, or vocab.json and merges.txt, or vocab.txt");
            Err(ModelError::Malformed { path: path.to_owned(), found, expected })
        };
        let is_folder = files.is_folder(path);
        let is_part = OTHER_PARTS.contains(&name) || name.ends_with(".model");
        if !is_folder && !is_part {
            let json = Some((path.to_owned(), files.open(path)?.into_memory()?));
            let config = JsonFile::read(files, folder.join(TOKENIZER_CONFIG))?.map(|file| (file.path, file.map));
            return Ok(Self { json, config, unreadable: None });
        }
        if !is_folder {
            // Says so where the file is not there.
            files.start(path, 0)?;
        }
        let opened = Self::open_folder(files, if is_folder { path } else { folder })?;
        match (opened.is_usable(), opened.unreadable) {
            (true, unreadable) => Ok(Self { unreadable, ..opened }),
            (false, Some(what)) => refuse(format!("no tokenizer that can be read: {what}")),
            (false, None) => refuse("no tokenizer in this folder".to_owned()),
        }
    }

    fn open_folder(files: &dyn Files, directory: &Path) -> Result<Self, ModelError> {
        let path = directory.join(TOKENIZER);
        let json = match files.open(&path) {
            Ok(storage) => Some((path, storage.into_memory()?)),
            Err(ModelError::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        let config = JsonFile::read(files, directory.join(TOKENIZER_CONFIG))?.map(|file| (file.path, file.map));
        let mut opened = Self { json, config, unreadable: None };
        if opened.is_usable() {
            return Ok(opened);
        }
        match tokenizer_parts::find(files, directory, opened.config.as_ref().map(|(_, map)| map))? {
            Parts::Nothing => {}
            Parts::Json(json) => opened.json = Some((directory.to_owned(), Storage::Owned(json.into()))),
            Parts::Unreadable(what) => opened.unreadable = Some(what),
        }
        Ok(opened)
    }

    /// Whether texts can be read with them.
    fn is_usable(&self) -> bool {
        self.json.is_some() || self.class() == BYT5
    }

    fn class(&self) -> &str {
        let config = self.config.as_ref().map(|(_, map)| map);
        config.and_then(|map| map.get("tokenizer_class")).and_then(Value::as_str).unwrap_or_default()
    }

    /// The tokenizer for a model of `vocab_size` tokens: that of tokenizer.json, else `characters`, else ByT5's bytes
    /// where tokenizer_config.json says so, else raw bytes, of which there are no more than 256.
    pub(super) fn load(
        &self,
        vocab_size: usize,
        characters: impl FnOnce() -> Result<Option<Tokenizer>, ModelError>,
    ) -> Result<LoadedTokenizer, ModelError> {
        let other = match &self.json {
            Some(_) => None,
            None => characters().transpose(),
        };
        if let Some(tokenizer) = other {
            let absent = |error| Tokenizer::absent(vocab_size, &format!("no vocabulary that can be read ({error})"));
            let tokenizer = tokenizer.unwrap_or_else(absent);
            return Ok(LoadedTokenizer { tokenizer, bos_token_id: None, eos_token_id: None });
        }
        let config = self.config.as_ref().map(|(_, map)| map);
        let mut tokenizer = match (&self.json, self.class()) {
            (Some((path, storage)), _) => Tokenizer::from_json(storage.memory().unwrap_or_default(), vocab_size)
                .map_err(|source| ModelError::Tokenizer { path: path.clone(), source })?,
            (None, BYT5) => {
                let tokenizer = Tokenizer::byt5(vocab_size);
                let eos_token_id = tokenizer.special_id("</s>");
                return Ok(LoadedTokenizer { tokenizer, bos_token_id: None, eos_token_id });
            }
            (None, _) if self.unreadable.is_some() || vocab_size > BYTES => {
                let why = match &self.unreadable {
                    Some(what) => format!("no tokenizer that can be read ({what})"),
                    None => "no tokenizer".to_owned(),
                };
                let tokenizer = Tokenizer::absent(vocab_size, &why);
                return Ok(LoadedTokenizer { tokenizer, bos_token_id: None, eos_token_id: None });
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
        Ok(LoadedTokenizer { tokenizer, bos_token_id, eos_token_id })
    }

    /// The template that turns conversations into prompts, and the texts of the tokens that begin and end a text.
    #[cfg(feature = "server")]
    pub(super) fn chat(&self) -> (Option<String>, Option<String>, Option<String>) {
        let config = self.config.as_ref().map(|(_, map)| map);
        let text = |key: &str| config.and_then(|map| map.get(key)).and_then(token_text).map(str::to_owned);
        (text("chat_template"), text("bos_token"), text("eos_token"))
    }

    /// Names and contents of the files there are.
    pub(super) fn contents(&self) -> Vec<(&'static str, Vec<u8>)> {
        let json = self.json.iter().map(|(_, storage)| (TOKENIZER, storage.memory().unwrap_or_default().to_vec()));
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
