//! The description of the fields and answers about neurons.

use super::question::MAX_TOKENS;
use super::{MAX_TOP_K, TOP_K};
use serde_json::{Value, json};

fn top_k() -> Value {
    json!({"type": ["integer", "null"], "minimum": 0, "maximum": MAX_TOP_K, "default": TOP_K})
}

fn layers() -> Value {
    json!({
        "type": ["array", "null"], "items": {"type": "integer", "minimum": 0}, "minItems": 1, "uniqueItems": true,
        "description": "Layers; all by default",
    })
}

/// A list of numbers, one per token.
fn per_token(what: &str) -> Value {
    json!({"type": "array", "items": {"type": "number", "minimum": 0}, "description": what})
}

fn object(properties: Value) -> Value {
    let names: Vec<&String> = properties.as_object().map(|own| own.keys().collect()).unwrap_or_default();
    json!({"type": "object", "required": names, "properties": properties})
}

/// The field `neurons` of a completion.
pub fn field() -> Value {
    json!({
        "type": ["object", "null"],
        "description": "The neurons of every token, in the choices' field of the same name",
        "additionalProperties": false,
        "properties": {
            "top_k": top_k(),
            "layers": layers(),
            "prompt": {
                "type": ["boolean", "null"],
                "description": "Whether those of the prompt's tokens come first; by default as echo",
            },
        },
    })
}

/// A token of a completion and its neurons.
pub fn token() -> Value {
    let firing = object(json!({
        "neuron": {"type": "string"}, "u": {"type": "number"}, "g": {"type": "number"},
    }));
    object(json!({
        "position": {"type": "integer"},
        "token": {"type": "string"},
        "id": {"type": "integer"},
        "layers": {"type": "array", "items": object(json!({
            "layer": {"type": "integer"},
            "u": {"type": "integer", "description": "Neurons that fire: u > 0"},
            "g": {"type": "integer", "description": "Gates that are open: g > 0"},
            "top": {"type": "array", "items": firing, "description": "The largest g first, then the largest u"},
        }))},
    }))
}

/// A question about the neurons of a prompt.
pub fn question() -> Value {
    json!({
        "type": "object",
        "required": ["prompt"],
        "properties": {
            "model": {"type": ["string", "null"]},
            "prompt": {"anyOf": [
                {"type": "string", "minLength": 1},
                {
                    "type": "array", "items": {"type": "integer", "minimum": 0},
                    "minItems": 1, "maxItems": MAX_TOKENS,
                },
            ]},
            "neuron": {"type": ["string", "null"], "description": "A neuron by its name, HEAD.INDEX"},
            "layer": {
                "type": ["integer", "null"], "minimum": 0,
                "description": "With a neuron: its layer; all by default",
            },
            "top_k": top_k(),
            "layers": layers(),
        },
    })
}

/// The answer to it.
pub fn answer() -> Value {
    let activation = json!({
        "layer": {"type": "integer"},
        "values": per_token("g of each token"),
        "maxValue": {"type": "number"},
        "maxValueIndex": {"type": "integer"},
        "u": per_token("u of each token"),
    });
    let mut one = activation.clone();
    (one["neuron"], one["index"]) = (json!({"type": "string"}), json!({"type": "integer"}));
    let all = json!({
        "neuron": {"type": "string"},
        "index": {"type": "integer"},
        "activations": {"type": "array", "items": object(activation)},
    });
    let feature = object(json!({
        "neuron": {"type": "string"},
        "index": {"type": "integer", "description": "HEAD times the neurons of a head plus INDEX"},
        "layer": {"type": "integer"},
        "activationValue": {"type": "number", "description": "g"},
        "u": {"type": "number"},
    }));
    let strongest = json!({
        "results": {"type": "array", "items": object(json!({
            "token": {"type": "string"},
            "tokenPosition": {"type": "integer"},
            "topFeatures": {"type": "array", "items": feature},
        }))},
    });
    let mut answer = object(json!({
        "object": {"const": "neurons"},
        "model": {"type": "string"},
        "tokens": {"type": "array", "items": {"type": "string"}},
        "usage": {"type": "object"},
    }));
    answer["oneOf"] = json!([object(one), object(all), object(strongest)]);
    answer
}
