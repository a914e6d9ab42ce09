//! The Hugging Face port.

use super::both;
use super::common;
use super::common::golden;
use super::small::{Small, stored};
use std::fs;

#[test]
fn hugging_face_models_load() {
    for (name, vocab, tied) in [("hf-tied", 259, true), ("hf-untied", 100, false)] {
        let model = both::from_path(golden(name)).unwrap();
        let config = &model.config;
        assert_eq!([config.n_layer, config.n_embd, config.n_head, config.neurons_per_head], [3, 32, 2, 96]);
        assert_eq!(config.vocab_size, vocab);
        assert_eq!((config.bos_token_id, &config.eos_token_ids[..]), (Some(0), &[1][..]));
        assert_eq!(model.weights.embed.shape(), [vocab, 32]);
        assert_eq!(model.weights.encoder.shape(), [2, 32, 96]);
        assert_eq!(model.weights.encoder_v.shape(), [2, 32, 96]);
        assert_eq!(model.weights.decoder.shape(), [192, 32]);
        assert_eq!(model.weights.lm_head.shape(), [32, vocab]);
        assert!(!model.stored_freqs && model.notes.is_empty());
        assert_eq!(model.weights.freqs, bdh_gpu::model::rotary::default_freqs(96));

        // The output is a transpose: of a tensor of its own, or of the embedding.
        let bytes = fs::read(golden(name).join("model.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let view = file.tensor(if tied { "backbone.embed.weight" } else { "lm_head.weight" }).unwrap();
        let stored: Vec<f32> = view.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        let head = model.weights.lm_head.to_vec();
        for (token, row) in stored.chunks(32).enumerate() {
            for (d, &value) in row.iter().enumerate() {
                assert_eq!(head[d * vocab + token], value, "{name}: token {token}, element {d}");
            }
        }
    }
}

/// The port computes in f32, with its own order of sums and phases rounded to f32: its logits, of size
/// one, were found to be within 2e-6 of the definition in f64.
#[test]
fn hugging_face_models_give_the_ports_logits() {
    const TOKENS: usize = 12;
    const TOLERANCE: f64 = 2e-5;
    for name in ["hf-tied", "hf-untied"] {
        let model = both::from_path(golden(name)).unwrap();
        let results = common::Golden::read(name, "golden.safetensors");
        let tokens = &results.tokens("tokens")[..TOKENS];
        let expected = &results.values("logits")[..TOKENS * model.config.vocab_size];
        let found = common::naive::logits(&model, tokens, 0, bdh_gpu::Forgetting::Full);
        let furthest = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        println!("{name}: logits within {furthest:e}");
        assert!(furthest <= TOLERANCE, "{name}: {furthest:e}");
    }
}

const PORTED_CONFIG: &str = r#"{"num_hidden_layers": 1, "hidden_size": 4, "num_attention_heads": 2,
    "mlp_internal_dim_multiplier": 3, "vocab_size": 5}"#;

/// The small model as the port saves it, tied.
fn ported() -> Small {
    let mut small = Small::new().without("lm_head").file("config.json", PORTED_CONFIG);
    for tensor in &mut small.tensors {
        tensor.name.insert_str(0, "backbone.");
    }
    small
}

fn ported_with(key: &str) -> Small {
    ported().file("config.json", &PORTED_CONFIG.replace("5}", &format!("5, {key}}}")))
}

#[test]
fn the_output_may_be_stored_where_the_embedding_is_the_same() {
    let head = || stored("lm_head.weight", "F16", &[5, 4], 0.5);
    for small in [ported(), ported_with("\"tie_word_embeddings\": true"), ported_with("\"tie_word_embeddings\": null")]
    {
        let model = small.load().unwrap();
        assert_eq!(model.weights.lm_head.shape(), [4, 5]);
        assert_eq!(model.weights.lm_head.to_vec(), [0.5; 20]);
        assert!(model.notes.is_empty());
        let small = small.with(head());
        let notes = small.load().unwrap().notes;
        assert_eq!(notes.len(), 1);
        assert!(notes[0].ends_with(
            "tensor \"lm_head.weight\" is not used: it is tied to \"backbone.embed.weight\", which equals it"
        ));
    }
    let mut small = ported().with(head());
    small.tensor("lm_head.weight").bytes[2 * 13..2 * 14].copy_from_slice(&half::f16::from_f64(0.25).to_le_bytes());
    small.refuses(
        "model.safetensors: tensor \"lm_head.weight\" holds 0.25 at index [3, 1] where \"backbone.embed.weight\" \
         holds 0.5, expected them equal, or \"tie_word_embeddings\": false in config.json",
    );
    let small = small.file("config.json", &PORTED_CONFIG.replace("5}", "5, \"tie_word_embeddings\": false}"));
    let model = small.load().unwrap();
    let mut expected = [0.5; 20];
    expected[5 + 3] = 0.25;
    assert_eq!(model.weights.lm_head.to_vec(), expected);
    assert!(model.notes.is_empty());
}

#[test]
fn an_output_that_is_neither_tied_nor_stored_is_refused() {
    ported_with("\"tie_word_embeddings\": false").refuses(
        "model.safetensors: tensor \"lm_head.weight\" is missing, expected shape [5, 4]; the file holds \
         \"backbone.decoder\", \"backbone.embed.weight\", \"backbone.encoder\", \"backbone.encoder_v\", \
         and config.json says \"tie_word_embeddings\": false",
    );
    ported_with("\"tie_word_embeddings\": 0")
        .refuses("config.json: key \"tie_word_embeddings\" is 0, expected true or false");
}

#[test]
fn hugging_face_tensors_are_checked_like_official_ones() {
    ported().without("backbone.encoder_v").refuses(
        "model.safetensors: tensor \"backbone.encoder_v\" is missing, expected shape [2, 4, 6]; \
         the file holds \"backbone.decoder\", \"backbone.embed.weight\", \"backbone.encoder\"",
    );
    for extra in ["backbone.encoder.bias", "lm_gate", "encoder", "lm_head"] {
        ported().with(stored(extra, "F32", &[6], 0.5)).refuses(&format!(
            "model.safetensors: unknown tensor {extra:?}, expected only \"backbone.encoder\", \"backbone.encoder_v\", \
             \"backbone.decoder\", \"backbone.embed.weight\", \"lm_head.weight\", \"backbone.attn.freqs\""
        ));
    }
    let change = |name: &str, dtype, shape: &[usize], value| {
        let mut small =
            ported_with("\"tie_word_embeddings\": false").with(stored("lm_head.weight", "F32", &[5, 4], 0.5));
        *small.tensor(name) = stored(name, dtype, shape, value);
        small
    };
    change("lm_head.weight", "F32", &[4, 5], 0.5).refuses(
        "model.safetensors: tensor \"lm_head.weight\" has shape [4, 5], expected [5, 4] \
         (vocab_size, hidden_size from the configuration)",
    );
    change("backbone.encoder_v", "F32", &[2, 4, 7], 0.5).refuses(
        "model.safetensors: tensor \"backbone.encoder_v\" has shape [2, 4, 7]: 7 neurons per head, \
         expected an even number",
    );
    change("backbone.decoder", "F32", &[4, 12], 0.5).refuses(
        "model.safetensors: tensor \"backbone.decoder\" has shape [4, 12], expected [12, 4] \
         (num_attention_heads·N, hidden_size from the configuration)",
    );
    change("lm_head.weight", "I8", &[5, 4], 0.0)
        .refuses("model.safetensors: tensor \"lm_head.weight\" has dtype \"I8\", expected F32, F16, BF16 or F64");
    for name in ["lm_head.weight", "backbone.embed.weight"] {
        change(name, "F32", &[5, 4], f64::NAN).refuses(&format!(
            "model.safetensors: tensor {name:?} holds NaN at index [0, 0], expected only numbers finite in f32"
        ));
    }
    let message = ported().file("config.json", &PORTED_CONFIG.replace("\"hidden_size\": 4,", "")).refusal();
    assert!(message.starts_with("config.json: key \"hidden_size\" is missing"), "{message}");
    // What wrappers and older versions add is no obstacle.
    let mut small = ported().with(stored("backbone.attn.freqs", "F32", &[1, 1, 1, 6], 0.25)).with(stored(
        "backbone.lm_gate",
        "U8",
        &[3],
        0.0,
    ));
    small.tensor("backbone.encoder").name.insert_str(0, "_orig_mod.module.");
    let model = small.load().unwrap();
    assert_eq!(model.weights.freqs, [0.25; 6]);
    assert!(model.stored_freqs);
    assert!(model.notes.len() == 1 && model.notes[0].ends_with("tensor \"backbone.lm_gate\" is not used"));
}
