//! `POST /v1/chat/completions`: completions of a conversation that a template writes as one text.

mod template;

pub use template::ChatTemplate;

use super::app::App;
use super::completions::{Form, respond};
use super::error::ApiError;
use super::fields::{Fields, shown};
use super::security::Owner;
use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};
use std::sync::Arc;
use template::Message;

/// Messages of a conversation at most.
const MAX_MESSAGES: usize = 4096;

/// Answers a conversation.
pub(super) async fn completions(
    State(app): State<Arc<App>>,
    Extension(owner): Extension<Owner>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let ready = app.ready()?;
    let mut fields = Fields::of_body(&body)?;
    let Some(template) = &ready.template else {
        let message =
            "the model has no chat template; use /v1/completions, or start the server with its option chat_template";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, message).param("messages").code("no_chat_template"));
    };
    to_completion(&mut fields, template)?;
    respond(app, ready.clone(), owner, fields, Form::Chat { stops: template.stops().to_vec() }).await
}

/// Makes the fields of a completion of those of a chat.
pub(super) fn to_completion(fields: &mut Fields, template: &ChatTemplate) -> Result<(), ApiError> {
    let messages = messages(fields)?;
    fields.set("prompt", template.render(&messages)?.into());
    let listed = fields.switch("logprobs")?.unwrap_or(false);
    let top = fields.whole("top_logprobs", 0, 20)?;
    if top.is_some() && !listed {
        return Err(ApiError::invalid("top_logprobs", "top_logprobs needs logprobs to be true"));
    }
    fields.set("logprobs", if listed { top.unwrap_or(0).into() } else { Value::Null });
    if fields.switch("echo")? == Some(true) {
        return Err(ApiError::invalid("echo", "echo is not available in a chat: the prompt is a list of messages"));
    }
    Ok(())
}

/// The conversation.
fn messages(fields: &mut Fields) -> Result<Vec<Message>, ApiError> {
    let list = fields.take("messages", "a list of messages", |value| value.as_array().cloned())?;
    let list = list.ok_or_else(|| ApiError::invalid("messages", "messages is missing: the conversation"))?;
    if list.is_empty() || list.len() > MAX_MESSAGES {
        let message = format!("messages must have 1 to {MAX_MESSAGES} entries, got {}", list.len());
        return Err(ApiError::invalid("messages", message));
    }
    list.iter().map(message).collect()
}

/// A message, whose content is a text or a list of parts that are texts.
fn message(value: &Value) -> Result<Message, ApiError> {
    let part = |part: &Value| part["text"].as_str().filter(|_| part["type"] == "text").map(str::to_owned);
    let content = match &value["content"] {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => parts.iter().map(part).collect(),
        Value::Null => Some(String::new()),
        _ => None,
    };
    match (value["role"].as_str(), content) {
        (Some(role), Some(content)) => Ok(Message { role: role.to_owned(), content }),
        _ => {
            let expected = "a message must have a role and a text as its content";
            Err(ApiError::invalid("messages", format!("{expected}, got {}", shown(value))))
        }
    }
}

/// Log-probabilities in the form of the chat API, of those in the form of completions.
pub(super) fn logprobs(listed: &Value) -> Value {
    let entry = |name: &str, logprob: &Value| json!({"token": name, "logprob": logprob, "bytes": bytes_of(name)});
    let names = listed["tokens"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let content = names.enumerate().map(|(index, name)| {
        let mut token = entry(name, &listed["token_logprobs"][index]);
        let top = listed["top_logprobs"][index].as_object().into_iter().flatten();
        token["top_logprobs"] = top.map(|(name, logprob)| entry(name, logprob)).collect();
        token
    });
    json!({"content": content.collect::<Vec<_>>()})
}

/// The bytes of a token by its name.
fn bytes_of(name: &str) -> Vec<u8> {
    let byte = name.strip_prefix("bytes:\\x").and_then(|digits| u8::from_str_radix(digits, 16).ok());
    byte.map_or_else(|| name.as_bytes().to_vec(), |byte| vec![byte])
}
