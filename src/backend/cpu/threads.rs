//! The threads of a backend. A browser's wasm has one, the caller's.

use crate::backend::BackendError;

/// A fixed number of threads that run the same function at the same time.
pub struct Threads {
    #[cfg(not(target_family = "wasm"))]
    pool: rayon::ThreadPool,
}

#[cfg(not(target_family = "wasm"))]
impl Threads {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// [`BackendError::Driver`] if the system refuses.
    pub fn start(count: usize) -> Result<Self, BackendError> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build().map_err(|error| {
            let message = format!("cannot start {count} threads: {error}");
            BackendError::Driver { device: "CPU".into(), message }
        })?;
        Ok(Self { pool })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs `part` on every thread, with the thread's number, and waits for all.
    pub fn run(&self, part: impl Fn(usize) + Sync) {
        self.pool.broadcast(|thread| part(thread.index()));
    }

    /// How many threads the system offers.
    pub fn available() -> usize {
        std::thread::available_parallelism().map_or(1, |n| n.get())
    }
}

#[cfg(target_family = "wasm")]
impl Threads {
    /// The calling thread.
    #[expect(clippy::unnecessary_wraps, reason = "natively, threads may not start")]
    pub fn start(_count: usize) -> Result<Self, BackendError> {
        Ok(Self {})
    }

    /// One.
    pub fn count(&self) -> usize {
        1
    }

    /// Runs `part` with 0.
    pub fn run(&self, part: impl Fn(usize)) {
        part(0);
    }

    /// One.
    pub fn available() -> usize {
        1
    }
}
