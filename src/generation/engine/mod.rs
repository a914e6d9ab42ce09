//! Sequences that come and go: continuous batching.
//!
//! | file | holds |
//! | --- | --- |
//! | `job` | a sequence to generate, and what its owner hears |
//! | `queue` | sequences that wait for a slot |
//! | `cache` | states of prompts that were read before |
//! | `sequence` | a sequence that has a slot |
//! | `watch` | the neurons of a sequence's tokens |
//! | `schedule` | which sequence has which slot; one step is one burst |
//!
//! One thread owns the slots. A sequence joins and leaves between two bursts. Its tokens depend on
//! its job alone: they are those of a [`Session`](crate::generation::Session) that reads the same
//! prompt, whatever happens beside it.

mod cache;
mod job;
mod queue;
mod schedule;
mod sequence;
mod watch;

pub use job::{Cancel, Ended, Event, Job, Logprobs};
pub use watch::{Named, Neurons, WatchedLayer, WatchedToken};

use super::failover::gives_up;
use super::{Bdh, GenerationError};
use crate::backend::DeviceKind;
use crate::model::forgetting::Forgetting;
use schedule::Schedule;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// How an engine works.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Sequences that run together, at least 1.
    pub slots: usize,
    /// Requests that wait at most.
    pub queue: usize,
    /// Bytes of states that are kept of prompts.
    pub prefix_cache: u64,
    /// How much of the past counts in a new conversation.
    pub forgetting: Forgetting,
}

/// Why an engine takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// As many requests wait as may.
    #[error("{0} requests are waiting, which is as many as may; try again later")]
    QueueFull(usize),
    /// It has stopped.
    #[error("the engine has stopped")]
    Stopped,
}

/// An engine's load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Slots in all.
    pub slots: usize,
    /// Sequences that have a slot.
    pub running: usize,
    /// Requests that wait with at least one sequence.
    pub waiting: usize,
    /// Bytes of the states of prompts.
    pub cache_bytes: u64,
    /// Tokens of prompts that were looked for among these.
    pub cache_queries: u64,
    /// Those of them that were found.
    pub cache_hits: u64,
}

/// Generates sequences as they come, on a thread of its own.
///
/// ```
/// # #[cfg(feature = "embedded-model")] {
/// use bdh_gpu::generation::engine::{Cancel, Engine, EngineOptions, Event, Job};
/// use bdh_gpu::model::forgetting::Forgetting;
/// use bdh_gpu::{Bdh, GenerationOptions};
/// use std::ops::ControlFlow;
///
/// let model = Bdh::embedded()?;
/// let forgetting = Forgetting::of_model(&model.model().config);
/// let options = EngineOptions { slots: 4, queue: 16, prefix_cache: 64 << 20, forgetting };
/// let engine = Engine::start(model.clone(), &options)?;
/// let (sender, events) = std::sync::mpsc::channel();
/// let job = Job {
///     prompt: model.encode(b"To be or ")?,
///     from: None,
///     options: GenerationOptions { max_new_tokens: 20, seed: Some(7), ..model.options() },
///     logprobs: None,
///     neurons: None,
///     keep_state: false,
///     cancel: Cancel::default(),
///     events: Box::new(move |event| {
///         let _ = sender.send(event);
///         ControlFlow::Continue(())
///     }),
/// };
/// engine.submit(vec![job])?;
/// let drawn = events.iter().filter_map(|event| if let Event::Drawn(tokens, _) = event { Some(tokens) } else { None });
/// assert_eq!(drawn.flatten().count(), 20);
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Engine {
    /// Absent once it is to stop.
    requests: Option<Sender<Vec<Job>>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// The thread's load and its model, as other threads see them.
struct Shared {
    slots: usize,
    queue: usize,
    running: AtomicUsize,
    waiting: AtomicUsize,
    cache_bytes: AtomicU64,
    cache_queries: AtomicU64,
    cache_hits: AtomicU64,
    bdh: Mutex<Bdh>,
    failover: Mutex<Option<String>>,
}

impl Engine {
    /// Allocates the slots and starts to work.
    ///
    /// # Errors
    /// As [`Bdh::session_with`], for all slots together.
    pub fn start(bdh: Bdh, options: &EngineOptions) -> Result<Self, GenerationError> {
        let slots = options.slots.max(1);
        let schedule = Schedule::new(bdh.clone(), slots, options.forgetting, options.prefix_cache)?;
        let shared = Arc::new(Shared {
            slots,
            queue: options.queue,
            running: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            cache_bytes: AtomicU64::new(0),
            cache_queries: AtomicU64::new(0),
            cache_hits: AtomicU64::new(0),
            bdh: Mutex::new(bdh),
            failover: Mutex::new(None),
        });
        let (requests, incoming) = channel();
        let worker = Worker { schedule, incoming, shared: shared.clone() };
        let thread = std::thread::spawn(move || worker.run());
        Ok(Self { requests: Some(requests), shared, thread: Some(thread) })
    }

    /// Adds a request's sequences. They run in the order of the requests, as slots become free, and
    /// side by side as far as there are slots.
    ///
    /// # Errors
    /// [`Rejected`] if too many wait, or the engine has stopped.
    pub fn submit(&self, jobs: Vec<Job>) -> Result<(), Rejected> {
        if jobs.is_empty() {
            return Ok(());
        }
        let shared = &self.shared;
        let free = shared.slots.saturating_sub(shared.running.load(Relaxed));
        let admitted = shared.waiting.fetch_update(Relaxed, Relaxed, |waiting| {
            // A request that finds a slot does not wait.
            (waiting < shared.queue + free).then_some(waiting + 1)
        });
        if admitted.is_err() {
            return Err(Rejected::QueueFull(shared.queue));
        }
        let sent = self.requests.as_ref().is_some_and(|requests| requests.send(jobs).is_ok());
        if sent { Ok(()) } else { Err(Rejected::Stopped) }
    }

    /// Its load.
    pub fn status(&self) -> Status {
        let shared = &self.shared;
        Status {
            slots: shared.slots,
            running: shared.running.load(Relaxed),
            waiting: shared.waiting.load(Relaxed),
            cache_bytes: shared.cache_bytes.load(Relaxed),
            cache_queries: shared.cache_queries.load(Relaxed),
            cache_hits: shared.cache_hits.load(Relaxed),
        }
    }

    /// The model where it runs: on the CPU if its device has failed.
    pub fn bdh(&self) -> Bdh {
        self.shared.bdh.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How the device failed and where new sequences run, if it has since this was last asked.
    pub fn take_failover(&self) -> Option<String> {
        self.shared.failover.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether it takes no more: its device has failed, and the CPU as well.
    pub fn has_stopped(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Engine {
    /// Stops every sequence and waits for the burst to end.
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread that owns the slots.
struct Worker {
    schedule: Schedule,
    incoming: Receiver<Vec<Job>>,
    shared: Arc<Shared>,
}

impl Worker {
    fn run(mut self) {
        while self.take_requests() {
            let waiting = self.schedule.queue.len();
            if let Err(error) = self.schedule.step()
                && self.survive(error).is_err()
            {
                return;
            }
            self.shared.waiting.fetch_sub(waiting - self.schedule.queue.len(), Relaxed);
            self.publish();
        }
    }

    /// Takes in what has come; waits if there is nothing else to do. Says whether to go on.
    fn take_requests(&mut self) -> bool {
        if self.schedule.is_idle() {
            match self.incoming.recv() {
                Ok(jobs) => self.schedule.queue.push(jobs),
                Err(_) => return false,
            }
        }
        loop {
            match self.incoming.try_recv() {
                Ok(jobs) => self.schedule.queue.push(jobs),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Ends what runs, and goes on with what waits: on the CPU if the device is lost.
    fn survive(&mut self, error: GenerationError) -> Result<(), GenerationError> {
        let error = Arc::new(error);
        self.schedule.fail_all(&error);
        let bdh = self.shared.bdh.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let on_cpu = bdh.device().kind == DeviceKind::Cpu;
        if !matches!(&*error, GenerationError::Backend(cause) if gives_up(cause) && !on_cpu) {
            return self.schedule.move_to(bdh);
        }
        let moved = bdh.on_cpu()?;
        self.schedule.move_to(moved.clone())?;
        let failover = format!("{error}; new sequences run on {}", moved.device());
        *self.shared.failover.lock().unwrap_or_else(PoisonError::into_inner) = Some(failover);
        *self.shared.bdh.lock().unwrap_or_else(PoisonError::into_inner) = moved;
        Ok(())
    }

    fn publish(&self) {
        let (schedule, shared) = (&self.schedule, &self.shared);
        shared.running.store(schedule.running(), Relaxed);
        shared.cache_bytes.store(schedule.cache.bytes(), Relaxed);
        shared.cache_queries.store(schedule.cache_queries, Relaxed);
        shared.cache_hits.store(schedule.cache_hits, Relaxed);
    }
}
