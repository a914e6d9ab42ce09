//! A small model to take apart.

use super::both;
use bdh_gpu::model::{Model, ModelError};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// L 1, D 4, H 2, N 6, V 5, all weights 0.5, frequencies by formula.
pub struct Small {
    pub tensors: Vec<Stored>,
    pub files: Vec<(&'static str, String)>,
    pub directory: TempDir,
}

pub struct Stored {
    pub name: String,
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

pub fn stored(name: &str, dtype: &'static str, shape: &[usize], value: f64) -> Stored {
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

pub const SMALL_CONFIG: &str =
    r#"{"n_layer": 1, "n_embd": 4, "n_head": 2, "mlp_internal_dim_multiplier": 3, "vocab_size": 5}"#;

impl Small {
    pub fn new() -> Self {
        let tensors = vec![
            stored("embed.weight", "F32", &[5, 4], 0.5),
            stored("encoder", "F16", &[2, 4, 6], 0.5),
            stored("encoder_v", "BF16", &[2, 4, 6], 0.5),
            stored("decoder", "F64", &[12, 4], 0.5),
            stored("lm_head", "F32", &[4, 5], 0.5),
        ];
        Self { tensors, files: vec![("config.json", SMALL_CONFIG.to_owned())], directory: TempDir::new().unwrap() }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn tensor(&mut self, name: &str) -> &mut Stored {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
    }

    pub fn without(mut self, name: &str) -> Self {
        self.tensors.retain(|tensor| tensor.name != name);
        self
    }

    pub fn with(mut self, tensor: Stored) -> Self {
        self.tensors.push(tensor);
        self
    }

    /// Adds or replaces a file other than the weights.
    pub fn file(mut self, name: &'static str, text: &str) -> Self {
        self.files.retain(|(other, _)| *other != name);
        self.files.push((name, text.to_owned()));
        self
    }

    pub fn config(self, from: &str, to: &str) -> Self {
        assert!(SMALL_CONFIG.contains(from));
        self.file("config.json", &SMALL_CONFIG.replace(from, to))
    }

    pub fn load(&self) -> Result<Model, ModelError> {
        fs::write(self.path().join("model.safetensors"), safetensors_bytes(&self.tensors)).unwrap();
        for (name, text) in &self.files {
            fs::write(self.path().join(name), text).unwrap();
        }
        both::from_path(self.path())
    }

    /// The message without the directory in front.
    #[track_caller]
    pub fn refusal(&self) -> String {
        let message = self.load().expect_err("the model should have been refused").to_string();
        assert!(!message.contains('\n'), "{message}");
        message.replace(&format!("{}/", self.path().display()), "")
    }

    #[track_caller]
    pub fn refuses(&self, message: &str) {
        assert_eq!(self.refusal(), message);
    }
}

pub fn safetensors_bytes(tensors: &[Stored]) -> Vec<u8> {
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

pub fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[track_caller]
pub fn refuses_weights(bytes: &[u8], expected: &str) {
    let directory = TempDir::new().unwrap();
    fs::write(directory.path().join("config.json"), SMALL_CONFIG).unwrap();
    fs::write(directory.path().join("model.safetensors"), bytes).unwrap();
    let message = both::from_path(directory.path()).unwrap_err().to_string();
    assert!(message.contains(&format!("model.safetensors: {expected}")), "{message}");
}
