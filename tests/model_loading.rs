//! Loading models: what is accepted, and with what words everything else is refused.

use std::fs;
use std::path::{Path, PathBuf};

use bdh_gpu::model::{Dtype, EarlyStopping, Model, ModelError, SyntheticSpec, Tensor, Weights};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, RngExt, SeedableRng};
use tempfile::TempDir;

mod common;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

// --- sound models ---

#[test]
fn every_golden_loads_with_its_sizes() {
    for (name, sizes) in [
        ("micro", [2, 32, 2, 128, 256]),
        ("odd-shapes", [3, 24, 3, 40, 97]),
        ("one-head", [2, 64, 1, 256, 259]),
        ("deep", [8, 16, 4, 64, 64]),
        ("st-bf16", [2, 16, 2, 32, 256]),
        ("st-f16", [2, 16, 2, 32, 256]),
    ] {
        let model = Model::from_path(golden(name)).unwrap();
        let config = &model.config;
        let found = [config.n_layer, config.n_embd, config.n_head, config.neurons_per_head, config.vocab_size];
        assert_eq!(found, sizes, "{name}");
        let [l, d, h, n, v] = sizes;
        assert_eq!(model.name, name);
        assert_eq!(model.weights.embed.shape(), [v, d]);
        assert_eq!(model.weights.encoder.shape(), [h, d, n]);
        assert_eq!(model.weights.encoder_v.shape(), [h, d, n]);
        assert_eq!(model.weights.decoder.shape(), [h * n, d]);
        assert_eq!(model.weights.lm_head.shape(), [d, v]);
        assert_eq!((config.neurons(), config.state_len()), (h * n, l * h * n * d));
        assert_eq!(config.parameters(), 2 * v * d + 3 * h * n * d);
        assert!(model.stored_freqs && model.notes.is_empty());
        assert_eq!((config.trained_context, config.bos_token_id), (None, None));
        // The stored frequencies are the formula's, but for the rounding of the f32 power.
        let formula = bdh_gpu::model::rotary::default_freqs(n);
        for (stored, formula) in model.weights.freqs.iter().zip(formula) {
            assert!((stored / formula - 1.0).abs() < 1e-6, "{name}: {stored} {formula}");
        }
    }
}

#[test]
fn values_are_those_of_an_independent_reader() {
    for (name, dtype) in [("micro", Dtype::F32), ("st-bf16", Dtype::BF16), ("st-f16", Dtype::F16)] {
        let model = Model::from_path(golden(name)).unwrap();
        assert_eq!(model.weights_dtype(), dtype);
        // The bf16 values are of a size at which f16 has more digits.
        assert_eq!(model.weights.encoder.fits_f16_exactly(), dtype != Dtype::F32);
        let bytes = fs::read(golden(name).join("model.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        for (tensor, values) in [
            ("embed.weight", model.weights.embed.to_vec()),
            ("encoder", model.weights.encoder.to_vec()),
            ("encoder_v", model.weights.encoder_v.to_vec()),
            ("decoder", model.weights.decoder.to_vec()),
            ("lm_head", model.weights.lm_head.to_vec()),
            ("attn.freqs", model.weights.freqs),
        ] {
            let view = file.tensor(tensor).unwrap();
            let two = |bytes: &[u8]| [bytes[0], bytes[1]];
            let expected: Vec<f32> = match view.dtype() {
                safetensors::Dtype::F16 => {
                    view.data().chunks(2).map(|b| half::f16::from_le_bytes(two(b)).to_f32()).collect()
                }
                safetensors::Dtype::BF16 => {
                    view.data().chunks(2).map(|b| half::bf16::from_le_bytes(two(b)).to_f32()).collect()
                }
                _ => view.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
            };
            assert_eq!(values, expected, "{name} {tensor}");
        }
    }
}

#[test]
fn the_shipped_model_comes_with_all_its_files() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/bdh-shakespeare");
    for model in [Model::from_path(&directory), Model::from_path(directory.join("model.safetensors"))] {
        let model = model.unwrap();
        assert_eq!(model.name, "bdh-shakespeare");
        assert_eq!(model.config.parameters(), 1_638_400);
        assert_eq!(model.config.trained_context, Some(256));
        assert_eq!((model.generation.max_new_tokens, model.generation.top_k), (Some(200), Some(50)));
        assert_eq!((model.generation.temperature, model.generation.do_sample), (Some(0.8), Some(true)));
        assert_eq!(model.training_args.unwrap()["batch_size"], 16);
        assert!(!model.stored_freqs && model.notes.is_empty());
    }
}

#[cfg(feature = "embedded-model")]
#[test]
fn the_embedded_model_is_the_shipped_one() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/bdh-shakespeare");
    let (embedded, shipped) = (Model::embedded().unwrap(), Model::from_path(directory).unwrap());
    assert_eq!(embedded.name, shipped.name);
    assert_eq!(embedded.config, shipped.config);
    assert_eq!(embedded.generation, shipped.generation);
    assert_eq!(embedded.training_args, shipped.training_args);
    assert_eq!(embedded.weights.decoder.to_vec(), shipped.weights.decoder.to_vec());
}

#[test]
fn a_model_is_named_after_its_directory_however_that_is_written() {
    let model = Model::from_path(golden("micro").join("..").join("micro").join(".")).unwrap();
    assert_eq!(model.name, "micro");
    assert_eq!(Model::from_path(golden("micro/../micro/../micro")).unwrap().name, "micro");
    assert_eq!(Model::from_path(golden("micro").join("model.safetensors")).unwrap().name, "micro");
}

// --- a small model to take apart ---

/// L 1, D 4, H 2, N 6, V 5, all weights 0.5, frequencies by formula.
struct Small {
    tensors: Vec<Stored>,
    files: Vec<(&'static str, String)>,
    directory: TempDir,
}

struct Stored {
    name: String,
    dtype: &'static str,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn stored(name: &str, dtype: &'static str, shape: &[usize], value: f64) -> Stored {
    let element = match dtype {
        "F64" => value.to_le_bytes().to_vec(),
        "F32" => (value as f32).to_le_bytes().to_vec(),
        "F16" => half::f16::from_f64(value).to_le_bytes().to_vec(),
        "BF16" => half::bf16::from_f64(value).to_le_bytes().to_vec(),
        _ => vec![1],
    };
    let bytes = element.repeat(shape.iter().product());
    Stored { name: name.to_owned(), dtype, shape: shape.to_vec(), bytes }
}

const SMALL_CONFIG: &str =
    r#"{"n_layer": 1, "n_embd": 4, "n_head": 2, "mlp_internal_dim_multiplier": 3, "vocab_size": 5}"#;

impl Small {
    fn new() -> Self {
        let tensors = vec![
            stored("embed.weight", "F32", &[5, 4], 0.5),
            stored("encoder", "F16", &[2, 4, 6], 0.5),
            stored("encoder_v", "BF16", &[2, 4, 6], 0.5),
            stored("decoder", "F64", &[12, 4], 0.5),
            stored("lm_head", "F32", &[4, 5], 0.5),
        ];
        Self { tensors, files: vec![("config.json", SMALL_CONFIG.to_owned())], directory: TempDir::new().unwrap() }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn tensor(&mut self, name: &str) -> &mut Stored {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
    }

    fn without(mut self, name: &str) -> Self {
        self.tensors.retain(|tensor| tensor.name != name);
        self
    }

    fn with(mut self, tensor: Stored) -> Self {
        self.tensors.push(tensor);
        self
    }

    /// Adds or replaces a file other than the weights.
    fn file(mut self, name: &'static str, text: &str) -> Self {
        self.files.retain(|(other, _)| *other != name);
        self.files.push((name, text.to_owned()));
        self
    }

    fn config(self, from: &str, to: &str) -> Self {
        assert!(SMALL_CONFIG.contains(from));
        self.file("config.json", &SMALL_CONFIG.replace(from, to))
    }

    fn load(&self) -> Result<Model, ModelError> {
        fs::write(self.path().join("model.safetensors"), safetensors_bytes(&self.tensors)).unwrap();
        for (name, text) in &self.files {
            fs::write(self.path().join(name), text).unwrap();
        }
        Model::from_path(self.path())
    }

    /// The message without the directory in front.
    #[track_caller]
    fn refusal(&self) -> String {
        let message = self.load().expect_err("the model should have been refused").to_string();
        assert!(!message.contains('\n'), "{message}");
        message.replace(&format!("{}/", self.path().display()), "")
    }

    #[track_caller]
    fn refuses(&self, message: &str) {
        assert_eq!(self.refusal(), message);
    }
}

fn safetensors_bytes(tensors: &[Stored]) -> Vec<u8> {
    let mut data = Vec::new();
    let mut entries = Vec::new();
    for Stored { name, dtype, shape, bytes } in tensors {
        let begin = data.len();
        data.extend(bytes);
        entries.push(format!(
            r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{begin},{}]}}"#,
            data.len()
        ));
    }
    with_header(&format!("{{{}}}", entries.join(",")), &data)
}

fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[test]
fn mixed_dtypes_load() {
    let model = Small::new().load().unwrap();
    assert_eq!(model.weights_dtype(), Dtype::F16);
    for tensor in [&model.weights.embed, &model.weights.encoder, &model.weights.encoder_v, &model.weights.decoder] {
        assert!(tensor.to_vec().iter().all(|&value| value == 0.5));
        assert!(tensor.fits_f16_exactly());
    }
    assert_eq!(model.weights.decoder.dtype().to_string(), "f64");
    assert!(!model.stored_freqs);
}

#[test]
fn wrappers_are_stripped_and_extras_noted() {
    let mut small = Small::new();
    for (tensor, prefix) in small.tensors.iter_mut().zip(["module._orig_mod.", "_orig_mod.module.", "module.", "", ""])
    {
        tensor.name.insert_str(0, prefix);
    }
    let small = small
        .with(stored("lm_gate", "U8", &[3], 0.0))
        .with(stored("_orig_mod.attns.3.freqs", "F32", &[2], 0.0))
        .with(stored("attn.freqs", "F64", &[1, 6], 0.25));
    let model = small.load().unwrap();
    assert_eq!(model.weights.freqs, [0.25; 6]);
    assert!(model.stored_freqs);
    assert_eq!(model.notes.len(), 2);
    assert!(model.notes[0].ends_with(r#"model.safetensors: tensor "attns.3.freqs" is not used"#));
    small.with(stored("module.lm_head", "F32", &[4, 5], 0.0)).refuses(
        r#"model.safetensors: tensor "lm_head" occurs twice, the second time as "module.lm_head", expected it once"#,
    );
}

// --- tensors that do not fit ---

#[test]
fn wrong_shapes_are_refused() {
    let mut small = Small::new();
    *small.tensor("encoder") = stored("encoder", "F16", &[2, 4, 8], 0.5);
    small.refuses(
        "model.safetensors: tensor \"encoder\" has shape [2, 4, 8], expected [2, 4, 6] (n_head, n_embd, N from config.json)",
    );
    let mut small = Small::new();
    *small.tensor("decoder") = stored("decoder", "F32", &[4, 12], 0.5);
    small.refuses(
        "model.safetensors: tensor \"decoder\" has shape [4, 12], expected [12, 4] (n_head·N, n_embd from config.json)",
    );
    let mut small = Small::new();
    *small.tensor("encoder") = stored("encoder", "F32", &[2, 4, 7], 0.5);
    small.refuses(
        "model.safetensors: tensor \"encoder\" has shape [2, 4, 7]: 7 neurons per head, expected an even number",
    );
    Small::new().with(stored("attn.freqs", "F32", &[6, 1], 0.5)).refuses(
        "model.safetensors: tensor \"attn.freqs\" has shape [6, 1], expected [1, 1, 1, 6] (1, 1, 1, N from config.json)",
    );
}

#[test]
fn missing_and_unknown_tensors_are_refused() {
    Small::new().without("encoder_v").refuses(
        "model.safetensors: tensor \"encoder_v\" is missing, expected shape [2, 4, 6]; \
         the file holds \"decoder\", \"embed.weight\", \"encoder\", \"lm_head\"",
    );
    Small::new().with(stored("encoder.bias", "F32", &[6], 0.5)).refuses(
        "model.safetensors: unknown tensor \"encoder.bias\", expected only \
         \"encoder\", \"encoder_v\", \"decoder\", \"embed.weight\", \"lm_head\", \"attn.freqs\"",
    );
}

#[test]
fn other_dtypes_are_refused() {
    let mut small = Small::new();
    *small.tensor("encoder") = stored("encoder", "I8", &[2, 4, 6], 0.5);
    small.refuses("model.safetensors: tensor \"encoder\" has dtype \"I8\", expected F32, F16, BF16 or F64");
}

#[test]
fn what_is_not_finite_is_refused() {
    for (name, dtype, value, shown) in [
        ("embed.weight", "F32", f64::NAN, "NaN"),
        ("embed.weight", "BF16", f64::INFINITY, "inf"),
        ("embed.weight", "F16", f64::NEG_INFINITY, "-inf"),
        ("embed.weight", "F64", 1e39, "1000000000000000000000000000000000000000"),
    ] {
        let mut small = Small::new();
        let bad = stored(name, dtype, &[1], value).bytes;
        *small.tensor(name) = stored(name, dtype, &[5, 4], 0.5);
        let size = bad.len();
        small.tensor(name).bytes[14 * size..15 * size].copy_from_slice(&bad);
        small.refuses(&format!(
            "model.safetensors: tensor \"embed.weight\" holds {shown} at index [3, 2], expected only numbers finite in f32"
        ));
    }
    let message = Small::new().with(stored("attn.freqs", "F32", &[1, 1, 1, 6], f64::NAN)).refusal();
    assert!(message.contains("\"attn.freqs\" holds NaN at index [0, 0, 0, 0]"), "{message}");
}

// --- the Hugging Face port ---

#[test]
fn hugging_face_models_load() {
    for (name, vocab, tied) in [("hf-tied", 259, true), ("hf-untied", 100, false)] {
        let model = Model::from_path(golden(name)).unwrap();
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
        let model = Model::from_path(golden(name)).unwrap();
        let results = common::Golden::read(name, "golden.safetensors");
        let tokens = &results.tokens("tokens")[..TOKENS];
        let expected = &results.values("logits")[..TOKENS * model.config.vocab_size];
        let found = common::naive::logits(&model, tokens, 0, None);
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
         (vocab_size, hidden_size from config.json)",
    );
    change("backbone.encoder_v", "F32", &[2, 4, 7], 0.5).refuses(
        "model.safetensors: tensor \"backbone.encoder_v\" has shape [2, 4, 7]: 7 neurons per head, \
         expected an even number",
    );
    change("backbone.decoder", "F32", &[4, 12], 0.5).refuses(
        "model.safetensors: tensor \"backbone.decoder\" has shape [4, 12], expected [12, 4] \
         (num_attention_heads·N, hidden_size from config.json)",
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

// --- other layouts and formats ---

#[test]
fn other_layouts_are_named() {
    for (tensor, layout) in [
        ("embed_weight", "the MLX port's layout"),
        ("attn_freqs", "the MLX port's layout"),
        ("decoder_x", "the layout with the paper's names"),
        ("wte.weight", "the layout with the paper's names"),
    ] {
        Small::new().with(stored(tensor, "F32", &[1], 0.0)).refuses(&format!(
            "model.safetensors: tensor {tensor:?} belongs to {layout}, which this version does not read; \
             expected safetensors with the official tensor names or those of the Hugging Face port"
        ));
    }
    for tensor in ["encoders.0", "encoder.1", "layers.11.attn.weight"] {
        Small::new().with(stored(tensor, "F32", &[1], 0.0)).refuses(&format!(
            "model.safetensors: tensor {tensor:?} belongs to one layer, expected weights that all layers share; \
             this is not a BDH model"
        ));
    }
}

#[test]
fn other_formats_are_named() {
    for (file, bytes, format) in [
        ("model.pt", &b"PK\x03\x04 and so on"[..], "a PyTorch checkpoint (a zip written by torch.save)"),
        (
            "model.pt",
            b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.",
            "a legacy PyTorch checkpoint (a pickle that is not in a zip)",
        ),
        ("model.npz", b"PK\x03\x04 and so on", "a NumPy archive (the MLX port's .npz)"),
        ("model.safetensors.index.json", b"{}", "the index of weights split over several files"),
    ] {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join(file), bytes).unwrap();
        for path in [directory.path().to_owned(), directory.path().join(file)] {
            let message = Model::from_path(path).unwrap_err().to_string();
            let expected = format!("{file}: {format}, which this version does not read; expected safetensors");
            assert!(message.contains(&expected), "{message}");
        }
    }
    refuses_weights(b"GGUF\x03\0\0\0\0\0\0\0", "a GGUF file, which this version does not read; expected safetensors");
    refuses_weights(
        b"version https://git-lfs.github.com/spec/v1\noid",
        "a Git LFS pointer in place of the weights, expected the weights themselves; fetch them with `git lfs pull`",
    );
}

// --- damaged files ---

#[track_caller]
fn refuses_weights(bytes: &[u8], expected: &str) {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("config.json"), SMALL_CONFIG).unwrap();
    fs::write(directory.path().join("model.safetensors"), bytes).unwrap();
    let message = Model::from_path(directory.path()).unwrap_err().to_string();
    assert!(message.contains(&format!("model.safetensors: {expected}")), "{message}");
}

#[test]
fn damaged_weights_are_refused() {
    let whole = safetensors_bytes(&Small::new().tensors);
    refuses_weights(b"", "the file is empty, expected a safetensors file");
    refuses_weights(b"abc", "the file has 3 bytes, expected a safetensors file");
    refuses_weights(b"<html><body>Not found", "not a safetensors file, expected a header of at most 4 MiB");
    refuses_weights(&whole[..100], "the file ends in its header, after 92 of ");
    refuses_weights(
        &whole[..whole.len() - 1],
        "tensor \"lm_head\" lies at bytes 656 to 736 of 735, expected it inside the file; copy or download the file again",
    );
    refuses_weights(
        &[&whole[..], &[0]].concat(),
        "the last tensor ends at byte 736 of 737 of the data, expected it at the end",
    );
    refuses_weights(&with_header("{\"a\":", &[]), "the header is not valid JSON (EOF while parsing");
    let one = |info: &str| with_header(&format!(r#"{{"encoder":{info}}}"#), &[0; 8]);
    refuses_weights(&one("7"), "tensor \"encoder\" is described as 7, expected dtype, shape and data_offsets");
    refuses_weights(
        &one(r#"{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}"#),
        "tensor \"encoder\" is described as {",
    );
    refuses_weights(
        &one(r#"{"dtype":"F32","shape":[3],"data_offsets":[0,8]}"#),
        "tensor \"encoder\" has 8 bytes for f32 [3], expected 12 bytes",
    );
    refuses_weights(
        &one(r#"{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}"#),
        "tensor \"encoder\" has 8 bytes for f32 [4294967296, 4294967296], expected a smaller shape",
    );
    refuses_weights(
        &one(r#"{"dtype":"F32","shape":[1],"data_offsets":[8,4]}"#),
        "tensor \"encoder\" lies at bytes 8 to 4 of 8",
    );
    refuses_weights(
        &one(r#"{"dtype":"F32","shape":[1],"data_offsets":[4,8]}"#),
        "the tensors leave a gap or overlap at byte 0 of the data",
    );
    refuses_weights(
        &with_header(
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
            &[0; 8],
        ),
        "the tensors leave a gap or overlap at byte 4 of the data, expected one tensor after the other",
    );
    // Lengths that add up to more than 2^64.
    let part = 1u128 << 60;
    let entries: Vec<String> = (0..17u128)
        .map(|i| {
            let end = ((i + 1) * part).min(u128::from(u64::MAX));
            format!(r#""t{i}":{{"dtype":"U8","shape":[{part}],"data_offsets":[{},{end}]}}"#, i * part)
        })
        .collect();
    refuses_weights(&with_header(&format!("{{{}}}", entries.join(",")), &[0; 8]), "tensor \"t");
}

// --- files that are missing or something else ---

#[test]
fn missing_files_are_named() {
    let message = Model::from_path("no/such/model").unwrap_err().to_string();
    assert_eq!(message, "no/such/model: no such file or directory; expected a model directory or a weights file");
    let directory = TempDir::new().unwrap();
    let message = Model::from_path(directory.path()).unwrap_err().to_string();
    assert!(message.ends_with(": holds no weights, expected model.safetensors in this directory"), "{message}");
    let mut small = Small::new();
    small.files.clear();
    small.refuses("config.json: not found; expected the model's configuration beside its weights");
}

#[test]
fn directories_in_place_of_files_are_refused() {
    let directory = TempDir::new().unwrap();
    fs::create_dir(directory.path().join("model.safetensors")).unwrap();
    let message = Model::from_path(directory.path()).unwrap_err().to_string();
    assert!(message.ends_with("model.safetensors: is a directory, expected a regular file"), "{message}");
    let mut small = Small::new();
    small.files.clear();
    fs::create_dir(small.path().join("config.json")).unwrap();
    small.refuses("config.json: is a directory, expected a regular file");
}

#[cfg(unix)]
#[test]
fn pipes_and_devices_are_refused_without_waiting() {
    let directory = TempDir::new().unwrap();
    let pipe = directory.path().join("model.safetensors");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    if made.is_ok_and(|status| status.success()) {
        for path in [directory.path(), &pipe] {
            let message = Model::from_path(path).unwrap_err().to_string();
            assert!(message.ends_with("model.safetensors: is a named pipe, expected a regular file"), "{message}");
        }
    }
    let message = Model::from_path("/dev/null").unwrap_err().to_string();
    assert_eq!(message, "/dev/null: is a device, expected a regular file");
}

#[cfg(unix)]
#[test]
fn unreadable_files_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let small = Small::new();
    small.load().unwrap();
    let weights = small.path().join("model.safetensors");
    fs::set_permissions(&weights, fs::Permissions::from_mode(0o000)).unwrap();
    // An administrator may read everything.
    if fs::File::open(&weights).is_err() {
        let message = Model::from_path(small.path()).unwrap_err().to_string();
        assert!(message.contains("model.safetensors: cannot be read: Permission denied"), "{message}");
    }
}

// --- configuration ---

#[test]
fn files_that_are_not_json_objects_are_refused() {
    let small = |text| Small::new().file("config.json", text);
    small("").refuses("config.json: the file is empty, expected a JSON object");
    small("[1]").refuses("config.json: is a list, expected a JSON object");
    small("n_layer: 4")
        .refuses("config.json: not valid JSON (expected ident at line 1 column 2), expected a JSON object");
    Small::new()
        .file("generation_config.json", "7")
        .refuses("generation_config.json: is a number, expected a JSON object");
    Small::new().file("training_args.json", "null").refuses("training_args.json: is null, expected a JSON object");
    let deep = "[".repeat(100_000);
    assert!(small(&deep).refusal().contains("recursion limit"));
    let long = format!("{SMALL_CONFIG}{}", " ".repeat(16 << 20));
    small(&long).refuses("config.json: longer than 16 MiB, expected a JSON object");
}

#[test]
fn sizes_out_of_range_are_refused_before_they_are_used() {
    let size = "a whole number from 1 to 16777216";
    for (from, to, message) in [
        ("\"n_layer\": 1,", "", format!("\"n_layer\" is missing, expected {size}")),
        ("\"n_layer\": 1,", "\"n_layer\": null,", format!("\"n_layer\" is missing, expected {size}")),
        ("\"n_layer\": 1", "\"n_layer\": 0", format!("\"n_layer\" is 0, expected {size}")),
        ("\"n_layer\": 1", "\"n_layer\": -3", format!("\"n_layer\" is -3, expected {size}")),
        ("\"n_layer\": 1", "\"n_layer\": 1.5", format!("\"n_layer\" is 1.5, expected {size}")),
        ("\"n_layer\": 1", "\"n_layer\": \"1\"", format!("\"n_layer\" is \"1\", expected {size}")),
        ("\"n_embd\": 4", "\"n_embd\": 1000000000000", format!("\"n_embd\" is 1000000000000, expected {size}")),
        ("\"n_head\": 2", "\"n_head\": 1e30", format!("\"n_head\" is 1e+30, expected {size}")),
        ("\"n_head\": 2", "\"n_head\": {}", format!("\"n_head\" is {{}}, expected {size}")),
        ("\"n_head\": 2", "\"n_head\": 13", "\"mlp_internal_dim_multiplier\" is 3, which gives 0 neurons per head, expected 1 to 16777216 neurons per head".to_owned()),
        ("r\": 3", "r\": 16777216", "\"mlp_internal_dim_multiplier\" is 16777216, which gives 33554432 neurons per head, expected 1 to 16777216 neurons per head".to_owned()),
        ("\"n_embd\": 4", "\"n_embd\": 2", "\"mlp_internal_dim_multiplier\" is 3, which gives 3 neurons per head, expected an even number of neurons per head".to_owned()),
        ("\"n_embd\": 4", "\"n_embd\": 10000000", "\"mlp_internal_dim_multiplier\" is 3, which gives 15000000 neurons per head of width 10000000, expected at most 1099511627776 numbers in encoder, encoder_v and decoder".to_owned()),
        ("\"vocab_size\": 5", "\"vocab_size\": 16777217", format!("\"vocab_size\" is 16777217, expected {size}")),
        ("\"vocab_size\": 5", "\"vocab_size\": 5, \"block_size\": 0", "\"block_size\" is 0, expected a whole number from 1 to 4294967295".to_owned()),
        ("\"vocab_size\": 5", "\"vocab_size\": 5, \"eos_token_id\": [1, \"x\"]", "\"eos_token_id\" is [1,\"x\"], expected a token id or a list of token ids".to_owned()),
    ] {
        Small::new().config(from, to).refuses(&format!("config.json: key {message}"));
    }
    // In range one by one, out of it together.
    Small::new()
        .config("\"n_layer\": 1, \"n_embd\": 4", "\"n_layer\": 16000000, \"n_embd\": 4000")
        .refuses("config.json: key \"n_layer\" is 16000000 with 12000 neurons of width 4000, expected at most 1099511627776 numbers in a state");
    // Large and in range: the tensors disagree, nothing of that size is allocated.
    let message = Small::new().config("\"vocab_size\": 5", "\"vocab_size\": 16777216").refusal();
    assert!(message.contains("has shape [5, 4], expected [16777216, 4]"), "{message}");
}

#[test]
fn hugging_face_keys_and_repeated_keys_are_understood() {
    let text = r#"{"num_hidden_layers": 7, "num_hidden_layers": 1, "hidden_size": 4, "num_attention_heads": 2,
                   "mlp_internal_dim_multiplier": 3, "vocab_size": 5, "max_position_embeddings": 99}"#;
    let model = Small::new().file("config.json", text).load().unwrap();
    assert_eq!((model.config.n_layer, model.config.trained_context), (1, Some(99)));
}

#[test]
fn the_trained_context_may_stand_in_training_args() {
    let small = Small::new().file("training_args.json", r#"{"block_size": 64}"#);
    assert_eq!(small.load().unwrap().config.trained_context, Some(64));
    let small = small.config("\"vocab_size\": 5", "\"vocab_size\": 5, \"trained_context\": 32");
    assert_eq!(small.load().unwrap().config.trained_context, Some(32));
}

#[test]
fn special_tokens_come_from_either_file() {
    let config = "\"vocab_size\": 5, \"eos_token_id\": [1, 2], \"bos_token_id\": 3";
    let small = Small::new().config("\"vocab_size\": 5", config);
    let model = small.load().unwrap();
    assert_eq!((model.config.eos_token_ids, model.config.bos_token_id), (vec![1, 2], Some(3)));
    let small = small.file("generation_config.json", r#"{"eos_token_id": 4, "bos_token_id": null}"#);
    let model = small.load().unwrap();
    assert_eq!((model.config.eos_token_ids, model.config.bos_token_id), (vec![4], Some(3)));
    let small = small.file("generation_config.json", r#"{"eos_token_id": [4, 5]}"#);
    let model = small.load().unwrap();
    assert_eq!(model.config.eos_token_ids, [4]);
    assert_eq!(model.notes, ["eos_token_id 5 is ignored: it is not below vocab_size 5"]);
}

#[test]
fn generation_options_are_read_and_checked() {
    let load = |text: &str| Small::new().file("generation_config.json", text).load().unwrap().generation;
    let options = load(
        r#"{"max_new_tokens": 7, "min_new_tokens": 0, "do_sample": false, "temperature": 0, "top_k": 0,
            "top_p": 1, "min_p": 0.5, "repetition_penalty": 1.5, "presence_penalty": -1,
            "frequency_penalty": 0.25, "num_beams": 4, "length_penalty": -2.0, "early_stopping": "never",
            "num_return_sequences": 2, "eos_token_id": 1, "bos_token_id": [2],
            "seed": 18446744073709551615, "transformers_version": "5.0", "use_cache": true}"#,
    );
    assert_eq!((options.max_new_tokens, options.min_new_tokens), (Some(7), Some(0)));
    assert_eq!((options.do_sample, options.temperature, options.top_k), (Some(false), Some(0.0), Some(0)));
    assert_eq!((options.top_p, options.min_p), (Some(1.0), Some(0.5)));
    assert_eq!((options.repetition_penalty, options.presence_penalty), (Some(1.5), Some(-1.0)));
    assert_eq!((options.frequency_penalty, options.num_beams), (Some(0.25), Some(4)));
    assert_eq!((options.length_penalty, options.early_stopping), (Some(-2.0), Some(EarlyStopping::Never)));
    assert_eq!((options.num_return_sequences, options.seed), (Some(2), Some(u64::MAX)));
    assert_eq!((options.eos_token_id, options.bos_token_id), (Some(vec![1]), Some(2)));
    assert_eq!(load("{}"), load(r#"{"temperature": null, "top_k": null, "something": [1]}"#));
    for (option, message) in [
        ("\"temperature\": -1", "\"temperature\" is -1, expected a number ≥ 0"),
        ("\"temperature\": \"hot\"", "\"temperature\" is \"hot\", expected a number ≥ 0"),
        ("\"temperature\": 1e300", "\"temperature\" is 1e+300, expected a number ≥ 0"),
        ("\"top_k\": -1", "\"top_k\" is -1, expected a whole number from 0 to 4294967295"),
        ("\"top_k\": 1.5", "\"top_k\" is 1.5, expected a whole number from 0 to 4294967295"),
        ("\"top_p\": 0", "\"top_p\" is 0, expected a number > 0 and ≤ 1"),
        ("\"top_p\": 1.5", "\"top_p\" is 1.5, expected a number > 0 and ≤ 1"),
        ("\"min_p\": 2", "\"min_p\" is 2, expected a number from 0 to 1"),
        ("\"repetition_penalty\": 0", "\"repetition_penalty\" is 0, expected a number > 0"),
        ("\"do_sample\": 1", "\"do_sample\" is 1, expected true or false"),
        ("\"num_beams\": 0", "\"num_beams\" is 0, expected a whole number from 1 to 4294967295"),
        ("\"early_stopping\": \"soon\"", "\"early_stopping\" is \"soon\", expected true, false or \"never\""),
        ("\"eos_token_id\": -1", "\"eos_token_id\" is -1, expected a token id or a list of token ids"),
        ("\"seed\": -1", "\"seed\" is -1, expected a whole number from 0"),
    ] {
        Small::new()
            .file("generation_config.json", &format!("{{{option}}}"))
            .refuses(&format!("generation_config.json: key {message}"));
    }
}

// --- models made in memory ---

#[test]
fn parts_are_checked_like_files() {
    let model = Small::new().load().unwrap();
    let build = |change: &dyn Fn(&mut Weights)| {
        let mut weights = model.weights.clone();
        change(&mut weights);
        Model::from_parts("mine", model.config.clone(), weights).map_err(|error| error.to_string())
    };
    assert!(!build(&|_| ()).unwrap().stored_freqs);
    assert!(build(&|weights| weights.freqs[0] = 0.0).unwrap().stored_freqs);
    let message = build(&|weights| weights.freqs.truncate(4)).unwrap_err();
    assert!(message.starts_with("mine: tensor \"attn.freqs\" has shape [4]"), "{message}");
    let message = build(&|weights| weights.freqs[1] = f32::NAN).unwrap_err();
    assert!(message.starts_with("mine: tensor \"attn.freqs\" holds NaN at index [1]"), "{message}");
    let message = build(&|weights| weights.lm_head = Tensor::from_f32(&[5, 4], vec![0.0; 20])).unwrap_err();
    assert!(message.starts_with("mine: tensor \"lm_head\" has shape [5, 4], expected [4, 5]"), "{message}");
    let mut config = model.config.clone();
    config.neurons_per_head = 7;
    let message = Model::from_parts("mine", config.clone(), model.weights.clone()).unwrap_err().to_string();
    assert_eq!(message, "mine: key \"neurons_per_head\" is 7, expected an even number of neurons per head");
    config.neurons_per_head = usize::MAX - 1;
    assert!(Model::from_parts("mine", config, model.weights.clone()).is_err());
}

// --- files altered at random ---

#[test]
fn altered_files_never_panic() {
    const ROUNDS: usize = 3000;
    let source = golden("micro");
    let weights = fs::read(source.join("model.safetensors")).unwrap();
    let config = fs::read(source.join("config.json")).unwrap();
    let header = 8 + u64::from_le_bytes(weights[..8].try_into().unwrap()) as usize;
    let directory = TempDir::new().unwrap();
    let (weights_path, config_path) =
        (directory.path().join("model.safetensors"), directory.path().join("config.json"));
    fs::write(&weights_path, &weights).unwrap();
    fs::write(&config_path, &config).unwrap();
    // Removed first: some file systems wait for the disk when a file is overwritten.
    let replace = |path: &Path, bytes: &[u8]| {
        let _ = fs::remove_file(path);
        fs::write(path, bytes).unwrap();
    };
    let mut random = Xoshiro256PlusPlus::seed_from_u64(3);
    let mut loaded = 0;
    for round in 0..ROUNDS {
        // Every third round alters the configuration, the others the weights, mostly their header.
        let (path, original, front) = match round % 3 {
            0 => (&config_path, &config, config.len()),
            _ => (&weights_path, &weights, header),
        };
        replace(path, &alter(original, front, &mut random));
        match Model::from_path(directory.path()) {
            Ok(model) => {
                loaded += 1;
                assert!(model.weights.encoder.to_vec().iter().all(|value| value.is_finite()));
            }
            Err(error) => {
                let message = error.to_string();
                assert!(message.contains(".json: ") || message.contains(".safetensors: "), "{message}");
            }
        }
        replace(path, original);
    }
    // Both outcomes must occur, or the alterations test nothing.
    assert!((100..ROUNDS - 100).contains(&loaded), "{loaded} of {ROUNDS} altered models loaded");
}

/// Flips bits, cuts the end off, or lengthens a number in the first `front` bytes.
fn alter(original: &[u8], front: usize, random: &mut impl Rng) -> Vec<u8> {
    let mut bytes = original.to_vec();
    match random.random_range(0..5) {
        0 => bytes.truncate(random.random_range(0..bytes.len())),
        1 => {
            let digits: Vec<usize> = (0..front).filter(|&i| bytes[i].is_ascii_digit()).collect();
            let at = digits[random.random_range(0..digits.len())];
            let more = random.random_range(1..20);
            bytes.splice(at..at, (0..more).map(|_| random.random_range(b'0'..=b'9')));
            // Keep the header's length right half of the time, so that its numbers are looked at.
            if front < bytes.len() && at >= 8 && random.random() {
                let length = (front - 8 + more) as u64;
                bytes[..8].copy_from_slice(&length.to_le_bytes());
            }
        }
        2 => {
            let digits: Vec<usize> = (8.min(front)..front).filter(|&i| bytes[i].is_ascii_digit()).collect();
            let at = digits[random.random_range(0..digits.len())];
            bytes[at] = random.random_range(b'0'..=b'9');
        }
        3 => {
            let at = random.random_range(0..front);
            bytes[at] = random.random();
        }
        _ => {
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..bytes.len());
                bytes[at] ^= 1 << random.random_range(0..8);
            }
        }
    }
    bytes
}

// --- synthetic models ---

fn spec(density: f64) -> SyntheticSpec {
    SyntheticSpec { n_layer: 4, n_embd: 64, n_head: 4, neurons_per_head: 256, vocab_size: 64, density, seed: 7 }
}

#[test]
fn synthetic_models_have_their_density() {
    for density in [0.05, 0.2, 0.25, 0.5] {
        for seed in [1, 2, 3] {
            let model = Model::synthetic(&SyntheticSpec { seed, ..spec(density) });
            let measured = dense_forward(&model, 24);
            let mean = measured.density.iter().sum::<f64>() / measured.density.len() as f64;
            println!(
                "density {density} seed {seed}: {:.3?} mean {mean:.3}, gated {:.3}",
                measured.density, measured.gated
            );
            for (layer, found) in measured.density.iter().enumerate() {
                assert!((found - density).abs() < 0.08, "density {density}, layer {layer}: {found}");
            }
            let variance = measured.logits.iter().map(|l| l * l).sum::<f64>() / measured.logits.len() as f64;
            assert!((0.3..3.0).contains(&variance), "variance of the logits: {variance}");
        }
    }
}

#[test]
fn synthetic_densities_of_none_and_all_are_exact() {
    for density in [0.0, 1.0] {
        let measured = dense_forward(&Model::synthetic(&spec(density)), 12);
        assert_eq!(measured.density, [density; 4]);
    }
}

#[test]
fn synthetic_models_are_sound_and_repeatable() {
    let first = Model::synthetic(&spec(0.3));
    let again = Model::synthetic(&spec(0.3));
    let other = Model::synthetic(&SyntheticSpec { seed: 8, ..spec(0.3) });
    assert_eq!(first.weights.encoder.to_vec(), again.weights.encoder.to_vec());
    assert_ne!(first.weights.encoder.to_vec(), other.weights.encoder.to_vec());
    assert_eq!(first.config, again.config);
    let checked = Model::from_parts("synthetic", first.config, first.weights).unwrap();
    assert!(!checked.stored_freqs);
    for bad in [
        SyntheticSpec { density: f64::NAN, ..spec(0.5) },
        SyntheticSpec { density: 1.01, ..spec(0.5) },
        SyntheticSpec { neurons_per_head: 7, ..spec(0.5) },
        SyntheticSpec { n_embd: 0, ..spec(0.5) },
        SyntheticSpec { vocab_size: usize::MAX, ..spec(0.5) },
    ] {
        assert!(matches!(bad.check(), Err(ModelError::InvalidValue { .. })), "{bad:?}");
    }
    for (n_embd, n_head, neurons_per_head, vocab_size) in [(1, 1, 2, 1), (3, 2, 2, 5), (24, 3, 40, 97)] {
        Model::synthetic(&SyntheticSpec { n_embd, n_head, neurons_per_head, vocab_size, ..spec(0.1) });
    }
}

struct Measured {
    /// Share of u > 0 in each layer.
    density: Vec<f64>,
    /// Share of g > 0 over all layers.
    gated: f64,
    /// Logits of the last token.
    logits: Vec<f64>,
}

/// The forward pass of a whole text, dense, in f64, in the parallel form.
fn dense_forward(model: &Model, tokens: usize) -> Measured {
    let config = &model.config;
    let (width, per_head, neurons) = (config.n_embd, config.neurons_per_head, config.neurons());
    let values = |tensor: &Tensor| tensor.to_vec().into_iter().map(f64::from).collect::<Vec<f64>>();
    let weights = &model.weights;
    let (embed, lm_head) = (values(&weights.embed), values(&weights.lm_head));
    let (encoder, encoder_v, decoder) =
        (values(&weights.encoder), values(&weights.encoder_v), values(&weights.decoder));
    // Row [D] times one head of [H, D, N].
    let project = |row: &[f64], matrix: &[f64], head: usize| {
        let mut out = vec![0.0; per_head];
        for (d, x) in row.iter().enumerate() {
            for (out, weight) in out.iter_mut().zip(&matrix[(head * width + d) * per_head..]) {
                *out += x * weight;
            }
        }
        out.iter_mut().for_each(|value: &mut f64| *value = value.max(0.0));
        out
    };
    let mut x: Vec<Vec<f64>> = (0..tokens)
        .map(|t| {
            let token = t * 29 % config.vocab_size;
            normalised(&embed[token * width..][..width])
        })
        .collect();
    let (mut density, mut gated) = (Vec::new(), 0);
    for _ in 0..config.n_layer {
        let mut update = vec![vec![0.0; width]; tokens];
        let mut active = 0;
        for head in 0..config.n_head {
            let u: Vec<Vec<f64>> = x.iter().map(|row| project(row, &encoder, head)).collect();
            let q: Vec<Vec<f64>> = u.iter().enumerate().map(|(t, u)| rotated(u, t, &weights.freqs)).collect();
            active += u.iter().flatten().filter(|&&u| u > 0.0).count();
            for t in 0..tokens {
                let mut y = vec![0.0; width];
                for s in 0..t {
                    let score: f64 = q[t].iter().zip(&q[s]).map(|(a, b)| a * b).sum();
                    y.iter_mut().zip(&x[s]).for_each(|(y, x)| *y += score * x);
                }
                let z = project(&normalised(&y), &encoder_v, head);
                for i in 0..per_head {
                    let g = u[t][i] * z[i];
                    if g > 0.0 {
                        gated += 1;
                        let row = &decoder[(head * per_head + i) * width..][..width];
                        update[t].iter_mut().zip(row).for_each(|(sum, weight)| *sum += g * weight);
                    }
                }
            }
        }
        for (x, update) in x.iter_mut().zip(&update) {
            let sum: Vec<f64> = x.iter().zip(normalised(update)).map(|(x, update)| x + update).collect();
            *x = normalised(&sum);
        }
        density.push(active as f64 / (tokens * neurons) as f64);
    }
    let last = &x[tokens - 1];
    let logits = (0..config.vocab_size)
        .map(|v| last.iter().enumerate().map(|(d, x)| x * lm_head[d * config.vocab_size + v]).sum())
        .collect();
    Measured { density, gated: gated as f64 / (config.n_layer * tokens * neurons) as f64, logits }
}

fn normalised(row: &[f64]) -> Vec<f64> {
    let mean = row.iter().sum::<f64>() / row.len() as f64;
    let variance = row.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / row.len() as f64;
    row.iter().map(|value| (value - mean) / (variance + 1e-5).sqrt()).collect()
}

fn rotated(u: &[f64], position: usize, freqs: &[f32]) -> Vec<f64> {
    let mut q = vec![0.0; u.len()];
    for i in (0..u.len()).step_by(2) {
        let (sin, cos) = (position as f64 * f64::from(freqs[i]) * std::f64::consts::TAU).sin_cos();
        q[i] = u[i] * cos - u[i + 1] * sin;
        q[i + 1] = u[i + 1] * cos + u[i] * sin;
    }
    q
}
