//! Routes that need no slot: health, models, tokens.

use super::app::{App, Ready, unknown_model};
use super::completions::token_name;
use super::error::ApiError;
use super::fields::Fields;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

/// The page, with what the page for a browser has too (`web/page`).
static PAGE: LazyLock<String> = LazyLock::new(|| {
    let parts =
        [("/* look.css */", include_str!("page/look.css")), ("/* tokens.js */", include_str!("page/tokens.js"))];
    parts.iter().fold(include_str!("page/index.html").to_owned(), |page, (mark, part)| page.replacen(mark, part, 1))
});

/// `GET /`: the page.
pub(super) async fn page() -> Response {
    // No other site may show it in a frame of its own.
    let headers =
        [(header::CONTENT_SECURITY_POLICY, "frame-ancestors 'none'"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, Html(PAGE.as_str())).into_response()
}

/// `GET /livez`: whether the process works at all.
pub(super) async fn live() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// `GET /health` and `GET /readyz`: whether requests are taken.
pub(super) async fn health(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    if app.ready()?.engine.has_stopped() {
        return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the engine has stopped"));
    }
    Ok(Json(json!({"status": "ok"})))
}

/// `GET /metrics`.
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let status = app.loaded().map(|ready| ready.engine.status()).unwrap_or_default();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.text(status, app.states.bytes()))
        .into_response()
}

/// `GET /v1/models`.
pub(super) async fn models(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let ready = app.loaded()?;
    Ok(Json(json!({"object": "list", "data": [model_card(&ready)]})))
}

/// `GET /v1/models/{id}`.
pub(super) async fn model(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let ready = app.loaded()?;
    if id != ready.id && !app.options.any_model {
        return Err(unknown_model(&id, &ready.id));
    }
    Ok(Json(model_card(&ready)))
}

fn model_card(ready: &Ready) -> Value {
    let bdh = ready.engine.bdh();
    let config = &bdh.model().config;
    json!({
        "id": ready.id,
        "object": "model",
        "created": ready.created,
        "owned_by": "bdh-gpu",
        "max_model_len": null,
        "meta": {
            "n_vocab": config.vocab_size,
            "n_ctx_train": config.trained_context,
            "n_embd": config.n_embd,
            "n_layer": config.n_layer,
            "n_params": config.parameters(),
            "size": bdh.backend().weight_bytes(),
            "device": bdh.device().to_string(),
            "weights": bdh.backend().weight_type().to_string(),
            "state": bdh.backend().state_type().to_string(),
        },
    })
}

/// `POST /tokenize`.
pub(super) async fn tokenize(State(app): State<Arc<App>>, body: Bytes) -> Result<Json<Value>, ApiError> {
    let bdh = app.loaded()?.engine.bdh();
    let mut fields = Fields::of_body(&body)?;
    let (content, prompt) = (fields.text("content")?, fields.text("prompt")?);
    let Some(text) = content.or(prompt) else {
        return Err(ApiError::invalid("prompt", "prompt (or content) is missing: the text to turn into tokens"));
    };
    let with_pieces = fields.switch("with_pieces")?.unwrap_or(false);
    let with_names = fields.switch("return_token_strs")?.unwrap_or(false);
    // There are none to add.
    for name in ["add_special", "add_special_tokens", "parse_special"] {
        fields.switch(name)?;
    }
    fields.text("model")?;
    app.note_unknown(&fields)?;
    let tokens = bdh.encode(text.as_bytes()).map_err(|error| ApiError::of_generation(&error))?;
    let name = |&id: &u32| token_name(&bdh, id);
    let pieces = || {
        let piece = |id: &u32| match bdh.model().tokenizer.byte(*id) {
            Some(byte) if !byte.is_ascii() => json!({"id": id, "piece": [byte]}),
            _ => json!({"id": id, "piece": name(id)}),
        };
        tokens.iter().map(piece).collect::<Vec<_>>()
    };
    Ok(Json(json!({
        "tokens": if with_pieces { Value::from(pieces()) } else { tokens.clone().into() },
        "count": tokens.len(),
        "max_model_len": null,
        "token_strs": if with_names { tokens.iter().map(name).collect::<Vec<_>>().into() } else { Value::Null },
    })))
}

/// `POST /detokenize`.
pub(super) async fn detokenize(State(app): State<Arc<App>>, body: Bytes) -> Result<Json<Value>, ApiError> {
    let bdh = app.loaded()?.engine.bdh();
    let mut fields = Fields::of_body(&body)?;
    let Some(tokens) = fields.ids("tokens")? else {
        return Err(ApiError::invalid("tokens", "tokens is missing: a list of token ids"));
    };
    fields.text("model")?;
    app.note_unknown(&fields)?;
    let vocab = bdh.model().config.vocab_size;
    if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocab) {
        let message = format!("tokens must be ids below the vocabulary size {vocab}, got {token}");
        return Err(ApiError::invalid("tokens", message));
    }
    bdh.check_text().map_err(|error| ApiError::of_generation(&error))?;
    let text = bdh.decode(&tokens);
    Ok(Json(json!({"prompt": text, "content": text})))
}

/// `GET /tokenizer_info`: what evaluation programs ask before they send token ids.
pub(super) async fn tokenizer_info(State(app): State<Arc<App>>) -> Result<Json<Value>, ApiError> {
    let bdh = app.loaded()?.engine.bdh();
    let start = bdh.default_prompt().ok().map(|tokens| bdh.decode(&tokens)).filter(|text| !text.is_empty());
    Ok(Json(json!({
        "tokenizer_class": if bdh.model().tokenizer.byte(0).is_some() { "ByteTokenizer" } else { "Tokenizer" },
        "vocab_size": bdh.model().config.vocab_size,
        "eos_token": null,
        "bos_token": start,
        "pad_token": null,
        "chat_template": null,
    })))
}
