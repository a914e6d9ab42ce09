//! A team of threads that works through phases of tasks.
//!
//! Each thread has a queue of its own tasks, whose weights and states stay in its caches. It takes
//! over other threads' tasks only if they do not run: if the system has taken them off their
//! processors. Such a thread holds up nothing but the task that it is in, and threads give
//! processors up between tasks (see [`TimeSlice`]). Whoever completes the last task of a phase does
//! what lies between two phases, alone, and opens the next.

use super::bell::Bell;
use super::padded::Padded;
use super::threads::Threads;
use super::time_slice::TimeSlice;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// A run's tasks.
pub trait Work: Sync {
    /// Prepares the next phase, alone; false if there is none. Called once at the start, by thread
    /// 0, and after the last task of each phase, by the `thread` that has completed it.
    fn next_phase(&self, thread: usize) -> bool;

    /// Number of tasks of the open phase in `queue`.
    fn tasks(&self, queue: usize) -> usize;

    /// Whether a task may start. Its answer must not change back within a phase; when it changes,
    /// [`Team::ring`] must be called. Tasks of a queue start in order: one that is not ready holds
    /// up those behind it.
    fn ready(&self, task: Task) -> bool {
        let _ = task;
        true
    }

    /// Performs `first`, and then every task of the same phase that `claims` hands out.
    fn perform(&self, thread: usize, first: Task, claims: &mut Claims<Self>)
    where
        Self: Sized;
}

/// A task of the open phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its queue.
    pub queue: usize,
    /// Its place in the queue.
    pub index: usize,
}

/// A thread's queue.
#[derive(Default)]
struct Queue {
    /// Next task, number of tasks, and phase, in one number: a claim by a thread that still sees an
    /// earlier phase fails.
    word: AtomicU64,
    /// The owner's signs of life: it counts its claims. [`AWAY`] while it offers its processor or
    /// is not in a run.
    beat: AtomicU64,
}

/// See [`Queue::beat`].
const AWAY: u64 = u64::MAX;
/// A beat that no thread has.
const NONE: u64 = u64::MAX - 1;

/// Spins without a sign of life after which a thread counts as off its processor: longer than a
/// task of a small model, shorter than its phases.
const PATIENCE: u32 = 500;

/// Bits of the next task, and of the number of tasks, in a [`Queue`].
const INDEX_BITS: u32 = 20;

/// The threads of a backend, as its runs see them.
pub struct Team {
    queues: Vec<Padded<Queue>>,
    /// Tasks of the open phase that are not complete.
    left: Padded<AtomicUsize>,
    /// Phases opened so far.
    phase: AtomicU64,
    finished: AtomicBool,
    broken: AtomicBool,
    bell: Padded<Bell>,
    /// A thread that pauses in every task, for tests.
    #[cfg(test)]
    pub slow_thread: Option<usize>,
}

impl Team {
    /// A team of `threads` threads.
    pub fn new(threads: usize) -> Self {
        Self {
            queues: (0..threads).map(|_| Padded(Queue { beat: AtomicU64::new(AWAY), ..Queue::default() })).collect(),
            left: Padded::default(),
            phase: AtomicU64::new(0),
            finished: AtomicBool::new(true),
            broken: AtomicBool::new(false),
            bell: Padded::default(),
            #[cfg(test)]
            slow_thread: None,
        }
    }

    /// Number of threads, and of queues.
    pub fn threads(&self) -> usize {
        self.queues.len()
    }

    /// The number of the open phase: no two of a team have the same.
    pub fn phase(&self) -> u64 {
        self.phase.load(Ordering::Relaxed)
    }

    /// Tells waiting threads that a task has become ready.
    pub fn ring(&self) {
        self.bell.ring();
    }

    /// Runs `work` on all `threads`, which are as many as the team's. Only one run at a time.
    ///
    /// # Panics
    /// If a task panics.
    pub fn run<W: Work>(&self, threads: &Threads, work: &W) {
        self.finished.store(false, Ordering::Relaxed);
        self.broken.store(false, Ordering::Relaxed);
        self.open(0, work);
        if !self.finished.load(Ordering::Relaxed) {
            threads.run(|thread| self.work(thread, work));
        }
    }

    /// A thread's part in a run.
    fn work<W: Work>(&self, thread: usize, work: &W) {
        let _guard = Guard { team: self, thread };
        self.queues[thread].beat.store(0, Ordering::Relaxed);
        let mut member = Member::new(thread, self.threads());
        loop {
            let heard = self.bell.rings();
            assert!(!self.broken.load(Ordering::Relaxed), "another worker thread panicked");
            if self.finished.load(Ordering::Relaxed) {
                return;
            }
            let Some(first) = self.claim(&mut member, work) else {
                self.wait(&mut member, work, heard);
                continue;
            };
            let mut claims = Claims { team: self, work, member: &mut member, count: 1, over: false };
            work.perform(thread, first, &mut claims);
            let Claims { count, over, .. } = claims;
            if self.left.fetch_sub(count, Ordering::AcqRel) == count {
                self.open(thread, work);
            }
            if over {
                let beat = &self.queues[thread].beat;
                beat.store(AWAY, Ordering::Relaxed);
                member.slice.offer();
                beat.store(member.beats, Ordering::Relaxed);
            }
        }
    }

    /// Waits for the bell, or for a task of a thread that is off its processor.
    fn wait<W: Work>(&self, member: &mut Member, work: &W, heard: usize) {
        let others = || (0..self.threads()).filter(|&queue| queue != member.thread);
        while others().any(|queue| self.next_in(queue, work).is_some()) {
            for queue in others() {
                member.beats_before[queue] = self.queues[queue].beat.load(Ordering::Relaxed);
            }
            for _ in 0..PATIENCE {
                if self.bell.rings() != heard {
                    return;
                }
                std::hint::spin_loop();
            }
            for queue in others() {
                let (before, now) = (member.beats_before[queue], self.queues[queue].beat.load(Ordering::Relaxed));
                member.last_beats[queue] = if now == before { now } else { NONE };
            }
            if others().any(|queue| member.is_off(&self.queues[queue], queue) && self.next_in(queue, work).is_some()) {
                return;
            }
        }
        if self.bell.wait(heard) {
            member.slice.restart();
        }
    }

    /// Claims a task: the thread's own, or one of a thread that is off its processor. Until the
    /// task is counted as complete, its phase stays open.
    fn claim<W: Work>(&self, member: &mut Member, work: &W) -> Option<Task> {
        let thread = member.thread;
        let task = self.claim_from(thread, work).or_else(|| {
            let others = (0..self.threads()).filter(|&queue| queue != thread);
            others
                .filter(|&queue| member.is_off(&self.queues[queue], queue))
                .find_map(|queue| self.claim_from(queue, work))
        });
        if task.is_some() {
            member.beats += 1;
            self.queues[thread].beat.store(member.beats, Ordering::Relaxed);
        }
        #[cfg(test)]
        if task.is_some() && self.slow_thread == Some(thread) {
            std::thread::sleep(std::time::Duration::from_micros(300));
        }
        task
    }

    /// The queue's number, and its next task if that may start.
    fn next_in<W: Work>(&self, queue: usize, work: &W) -> Option<(u64, Task)> {
        let word = self.queues[queue].word.load(Ordering::Acquire);
        let (index, tasks) = (word & MASK, word >> INDEX_BITS & MASK);
        let task = Task { queue, index: index as usize };
        (index < tasks && work.ready(task)).then_some((word, task))
    }

    fn claim_from<W: Work>(&self, queue: usize, work: &W) -> Option<Task> {
        while let Some((word, task)) = self.next_in(queue, work) {
            let exchanged =
                self.queues[queue].word.compare_exchange_weak(word, word + 1, Ordering::AcqRel, Ordering::Relaxed);
            if exchanged.is_ok() {
                return Some(task);
            }
        }
        None
    }

    /// Opens the next phase that has tasks, or ends the run. Only this thread is in the run's data:
    /// no task is left.
    fn open<W: Work>(&self, thread: usize, work: &W) {
        loop {
            if !work.next_phase(thread) {
                self.finished.store(true, Ordering::Relaxed);
                break;
            }
            let phase = self.phase.load(Ordering::Relaxed) + 1;
            self.phase.store(phase, Ordering::Relaxed);
            let all = (0..self.threads()).map(|queue| work.tasks(queue)).sum();
            // Before the queues: the first task may be complete before the last queue is open.
            self.left.store(all, Ordering::Relaxed);
            for (queue, own) in self.queues.iter().enumerate() {
                let tasks = work.tasks(queue) as u64;
                assert!(tasks <= MASK, "too many tasks");
                own.word.store(phase << (2 * INDEX_BITS) | tasks << INDEX_BITS, Ordering::Release);
            }
            if all > 0 {
                break;
            }
        }
        self.bell.ring();
    }
}

const MASK: u64 = (1 << INDEX_BITS) - 1;

/// A thread in a run.
struct Member {
    thread: usize,
    slice: TimeSlice,
    /// Tasks claimed.
    beats: u64,
    /// By queue: the owner's beat, if it has not changed while this thread waited.
    last_beats: Vec<u64>,
    /// By queue: the owner's beat when this thread began to wait.
    beats_before: Vec<u64>,
}

impl Member {
    fn new(thread: usize, threads: usize) -> Self {
        let beats = vec![NONE; threads];
        Self { thread, slice: TimeSlice::begin(), beats: 0, last_beats: beats.clone(), beats_before: beats }
    }

    /// Whether the owner of a queue is off its processor, as far as this thread knows.
    fn is_off(&self, queue: &Queue, index: usize) -> bool {
        let beat = queue.beat.load(Ordering::Relaxed);
        beat == AWAY || beat == self.last_beats[index]
    }
}

/// Hands out further tasks; see [`Work::perform`].
pub struct Claims<'a, W> {
    team: &'a Team,
    work: &'a W,
    member: &'a mut Member,
    /// Tasks handed out.
    count: usize,
    /// Whether the thread's time slice is over.
    over: bool,
}

impl<W: Work> Claims<'_, W> {
    /// The next task. The one before must be complete, but for what `perform` still does before it
    /// returns.
    pub fn next(&mut self) -> Option<Task> {
        self.over = self.member.slice.is_over();
        if self.over {
            return None;
        }
        let task = self.team.claim(self.member, self.work)?;
        self.count += 1;
        Some(task)
    }
}

/// Ends a thread's part in a run. Breaks the team if the thread panics: the others would wait for
/// ever.
struct Guard<'a> {
    team: &'a Team,
    thread: usize,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.team.queues[self.thread].beat.store(AWAY, Ordering::Relaxed);
        if std::thread::panicking() {
            self.team.broken.store(true, Ordering::Relaxed);
            self.team.bell.ring();
        }
    }
}

/// A run of one phase without anything in between: `perform(thread, queue, index)` for every task.
pub struct OnePhase<T, F> {
    /// Number of tasks in each queue.
    pub tasks: T,
    /// Performs a task.
    pub perform: F,
    opened: AtomicBool,
}

impl<T: Fn(usize) -> usize + Sync, F: Fn(Task) + Sync> OnePhase<T, F> {
    /// See [`OnePhase`].
    pub fn new(tasks: T, perform: F) -> Self {
        Self { tasks, perform, opened: AtomicBool::new(false) }
    }
}

impl<T: Fn(usize) -> usize + Sync, F: Fn(Task) + Sync> Work for OnePhase<T, F> {
    fn next_phase(&self, _: usize) -> bool {
        !self.opened.swap(true, Ordering::Relaxed)
    }

    fn tasks(&self, queue: usize) -> usize {
        (self.tasks)(queue)
    }

    fn perform(&self, _: usize, first: Task, claims: &mut Claims<Self>) {
        let mut next = Some(first);
        while let Some(task) = next {
            (self.perform)(task);
            next = claims.next();
        }
    }
}

#[cfg(test)]
mod tests;
