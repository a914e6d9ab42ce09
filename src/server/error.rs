//! Errors as clients of the OpenAI API expect them.

use super::OVERLOADED_SECONDS;
use crate::generation::GenerationError;
use crate::generation::engine::Rejected;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Why a request is not answered as it asks.
#[derive(Clone, Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    message: String,
    /// The field of the request that is wrong.
    param: Option<String>,
    code: Option<&'static str>,
}

impl ApiError {
    /// A request that cannot be understood, or asks for what is not possible.
    pub fn invalid(param: &str, message: impl Into<String>) -> Self {
        Self { param: Some(param.to_owned()), ..Self::new(StatusCode::BAD_REQUEST, message) }
    }

    /// An error of any status.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None }
    }

    /// With a code that programs look for.
    pub fn code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    /// With the field that is wrong.
    pub fn param(self, param: &str) -> Self {
        Self { param: Some(param.to_owned()), ..self }
    }

    /// Of a field within another.
    pub fn within(self, field: &str) -> Self {
        let inner = |text: String| format!("{field}.{text}");
        Self { message: inner(self.message), param: self.param.map(inner), ..self }
    }

    /// The server takes no requests yet, or no more.
    pub fn unavailable(message: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message).code("unavailable")
    }

    /// What went wrong in a generation.
    pub fn of_generation(error: &GenerationError) -> Self {
        let status = if error.is_usage() { StatusCode::BAD_REQUEST } else { StatusCode::INTERNAL_SERVER_ERROR };
        let param = match error {
            GenerationError::OutOfRange(error) => Some(error.option),
            GenerationError::EmptyStop => Some("stop"),
            GenerationError::TokenOutOfRange { .. } | GenerationError::Encode(_) | GenerationError::EmptyPrompt => {
                Some("prompt")
            }
            _ => None,
        };
        Self { param: param.map(str::to_owned), ..Self::new(status, error.to_string()) }
    }

    /// The answer's status.
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// The error object.
    pub fn body(&self) -> Value {
        let kind = match self.status.as_u16() {
            401 => "authentication_error",
            404 | 405 => "not_found_error",
            429 => "rate_limit_error",
            503 => "unavailable_error",
            status if status >= 500 => "server_error",
            _ => "invalid_request_error",
        };
        json!({"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}})
    }
}

impl From<Rejected> for ApiError {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::QueueFull(_) => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, format!("the server is busy: {rejected}")).code("overloaded")
            }
            Rejected::Stopped => Self::new(StatusCode::INTERNAL_SERVER_ERROR, rejected.to_string()),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, OVERLOADED_SECONDS.into());
            }
            _ => {}
        }
        response
    }
}
