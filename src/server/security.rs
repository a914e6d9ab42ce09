//! Who may ask.

use super::app::App;
use super::error::ApiError;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// Routes that need no key: those that tell a machine whether the server works, and the page, which
/// asks for the key.
const OPEN: [&str; 5] = ["/", "/health", "/livez", "/readyz", "/openapi.json"];

/// Whose key a request brought, in a form that tells nothing of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner(pub String);

impl Owner {
    fn of(key: &str) -> Self {
        Self(blake3::hash(key.as_bytes()).to_hex()[..32].to_owned())
    }
}

/// Refuses requests without a key, if there are keys, and else those that come from another site
/// under this one's address.
pub(super) async fn check(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut request = request;
    let headers = request.headers();
    let mut owner = Owner::of("");
    let checked = if !app.options.keys.is_empty() {
        match check_key(headers, &app.options.keys) {
            Ok(key) => {
                owner = Owner::of(key);
                Ok(())
            }
            Err(_) if OPEN.contains(&request.uri().path()) => Ok(()),
            Err(error) => Err(error),
        }
    } else if app.options.loopback {
        check_host(headers)
    } else {
        Ok(())
    };
    if let Err(error) = checked {
        return error.into_response();
    }
    request.extensions_mut().insert(owner);
    next.run(request).await
}

/// Compares the key with all of the server's, in a time that does not tell how much of it is right.
fn check_key<'a>(headers: &'a HeaderMap, keys: &[String]) -> Result<&'a str, ApiError> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = bearer.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default().trim();
    let mut known = subtle::Choice::from(0);
    for key in keys {
        known |= key.as_bytes().ct_eq(given.as_bytes());
    }
    if known.into() {
        return Ok(given);
    }
    let message = "a valid API key is needed: send the header \"Authorization: Bearer KEY\"";
    Err(ApiError::new(StatusCode::UNAUTHORIZED, message).code("invalid_api_key"))
}

/// A page of another site can make a browser send requests to this machine under the site's name.
fn check_host(headers: &HeaderMap) -> Result<(), ApiError> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next(),
        None => host.split(':').next(),
    };
    let local = name.is_some_and(|name| {
        name.is_empty()
            || name.eq_ignore_ascii_case("localhost")
            || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    });
    if local {
        return Ok(());
    }
    let message = "the Host header names another machine; a server without keys answers to localhost only";
    Err(ApiError::new(StatusCode::FORBIDDEN, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().unwrap())])
    }

    #[test]
    fn keys_are_compared_whole() {
        let keys = ["secret".to_owned(), "other".to_owned()];
        let check = |value| check_key(&headers(header::AUTHORIZATION, value), &keys).is_ok();
        assert!(check("Bearer secret") && check("Bearer other"));
        assert!(!check("Bearer secre") && !check("Bearer secret2") && !check("Bearer ") && !check("secret"));
        assert!(check_key(&HeaderMap::new(), &keys).is_err());
    }

    #[test]
    fn other_names_than_this_machines_are_refused() {
        let check = |value| check_host(&headers(header::HOST, value)).is_ok();
        assert!(check("127.0.0.1:8080") && check("localhost") && check("[::1]:80") && check("LOCALHOST:1"));
        assert!(!check("evil.example") && !check("evil.example:8080") && !check("192.168.0.1"));
    }
}
