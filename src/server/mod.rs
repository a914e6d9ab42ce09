//! The server: the OpenAI API's completions over HTTP, with continuous batching.
//!
//! | file | holds |
//! | --- | --- |
//! | `listener` | connections, and how the server ends |
//! | `connection` | a connection whose every error has a body |
//! | `app` | what all requests share |
//! | `security` | keys, and the Host header |
//! | `error` | errors as clients expect them |
//! | `fields`, `options` | a request's fields; generation options among them |
//! | `run` | a request on its way through the engine |
//! | `completions` | `POST /v1/completions` |
//! | `chat` | `POST /v1/chat/completions`, and templates |
//! | `score` | `POST /v1/score` |
//! | `neurons` | `POST /v1/neurons`, and neurons in completions |
//! | `openapi` | the description of all routes |
//! | `states`, `store` | conversations that the server remembers, and where servers share them |
//! | `plain` | health, models, tokens, metrics, the page |
//! | `metrics` | what Prometheus scrapes |
//!
//! Requests become [`Job`](crate::generation::engine::Job)s of an
//! [`Engine`](crate::generation::engine::Engine), which owns the device. Tasks parse and format;
//! bounded channels lie between.

mod app;
mod chat;
mod completions;
mod connection;
mod error;
mod fields;
mod listener;
mod metrics;
mod neurons;
mod openapi;
mod options;
mod plain;
mod run;
mod score;
mod security;
mod states;
mod store;

pub use chat::ChatTemplate;
pub use completions::check_request;
pub use listener::serve;
pub use store::{StateStore, StoreError};

use crate::generation::{Bdh, GenerationError};
use crate::model::forgetting::Forgetting;
use std::time::Duration;

/// Seconds after which a client that was turned away should try again.
const OVERLOADED_SECONDS: u32 = 1;

/// How to serve.
pub struct ServerOptions {
    /// The model's name in the API; by default that of its directory.
    pub alias: Option<String>,
    /// Keys that open the server; none for everyone.
    pub keys: Vec<String>,
    /// Sites whose pages may use it.
    pub cors_origins: Vec<String>,
    /// Whether it listens on this machine's own address only.
    pub loopback: bool,
    /// Whether requests may name any model.
    pub any_model: bool,
    /// Whether requests may ask for neurons. The model's device must be
    /// [`DeviceOptions::watchable`](crate::generation::DeviceOptions).
    pub neurons: bool,
    /// Whether unknown fields are errors.
    pub strict: bool,
    /// Time that a request may take.
    pub request_timeout: Duration,
    /// Time that running requests have when the server ends.
    pub shutdown_timeout: Duration,
    /// Sequences that run together; absent: as many as the device gains from.
    pub parallel: Option<usize>,
    /// Requests that wait at most.
    pub queue: usize,
    /// Bytes of states that are kept of prompts.
    pub prefix_cache: u64,
    /// Where states are kept too, which other servers may share.
    pub state_store: Option<StateStore>,
    /// Bytes of states in memory at most.
    pub state_budget: u64,
    /// How long a state is kept after its last use.
    pub state_ttl: Duration,
    /// Receives notes for whoever runs the server.
    pub log: Box<dyn Fn(&str) + Send + Sync>,
}

/// A model and how much of the past counts in it.
pub struct Loaded {
    /// The model on its device.
    pub bdh: Bdh,
    /// How much of the past counts.
    pub forgetting: Forgetting,
    /// How conversations become prompts; without it there are no chat completions.
    pub template: Option<ChatTemplate>,
}

/// Why the server ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError<E> {
    /// The model cannot be loaded.
    #[error("the model cannot be loaded")]
    Load(E),
    /// The slots cannot be allocated.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// The listener, or the threads.
    #[error("the server cannot run: {0}")]
    Io(#[from] std::io::Error),
    /// The engine has stopped: its device has failed, and the CPU as well.
    #[error("the engine has stopped")]
    Stopped,
}
