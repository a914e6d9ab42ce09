//! Where a conversation goes on when its device fails: on the CPU, which reads all of it again.

use super::batch::Batch;
use super::snapshot::Snapshot;
use super::{Bdh, GenerationError};
use crate::backend::{BackendError, DeviceInfo};
use crate::model::forgetting::Forgetting;
use maybe_async::maybe_async;

/// A conversation's move to the CPU.
#[derive(Debug)]
pub struct Failover {
    /// How the device failed.
    pub error: BackendError,
    /// Where the conversation goes on.
    pub device: DeviceInfo,
}

impl std::fmt::Display for Failover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; the conversation goes on on {}", self.error, self.device)
    }
}

/// Whether the device is to be given up: what it remembers is lost, or cannot be had any more. A
/// device that computes garbage has perhaps done so from the start, so it is not among these.
pub(super) fn gives_up(error: &BackendError) -> bool {
    matches!(error, BackendError::Lost { .. } | BackendError::OutOfMemory { .. } | BackendError::Driver { .. })
}

/// What a conversation consists of, on the host.
#[derive(Debug)]
pub(super) struct History {
    /// Where it begins.
    base: Option<Snapshot>,
    /// How much of the past counted at its beginning.
    forgetting: Forgetting,
    /// Tokens read and drawn since, in their order.
    tokens: Vec<u32>,
    /// Changes of the forgetting, each with the number of tokens before it.
    changes: Vec<(usize, Forgetting)>,
}

#[maybe_async]
impl History {
    /// That of an empty conversation.
    pub fn new(forgetting: Forgetting) -> Self {
        Self { base: None, forgetting, tokens: Vec::new(), changes: Vec::new() }
    }

    /// That of a conversation that goes on from a snapshot.
    pub fn of(snapshot: &Snapshot) -> Self {
        Self { base: Some(snapshot.clone()), ..Self::new(snapshot.forgetting()) }
    }

    /// Adds tokens.
    pub fn push(&mut self, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
    }

    /// Notes that the forgetting changes.
    pub fn change(&mut self, forgetting: Forgetting) {
        self.changes.push((self.tokens.len(), forgetting));
    }

    /// Reads all of it on a device. The state agrees with the one that was lost to rounding.
    pub async fn replay(&self, bdh: &Bdh) -> Result<Batch, GenerationError> {
        let mut batch = Batch::new(bdh.backend(), &bdh.model().config, 1, self.forgetting).await?;
        if let Some(base) = &self.base {
            batch.restore(0, base.clock, &base.unread, &base.memory).await?;
        }
        let mut read = 0;
        for &(before, forgetting) in &self.changes {
            self.read(&mut batch, read..before).await?;
            batch.set_forgetting(0, forgetting);
            read = before;
        }
        self.read(&mut batch, read..self.tokens.len()).await?;
        Ok(batch)
    }

    async fn read(&self, batch: &mut Batch, range: std::ops::Range<usize>) -> Result<(), GenerationError> {
        batch.push(0, &self.tokens[range])?;
        while batch.is_reading(0) {
            batch.advance().await?;
        }
        Ok(())
    }
}
