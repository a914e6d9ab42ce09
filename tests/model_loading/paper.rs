//! The names of the code in the paper's appendix. There, `decoder_x` and `decoder_y` lead from the residual
//! to the neurons and `encoder`, of rank 2, leads back.

use super::pytorch::{check_values, load};
use super::small::{Small, stored};
use bdh_gpu::model::{Format, Layout};

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
    small
}

#[test]
fn the_papers_names_are_understood() {
    let model = load("paper.pt").unwrap();
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
