//! A connection whose every error has a body.
//!
//! What is no HTTP never reaches a route: hyper answers it by itself, with a status alone. Clients
//! expect an error object there too, so that one is put in the place of such an answer.

use super::error::ApiError;
use axum::http::StatusCode;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Longest answer that has no body.
const BARE_BYTES: usize = 512;

/// See the module.
pub(super) struct Connection {
    stream: TcpStream,
    /// What is to be sent in another's place, and how much of it has been.
    replacement: Vec<u8>,
    sent: usize,
}

impl Connection {
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, replacement: Vec::new(), sent: 0 }
    }
}

/// The status of an answer of hyper's own: a head that says there is no body, and not of which type.
fn bare_error(bytes: &[u8]) -> Option<StatusCode> {
    if bytes.len() > BARE_BYTES || !bytes.starts_with(b"HTTP/1.1 4") || !bytes.ends_with(b"\r\n\r\n") {
        return None;
    }
    let head = std::str::from_utf8(bytes).ok()?.to_ascii_lowercase();
    let bare = head.contains("\r\ncontent-length: 0\r\n") && !head.contains("\r\ncontent-type:");
    StatusCode::from_bytes(&bytes[9..12]).ok().filter(|_| bare)
}

/// An answer with an error object.
fn answer(status: StatusCode) -> Vec<u8> {
    let message = match status {
        StatusCode::URI_TOO_LONG => "the request's address is too long",
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "the request's headers are too large, or too many",
        _ => "the request is not valid HTTP/1.1",
    };
    let body = ApiError::new(status, message).body().to_string();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.replacement.is_empty() {
            let Some(status) = bare_error(bytes) else { return Pin::new(&mut this.stream).poll_write(context, bytes) };
            this.replacement = answer(status);
        }
        // While this is pending, the same bytes are offered again.
        while this.sent < this.replacement.len() {
            let rest = &this.replacement[this.sent..];
            match ready!(Pin::new(&mut this.stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => this.sent += count,
            }
        }
        (this.replacement, this.sent) = (Vec::new(), 0);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_without_a_body_are_replaced() {
        let bare = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        assert_eq!(bare_error(bare), Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE));
        for other in [
            &b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n",
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n",
        ] {
            assert_eq!(bare_error(other), None);
        }
        let text = String::from_utf8(answer(StatusCode::BAD_REQUEST)).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        assert!(body.contains("not valid HTTP"));
    }
}
