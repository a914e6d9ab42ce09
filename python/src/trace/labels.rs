//! Names that people give to neurons.

use bdh_gpu::Bdh;
use bdh_gpu::inspect::{LabelError, labels};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use serde_json::{Map, Value};

/// Reads `{"h.i": name}` or `{"h.i": {"name": …, "note": …, "score": …}}`.
pub fn read(given: &Bound<'_, PyAny>, bdh: &Bdh) -> PyResult<Map<String, Value>> {
    let json: String = given.py().import("json")?.call_method1("dumps", (given,))?.extract()?;
    let given: Value = serde_json::from_str(&json).map_err(|error| PyValueError::new_err(error.to_string()))?;
    labels(given, &bdh.model().config).map_err(|error| {
        let message = format!("labels: {error}");
        match error {
            LabelError::Neuron(_) => PyValueError::new_err(message),
            _ => PyTypeError::new_err(message),
        }
    })
}
