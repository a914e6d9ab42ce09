//! A request on its way through the engine.

use super::app::{App, Ready};
use super::error::ApiError;
use super::metrics::Metrics;
use crate::generation::FinishReason;
use crate::generation::engine::{Cancel, Event, Job};
use axum::http::StatusCode;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{Receiver, Sender, channel, error::TrySendError};

/// Events that a request may have waiting, and more for each of its sequences. If its reader falls
/// behind further, it is cancelled: the batch waits for nobody.
const EVENTS: usize = 256;
const EVENTS_PER_SEQUENCE: usize = 16;

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Queued,
    Prefill,
    Decode,
}

/// A request's sequences, and what happens to them.
pub(super) struct Run {
    events: Receiver<(usize, Event)>,
    guard: Guard,
    /// Sequences that have not ended.
    open: usize,
    /// How far each sequence is.
    sequences: Vec<Times>,
    deadline: Instant,
    app: Arc<App>,
}

/// When things happened to a sequence.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    /// It got its slot.
    started: Option<Instant>,
    /// It drew its first token, and its last one so far.
    drawn: Option<(Instant, Instant)>,
}

/// Stops the sequences when the client goes, in whatever stage that is.
struct Guard {
    app: Arc<App>,
    cancel: Cancel,
    started: Instant,
    stage: Stage,
    finished: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.app.in_flight.fetch_sub(1, Relaxed);
        self.app.idle.notify_waiters();
        if !self.finished {
            self.app.metrics.cancelled(self.stage);
        }
    }
}

/// Sends a sequence's events to its request.
pub(super) struct Teller {
    sender: Sender<(usize, Event)>,
    index: usize,
}

impl Teller {
    /// Sends an event. A break says that nobody takes it.
    pub fn tell(&self, event: Event) -> ControlFlow<()> {
        match self.sender.try_send((self.index, event)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => ControlFlow::Break(()),
        }
    }
}

impl Run {
    /// Starts a request of `sequences` sequences. `start` sets them going: each with what tells its
    /// events, all with what stops them.
    pub fn start(
        app: &Arc<App>,
        sequences: usize,
        start: impl FnOnce(Vec<Teller>, Cancel) -> Result<(), ApiError>,
    ) -> Result<Self, ApiError> {
        let (sender, events) = channel(EVENTS + EVENTS_PER_SEQUENCE * sequences);
        let (cancel, now) = (Cancel::default(), Instant::now());
        app.in_flight.fetch_add(1, Relaxed);
        let guard =
            Guard { app: app.clone(), cancel: cancel.clone(), started: now, stage: Stage::Queued, finished: false };
        let tellers = (0..sequences).map(|index| Teller { sender: sender.clone(), index }).collect();
        drop(sender);
        if let Err(error) = start(tellers, cancel) {
            let mut guard = guard;
            guard.finished = true;
            return Err(error);
        }
        let deadline = now + app.options.request_timeout;
        Ok(Self {
            events,
            guard,
            open: sequences,
            sequences: vec![Times::default(); sequences],
            deadline,
            app: app.clone(),
        })
    }

    /// Starts a request on the engine's slots. `job` makes each sequence's job, but for its events.
    pub fn on_engine(app: &Arc<App>, ready: &Ready, jobs: Vec<Job>) -> Result<Self, ApiError> {
        Self::start(app, jobs.len(), |tellers, cancel| {
            let wired = jobs.into_iter().zip(tellers).map(|(job, teller)| Job {
                cancel: cancel.clone(),
                events: Box::new(move |event| teller.tell(event)),
                ..job
            });
            ready.engine.submit(wired.collect()).map_err(|rejected| {
                app.metrics.rejected();
                rejected.into()
            })
        })
    }

    /// The next event and the index of its sequence; none once all have ended.
    ///
    /// # Errors
    /// The request takes too long, the server stops, or a sequence has failed.
    pub async fn next(&mut self) -> Result<Option<(usize, Event)>, ApiError> {
        let next = self.wait().await;
        // From here on it is not the client that leaves.
        self.guard.finished |= !matches!(next, Ok(Some(_)));
        next
    }

    async fn wait(&mut self) -> Result<Option<(usize, Event)>, ApiError> {
        if self.open == 0 {
            return Ok(None);
        }
        let event = tokio::select! {
            event = self.events.recv() => event,
            () = tokio::time::sleep_until(self.deadline.into()) => {
                let seconds = self.app.options.request_timeout.as_secs();
                return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, format!("the request took over {seconds} s")));
            }
            () = self.app.aborted() => return Err(ApiError::unavailable("the server is shutting down")),
        };
        let Some((index, event)) = event else {
            // The engine gave the sequences up: it has stopped, or the reader was too slow.
            let slow = self.guard.cancel.is_cancelled();
            let message = if slow { "the response was read too slowly" } else { "the engine has stopped" };
            return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message));
        };
        self.record(index, &event);
        match event {
            Event::Done(Err(error)) => Err(ApiError::of_generation(&error)),
            event => Ok(Some((index, event))),
        }
    }

    /// How long the request has taken so far.
    pub fn elapsed(&self) -> Duration {
        self.guard.started.elapsed()
    }

    fn record(&mut self, index: usize, event: &Event) {
        let metrics: &Metrics = &self.app.metrics;
        let guard = &mut self.guard;
        let (now, own) = (Instant::now(), &mut self.sequences[index]);
        let elapsed = now - guard.started;
        match event {
            Event::Started { tokens, .. } => {
                own.started = Some(now);
                metrics.prompt_tokens(*tokens);
                if guard.stage == Stage::Queued {
                    guard.stage = Stage::Prefill;
                    metrics.queue_time(elapsed);
                }
            }
            Event::Read(_) | Event::Watched(_) => {}
            Event::Drawn(tokens, _) => {
                metrics.generation_tokens(tokens.len());
                match own.drawn {
                    None => {
                        metrics.first_token(elapsed, now - own.started.unwrap_or(guard.started));
                        metrics.inter_token(Duration::ZERO, tokens.len() - 1);
                    }
                    Some((_, last)) => metrics.inter_token(now - last, tokens.len()),
                }
                own.drawn = Some((own.drawn.map_or(now, |(first, _)| first), now));
                guard.stage = Stage::Decode;
            }
            Event::Done(result) => {
                self.open -= 1;
                let reason = result.as_ref().map_or(FinishReason::Error, |ended| ended.finish_reason);
                metrics.ended(elapsed, own.drawn.map_or(Duration::ZERO, |(first, _)| now - first), reason);
            }
        }
    }
}
