//! Tokenizers in model directories: trained here, read by the loader, streamed.
#![cfg(feature = "tokenizers")]

use bdh_gpu::generation::{Bdh, DeviceChoice, WeightChoice};
use bdh_gpu::model::{Model, ModelError, SaveOptions, SyntheticSpec, Tokenizer};
use bdh_gpu::tokenizer::{EncodeError, TokenizerError};
use proptest::prelude::*;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use tempfile::TempDir;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer as HuggingFace};

const VOCAB: usize = 350;

const TEXT: &str = "To be, or not to be: that is the question.\nWhether 'tis nobler in the mind to suffer\n\
    the slings and arrows of outrageous fortune — or to take arms; déjà vu, 你好, 🐉 and ünïcödé.";

/// A byte-level BPE of GPT-2's kind.
fn byte_level() -> &'static [u8] {
    static JSON: OnceLock<Vec<u8>> = OnceLock::new();
    JSON.get_or_init(|| {
        let mut tokenizer = HuggingFace::new(BPE::default());
        tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
        tokenizer.with_decoder(Some(ByteLevel::new(false, true, true)));
        let mut trainer: TrainerWrapper = BpeTrainerBuilder::new()
            .vocab_size(VOCAB)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(vec![AddedToken::from("<|end|>", true), AddedToken::from("<|start|>", true)])
            .build()
            .into();
        tokenizer.train(&mut trainer, [TEXT].into_iter()).unwrap();
        tokenizer.to_string(false).unwrap().into_bytes()
    })
}

/// A BPE of Llama's kind: spaces as ▁, bytes where there is no token.
fn byte_fallback() -> &'static [u8] {
    static JSON: OnceLock<Vec<u8>> = OnceLock::new();
    JSON.get_or_init(|| {
        let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).into();
        tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
        tokens.extend(["▁", "a", "b", "c", "é", "▁a", "▁b", "ab"].map(str::to_owned));
        let vocab: serde_json::Map<String, serde_json::Value> =
            tokens.into_iter().enumerate().map(|(id, token)| (token, id.into())).collect();
        let special = |id, content| {
            serde_json::json!({ "id": id, "content": content, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true })
        };
        let json = serde_json::json!({
            "version": "1.0",
            "truncation": { "direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0 },
            "padding": null,
            "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
            "normalizer": { "type": "Sequence", "normalizers": [
                { "type": "Prepend", "prepend": "▁" },
                { "type": "Replace", "pattern": { "String": " " }, "content": "▁" },
            ] },
            "pre_tokenizer": null,
            "post_processor": null,
            "decoder": { "type": "Sequence", "decoders": [
                { "type": "Replace", "pattern": { "String": "▁" }, "content": " " },
                { "type": "ByteFallback" },
                { "type": "Fuse" },
                { "type": "Strip", "content": " ", "start": 1, "stop": 0 },
            ] },
            "model": { "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
                "vocab": vocab, "merges": [["▁", "a"], ["▁", "b"], ["a", "b"]] },
        });
        json.to_string().into_bytes()
    })
}

fn tokenizer(json: &[u8]) -> Tokenizer {
    Tokenizer::from_json(json, VOCAB).unwrap()
}

/// The pieces that a stream gives, one for each token and one for the end.
fn pieces(tokenizer: &Tokenizer, tokens: &[u32]) -> Vec<String> {
    let mut stream = tokenizer.stream();
    let mut pieces: Vec<String> = tokens
        .iter()
        .map(|&token| {
            let mut piece = String::new();
            stream.push(token, &mut piece);
            piece
        })
        .collect();
    let mut last = String::new();
    stream.finish(&mut last);
    pieces.push(last);
    pieces
}

#[test]
fn a_trained_bpe_round_trips_and_streams() {
    let (ours, theirs) = (tokenizer(byte_level()), HuggingFace::from_bytes(byte_level()).unwrap());
    for text in [TEXT, "", " ", "a  b", "🐉🐉", "zzz qqq ÿ\u{0}", "the the the"] {
        let tokens = ours.encode(text.as_bytes()).unwrap();
        assert_eq!(tokens, theirs.encode(text, false).unwrap().get_ids());
        assert_eq!(ours.decode(&tokens), text);
        let pieces = pieces(&ours, &tokens);
        assert_eq!(pieces.concat(), text);
        assert!(pieces.iter().all(|piece| !piece.contains('\u{fffd}')), "{pieces:?}");
        assert_eq!(pieces.last().unwrap(), "", "nothing is held back once a text is complete");
    }
    let tokens = ours.encode(TEXT.as_bytes()).unwrap();
    assert!(tokens.len() < TEXT.len() * 2 / 3, "{} tokens", tokens.len());
    assert_eq!(ours.to_string(), "tokenizer.json: BPE, 350 tokens");
}

#[test]
fn a_character_waits_for_its_last_token() {
    let tokenizer = tokenizer(byte_level());
    let tokens = tokenizer.encode("a🐲b".as_bytes()).unwrap();
    let pieces = pieces(&tokenizer, &tokens);
    let dragon = pieces.iter().position(|piece| piece == "🐲").unwrap();
    assert!(dragon > 1 && pieces[1..dragon].iter().all(String::is_empty), "{pieces:?}");
}

#[test]
fn special_tokens_print_nothing_and_are_read_as_one() {
    let tokenizer = tokenizer(byte_level());
    let end = tokenizer.special_id("<|end|>").unwrap();
    assert_eq!(tokenizer.encode(b"a<|end|>").unwrap().last(), Some(&end));
    let mut tokens = tokenizer.encode("qé".as_bytes()).unwrap();
    tokens.insert(1, end);
    tokens.push(end);
    assert_eq!(tokenizer.decode(&tokens), "qé");
    let mut marked = tokenizer.clone();
    marked.add_special(["q", "no token of this vocabulary"]);
    assert_eq!((marked.decode(&tokens), tokenizer.decode(&tokens)), ("é".to_owned(), "qé".to_owned()));
}

#[test]
fn prefixed_spaces_and_byte_fallback_stream() {
    let (ours, theirs) = (tokenizer(byte_fallback()), HuggingFace::from_bytes(byte_fallback()).unwrap());
    for text in ["a b ab", "ab a", "  a", "é 你好 🐉 x", "a🐉b"] {
        // Longer than the four tokens that the file would cut a training example to.
        let tokens = ours.encode(text.as_bytes()).unwrap();
        assert_eq!(ours.decode(&tokens), theirs.decode(&tokens, true).unwrap());
        assert_eq!(ours.decode(&tokens), text);
        assert_eq!(pieces(&ours, &tokens).concat(), text);
        assert_eq!(ours.decode(&[&[1], &tokens[..], &[2]].concat()), text);
    }
    let tokens = ours.encode("a 你".as_bytes()).unwrap();
    assert_eq!(pieces(&ours, &tokens), ["a", " ", "", "", "你", ""]);
}

#[test]
fn invalid_bytes_do_not_stop_a_stream() {
    for json in [byte_level(), byte_fallback()] {
        let tokenizer = tokenizer(json);
        let byte = |byte: u8| {
            let fallback = format!("<0x{byte:02X}>");
            let alphabet = format!("{}", char::from_u32(u32::from(byte)).unwrap());
            tokenizer.special_id(&fallback).or_else(|| tokenizer.special_id(&alphabet)).unwrap()
        };
        // 0xff is nowhere valid: at most three are held back, then each is shown.
        let tokens = vec![byte(0xff); 20];
        let pieces = pieces(&tokenizer, &tokens);
        assert_eq!(pieces.concat(), "\u{fffd}".repeat(20));
        assert!(pieces[3..20].iter().all(|piece| piece == "\u{fffd}"), "{pieces:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// For the byte-level kind the pieces are what the crate itself makes of all the tokens at once, valid or not.
    #[test]
    fn pieces_join_to_the_whole_text(tokens in prop::collection::vec(0..VOCAB as u32, 0..40)) {
        let (ours, theirs) = (tokenizer(byte_level()), HuggingFace::from_bytes(byte_level()).unwrap());
        let whole = theirs.decode(&tokens, true).unwrap();
        prop_assert_eq!(pieces(&ours, &tokens).concat(), whole.clone());
        prop_assert_eq!(ours.decode(&tokens), whole);
    }

    #[test]
    fn any_text_comes_back(text in "\\PC{0,30}") {
        let byte_level = tokenizer(byte_level());
        let tokens = byte_level.encode(text.as_bytes()).unwrap();
        prop_assert_eq!(byte_level.decode(&tokens), text.clone());
        prop_assert_eq!(pieces(&byte_level, &tokens).concat(), text);
    }
}

// --- in a model directory ---

fn directory(vocab_size: usize, files: &[(&str, &[u8])]) -> TempDir {
    let spec =
        SyntheticSpec { n_layer: 1, n_embd: 8, n_head: 2, neurons_per_head: 16, vocab_size, density: 0.5, seed: 1 };
    let directory = TempDir::new().unwrap();
    let options = SaveOptions { dtype: None, overwrite: true };
    Model::synthetic(&spec).save(directory.path(), &options).unwrap();
    for (name, contents) in files {
        fs::write(directory.path().join(name), contents).unwrap();
    }
    directory
}

fn load(directory: &TempDir) -> Result<Model, ModelError> {
    Model::from_path(directory.path())
}

#[test]
fn the_models_tokenizer_is_used_and_saved() {
    let config = br#"{"eos_token": {"content": "<|end|>"}, "bos_token": "<|start|>", "pad_token": null,
        "added_tokens_decoder": {"1": {"content": "<|start|>", "special": true}}}"#;
    let directory = directory(VOCAB, &[("tokenizer.json", byte_level()), ("tokenizer_config.json", config)]);
    let model = load(&directory).unwrap();
    assert_eq!((model.config.bos_token_id, &model.config.eos_token_ids[..]), (Some(1), &[0][..]));
    let copy = directory.path().join("copy");
    model.save(&copy, &SaveOptions::default()).unwrap();
    let copied = Model::from_path(&copy).unwrap();
    assert_eq!(copied.config, model.config);
    let bdh = Bdh::new(copied, &DeviceChoice::Cpu, WeightChoice::Auto).unwrap();
    let tokens = bdh.encode(TEXT.as_bytes()).unwrap();
    assert_eq!(tokens, model.tokenizer.encode(TEXT.as_bytes()).unwrap());
    assert!(tokens.len() < TEXT.len());
    assert_eq!(bdh.decode(&tokens), TEXT);
    let error = bdh.encode(b"ab\xff").unwrap_err().to_string();
    assert_eq!(error, "byte 0xff (at offset 2) is not valid UTF-8, which this model's tokenizer needs");
}

#[test]
fn tokenizers_that_do_not_fit_are_refused() {
    let message = |vocab_size, files: &[(&str, &[u8])]| load(&directory(vocab_size, files)).unwrap_err().to_string();
    let found = message(VOCAB - 1, &[("tokenizer.json", byte_level())]);
    assert!(
        found.contains("tokenizer.json: token ")
            && found.ends_with("has id 349, expected ids below the model's vocab_size 349"),
        "{found}"
    );
    let found = message(VOCAB, &[("tokenizer.json", b"{}")]);
    assert!(found.contains("tokenizer.json: not a tokenizer of the Hugging Face format ("), "{found}");
    let found = message(VOCAB, &[("tokenizer_config.json", b"[]")]);
    assert!(found.ends_with("tokenizer_config.json: is a list, expected a JSON object"), "{found}");
    assert!(matches!(
        Tokenizer::from_json(byte_level(), 10),
        Err(TokenizerError::VocabularyTooLarge { id: 349, vocab: 10, .. })
    ));
    // A vocabulary that is padded is none of the tokenizer's business.
    assert!(load(&directory(VOCAB + 100, &[("tokenizer.json", byte_level())])).is_ok());
}

#[test]
fn byt5_shifts_the_bytes() {
    let config = br#"{"tokenizer_class": "ByT5Tokenizer", "extra_ids": 125}"#;
    let model = load(&directory(259, &[("tokenizer_config.json", config)])).unwrap();
    assert_eq!(model.tokenizer.encode("é!".as_bytes()).unwrap(), [0xc6, 0xac, 0x24]);
    assert_eq!(model.tokenizer.decode(&[0xc6, 1, 0xac, 0x24, 0]), "é!");
    assert_eq!(model.config.eos_token_ids, [1]);
    let model = load(&directory(100, &[("tokenizer_config.json", config)])).unwrap();
    assert!(matches!(model.tokenizer.encode(b"ab"), Err(EncodeError::ByteOutOfRange { offset: 0, byte: 0x61, .. })));
    // Without that class, or a tokenizer.json, tokens are raw bytes.
    let model = load(&directory(256, &[("tokenizer_config.json", b"{}")])).unwrap();
    assert_eq!(model.tokenizer.to_string(), "raw bytes");
}

#[test]
fn info_names_layout_and_tokenizer() {
    let directory = directory(VOCAB, &[("tokenizer.json", byte_level())]);
    let run = |model: &Path| {
        let mut program = assert_cmd::Command::new(env!("CARGO_BIN_EXE_bdh-gpu"));
        String::from_utf8(program.arg("info").arg("--model").arg(model).output().unwrap().stdout).unwrap()
    };
    let text = run(directory.path());
    assert!(text.contains("tokenizer.json: BPE, 350 tokens") && text.contains("official names, safetensors"), "{text}");
    let text = run(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/hf-tied"));
    assert!(text.contains("the Hugging Face port's names, safetensors"), "{text}");
}
