//! Answers as streams of server-sent events.

use super::{Answer, Run};
use crate::generation::engine::Event;
use crate::server::error::ApiError;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::Value;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

/// A comment goes out after so much silence, so that dead connections show.
const PING: Duration = Duration::from_secs(10);

/// A stream on its way.
struct Stream {
    answer: Answer,
    run: Run,
    ready: VecDeque<String>,
    over: bool,
}

/// The answer to a request, event by event.
pub(super) fn response(answer: Answer, run: Run) -> Response {
    let ready = answer.opening().iter().map(data).collect();
    let stream = Stream { answer, run, ready, over: false };
    let events = stream::unfold(stream, |mut stream| async move {
        let event = stream.next().await?;
        Some((Ok::<_, Infallible>(Bytes::from(event)), stream))
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, Body::from_stream(events)).into_response()
}

impl Stream {
    /// The next event as it is sent.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            match tokio::time::timeout(PING, self.run.next()).await {
                Err(_) => return Some(": ping\n\n".to_owned()),
                Ok(Ok(Some((index, event)))) => self.take(index, event).await,
                Ok(Ok(None)) => self.end(),
                Ok(Err(error)) => self.fail(&error),
            }
        }
    }

    async fn take(&mut self, index: usize, event: Event) {
        let (piece, end) = self.answer.take(index, event, &self.run);
        if piece.is_empty() && end.is_none() {
            return;
        }
        let choice = match self.answer.choice(index, index, piece, end).await {
            Ok(choice) => choice,
            Err(error) => return self.fail(&error),
        };
        let completion = &self.answer.completion;
        let mut chunk = self.answer.frame(vec![choice]);
        if completion.continuous_usage {
            chunk["usage"] = self.answer.usage.json();
        } else if completion.include_usage {
            chunk["usage"] = Value::Null;
        }
        self.ready.push_back(data(&chunk));
    }

    fn end(&mut self) {
        if self.answer.completion.include_usage {
            let mut chunk = self.answer.frame(Vec::new());
            chunk["usage"] = self.answer.usage.json();
            if self.answer.completion.timings {
                chunk["timings"] = self.answer.usage.timings(self.run.elapsed());
            }
            self.ready.push_back(data(&chunk));
        }
        self.ready.push_back("data: [DONE]\n\n".to_owned());
        self.over = true;
    }

    fn fail(&mut self, error: &ApiError) {
        self.ready.push_back(data(&error.body()));
        self.over = true;
    }
}

/// An event. Some clients split lines at characters that JSON need not escape.
fn data(value: &Value) -> String {
    let mut text = value.to_string();
    for (character, escaped) in [('\u{85}', "\\u0085"), ('\u{2028}', "\\u2028"), ('\u{2029}', "\\u2029")] {
        if text.contains(character) {
            text = text.replace(character, escaped);
        }
    }
    format!("data: {text}\n\n")
}
