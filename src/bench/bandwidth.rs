//! The memory bandwidth of this machine's CPU, in the manner of STREAM.

use crate::backend::cpu::simd::{Isa, Kernel, LANES, Level};
use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Bytes beyond most caches, and no more than a model of the usual size takes.
pub(super) const MEMORY: u64 = 192 << 20;
/// Least time of a round.
const ROUND: Duration = Duration::from_millis(5);
/// Rounds; the fastest counts, as others on the machine only slow it down.
const ROUNDS: usize = 7;

/// What streaming through memory reached, in 10⁹ bytes per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bandwidth {
    /// Threads that streamed.
    pub threads: usize,
    /// Bytes that they went through.
    pub bytes: u64,
    /// Reading.
    pub read: f64,
    /// Copying: bytes read and bytes written.
    pub copy: f64,
}

/// Measures [`Bandwidth`] with every processor over a buffer too large for caches. Takes some tenths of a second.
pub fn bandwidth() -> Bandwidth {
    let threads = threads();
    let read = read_bandwidth(MEMORY);
    let copy = stream(threads, MEMORY, copy);
    Bandwidth { threads, bytes: MEMORY, read, copy }
}

/// The bandwidth of reading `bytes` over and over: a cache's, where they fit one.
pub(super) fn read_bandwidth(bytes: u64) -> f64 {
    stream(threads(), bytes.clamp(1 << 20, MEMORY), read)
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// The best rate at which `threads` threads go through `bytes` together, each through its own part. `pass` goes
/// through a part once.
fn stream(threads: usize, bytes: u64, pass: fn(&mut [[f32; LANES]])) -> f64 {
    let lines = (bytes as usize / threads / size_of::<[f32; LANES]>()).max(2) / 2 * 2;
    let barrier = Barrier::new(threads);
    // Passes per round: enough for a round that can be timed, once one pass has been.
    let passes = AtomicU32::new(1);
    let work = |timing: bool| {
        // Each thread touches its own part first, so that it lies near its processor.
        let mut part = vec![[1f32; LANES]; lines];
        let mut best = Duration::MAX;
        for round in 0..=ROUNDS {
            barrier.wait();
            let start = Instant::now();
            let count = passes.load(Relaxed);
            for _ in 0..count {
                pass(black_box(&mut part));
            }
            barrier.wait();
            let time = start.elapsed();
            if round > 0 {
                best = best.min(time / count);
            } else if timing {
                passes.store((ROUND.as_nanos() / time.as_nanos().max(1)) as u32 + 1, Relaxed);
            }
        }
        best
    };
    let best = std::thread::scope(|scope| {
        (1..threads).for_each(|_| drop(scope.spawn(|| work(false))));
        work(true)
    });
    (threads * lines * size_of::<[f32; LANES]>()) as f64 / best.as_secs_f64().max(1e-9) / 1e9
}

/// Reads every line.
fn read(part: &mut [[f32; LANES]]) {
    black_box(Level::detect().run(Sum(part)));
}

/// Copies the first half to the second.
fn copy(part: &mut [[f32; LANES]]) {
    let (from, to) = part.split_at_mut(part.len() / 2);
    to.copy_from_slice(from);
}

struct Sum<'a>(&'a [[f32; LANES]]);

impl Kernel for Sum<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f32 {
        // Enough independent sums to hide an addition's latency.
        let mut sums = [isa.splat(0.0); 4];
        let (groups, rest) = self.0.as_chunks::<4>();
        for group in groups {
            for (sum, line) in sums.iter_mut().zip(group) {
                *sum = isa.add(*sum, isa.load(line));
            }
        }
        for line in rest {
            sums[0] = isa.add(sums[0], isa.load(line));
        }
        sums.into_iter().map(|sum| isa.sum(sum)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read() {
        let mut part = vec![[1f32; LANES]; 7];
        part[6][3] = 2.0;
        for level in Level::available() {
            assert_eq!(level.run(Sum(&part)), (7 * LANES + 1) as f32, "{level:?}");
        }
        let mut part = [[1.0; LANES], [2.0; LANES], [3.0; LANES], [4.0; LANES]];
        copy(&mut part);
        assert_eq!(part, [[1.0; LANES], [2.0; LANES], [1.0; LANES], [2.0; LANES]]);
    }

    #[test]
    fn more_threads_than_processors_come_to_an_end() {
        assert!(stream(5, 1 << 16, read) > 0.0);
    }
}
