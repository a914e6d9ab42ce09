//! Errors for JavaScript: an `Error` whose `code` says what kind it is, and whose message is the
//! command line's.

use bdh_gpu::OpenError;
use bdh_gpu::backend::BackendError;
use bdh_gpu::generation::{GenerationError, StateError};
use bdh_gpu::model::ModelError;
use bdh_gpu::options::OutOfRange;
use bdh_gpu::verify::VerifyError;
use js_sys::{Error, Reflect};
use wasm_bindgen::JsValue;

/// The kind of an error.
pub trait Code: std::fmt::Display {
    /// One word, as `web/js/errors.js` lists them.
    fn code(&self) -> &'static str;
}

/// An `Error` with a code.
pub fn error(code: &str, message: &str) -> JsValue {
    let error = Error::new(message);
    // An object takes any property.
    let _ = Reflect::set(&error, &"code".into(), &code.into());
    error.into()
}

/// An `Error` of a Rust error.
pub fn thrown(source: impl Code) -> JsValue {
    error(source.code(), &source.to_string())
}

impl Code for BackendError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoAdapter { .. } => "no-webgpu",
            Self::OutOfMemory { .. } => "out-of-memory",
            Self::Lost { .. } => "device-lost",
            Self::Overflow { .. } => "model",
            _ => "device",
        }
    }
}

impl Code for ModelError {
    fn code(&self) -> &'static str {
        "model"
    }
}

impl Code for OpenError {
    fn code(&self) -> &'static str {
        match self {
            Self::Backend(error) => error.code(),
            Self::Edit(_) => "options",
            _ => "model",
        }
    }
}

impl Code for OutOfRange {
    fn code(&self) -> &'static str {
        "options"
    }
}

impl Code for GenerationError {
    fn code(&self) -> &'static str {
        match self {
            Self::Backend(error) => error.code(),
            Self::Encode(_) => "encode",
            Self::Sampling { .. } => "model",
            _ => "options",
        }
    }
}

impl Code for StateError {
    fn code(&self) -> &'static str {
        match self {
            Self::Device(error) => error.code(),
            _ => "state",
        }
    }
}

impl Code for VerifyError {
    fn code(&self) -> &'static str {
        match self {
            Self::Backend(error) => error.code(),
            Self::Model(error) => error.code(),
            _ => "options",
        }
    }
}
