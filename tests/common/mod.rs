//! What the integration tests share: goldens, comparisons, and a naive forward pass in f64.
#![allow(dead_code, reason = "every test crate uses a part")]

pub mod allocation;
pub mod naive;
pub mod recurrent;
pub mod zip;

use bdh_gpu::model::Model;
use safetensors::{Dtype, SafeTensors};
use std::path::PathBuf;

/// Golden folders whose models this test suite loads.
pub const FOLDERS: [&str; 9] = [
    "micro",
    "odd-shapes",
    "one-head",
    "deep",
    "st-bf16",
    "st-f16",
    "pt-state-dict",
    "pt-compiled",
    "pt-training-checkpoint",
];

/// Whether a folder's golden holds the state: those about a file's format hold tokens and logits only.
pub fn has_state(folder: &str) -> bool {
    !folder.starts_with("st-") && !folder.starts_with("pt-")
}

/// Path of a golden folder.
pub fn golden(folder: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder)
}

/// Loads a golden folder's model; `shakespeare` is the shipped one.
pub fn model(folder: &str) -> Model {
    let path = match folder {
        "shakespeare" => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("models/bdh-shakespeare"),
        _ => golden(folder),
    };
    Model::from_path(path).expect("a golden model loads")
}

/// A golden file's tensors.
pub struct Golden(Vec<u8>);

impl Golden {
    /// Reads `folder/file`.
    pub fn read(folder: &str, file: &str) -> Self {
        Self(std::fs::read(golden(folder).join(file)).expect("a golden file"))
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.0).expect("a golden file is valid")
    }

    /// A tensor as f64.
    pub fn values(&self, name: &str) -> Vec<f64> {
        let tensors = self.tensors();
        let view = tensors.tensor(name).expect("a golden tensor");
        match view.dtype() {
            Dtype::F64 => view.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
            Dtype::F32 => {
                view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()) as f64).collect()
            }
            other => panic!("golden tensor {name} has type {other:?}"),
        }
    }

    /// Token ids.
    pub fn tokens(&self, name: &str) -> Vec<u32> {
        let tensors = self.tensors();
        let view = tensors.tensor(name).expect("golden tokens");
        view.data().chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap()) as u32).collect()
    }

    /// An entry of the file's metadata.
    pub fn metadata(&self, key: &str) -> String {
        let (_, header) = SafeTensors::read_metadata(&self.0).expect("a golden file is valid");
        header.metadata().as_ref().expect("metadata")[key].clone()
    }
}

/// How far two vectors are apart.
#[derive(Clone, Copy, Debug)]
pub struct Distance {
    /// Largest absolute difference.
    pub max_abs: f64,
    /// Squared error over squared norm.
    pub nmse: f64,
}

/// Compares `got` with `expected`.
pub fn distance(got: &[f32], expected: &[f64]) -> Distance {
    assert_eq!(got.len(), expected.len(), "lengths");
    let (mut max_abs, mut error, mut norm) = (0f64, 0.0, 0.0);
    for (&got, &expected) in got.iter().zip(expected) {
        let difference = (got as f64 - expected).abs();
        // A NaN must not pass for a small number.
        max_abs = if difference.is_nan() { f64::INFINITY } else { max_abs.max(difference) };
        error += difference * difference;
        norm += expected * expected;
    }
    Distance { max_abs, nmse: if norm > 0.0 { error / norm } else { error } }
}

/// Panics with `what` unless `got` is within the tolerances. `max_abs` is meant for numbers of size one;
/// where the expected ones are larger (attention outputs grow with the position), it grows with their
/// root mean square, because f32 itself does.
pub fn assert_close(what: &str, got: &[f32], expected: &[f64], nmse: f64, max_abs: f64) -> Distance {
    let distance = distance(got, expected);
    let square = expected.iter().map(|x| x * x).sum::<f64>() / expected.len().max(1) as f64;
    let max_abs = max_abs * square.sqrt().max(1.0);
    assert!(
        distance.nmse <= nmse && distance.max_abs <= max_abs,
        "{what}: {distance:?}, allowed NMSE {nmse:e} and max abs {max_abs:e}"
    );
    distance
}
