//! A thread's time slices on its processor.
//!
//! A system that has more threads than processors interrupts a thread after some milliseconds, for
//! as long again, in the middle of a task that no other thread can finish. A thread that gives its
//! processor up between two tasks loses as much time, but leaves the others free to go on.
//!
//! Experiments: `docs/performance/shared.md#cpu-threads-and-pages`.

use std::time::Duration;
use web_time::Instant;

/// Length of a slice: somewhat more than Linux grants on few processors, so that its scheduler is
/// willing to switch, and less than the 4 ms after which it switches by itself.
const SLICE: Duration = Duration::from_millis(2);
/// Time between two offers at the end of a slice, if other threads have lately wanted the processor.
const OFFERS: Duration = Duration::from_micros(100);
/// An offer that takes longer than this was accepted: a system call takes less, any thread's work
/// more.
const ACCEPTED: Duration = Duration::from_micros(20);
/// No other thread wants a processor that has not changed hands for so long.
const QUIET: Duration = Duration::from_millis(8);
/// Tasks between two looks at the clock, unless they take long.
const TASKS: u32 = 8;
/// Tasks between two looks that take longer than this are long.
const LONG: Duration = Duration::from_micros(200);

/// Tells when a slice is over.
pub struct TimeSlice {
    began: Instant,
    looked: Instant,
    /// Tasks until the next look at the clock.
    tasks: u32,
    /// Time of the next offer.
    offer: Instant,
    /// Whether other threads have lately wanted the processor.
    contested: bool,
}

impl TimeSlice {
    /// A slice that begins now.
    pub fn begin() -> Self {
        let now = Instant::now();
        Self { began: now, looked: now, tasks: TASKS, offer: now + SLICE, contested: false }
    }

    /// Begins again, after a sleep.
    pub fn restart(&mut self) {
        *self = Self { contested: self.contested, ..Self::begin() };
    }

    /// Whether the slice is over. Called once per task.
    pub fn is_over(&mut self) -> bool {
        self.tasks = self.tasks.saturating_sub(1);
        if self.tasks > 0 {
            return false;
        }
        let now = Instant::now();
        self.tasks = if now - self.looked > LONG { 1 } else { TASKS };
        self.looked = now;
        now >= self.offer
    }

    /// Offers the processor to threads that wait for it. If none takes it, the slice goes on.
    pub fn offer(&mut self) {
        let before = Instant::now();
        std::thread::yield_now();
        let after = Instant::now();
        if after - before > ACCEPTED {
            self.restart();
            self.contested = true;
        } else {
            self.contested &= after - self.began < QUIET;
            self.offer = after + if self.contested { OFFERS } else { SLICE };
        }
    }
}
