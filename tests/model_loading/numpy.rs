//! The MLX port's files.

use super::both;
use super::common::zip;
use super::pytorch::{check_values, fixture, load};
use super::small::{Small, stored};
use bdh_gpu::model::{Dtype, Format, Layout, LoadOptions};
use std::fs;
use tempfile::TempDir;

#[test]
fn archives_load_with_their_values() {
    for (name, dtype) in [
        ("mlx.npz", Dtype::F32),
        ("mlx-compressed.npz", Dtype::F32),
        ("mlx-fortran.npz", Dtype::F16),
        ("mlx-double.npz", Dtype::F64),
    ] {
        let model = load(name).unwrap();
        check_values(name, &model);
        assert_eq!(model.weights_dtype(), dtype, "{name}");
        assert_eq!(model.source, Some((Format::NumPy, Layout::Mlx)));
        // They may have been trained, so that they need not come in pairs.
        let freqs: Vec<f32> = (0..6u8).map(|i| f32::from(i) / 64.0).collect();
        assert_eq!(model.weights.freqs, freqs, "{name}");
        assert!(model.stored_freqs && model.notes.is_empty());
    }
    let message = load("mlx-big-endian.npz").unwrap_err().to_string();
    assert!(message.contains("no config.json") || message.contains("config.json: not found"), "{message}");
    let directory = TempDir::new().unwrap();
    fs::copy(fixture("mlx-big-endian.npz"), directory.path().join("weights.npz")).unwrap();
    fs::write(directory.path().join("config.json"), super::small::SMALL_CONFIG).unwrap();
    let message = both::from_path(directory.path()).unwrap_err().to_string();
    assert!(message.contains("tensor \"encoder\" has dtype \">f4\", expected F32, F16, BF16 or F64"), "{message}");
}

#[test]
fn safetensors_of_the_port_load() {
    let mut small = Small::new().with(stored("attn_freqs", "F32", &[1, 1, 1, 6], 0.25));
    small.tensor("embed.weight").name = "embed_weight".to_owned();
    let model = small.load().unwrap();
    assert_eq!(model.source, Some((Format::Safetensors, Layout::Mlx)));
    assert_eq!(model.weights.freqs, [0.25; 6]);
    small.without("embed_weight").refuses(
        "model.safetensors: tensor \"embed_weight\" is missing, expected shape [5, 4]; \
         the file holds \"attn_freqs\", \"decoder\", \"encoder\", \"encoder_v\", \"lm_head\"",
    );
}

#[test]
fn damaged_archives_are_refused() {
    let npy = |header: &str, data: &[u8]| {
        [b"\x93NUMPY\x01\0", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
    };
    let refusal = |member: (&str, &[u8])| {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("model.npz");
        fs::write(&path, zip::archive(&[member])).unwrap();
        both::from_path_with(path, &LoadOptions { n_layer: Some(1), ..LoadOptions::default() }).unwrap_err().to_string()
    };
    let float = |shape: &str| format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n");
    for (member, expected) in [
        (("encoder", vec![]), "member \"encoder\" is not a NumPy array, expected only .npy members"),
        (("encoder.npy", b"\x93NUMPY".to_vec()), "array \"encoder\" has no valid header"),
        (("encoder.npy", b"\x93NUMPY\x04\0\x02\0{}".to_vec()), "array \"encoder\" has no valid header"),
        (("encoder.npy", b"\x93NUMPY\x02\0\xff\xff\xff\xff{}".to_vec()), "array \"encoder\" has no valid header"),
        (("encoder.npy", npy("{'descr': '<f4'}", &[])), "array \"encoder\" is described as {'descr': '<f4'}"),
        (
            ("encoder.npy", npy(&float("(3,)"), &[0; 8])),
            "array \"encoder\" has 8 bytes for f32 [3], expected the whole array",
        ),
        (
            ("encoder.npy", npy(&float("(4294967296, 4294967296)"), &[0; 8])),
            "array \"encoder\" has 8 bytes for f32 [4294967296, 4294967296]",
        ),
    ] {
        let message = refusal((member.0, &member.1));
        assert!(message.contains(expected), "{message}");
    }
}
