//! Numbers in JSON: little-endian, in base64, beside their type and shape.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use half::f16;
use serde_json::{Value, json};

fn array(kind: &str, shape: &[usize], bytes: &[u8]) -> Value {
    json!({"type": kind, "shape": shape, "data": BASE64_STANDARD.encode(bytes)})
}

/// Bytes.
pub fn u8s(shape: &[usize], numbers: &[u8]) -> Value {
    array("u8", shape, numbers)
}

/// Unsigned 32-bit integers.
pub fn u32s(shape: &[usize], numbers: &[u32]) -> Value {
    array("u32", shape, &numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>())
}

/// 32-bit floats.
pub fn f32s(shape: &[usize], numbers: &[f32]) -> Value {
    array("f32", shape, &numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>())
}

/// Floats rounded to 16 bits; those beyond their range become the largest or the smallest.
pub fn f16s(shape: &[usize], numbers: &[f32]) -> Value {
    let half = |number: &f32| f16::from_f32(number.clamp(f16::MIN.to_f32(), f16::MAX.to_f32())).to_le_bytes();
    array("f16", shape, &numbers.iter().flat_map(half).collect::<Vec<_>>())
}
