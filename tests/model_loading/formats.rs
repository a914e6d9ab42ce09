//! Formats and layouts that are not read, and damaged files.

use super::small::{Small, refuses_weights, safetensors_bytes, stored, with_header};
#[test]
fn weights_of_one_layer_are_named() {
    for tensor in ["encoders.0", "encoder.1", "layers.11.attn.weight"] {
        Small::new().with(stored(tensor, "F32", &[1], 0.0)).refuses(&format!(
            "model.safetensors: tensor {tensor:?} belongs to one layer, expected weights that all layers share; \
             this is not a BDH model"
        ));
    }
}

#[test]
fn other_formats_are_named() {
    let unread = "which this version does not read; expected safetensors, a PyTorch checkpoint or a NumPy archive";
    refuses_weights(b"GGUF\x03\0\0\0\0\0\0\0", &format!("a GGUF file, {unread}"));
    refuses_weights(b"\x89HDF\r\n\x1a\n", &format!("an HDF5 file, {unread}"));
    refuses_weights(
        b"PK\x03\x04 and so on",
        "the directory at the end of the zip archive is damaged or missing, expected the whole file",
    );
    refuses_weights(
        b"version https://git-lfs.github.com/spec/v1\noid",
        "a Git LFS pointer in place of the weights, expected the weights themselves; fetch them with `git lfs pull`",
    );
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
