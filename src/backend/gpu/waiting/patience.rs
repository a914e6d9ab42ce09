//! How long to wait for a device: a slow one is not stuck.
//!
//! A software driver's threads run in this process: as long as the process takes processor time,
//! the driver computes, however slowly on a busy machine. Hardware does not slow down like that.

use std::time::Duration;

/// Waits for a device come in pieces of this length.
pub const PIECE: Duration = Duration::from_secs(5);
/// Longest wait without a sign of life. Submissions are sized to take a twentieth of a second.
const LONGEST: Duration = Duration::from_secs(120);
/// The same for software drivers on systems that do not tell the process's processor time.
const LONGEST_UNSEEN: Duration = Duration::from_secs(3600);
/// Processor time in a piece from which on the driver counts as alive: what waiting itself takes
/// stays far below it, what a driver takes beside dozens of other programs far above.
const ALIVE: Duration = Duration::from_millis(50);

/// A wait for one submission.
pub struct Patience {
    software: bool,
    /// Pieces in a row without a sign of life.
    silent: u32,
    /// The process's processor time after the last piece, if it is known.
    seen: Option<Duration>,
}

impl Patience {
    /// A wait that begins now.
    pub fn new(software: bool) -> Self {
        Self { software, silent: 0, seen: processor_time().filter(|_| software) }
    }

    /// Whether to give up after another piece without an answer.
    pub fn is_over(&mut self) -> bool {
        self.is_over_at(processor_time())
    }

    fn is_over_at(&mut self, now: Option<Duration>) -> bool {
        let seen = std::mem::replace(&mut self.seen, now.filter(|_| self.software));
        let alive = seen.zip(self.seen).is_some_and(|(seen, now)| now.saturating_sub(seen) >= ALIVE);
        self.silent = if alive { 0 } else { self.silent + 1 };
        PIECE * self.silent >= self.longest()
    }

    /// The longest wait without a sign of life.
    pub fn longest(&self) -> Duration {
        if self.software && self.seen.is_none() { LONGEST_UNSEEN } else { LONGEST }
    }
}

/// Processor time of all threads of this process, in steps of 10 ms.
fn processor_time() -> Option<Duration> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name, in parentheses, may contain spaces.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().ok());
    Some(Duration::from_millis(10 * ticks.sum::<Option<u64>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECES: u32 = (LONGEST.as_secs() / PIECE.as_secs()) as u32;

    fn waits(patience: &mut Patience, mut now: impl FnMut(u32) -> Option<Duration>, limit: u32) -> u32 {
        (0..limit).find(|&piece| patience.is_over_at(now(piece))).map_or(limit, |last| last + 1)
    }

    #[test]
    fn a_device_that_takes_no_processor_time_is_given_up() {
        for software in [false, true] {
            let mut patience = Patience { software, silent: 0, seen: Some(Duration::ZERO).filter(|_| software) };
            assert_eq!(waits(&mut patience, |_| Some(Duration::ZERO), 1_000), PIECES, "software: {software}");
        }
    }

    #[test]
    fn a_software_driver_that_computes_slowly_is_not() {
        let mut patience = Patience { software: true, silent: 0, seen: Some(Duration::ZERO) };
        // A hundredth of one processor.
        let slow = |piece: u32| Some(PIECE * (piece + 1) / 100);
        assert_eq!(waits(&mut patience, slow, 10_000), 10_000);
        // It stops.
        assert_eq!(waits(&mut patience, |_| Some(PIECE * 100), 1_000), PIECES);
    }

    #[test]
    fn hardware_is_not_taken_for_alive_because_the_program_computes() {
        let mut patience = Patience { software: false, silent: 0, seen: None };
        assert_eq!(waits(&mut patience, |piece| Some(PIECE * piece), 1_000), PIECES);
    }

    #[test]
    fn where_processor_time_is_unknown_a_software_driver_gets_longer() {
        let mut patience = Patience { software: true, silent: 0, seen: None };
        assert!(waits(&mut patience, |_| None, 10_000) > 10 * PIECES);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn processor_time_advances_with_work() {
        let start = processor_time().expect("Linux tells it");
        while processor_time().expect("still") < start + ALIVE {
            std::hint::black_box((0..10_000u64).sum::<u64>());
        }
    }
}
