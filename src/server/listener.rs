//! Connections, from the first to the last.

use super::app::{App, Ready, now_seconds};
use super::connection::Connection;
use super::error::ApiError;
use super::{Loaded, ServeError, ServerOptions, chat, completions, neurons, openapi, plain, score, security, states};
use crate::generation::engine::{Engine, EngineOptions};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};

/// Bytes of a body at most.
const BODY_BYTES: usize = 32 << 20;
/// Connections at the same time at most.
const CONNECTIONS: usize = 4096;
/// Time for a request's headers.
const HEADER_TIME: Duration = Duration::from_secs(30);
/// Threads for connections. The model's own are others.
const THREADS: usize = 2;
/// Slots that a server has in any case, if their states take no more bytes than this.
const FEW_SLOTS: usize = 8;
const STATES: u64 = 2 << 30;
/// How often the engine and the age of states are looked at.
const WATCH: Duration = Duration::from_secs(1);
/// How often the store of states is looked through.
const STORE_SWEEP: Duration = Duration::from_secs(60);

/// Serves until the process gets SIGINT or SIGTERM. `load` is called at once on a thread of its own;
/// until it returns, `/health` answers 503.
///
/// After the first signal the server takes no new requests and finishes those that run, as far as
/// they end in time. A second one ends them at once.
///
/// # Errors
/// [`ServeError`] if the model cannot be loaded, or the engine has stopped.
pub fn serve<E: Send + 'static>(
    listener: TcpListener,
    options: ServerOptions,
    load: impl FnOnce() -> Result<Loaded, E> + Send + 'static,
) -> Result<(), ServeError<E>> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build()?;
    let result = runtime.block_on(run(listener, options, load));
    // What is left would only wait for connections that nobody uses.
    runtime.shutdown_background();
    result
}

async fn run<E: Send + 'static>(
    listener: TcpListener,
    options: ServerOptions,
    load: impl FnOnce() -> Result<Loaded, E> + Send + 'static,
) -> Result<(), ServeError<E>> {
    let mut signals = Signals::new()?;
    // From here on a signal ends the server as it should.
    (options.log)(&format!("listening on http://{}", listener.local_addr()?));
    let app = Arc::new(App::new(options)?);
    let connections = tokio::spawn(accept(tokio::net::TcpListener::from_std(listener)?, router(&app)));
    let for_loading = app.clone();
    let loading = tokio::task::spawn_blocking(move || open(&for_loading, load));
    let result = tokio::select! {
        loaded = loading => match loaded {
            Ok(Ok(())) => until_stopped(&app, &mut signals).await,
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ServeError::Stopped),
        },
        // Nothing runs yet.
        () = signals.next() => Ok(()),
    };
    connections.abort();
    result
}

/// Loads the model and allocates the slots.
fn open<E>(app: &App, load: impl FnOnce() -> Result<Loaded, E>) -> Result<(), ServeError<E>> {
    let Loaded { bdh, forgetting, template } = load().map_err(ServeError::Load)?;
    let state_bytes = bdh.backend().state_type().state_bytes(&bdh.model().config);
    let id = app.options.alias.clone().unwrap_or_else(|| bdh.model().name.clone());
    let options = EngineOptions {
        slots: app.options.parallel.unwrap_or_else(|| {
            // Few more sequences slow the others down a little; waiting would be worse.
            let affordable = usize::try_from(STATES / state_bytes.max(1)).unwrap_or(FEW_SLOTS);
            bdh.backend().preferred_slots(state_bytes).max(affordable.min(FEW_SLOTS))
        }),
        queue: app.options.queue,
        prefix_cache: app.options.prefix_cache,
        forgetting,
    };
    let engine = Engine::start(bdh, &options)?;
    (app.options.log)(&format!("{id} is ready: {} sequences together", options.slots));
    app.open(Ready { engine, id, created: now_seconds(), forgetting, template });
    Ok(())
}

/// Waits for a signal, or for the engine's end; then lets the running requests end.
async fn until_stopped<E>(app: &Arc<App>, signals: &mut Signals) -> Result<(), ServeError<E>> {
    let stopped = async {
        let mut swept = Instant::now();
        loop {
            tokio::time::sleep(WATCH).await;
            app.states.sweep();
            if swept.elapsed() > STORE_SWEEP {
                swept = Instant::now();
                sweep_store(app.clone());
            }
            let Ok(ready) = app.loaded() else { continue };
            if let Some(failover) = ready.engine.take_failover() {
                (app.options.log)(&format!("warning: {failover}"));
            }
            if ready.engine.has_stopped() {
                return;
            }
        }
    };
    tokio::select! {
        () = signals.next() => {}
        () = stopped => return Err(ServeError::Stopped),
    }
    app.drain();
    (app.options.log)("no new requests; waiting for those that run");
    tokio::select! {
        () = app.answered() => {}
        () = tokio::time::sleep(app.options.shutdown_timeout) => {}
        () = signals.next() => {}
    }
    app.abort();
    // Time to send the last words.
    let last = Duration::from_secs(2);
    let _ = tokio::time::timeout(last, app.answered()).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    Ok(())
}

/// Deletes old states from the store, beside everything else.
fn sweep_store(app: Arc<App>) {
    tokio::task::spawn_blocking(move || {
        if let Err(error) = app.states.sweep_store() {
            (app.options.log)(&format!("warning: old states stay for now: {error}"));
        }
    });
}

/// SIGINT and SIGTERM.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits for the next one.
    async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        #[cfg(not(unix))]
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// All routes.
fn router(app: &Arc<App>) -> Router {
    let mut router = Router::new()
        .route("/", get(plain::page))
        .route("/health", get(plain::health))
        .route("/v1/health", get(plain::health))
        .route("/readyz", get(plain::health))
        .route("/livez", get(plain::live))
        .route("/metrics", get(plain::metrics))
        .route("/v1/models", get(plain::models))
        .route("/v1/models/{id}", get(plain::model))
        .route("/v1/completions", post(completions::completions))
        .route("/v1/chat/completions", post(chat::completions))
        .route("/v1/score", post(score::score))
        .route("/v1/neurons", post(neurons::neurons))
        .route("/openapi.json", get(openapi::openapi))
        .route("/v1/states", post(states::create))
        .route("/v1/states/{id}", get(states::describe).delete(states::delete))
        .route("/v1/states/{id}/fork", post(states::fork))
        .route("/v1/states/{id}/file", get(states::download).put(states::upload))
        .route("/tokenize", post(plain::tokenize))
        .route("/detokenize", post(plain::detokenize))
        .route("/tokenizer_info", get(plain::tokenizer_info))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(axum::middleware::map_response(as_json_errors))
        .layer(axum::middleware::from_fn_with_state(app.clone(), security::check))
        .layer(CatchPanicLayer::custom(|_| panicked()));
    if !app.options.cors_origins.is_empty() {
        let origins = app.options.cors_origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
        router = router.layer(
            CorsLayer::new()
                .allow_origin(AllowOrigin::list(origins))
                .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
                .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE]),
        );
    }
    router.with_state(app.clone())
}

async fn unknown_route(method: Method, uri: axum::http::Uri) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no {method} {}", uri.path()))
}

async fn wrong_method(method: Method, uri: axum::http::Uri) -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
}

fn panicked() -> Response {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the server failed at this request; please report it")
        .into_response()
}

/// Turns axum's own errors, which are texts, into error objects: a body that is too long or broken
/// off, a path that is no UTF-8.
async fn as_json_errors(response: Response) -> Response {
    let status = response.status();
    let is_text =
        response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if !status.is_client_error() || !is_text {
        return response;
    }
    let message = match status {
        StatusCode::PAYLOAD_TOO_LARGE => format!("the body is longer than {BODY_BYTES} bytes"),
        _ => "the request cannot be read".to_owned(),
    };
    ApiError::new(status, message).into_response()
}

/// Takes connections until it is dropped.
async fn accept(listener: tokio::net::TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                // Too many open files, for instance: some will close.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // Tokens go out as they come.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIME)
                .serve_connection(TokioIo::new(Connection::new(stream)), service);
            // Clients go without a word.
            let _ = connection.await;
            drop(place);
        });
    }
}
