//! A bell for threads that wait for one another: they spin briefly, then sleep until it rings.

use super::lock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Spins before a waiting thread sleeps: some tens of microseconds, longer than a wait on a quiet
/// machine, and far shorter than the time for which a busy machine takes a thread off its
/// processor.
const SPINS: u32 = 2_000;

/// Counts its rings, so that a ring between a look around and the wait is not lost.
#[derive(Default)]
pub struct Bell {
    rings: AtomicUsize,
    sleepers: AtomicUsize,
    asleep: Mutex<()>,
    wake: Condvar,
}

impl Bell {
    /// The number of rings so far. Writes before a counted ring are visible.
    pub fn rings(&self) -> usize {
        self.rings.load(Ordering::Acquire)
    }

    /// Wakes every thread that waits.
    pub fn ring(&self) {
        // A sleeper counts itself and then looks at the rings; this thread does the reverse. In the
        // one order of all these operations, one of the two sees the other.
        self.rings.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            // A sleeper that has seen the old count holds the lock until it sleeps.
            drop(lock(&self.asleep));
            self.wake.notify_all();
        }
    }

    /// Waits until the bell has rung since it had rung `heard` times. Returns whether the thread
    /// slept.
    pub fn wait(&self, heard: usize) -> bool {
        for _ in 0..SPINS {
            if self.rings() != heard {
                return false;
            }
            std::hint::spin_loop();
        }
        let mut guard = lock(&self.asleep);
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while self.rings.load(Ordering::SeqCst) == heard {
            guard = self.wake.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_ring_is_lost() {
        // Two threads take turns; a lost ring would leave both asleep. Pauses of odd lengths let
        // some rings arrive while the other thread spins, falls asleep, or sleeps.
        const TURNS: usize = 20_000;
        let (bell, turn) = (Bell::default(), AtomicUsize::new(0));
        let play = |parity: usize| {
            for wanted in (parity..TURNS).step_by(2) {
                loop {
                    let heard = bell.rings();
                    if turn.load(Ordering::Relaxed) == wanted {
                        break;
                    }
                    bell.wait(heard);
                }
                (0..wanted % 97 * 40).for_each(|_| std::hint::spin_loop());
                turn.store(wanted + 1, Ordering::Relaxed);
                bell.ring();
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(|| play(1));
            play(0);
        });
        assert_eq!(turn.into_inner(), TURNS);
    }

    #[test]
    fn a_ring_wakes_a_sleeper() {
        let bell = Bell::default();
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| bell.wait(0));
            while bell.sleepers.load(Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            bell.ring();
            assert!(sleeper.join().unwrap(), "it slept");
        });
        assert_eq!(bell.sleepers.into_inner(), 0);
    }

    #[test]
    fn an_old_ring_ends_a_wait_at_once() {
        let bell = Bell::default();
        bell.ring();
        assert!(!bell.wait(0));
    }
}
