//! Tensors that do not fit.

use super::small::{Small, stored};

#[test]
fn wrong_shapes_are_refused() {
    let mut small = Small::new();
    *small.tensor("encoder") = stored("encoder", "F16", &[2, 4, 8], 0.5);
    small.refuses(
        "model.safetensors: tensor \"encoder\" has shape [2, 4, 8], expected [2, 4, 6] (n_head, n_embd, N from the configuration)",
    );
    let mut small = Small::new();
    *small.tensor("decoder") = stored("decoder", "F32", &[4, 12], 0.5);
    small.refuses(
        "model.safetensors: tensor \"decoder\" has shape [4, 12], expected [12, 4] (n_head·N, n_embd from the configuration)",
    );
    let mut small = Small::new();
    *small.tensor("encoder") = stored("encoder", "F32", &[2, 4, 7], 0.5);
    small.refuses(
        "model.safetensors: tensor \"encoder\" has shape [2, 4, 7]: 7 neurons per head, expected an even number",
    );
    Small::new().with(stored("attn.freqs", "F32", &[6, 1], 0.5)).refuses(
        "model.safetensors: tensor \"attn.freqs\" has shape [6, 1], expected [1, 1, 1, 6] (1, 1, 1, N from the configuration)",
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
