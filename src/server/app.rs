//! State that all requests share.

use super::ServerOptions;
use super::chat::ChatTemplate;
use super::error::ApiError;
use super::fields::Fields;
use super::metrics::Metrics;
use super::states::States;
use crate::generation::engine::Engine;
use crate::model::forgetting::Forgetting;
use axum::http::StatusCode;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, Semaphore, watch};

/// A server's state.
pub(super) struct App {
    pub options: ServerOptions,
    pub metrics: Metrics,
    pub states: States,
    ready: OnceLock<Arc<Ready>>,
    /// No new requests are taken.
    draining: AtomicBool,
    /// Whether running requests are to end now.
    abort: watch::Sender<bool>,
    /// Requests that have not been answered.
    pub in_flight: AtomicUsize,
    /// Notified whenever one has.
    pub idle: Notify,
    /// Beam searches at the same time.
    pub search: Arc<Semaphore>,
    /// Unknown fields that the log has named.
    named: Mutex<BTreeSet<String>>,
}

/// The model, once it is loaded.
pub(super) struct Ready {
    pub engine: Engine,
    /// The model's name in the API.
    pub id: String,
    pub created: u64,
    pub forgetting: Forgetting,
    /// How conversations become prompts, if they do.
    pub template: Option<ChatTemplate>,
}

impl App {
    /// A server without a model.
    ///
    /// # Errors
    /// As [`States::new`].
    pub fn new(mut options: ServerOptions) -> std::io::Result<Self> {
        let states = States::new(options.state_budget, options.state_ttl, options.state_store.take())?;
        Ok(Self {
            options,
            states,
            metrics: Metrics::new(),
            ready: OnceLock::new(),
            draining: AtomicBool::new(false),
            abort: watch::Sender::new(false),
            in_flight: AtomicUsize::new(0),
            idle: Notify::new(),
            search: Arc::new(Semaphore::new(1)),
            named: Mutex::default(),
        })
    }

    /// Takes requests from now on.
    pub fn open(&self, ready: Ready) {
        let _ = self.ready.set(Arc::new(ready));
    }

    /// The model, if requests are taken.
    pub fn ready(&self) -> Result<Arc<Ready>, ApiError> {
        if self.draining.load(Relaxed) {
            return Err(ApiError::unavailable("the server is shutting down"));
        }
        self.loaded()
    }

    /// The model, if it is loaded.
    pub fn loaded(&self) -> Result<Arc<Ready>, ApiError> {
        self.ready.get().cloned().ok_or_else(|| ApiError::unavailable("the model is loading"))
    }

    /// Takes no new requests.
    pub fn drain(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Ends running requests with an error.
    pub fn abort(&self) {
        self.abort.send_replace(true);
    }

    /// Waits until running requests are to end.
    pub async fn aborted(&self) {
        let mut abort = self.abort.subscribe();
        // The sender lives as long as this.
        let _ = abort.wait_for(|abort| *abort).await;
    }

    /// Waits until every request has been answered.
    pub async fn answered(&self) {
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if self.in_flight.load(Relaxed) == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Says which fields of a request mean nothing here: an error if the server is strict, else once
    /// in the log.
    pub fn note_unknown(&self, fields: &Fields) -> Result<(), ApiError> {
        for name in fields.unknown() {
            if self.options.strict {
                return Err(ApiError::invalid(name, format!("{name} is not a field of this request")));
            }
            const MOST: usize = 256;
            let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
            // The names come from outside: no more than a screen of them.
            if named.len() < MOST && named.insert(name.to_owned()) {
                (self.options.log)(&format!("note: the field {:?} of requests is ignored", name));
            }
        }
        Ok(())
    }
}

impl Ready {
    /// Refuses a request for another model.
    pub fn check_model(&self, fields: &mut Fields, options: &ServerOptions) -> Result<(), ApiError> {
        match fields.text("model")? {
            Some(model) if model != self.id && !options.any_model => Err(unknown_model(&model, &self.id)),
            _ => Ok(()),
        }
    }
}

/// The error for a model that is not served.
pub(super) fn unknown_model(model: &str, id: &str) -> ApiError {
    let message = format!("the model {:?} does not exist; this server has {id:?}", shortened(model));
    ApiError::new(StatusCode::NOT_FOUND, message).param("model").code("model_not_found")
}

fn shortened(text: &str) -> &str {
    const LONGEST: usize = 100;
    text.char_indices().nth(LONGEST).map_or(text, |(end, _)| &text[..end])
}

/// Seconds since 1970.
pub(super) fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// A name that nobody can guess.
pub(super) fn random_id(prefix: &str) -> String {
    format!("{prefix}{:032x}", rand::random::<u128>())
}
