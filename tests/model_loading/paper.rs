//! The names of the code in the paper's appendix. There, `decoder_x` and `decoder_y` lead from the residual
//! to the neurons and `encoder`, of rank 2, leads back.

use super::both;
use super::pytorch::{check_values, fixture, load};
use super::small::{Small, stored};
use bdh_gpu::model::{Format, Layout, LoadOptions, Rope};

const NAMES: [(&str, &str); 5] = [
    ("decoder", "the neurons' way back"),
    ("encoder", "decoder_x"),
    ("encoder_v", "decoder_y"),
    ("embed.weight", "wte.weight"),
    ("lm_head", "readout"),
];

/// The small model under the paper's names.
fn renamed() -> Small {
    let mut small = Small::new();
    for (official, name) in NAMES {
        small.tensor(official).name = name.to_owned();
    }
    small.tensor("the neurons' way back").name = "encoder".to_owned();
    small.config("\"vocab_size\": 5", "\"vocab_size\": 5, \"rope\": \"interleaved:65536\"")
}

#[test]
fn the_papers_names_are_understood() {
    let message = load("paper.pt").unwrap_err().to_string();
    assert!(
        message.ends_with(
            "paper.pt: the paper's names and no stored frequencies: they do not tell the rotary embedding; expected \
             interleaved:65536 (the official kind) or half-split:10000, or another base above 1 as \"rope\" in \
             config.json"
        ),
        "{message}"
    );
    let options = LoadOptions { n_layer: Some(1), rope: Some(Rope::default()), ..LoadOptions::default() };
    let model = both::from_path_with(fixture("paper.pt"), &options).unwrap();
    assert!(model.notes.len() == 1 && model.notes[0].contains("with a norm after every layer"), "{:?}", model.notes);
    check_values("paper.pt", &model);
    assert_eq!(model.source, Some((Format::PyTorch, Layout::Paper)));
    let mut small = renamed();
    assert_eq!(small.load().unwrap().source, Some((Format::Safetensors, Layout::Paper)));
    // Each of the three has a value of its own, so that none can stand in for another.
    for (name, value) in [("decoder_x", 0.125), ("decoder_y", 0.25), ("encoder", 0.75)] {
        let tensor = small.tensor(name);
        *tensor = stored(name, "F32", &tensor.shape.clone(), value);
    }
    small.tensor("wte.weight").name = "wte".to_owned();
    let weights = small.load().unwrap().weights;
    assert_eq!(weights.encoder.to_vec(), [0.125; 48]);
    assert_eq!(weights.encoder_v.to_vec(), [0.25; 48]);
    assert_eq!(weights.decoder.to_vec(), [0.75; 48]);
    assert_eq!(weights.embed.shape(), [5, 4]);
}

#[test]
fn the_papers_tensors_are_checked() {
    renamed().without("decoder_y").refuses(
        "model.safetensors: tensor \"decoder_y\" is missing, expected shape [2, 4, 6]; \
         the file holds \"decoder_x\", \"encoder\", \"readout\", \"wte.weight\"",
    );
    let mut small = renamed();
    *small.tensor("encoder") = stored("encoder", "F32", &[2, 4, 6], 0.5);
    small.refuses(
        "model.safetensors: tensor \"encoder\" has shape [2, 4, 6], expected [12, 4] (n_head·N, n_embd from the configuration)",
    );
}

#[test]
fn half_heads_are_put_together_at_load() {
    let config = |rope: &str| {
        let mut small = renamed().config("\"vocab_size\": 5", &format!("\"vocab_size\": 5, \"rope\": \"{rope}\""));
        for name in ["decoder_x", "decoder_y", "encoder"] {
            let tensor = small.tensor(name);
            let count: usize = tensor.shape.iter().product();
            tensor.dtype = "F32";
            tensor.bytes = (0..count as u16).flat_map(|i| f32::from(i).to_le_bytes()).collect();
        }
        small
    };
    let (plain, split) = (config("interleaved:65536").load().unwrap(), config("half-split:10000").load().unwrap());
    assert_eq!(split.rope.to_string(), "half-split:10000");
    let order = [0, 3, 1, 4, 2, 5];
    for (a, b) in
        [(&plain.weights.encoder, &split.weights.encoder), (&plain.weights.encoder_v, &split.weights.encoder_v)]
    {
        let (a, b) = (a.to_vec(), b.to_vec());
        for (a, b) in a.chunks(6).zip(b.chunks(6)) {
            assert_eq!(b, order.map(|i| a[i]));
        }
    }
    let (a, b) = (plain.weights.decoder.to_vec(), split.weights.decoder.to_vec());
    for (a, b) in a.chunks(24).zip(b.chunks(24)) {
        assert_eq!(b, order.map(|i| &a[4 * i..][..4]).concat());
    }
    assert_eq!(split.weights.freqs, split.rope.freqs(6));
    // Stored frequencies are in the file's order, and must be those of the kind that is named.
    let freqs = split.rope.freqs(6);
    let own: Vec<u8> = [0, 2, 4, 0, 2, 4].iter().flat_map(|&i| freqs[i].to_le_bytes()).collect();
    let with_freqs = |rope: &str| {
        let mut small = config(rope).with(stored("attn.freqs", "F32", &[1, 1, 1, 6], 0.0));
        small.tensor("attn.freqs").bytes.clone_from(&own);
        small
    };
    let model = with_freqs("half-split:10000").load().unwrap();
    assert!(model.stored_freqs && model.weights.freqs == freqs);
    with_freqs("half-split:500").refuses(
        "model.safetensors: tensor \"attn.freqs\" holds other frequencies than those of rope half-split:500; expected the \
         same, or no \"rope\" in config.json",
    );
    let small = with_freqs("half-split:10000").config("n_layer", "n_layer");
    small.refuses(
        "model.safetensors: tensor \"attn.freqs\" repeats its first half: neurons i and i + N/2 are a pair, expected their \
         kind, as half-split:10000, as \"rope\" in config.json",
    );
    config("sideways").refuses(
        "config.json: key \"rope\" is \"sideways\", expected interleaved:65536 (the official kind) or half-split:10000, \
         or another base above 1",
    );
}
