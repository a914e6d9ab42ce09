use super::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

fn pool(threads: usize) -> Threads {
    Threads::start(threads).unwrap()
}

/// Phases of tiny tasks. The second half of each queue is ready once all first halves are
/// complete. Counts what runs, and in which phase.
struct Tiny {
    phases: usize,
    tasks: usize,
    /// Phases begun.
    begun: AtomicUsize,
    first_halves: AtomicUsize,
    team: Team,
    /// `[queue][task]`: phases in which the task ran.
    ran: Vec<Vec<AtomicUsize>>,
}

impl Tiny {
    fn new(threads: usize, phases: usize, tasks: usize) -> Self {
        let ran = (0..threads).map(|_| (0..2 * tasks).map(|_| AtomicUsize::new(0)).collect()).collect();
        let (begun, first_halves) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { phases, tasks, begun, first_halves, team: Team::new(threads), ran }
    }

    fn check(&self, runs: usize) {
        assert!(self.ran.iter().flatten().all(|ran| ran.load(Ordering::Relaxed) == runs * self.phases));
    }

    fn run(&self, pool: &Threads) {
        self.begun.store(0, Ordering::Relaxed);
        self.team.run(pool, self);
    }
}

impl Work for Tiny {
    fn next_phase(&self, _: usize) -> bool {
        // Every task of the phases before has run.
        let counts = || self.ran.iter().flatten().map(|ran| ran.load(Ordering::Relaxed));
        let first = counts().next().unwrap();
        assert!(counts().all(|count| count == first));
        self.first_halves.store(0, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed) < self.phases
    }

    fn tasks(&self, _: usize) -> usize {
        2 * self.tasks
    }

    fn ready(&self, task: Task) -> bool {
        task.index < self.tasks || self.first_halves.load(Ordering::Acquire) == self.tasks * self.team.threads()
    }

    fn perform(&self, _: usize, first: Task, claims: &mut Claims<Self>) {
        let mut next = Some(first);
        while let Some(task) = next {
            assert!(self.ready(task));
            self.ran[task.queue][task.index].fetch_add(1, Ordering::Relaxed);
            if task.index < self.tasks {
                let before = self.first_halves.fetch_add(1, Ordering::AcqRel);
                if before + 1 == self.tasks * self.team.threads() {
                    self.team.ring();
                }
            }
            next = claims.next();
        }
    }
}

#[test]
fn every_task_of_thousands_of_tiny_phases_runs_once() {
    for (threads, phases, tasks) in [(1, 3_000, 3), (2, 5_000, 1), (2, 3_000, 4), (3, 2_000, 2), (7, 500, 1)] {
        let tiny = Tiny::new(threads, phases, tasks);
        tiny.run(&pool(threads));
        tiny.check(1);
    }
}

#[test]
fn runs_of_few_phases_begin_and_end_thousands_of_times() {
    let pool = pool(3);
    let tiny = Tiny::new(3, 2, 1);
    (0..3_000).for_each(|_| tiny.run(&pool));
    tiny.check(3_000);
}

#[test]
fn a_slow_thread_changes_nothing() {
    for slow_thread in 0..3 {
        let mut tiny = Tiny::new(3, 50, 3);
        tiny.team.slow_thread = Some(slow_thread);
        tiny.run(&pool(3));
        tiny.check(1);
    }
}

#[test]
fn a_thread_that_is_held_up_holds_up_one_task_only() {
    // The first task waits until all others are complete, most of them in its own thread's queue.
    for threads in [2, 3] {
        let (others, team) = (AtomicUsize::new(0), Team::new(threads));
        let tasks = |queue: usize| if queue == 0 { 40 } else { 2 };
        let all = (0..threads).map(tasks).sum::<usize>();
        let perform = |task: Task| match task {
            Task { queue: 0, index: 0 } => {
                while others.load(Ordering::Relaxed) + 1 < all {
                    std::thread::yield_now();
                }
            }
            _ => drop(others.fetch_add(1, Ordering::Relaxed)),
        };
        team.run(&pool(threads), &OnePhase::new(tasks, perform));
        assert_eq!(others.into_inner() + 1, all);
    }
}

#[test]
fn without_tasks_a_run_ends() {
    let team = Team::new(2);
    let perform = |_: Task| unreachable!("no task");
    team.run(&pool(2), &OnePhase::new(|_| 0, perform));
    let nothing = Tiny::new(2, 0, 1);
    nothing.run(&pool(2));
}

#[test]
fn a_panic_ends_the_run_of_all_threads() {
    let (team, pool) = (Team::new(2), pool(2));
    let panics = |task: Task| assert_ne!(task, Task { queue: 1, index: 2 }, "on purpose");
    let run = || team.run(&pool, &OnePhase::new(|_| 4, panics));
    assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
    // The team works afterwards.
    let ran = Mutex::new(Vec::new());
    team.run(&pool, &OnePhase::new(|_| 4, |task: Task| ran.lock().unwrap().push((task.queue, task.index))));
    let mut ran = ran.into_inner().unwrap();
    ran.sort_unstable();
    assert_eq!(ran, (0..2).flat_map(|queue| (0..4).map(move |index| (queue, index))).collect::<Vec<_>>());
}
