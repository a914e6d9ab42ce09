//! `GET /openapi.json`: the routes and their fields, made of the table of options.

use super::app::App;
use super::{neurons, options};
use crate::options::{Kind, Spec};
use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};
use std::ops::Bound;
use std::sync::Arc;

/// The description of this server.
pub(super) async fn openapi(State(app): State<Arc<App>>) -> Json<Value> {
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "bdh-gpu",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "BDH language models over HTTP, in the form of the OpenAI API.",
        },
        "paths": paths(),
        "components": {"schemas": {"Error": error_schema(), "TokenNeurons": neurons::schemas::token()}},
    });
    if !app.options.keys.is_empty() {
        document["components"]["securitySchemes"] = json!({"key": {"type": "http", "scheme": "bearer"}});
        document["security"] = json!([{"key": []}]);
    }
    Json(document)
}

fn error_schema() -> Value {
    json!({
        "type": "object",
        "required": ["error"],
        "properties": {"error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }},
    })
}

fn paths() -> Value {
    let id = json!([{"name": "id", "in": "path", "required": true, "schema": {"type": "string"}}]);
    let with_id = |mut operation: Value| {
        operation["parameters"] = id.clone();
        operation
    };
    let state = || operation("A conversation's state", None, 200);
    json!({
        "/v1/completions": {"post": answering(
            operation("Continue prompts", Some(completion()), 200), texts())},
        "/v1/chat/completions": {"post": answering(
            operation("The next message of a conversation", Some(chat()), 200), texts())},
        "/v1/score": {"post": operation("Log-probabilities of a text", Some(object(json!({
            "model": nullable("string"), "text": nullable("string"), "tokens": ids(),
        }))), 200)},
        "/v1/neurons": {"post": answering(
            operation("Neurons of a prompt", Some(neurons::schemas::question()), 200), neurons::schemas::answer())},
        "/v1/models": {"get": operation("The model", None, 200)},
        "/v1/models/{id}": {"get": with_id(operation("The model", None, 200))},
        "/v1/states": {"post": operation(
            "An empty conversation", Some(object(json!({"model": nullable("string")}))), 201)},
        "/v1/states/{id}": {"get": with_id(state()), "delete": with_id(operation("Forget a state", None, 200))},
        "/v1/states/{id}/fork": {"post": with_id(operation("A copy of a state", None, 201))},
        "/tokenize": {"post": operation("Tokens of a text", Some(object(json!({
            "prompt": nullable("string"), "content": nullable("string"), "with_pieces": nullable("boolean"),
            "return_token_strs": nullable("boolean"),
        }))), 200)},
        "/detokenize": {"post": operation("Text of tokens", Some(object(json!({"tokens": ids()}))), 200)},
        "/tokenizer_info": {"get": operation("What the tokenizer is", None, 200)},
        "/health": {"get": operation("Whether requests are taken", None, 200)},
    })
}

/// An operation that answers with an object, or with an error.
fn operation(summary: &str, body: Option<Value>, success: u16) -> Value {
    let error = || {
        json!({
            "description": "Error",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        })
    };
    let mut responses = Map::new();
    responses.insert(
        success.to_string(),
        json!({
            "description": "OK",
            "content": {
                "application/json": {"schema": {"type": "object"}},
                "text/event-stream": {"schema": {"type": "string"}},
            },
        }),
    );
    for status in [400, 401, 403, 404, 405, 408, 413, 429, 500, 503, 507] {
        responses.insert(status.to_string(), error());
    }
    let mut operation = json!({"summary": summary, "responses": responses});
    if let Some(schema) = body {
        operation["requestBody"] = json!({"content": {"application/json": {"schema": schema}}});
    }
    operation
}

/// An operation whose answer has a schema.
fn answering(mut operation: Value, schema: Value) -> Value {
    operation["responses"]["200"]["content"]["application/json"]["schema"] = schema;
    operation
}

/// The texts or messages that a request is answered with, as far as they are not those of the OpenAI API.
fn texts() -> Value {
    let of_token = json!({"type": "array", "items": {"$ref": "#/components/schemas/TokenNeurons"}});
    let choice = object(json!({"neurons": of_token, "seed": {"type": "integer"}, "state": {"type": "string"}}));
    object(json!({"choices": {"type": "array", "items": choice}}))
}

fn object(properties: Value) -> Value {
    json!({"type": "object", "properties": properties})
}

fn nullable(kind: &str) -> Value {
    json!({"type": [kind, "null"]})
}

fn whole(least: u64, most: u64) -> Value {
    json!({"type": ["integer", "null"], "minimum": least, "maximum": most})
}

fn ids() -> Value {
    json!({"type": ["array", "null"], "items": {"type": "integer", "minimum": 0}})
}

/// The fields of a completion request.
fn completion() -> Value {
    let prompts = json!([
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
        {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
        {"type": "array", "items": {"type": "array", "items": {"type": "integer", "minimum": 0}}, "minItems": 1},
        {"type": "null"},
    ]);
    let mut properties = json!({
        "model": nullable("string"),
        "prompt": {"anyOf": prompts},
        "n": whole(1, 128),
        "best_of": whole(1, 128),
        "stream": nullable("boolean"),
        "stream_options": {"type": ["object", "null"], "properties": {
            "include_usage": nullable("boolean"), "continuous_usage_stats": nullable("boolean"),
        }},
        "logprobs": nullable("integer"),
        "prompt_logprobs": nullable("integer"),
        "echo": nullable("boolean"),
        "suffix": nullable("string"),
        "user": nullable("string"),
        "use_beam_search": nullable("boolean"),
        "stop_token_ids": ids(),
        "include_stop_str_in_output": nullable("boolean"),
        "return_token_ids": nullable("boolean"),
        "timings": nullable("boolean"),
        "state": nullable("string"),
        "keep_state": nullable("boolean"),
        "neurons": neurons::schemas::field(),
    });
    for (name, spec) in options::names() {
        properties[name] = option(spec);
    }
    object(properties)
}

/// The fields of a chat request: those of a completion, but for the prompt.
fn chat() -> Value {
    let mut schema = completion();
    if let Some(properties) = schema["properties"].as_object_mut() {
        properties.remove("prompt");
        properties.remove("echo");
        properties.insert("logprobs".to_owned(), nullable("boolean"));
        properties.insert("top_logprobs".to_owned(), whole(0, 20));
        properties.insert(
            "messages".to_owned(),
            json!({"type": "array", "minItems": 1, "items": {
                "type": "object",
                "required": ["role", "content"],
                "properties": {"role": {"type": "string"}, "content": {"type": ["string", "array"]}},
            }}),
        );
    }
    schema["required"] = json!(["messages"]);
    schema
}

/// An option's schema: its type, its range and its help.
fn option(spec: &Spec) -> Value {
    let mut schema = match spec.kind {
        Kind::Switch => nullable("boolean"),
        Kind::Whole { .. } | Kind::Count => nullable("integer"),
        Kind::Single | Kind::Double => nullable("number"),
        Kind::Stopping => json!({"enum": [true, false, "never", null]}),
        Kind::Texts => json!({"type": ["string", "array", "null"], "items": {"type": "string"}}),
        Kind::Ids => json!({"type": ["integer", "array", "null"], "items": {"type": "integer", "minimum": 0}}),
        Kind::Biases => json!({"type": ["object", "null"], "additionalProperties": {"type": "number"}}),
    };
    // Of biases, the range is each entry's.
    let ranged = if spec.kind == Kind::Biases { &mut schema["additionalProperties"] } else { &mut schema };
    match spec.range.0 {
        Bound::Included(least) => ranged["minimum"] = least.into(),
        Bound::Excluded(limit) => ranged["exclusiveMinimum"] = limit.into(),
        Bound::Unbounded => {}
    }
    match spec.range.1 {
        Bound::Included(most) => ranged["maximum"] = most.into(),
        Bound::Excluded(limit) => ranged["exclusiveMaximum"] = limit.into(),
        Bound::Unbounded => {}
    }
    schema["description"] = match spec.opposite {
        // The help is that of the opposite.
        Some(opposite) => format!("False is {opposite}: {}", spec.help).into(),
        None => spec.help.into(),
    };
    schema
}
