//! Names that people give to neurons.

use bdh_gpu::Bdh;
use bdh_gpu::model::NeuronName;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use serde_json::{Map, Value, json};

/// Reads `{"h.i": name}` or `{"h.i": {"name": …, "note": …, "score": …}}`.
pub fn read(given: &Bound<'_, PyAny>, bdh: &Bdh) -> PyResult<Map<String, Value>> {
    let json: String = given.py().import("json")?.call_method1("dumps", (given,))?.extract()?;
    let labels: Value = serde_json::from_str(&json).map_err(|error| PyValueError::new_err(error.to_string()))?;
    let Value::Object(labels) = labels else {
        let kind = given.get_type().name()?;
        return Err(PyTypeError::new_err(format!("labels must be a dict {{\"h.i\": {{\"name\": …}}}}, not {kind}")));
    };
    let label = |(neuron, label): (String, Value)| {
        let name = neuron.parse::<NeuronName>().and_then(|name| name.number(&bdh.model().config));
        name.map_err(|error| PyValueError::new_err(format!("labels: {error}")))?;
        match label {
            Value::String(name) => Ok((neuron, json!({"name": name}))),
            Value::Object(_) => Ok((neuron, label)),
            other => Err(PyTypeError::new_err(format!("labels: {neuron} must have a str or a dict, got {other}"))),
        }
    };
    labels.into_iter().map(label).collect()
}
