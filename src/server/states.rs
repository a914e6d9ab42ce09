//! `/v1/states`: conversations that the server remembers.
//!
//! A conversation's memory has a fixed size, so that it can be kept, copied and sent as it is. An
//! id is a secret of its own, and belongs to the API key that made it. With a store, which several
//! servers may share, every state lies there too, and a conversation goes on at any of them.

use super::app::{App, Ready, now_seconds, random_id};
use super::error::ApiError;
use super::fields::Fields;
use super::security::Owner;
use super::store::{StateStore, StoreError, Version};
use crate::files::PendingFile;
use crate::generation::{Bdh, GenerationError, Snapshot};
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

/// Prefix of ids.
const PREFIX: &str = "state-";
/// Bytes of a file that are sent at once.
const PART: usize = 256 << 10;

/// The states that are kept.
pub(super) struct States {
    kept: Mutex<HashMap<String, Kept>>,
    /// Bytes of all of them at most.
    budget: u64,
    /// How long a state is kept after its last use.
    ttl: Duration,
    /// Where states lie as well.
    store: Option<StateStore>,
    /// Where files that come and go lie for a moment.
    scratch: tempfile::TempDir,
}

/// A state in memory.
struct Kept {
    snapshot: Arc<Snapshot>,
    owner: Owner,
    /// Which version of it the store has.
    version: Option<Version>,
    created: u64,
    used: Instant,
}

impl States {
    /// None yet.
    ///
    /// # Errors
    /// No folder can be made for temporary files.
    pub fn new(budget: u64, ttl: Duration, store: Option<StateStore>) -> std::io::Result<Self> {
        let scratch = tempfile::tempdir()?;
        Ok(Self { kept: Mutex::default(), budget, ttl, store, scratch })
    }

    /// Keeps a state and returns its id. The states that were of no use for longest make room.
    pub fn keep(&self, bdh: &Bdh, snapshot: Snapshot, owner: &Owner) -> Result<String, ApiError> {
        self.keep_shared(bdh, Arc::new(snapshot), owner)
    }

    fn keep_shared(&self, bdh: &Bdh, snapshot: Arc<Snapshot>, owner: &Owner) -> Result<String, ApiError> {
        if snapshot.bytes() > self.budget {
            let message =
                format!("a state has {} bytes, and the server keeps {} in all", snapshot.bytes(), self.budget);
            return Err(ApiError::new(StatusCode::INSUFFICIENT_STORAGE, message).param("keep_state"));
        }
        let id = random_id(PREFIX);
        self.put(bdh, id.clone(), snapshot, owner)?;
        Ok(id)
    }

    /// Keeps a state under an id, in the store too if there is one.
    fn put(&self, bdh: &Bdh, id: String, snapshot: Arc<Snapshot>, owner: &Owner) -> Result<(), ApiError> {
        let save = |store: &StateStore| store.0.save(bdh, &name(&id, owner), &snapshot);
        let version = self.store.as_ref().map(save).transpose().map_err(|error| internal(&error))?;
        self.insert(id, snapshot, owner, version);
        Ok(())
    }

    fn insert(&self, id: String, snapshot: Arc<Snapshot>, owner: &Owner, version: Option<Version>) {
        let (owner, now) = (owner.clone(), Instant::now());
        let kept = Kept { snapshot, owner, version, created: now_seconds(), used: now };
        let mut all = self.lock();
        all.insert(id, kept);
        all.retain(|_, kept| kept.used.elapsed() < self.ttl);
        while all.values().map(|kept| kept.snapshot.bytes()).sum::<u64>() > self.budget {
            let oldest = all.iter().min_by_key(|(_, kept)| kept.used).map(|(id, _)| id.clone());
            let Some(oldest) = oldest else { return };
            all.remove(&oldest);
        }
    }

    /// A state by its id.
    ///
    /// # Errors
    /// 404 if there is none, or it is somebody else's; 503 if the store does not answer.
    pub fn find(&self, bdh: &Bdh, id: &str, owner: &Owner) -> Result<Arc<Snapshot>, ApiError> {
        let unknown =
            || ApiError::new(StatusCode::NOT_FOUND, "there is no such state").param("state").code("state_not_found");
        if !is_id(id) {
            return Err(unknown());
        }
        let remembered = self.recall(id, owner);
        let Some(store) = &self.store else { return remembered.map(|(snapshot, _)| snapshot).ok_or_else(unknown) };
        // Another server may have replaced or deleted it.
        let name = name(id, owner);
        let unanswered = |error: StoreError| match error {
            StoreError::State(_) => unknown(),
            error => ApiError::unavailable(&error.to_string()),
        };
        let Some(version) = store.0.version(&name, self.ttl).map_err(unanswered)? else {
            self.forget(id, owner);
            return Err(unknown());
        };
        let snapshot = match remembered {
            Some((snapshot, known)) if known.as_ref() == Some(&version) => snapshot,
            _ => {
                let snapshot = Arc::new(store.0.load(bdh, &name).map_err(unanswered)?);
                self.insert(id.to_owned(), snapshot.clone(), owner, Some(version));
                snapshot
            }
        };
        // Its time begins anew, for every server.
        store.0.renew(&name).map_err(unanswered)?;
        Ok(snapshot)
    }

    /// A state that is in memory, and its version.
    fn recall(&self, id: &str, owner: &Owner) -> Option<(Arc<Snapshot>, Option<Version>)> {
        let mut all = self.lock();
        let kept = all.get_mut(id).filter(|kept| kept.owner == *owner && kept.used.elapsed() < self.ttl)?;
        kept.used = Instant::now();
        Some((kept.snapshot.clone(), kept.version.clone()))
    }

    /// Drops a state from memory.
    fn forget(&self, id: &str, owner: &Owner) {
        let mut all = self.lock();
        if all.get(id).is_some_and(|kept| kept.owner == *owner) {
            all.remove(id);
        }
    }

    /// Forgets a state everywhere.
    fn remove(&self, id: &str, owner: &Owner) -> Result<(), ApiError> {
        self.forget(id, owner);
        match &self.store {
            Some(store) => store.0.remove(&name(id, owner)).map_err(|error| ApiError::unavailable(&error.to_string())),
            None => Ok(()),
        }
    }

    /// Forgets states in memory that nobody has used for a while.
    pub fn sweep(&self) {
        self.lock().retain(|_, kept| kept.used.elapsed() < self.ttl);
    }

    /// Deletes the states in the store that nobody has used for a while.
    pub fn sweep_store(&self) -> Result<(), StoreError> {
        self.store.as_ref().map_or(Ok(()), |store| store.0.sweep(PREFIX, self.ttl))
    }

    /// Bytes of the states in memory.
    pub fn bytes(&self) -> u64 {
        self.lock().values().map(|kept| kept.snapshot.bytes()).sum()
    }

    fn created(&self, id: &str) -> u64 {
        self.lock().get(id).map_or_else(now_seconds, |kept| kept.created)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A state's name in the store. Only its owner finds it.
fn name(id: &str, owner: &Owner) -> String {
    format!("{id}.{}", owner.0)
}

/// Whether a text can be an id: it becomes part of a file's name.
fn is_id(text: &str) -> bool {
    text.strip_prefix(PREFIX).is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn internal(error: &dyn std::fmt::Display) -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

/// Runs what takes long, to read or write a state for instance, away from the tasks that serve
/// connections.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the server failed at this request")),
    }
}

impl App {
    /// A state's object.
    fn state_json(&self, id: &str, snapshot: &Snapshot) -> Value {
        json!({
            "id": id,
            "object": "state",
            "created": self.states.created(id),
            "expires_in": self.options.state_ttl.as_secs(),
            "position": snapshot.position(),
            "bytes": snapshot.bytes(),
            "dtype": snapshot.state_type().to_string(),
        })
    }

    /// The model and a state by its id.
    pub async fn state(self: &Arc<Self>, id: &str, owner: &Owner) -> Result<(Arc<Ready>, Arc<Snapshot>), ApiError> {
        let ready = self.ready()?;
        let (app, bdh, id, owner) = (self.clone(), ready.engine.bdh(), id.to_owned(), owner.clone());
        Ok((ready, blocking(move || app.states.find(&bdh, &id, &owner)).await?))
    }

    /// Keeps a state, and describes it.
    async fn keep(self: &Arc<Self>, ready: &Ready, snapshot: Arc<Snapshot>, owner: Owner) -> Result<Value, ApiError> {
        let (app, bdh) = (self.clone(), ready.engine.bdh());
        blocking(move || {
            let id = app.states.keep_shared(&bdh, snapshot.clone(), &owner)?;
            Ok(app.state_json(&id, &snapshot))
        })
        .await
    }
}

/// `POST /v1/states`: an empty conversation.
pub(super) async fn create(
    State(app): State<Arc<App>>,
    Extension(owner): Extension<Owner>,
    body: Bytes,
) -> Result<Response, ApiError> {
    let ready = app.ready()?;
    let mut fields = Fields::of_body(&body)?;
    ready.check_model(&mut fields, &app.options)?;
    app.note_unknown(&fields)?;
    let (bdh, forgetting) = (ready.engine.bdh(), ready.forgetting);
    let empty = blocking(move || {
        let snapshot = bdh.session_with(forgetting).and_then(|mut session| session.snapshot());
        snapshot.map_err(|error: GenerationError| ApiError::of_generation(&error))
    });
    let state = app.keep(&ready, Arc::new(empty.await?), owner).await?;
    Ok((StatusCode::CREATED, Json(state)).into_response())
}

/// `GET /v1/states/{id}`.
pub(super) async fn describe(
    State(app): State<Arc<App>>,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let (_, snapshot) = app.state(&id, &owner).await?;
    Ok(Json(app.state_json(&id, &snapshot)))
}

/// `DELETE /v1/states/{id}`.
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    app.state(&id, &owner).await?;
    let (states, name) = (app.clone(), id.clone());
    blocking(move || states.states.remove(&name, &owner)).await?;
    Ok(Json(json!({"id": id, "object": "state", "deleted": true})))
}

/// `POST /v1/states/{id}/fork`: a second conversation with the same past.
pub(super) async fn fork(
    State(app): State<Arc<App>>,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let (ready, snapshot) = app.state(&id, &owner).await?;
    let state = app.keep(&ready, snapshot, owner).await?;
    Ok((StatusCode::CREATED, Json(state)).into_response())
}

/// `GET /v1/states/{id}/file`: a state file, as the program loads and saves them.
pub(super) async fn download(
    State(app): State<Arc<App>>,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let (ready, snapshot) = app.state(&id, &owner).await?;
    let path = app.states.scratch.path().join(random_id("download-"));
    let (bdh, written) = (ready.engine.bdh(), path.clone());
    blocking(move || snapshot.save(&bdh, &written).map_err(|error| internal(&error))).await?;
    let file = tokio::fs::File::open(&path).await;
    // The open file stays readable.
    let _ = tokio::fs::remove_file(&path).await;
    let parts = stream::unfold(file.map_err(|error| internal(&error))?, |mut file| async move {
        let mut part = vec![0; PART];
        match file.read(&mut part).await {
            Ok(0) => None,
            Ok(count) => {
                part.truncate(count);
                Some((Ok(Bytes::from(part)), file))
            }
            Err(error) => Some((Err(error), file)),
        }
    });
    let name = format!("attachment; filename=\"{id}.state\"");
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::CONTENT_DISPOSITION, HeaderValue::from_str(&name).map_err(|error| internal(&error))?),
    ];
    Ok((headers, Body::from_stream(parts)).into_response())
}

/// `PUT /v1/states/{id}/file`: replaces a state by that of a file.
pub(super) async fn upload(
    State(app): State<Arc<App>>,
    Extension(owner): Extension<Owner>,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let (ready, _) = app.state(&id, &owner).await?;
    let path = app.states.scratch.path().join(random_id("upload-"));
    let mut file = PendingFile::create(&path).map_err(|error| internal(&error))?;
    let (mut parts, mut length) = (body.into_data_stream(), 0);
    while let Some(part) = parts.next().await {
        let part = part.map_err(|_| ApiError::new(StatusCode::BAD_REQUEST, "the body broke off"))?;
        length += part.len() as u64;
        if length > app.states.budget {
            return Err(ApiError::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the file is larger than all states together may be",
            ));
        }
        file.write_all(&part).map_err(|error| internal(&error))?;
    }
    let (states, bdh) = (app.clone(), ready.engine.bdh());
    let state = blocking(move || {
        file.commit().map_err(|error| internal(&error))?;
        let snapshot = Snapshot::load(&bdh, &path);
        let _ = std::fs::remove_file(&path);
        let snapshot = Arc::new(snapshot.map_err(|error| {
            // The path means nothing to the client.
            let message = error.to_string().replace(&path.display().to_string(), "the file");
            ApiError::new(StatusCode::BAD_REQUEST, message)
        })?);
        states.states.put(&bdh, id.clone(), snapshot.clone(), &owner)?;
        Ok(states.state_json(&id, &snapshot))
    });
    Ok(Json(state.await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_no_paths() {
        assert!(is_id(&random_id(PREFIX)));
        for wrong in
            ["", "state-", "state-../../../../../../etc/passwd0", "x", "state-0123456789abcdef0123456789abcdeg"]
        {
            assert!(!is_id(wrong), "{wrong}");
        }
    }
}
