//! What the Hub's answers mean: headers, and errors.

use ureq::http::{HeaderMap, StatusCode, header};

use super::{HubError, HubName};
use crate::model::error::clip;

/// What the Hub says of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remote {
    /// The name of its content; a hash of it if it has the length of one.
    pub(super) etag: String,
    pub(super) size: u64,
}

impl Remote {
    /// Reads the headers of an answer.
    pub(super) fn read(headers: &HeaderMap, url: &str) -> Result<Self, HubError> {
        let missing = |found: String, expected| HubError::Answer { url: url.to_owned(), found, expected };
        let etag = text(headers, "x-linked-etag").or_else(|| text(headers, "etag")).unwrap_or_default();
        let plain = etag.trim().trim_start_matches("W/").trim_matches('"');
        if !is_name(plain) {
            return Err(missing(format!("the ETag is {:?}", clip(etag)), "an ETag that names the content"));
        }
        let length = text(headers, "x-linked-size").or_else(|| text(headers, "content-length"));
        let size = length.and_then(|length| length.trim().parse().ok()).ok_or_else(|| {
            missing(format!("the size is {:?}", clip(length.unwrap_or_default())), "a number of bytes")
        })?;
        Ok(Self { etag: plain.to_owned(), size })
    }
}

/// Whether an ETag can be the name of a file.
fn is_name(etag: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !etag.is_empty() && etag.len() <= 128 && etag.bytes().all(allowed)
}

/// A header's text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// First byte of a partial answer.
pub(super) fn range_start(headers: &HeaderMap) -> Option<u64> {
    let range = text(headers, header::CONTENT_RANGE.as_str())?;
    range.trim().strip_prefix("bytes")?.trim_start().split('-').next()?.trim().parse().ok()
}

/// Who asked for what, for errors.
pub(super) struct Question<'a> {
    pub(super) name: &'a HubName,
    pub(super) endpoint: &'a str,
    pub(super) token: bool,
    pub(super) url: &'a str,
}

impl Question<'_> {
    /// The error that an answer is; `None` is success, or a redirection.
    pub(super) fn error(&self, status: StatusCode, headers: &HeaderMap) -> Option<HubError> {
        if status.is_success() || status.is_redirection() {
            return None;
        }
        let repository = self.name.repository();
        let endpoint = self.endpoint.to_owned();
        let code = text(headers, "x-error-code").unwrap_or_default();
        let message = clip(text(headers, "x-error-message").unwrap_or_default());
        let reason = if message.is_empty() { message } else { format!(": {}", message.trim_end_matches('.')) };
        Some(match (status.as_u16(), code) {
            (401 | 403, "GatedRepo") | (403, _) => HubError::Gated { repository, endpoint, reason },
            (401, _) => HubError::Denied { repository, endpoint, token: self.token },
            (404, "RevisionNotFound") => {
                HubError::NoRevision { repository, endpoint, revision: self.name.revision().to_owned() }
            }
            (404, _) if self.url.contains("/api/") => HubError::NotFound { repository, endpoint },
            _ => HubError::Answer {
                url: self.url.to_owned(),
                found: format!("answers {status}{reason}"),
                expected: "200 OK",
            },
        })
    }
}

/// Whether a status may be another one a little later.
pub(super) fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status.as_u16(), 408 | 429)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn read(pairs: &[(&'static str, &str)]) -> Result<Remote, HubError> {
        Remote::read(&headers(pairs), "http://hub/f")
    }

    #[test]
    fn linked_headers_win() {
        let all =
            [("etag", "W/\"x\""), ("content-length", "5"), ("x-linked-etag", "\"ab-1\""), ("x-linked-size", "70")];
        assert_eq!(read(&all).unwrap(), Remote { etag: "ab-1".into(), size: 70 });
        assert_eq!(read(&all[..2]).unwrap(), Remote { etag: "x".into(), size: 5 });
        let long = "x".repeat(200);
        for wrong in ["", "\"\"", "../../x", "a/b", ".hidden", "a b", &long] {
            let error = read(&[("etag", wrong), ("content-length", "5")]).unwrap_err().to_string();
            assert!(error.starts_with("http://hub/f: the ETag is "), "{error}");
        }
        for wrong in ["", "-1", "1e9", "99999999999999999999999999"] {
            let error = read(&[("etag", "x"), ("content-length", wrong)]).unwrap_err().to_string();
            assert!(error.contains("expected a number of bytes"), "{error}");
        }
    }

    #[test]
    fn ranges_begin_somewhere() {
        let start = |range: &str| range_start(&headers(&[("content-range", range)]));
        assert_eq!((start("bytes 10-19/20"), start("bytes 0-0/*")), (Some(10), Some(0)));
        for wrong in ["", "bytes", "bytes */20", "10-19/20", "bytes -5/20", "bytes 99999999999999999999-/1"] {
            assert_eq!(start(wrong), None, "{wrong}");
        }
    }
}
