//! Tokenizers in the files of before tokenizer.json, written as one.
//!
//! | files | classes |
//! | --- | --- |
//! | `vocab.json` and `merges.txt` | GPT-2's byte-level BPE and those that read alike |
//! | `vocab.txt` | BERT's WordPiece and those that read alike |
//! | `tokenizer.model` | SentencePiece's: no reader here |

use std::path::Path;

use serde_json::{Map, Value, json};

use super::error::ModelError;
use super::files::Files;
use super::json::JsonFile;

const BPE_CLASSES: [&str; 8] = [
    "GPT2Tokenizer",
    "RobertaTokenizer",
    "BartTokenizer",
    "CodeGenTokenizer",
    "LongformerTokenizer",
    "LEDTokenizer",
    "BlenderbotTokenizer",
    "GPTNeoXTokenizer",
];
const WORD_PIECE_CLASSES: [&str; 5] =
    ["BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer", "LxmertTokenizer"];
/// Other well-known classes that cannot do without files.
const OTHER_CLASSES: [&str; 9] = [
    "LlamaTokenizer",
    "T5Tokenizer",
    "GemmaTokenizer",
    "XLNetTokenizer",
    "AlbertTokenizer",
    "XLMRobertaTokenizer",
    "Qwen2Tokenizer",
    "WhisperTokenizer",
    "CLIPTokenizer",
];
/// The file of tokens beside the vocabulary.
pub(super) const ADDED_TOKENS: &str = "added_tokens.json";
/// Names of SentencePiece's models.
pub(super) const SENTENCE_PIECE: [&str; 3] = ["tokenizer.model", "spiece.model", "sentencepiece.bpe.model"];

/// What a folder holds instead of a tokenizer.json.
pub(super) enum Parts {
    /// Nothing that belongs to a tokenizer.
    Nothing,
    /// The same as a tokenizer.json.
    Json(Vec<u8>),
    /// A tokenizer that cannot be read, in words that follow "the model has no tokenizer that can be read".
    Unreadable(String),
}

/// Looks for the files of a tokenizer; `config` is tokenizer_config.json.
pub(super) fn find(files: &dyn Files, folder: &Path, config: Option<&Map<String, Value>>) -> Result<Parts, ModelError> {
    let text = |key: &str| config.and_then(|map| map.get(key)).and_then(Value::as_str).unwrap_or_default();
    let class = text("tokenizer_class");
    let plain = class.strip_suffix("Fast").unwrap_or(class);
    let flag =
        |key: &str, default: bool| config.and_then(|map| map.get(key)).and_then(Value::as_bool).unwrap_or(default);
    let is_there = |name: &str| files.is_file(&folder.join(name));
    let reads = |classes: &[&str]| plain.is_empty() || plain == "PreTrainedTokenizer" || classes.contains(&plain);
    let unreadable = |what: String| Ok(Parts::Unreadable(what));
    if is_there("vocab.json") && is_there("merges.txt") {
        if !reads(&BPE_CLASSES) {
            return unreadable(format!(
                "of {class}, vocab.json and merges.txt are not enough; expected tokenizer.json"
            ));
        }
        let vocab = vocabulary(files, folder)?;
        let added = added_tokens(files, folder, config, &vocab)?;
        return Ok(Parts::Json(bpe(&vocab, &merges(files, folder)?, &added, flag("add_prefix_space", false))));
    }
    if config.is_some() && is_there("vocab.txt") {
        if !reads(&WORD_PIECE_CLASSES) {
            return unreadable(format!("of {class}, vocab.txt is not enough; expected tokenizer.json"));
        }
        let vocab = lines(&read_text(files, &folder.join("vocab.txt"))?);
        let added = added_tokens(files, folder, config, &vocab)?;
        let normalizer = json!({
            "type": "BertNormalizer",
            "clean_text": true,
            "handle_chinese_chars": flag("tokenize_chinese_chars", true),
            "strip_accents": config.and_then(|map| map.get("strip_accents")).filter(|value| value.is_boolean()),
            "lowercase": flag("do_lower_case", true),
        });
        return Ok(Parts::Json(word_piece(&vocab, &added, &normalizer)));
    }
    if let Some(name) = SENTENCE_PIECE.into_iter().find(|name| is_there(name)) {
        return unreadable(format!("{name} is SentencePiece's; expected tokenizer.json, which transformers can save"));
    }
    let needs_files = [&BPE_CLASSES[..], &WORD_PIECE_CLASSES, &OTHER_CLASSES].concat().contains(&plain);
    if needs_files || class.ends_with("TokenizerFast") {
        return unreadable(format!("tokenizer_config.json names {class}, whose files are not there"));
    }
    Ok(Parts::Nothing)
}

fn read_text(files: &dyn Files, path: &Path) -> Result<String, ModelError> {
    let storage = files.open(path)?;
    let bytes = &*storage.read(0..storage.len())?;
    let text = str::from_utf8(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes));
    text.map(str::to_owned).map_err(|error| ModelError::Malformed {
        path: path.to_owned(),
        found: format!("byte {:#04x} at offset {}", bytes[error.valid_up_to()], error.valid_up_to()),
        expected: "UTF-8 text".to_owned(),
    })
}

fn vocabulary(files: &dyn Files, folder: &Path) -> Result<Map<String, Value>, ModelError> {
    let path = folder.join("vocab.json");
    let map = JsonFile::read(files, path.clone())?.map(|file| file.map).unwrap_or_default();
    match map.iter().find(|(_, id)| id.as_u64().is_none_or(|id| u32::try_from(id).is_err())) {
        None => Ok(map),
        Some((token, id)) => Err(ModelError::Malformed {
            path,
            found: format!("token {token:?} with id {id}"),
            expected: format!("whole numbers from 0 to {}", u32::MAX),
        }),
    }
}

fn merges(files: &dyn Files, folder: &Path) -> Result<Vec<Value>, ModelError> {
    let path = folder.join("merges.txt");
    let text = read_text(files, &path)?;
    let mut merges = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if (number == 1 && line.starts_with("#version")) || line.trim().is_empty() {
            continue;
        }
        let Some((left, right)) = line.split_once(' ').filter(|(_, right)| !right.contains(' ')) else {
            return Err(ModelError::Malformed {
                path,
                found: format!("{line:?} on line {number}"),
                expected: "two tokens with a space between them".to_owned(),
            });
        };
        merges.push(json!([left, right]));
    }
    Ok(merges)
}

/// Tokens and their ids: the numbers of their lines.
fn lines(text: &str) -> Map<String, Value> {
    (0..).zip(text.lines()).map(|(id, token)| (token.trim_end().to_owned(), Value::from(id as u64))).collect()
}

/// The tokens that are found in a text before it is divided: those of added_tokens.json and of tokenizer_config.json.
fn added_tokens(
    files: &dyn Files,
    folder: &Path,
    config: Option<&Map<String, Value>>,
    vocab: &Map<String, Value>,
) -> Result<Vec<Value>, ModelError> {
    const KNOWN: [&str; 11] =
        ["<|endoftext|>", "<s>", "</s>", "<unk>", "<pad>", "<mask>", "[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"];
    let mut added: Map<String, Value> =
        JsonFile::read(files, folder.join(ADDED_TOKENS))?.map(|file| file.map).unwrap_or_default();
    let mut plain = Vec::new();
    let declared = config.and_then(|map| map.get("added_tokens_decoder")).and_then(Value::as_object);
    for (id, token) in declared.into_iter().flatten() {
        if let (Ok(id), Some(text)) = (id.parse::<u32>(), token["content"].as_str()) {
            if token["special"] == false {
                plain.push(text.to_owned());
            }
            added.insert(text.to_owned(), id.into());
        }
    }
    for known in KNOWN {
        if let Some(id) = vocab.get(known) {
            added.entry(known).or_insert_with(|| id.clone());
        }
    }
    let mut tokens: Vec<(u64, String)> = added
        .into_iter()
        .filter_map(|(text, id)| Some((id.as_u64().filter(|&id| id <= u32::MAX.into())?, text)))
        .collect();
    tokens.sort();
    let token = |(id, text): (u64, String)| {
        json!({ "id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": !plain.contains(&text) })
    };
    Ok(tokens.into_iter().map(token).collect())
}

fn bpe(vocab: &Map<String, Value>, merges: &[Value], added: &[Value], add_prefix_space: bool) -> Vec<u8> {
    let byte_level = |add_prefix_space: bool| json!({ "type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true, "use_regex": true });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": byte_level(add_prefix_space), "post_processor": null, "decoder": byte_level(true),
        "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges },
    });
    tokenizer.to_string().into_bytes()
}

fn word_piece(vocab: &Map<String, Value>, added: &[Value], normalizer: &Value) -> Vec<u8> {
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
        "pre_tokenizer": { "type": "BertPreTokenizer" }, "post_processor": null,
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab },
    });
    tokenizer.to_string().into_bytes()
}
