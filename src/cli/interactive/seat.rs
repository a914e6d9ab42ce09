//! Where a conversation runs: on the device that was asked for, and on the CPU once that has failed.

use crate::cli::failure::Failure;
use bdh_gpu::backend::BackendError;
use bdh_gpu::generation::{Bdh, GenerationError, Session, Snapshot};

/// A session and the device that it runs on.
pub struct Seat {
    pub bdh: Bdh,
    pub session: Session,
    /// That the device has failed, until it has been said.
    pub news: Option<String>,
}

impl Seat {
    /// The conversation on the host. It began as `base`, and `tokens` have come since.
    pub fn snapshot(&mut self, base: &Snapshot, tokens: &[u32]) -> Result<Snapshot, Failure> {
        match self.session.snapshot() {
            Err(GenerationError::Backend(error)) => {
                self.leave(&error, |session, cpu| session.rebuild(cpu, Some(base), tokens))?;
                Ok(self.session.snapshot()?)
            }
            result => Ok(result?),
        }
    }

    /// Goes on from a snapshot.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<(), Failure> {
        match self.session.restore(snapshot) {
            Err(GenerationError::Backend(error)) => {
                self.leave(&error, |session, cpu| cpu.session(session.forgetting()))?;
                Ok(self.session.restore(snapshot)?)
            }
            result => Ok(result?),
        }
    }

    /// Forgets everything, and returns the empty conversation.
    pub fn reset(&mut self) -> Result<Snapshot, Failure> {
        match self.session.reset().and_then(|()| self.session.snapshot()) {
            Err(GenerationError::Backend(error)) => {
                self.leave(&error, |session, cpu| cpu.session(session.forgetting()))?;
                Ok(self.session.snapshot()?)
            }
            result => Ok(result?),
        }
    }

    /// Moves to the CPU, where `rebuild` makes a session.
    fn leave(
        &mut self,
        error: &BackendError,
        rebuild: impl FnOnce(&Session, &Bdh) -> Result<Session, GenerationError>,
    ) -> Result<(), Failure> {
        let cpu = self.bdh.on_cpu()?;
        self.session = rebuild(&self.session, &cpu)?;
        self.news = Some(format!("{}; the conversation goes on on {}", error.cause(), cpu.device()));
        self.bdh = cpu;
        Ok(())
    }
}
