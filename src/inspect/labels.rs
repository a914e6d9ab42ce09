//! Names that people give to neurons.

use crate::model::{Config, NeuronError, NeuronName};
use serde_json::{Map, Value, json};

/// Why labels cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabelError {
    /// It is no object of neurons.
    #[error("expected {{\"h.i\": {{\"name\": \"…\"}}}}, got {0}")]
    NoObject(Value),
    /// A key is no neuron of the model.
    #[error(transparent)]
    Neuron(#[from] NeuronError),
    /// A value is neither a name nor an object.
    #[error("{neuron} must have a name or an object with one, got {got}")]
    Value {
        /// The neuron.
        neuron: String,
        /// Its value.
        got: Value,
    },
}

/// Reads `{"h.i": "name"}` or `{"h.i": {"name": …, "note": …, "score": …}}` as the latter.
///
/// # Errors
/// [`LabelError`] for anything else, and for neurons that the model does not have.
pub fn labels(given: Value, config: &Config) -> Result<Map<String, Value>, LabelError> {
    let Value::Object(given) = given else { return Err(LabelError::NoObject(given)) };
    let label = |(neuron, label): (String, Value)| {
        neuron.parse::<NeuronName>()?.number(config)?;
        match label {
            Value::String(name) => Ok((neuron, json!({"name": name}))),
            Value::Object(_) => Ok((neuron, label)),
            got => Err(LabelError::Value { neuron, got }),
        }
    };
    given.into_iter().map(label).collect()
}
