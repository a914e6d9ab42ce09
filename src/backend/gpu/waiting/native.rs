//! Waiting blocks the calling thread.

use super::patience::{self, Patience};
use crate::backend::gpu::device::Gpu;
use crate::backend::gpu::faults::{lock, one_line};
use crate::backend::{BackendError, DeviceKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::Duration;

/// Longest wait for another thread of this process that has found a submission complete.
const HANDOVER: Duration = Duration::from_secs(3600);

impl Gpu {
    /// Waits for a submission, but not forever: a device that does not answer is lost.
    pub fn wait(&self, submission: wgpu::SubmissionIndex) -> Result<(), BackendError> {
        self.check()?;
        let mut patience = Patience::new(self.info.kind == DeviceKind::SoftwareGpu);
        let waited = loop {
            let submission_index = Some(submission.clone());
            let poll = wgpu::PollType::Wait { submission_index, timeout: Some(patience::PIECE) };
            // wgpu panics if the driver reports the loss of the device to the wait. By then wgpu
            // has run the callback and holds no lock.
            let waited = catch_unwind(AssertUnwindSafe(|| self.device.poll(poll)));
            if !matches!(waited, Ok(Err(wgpu::PollError::Timeout))) {
                break waited;
            }
            if patience.is_over() {
                self.abandon(format!("no answer within {} s", patience.longest().as_secs()));
                break waited;
            }
        };
        self.check()?;
        match waited {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.failed(format!("cannot wait for results: {error}"))),
            Err(panic) => {
                let message = panic.downcast_ref::<String>().map_or("no reason given", String::as_str);
                Err(self.failed(format!("cannot wait for results: {}", one_line(message))))
            }
        }
    }

    /// Gives up a device that does not answer. Leaks it, because closing it would wait for it.
    fn abandon(&self, reason: String) {
        lock(&self.faults).lost.get_or_insert(reason);
        std::mem::forget((self.device.clone(), self.queue.clone()));
    }

    /// Reads a staging buffer that `submission` fills.
    pub fn map(
        &self,
        staging: &wgpu::Buffer,
        bytes: u64,
        submission: wgpu::SubmissionIndex,
    ) -> Result<Vec<u8>, BackendError> {
        let (sender, mapped) = mpsc::channel();
        staging.map_async(wgpu::MapMode::Read, 0..bytes, move |result| {
            // If nobody is waiting any more, the submission has failed.
            let _ = sender.send(result);
        });
        self.wait(submission)?;
        // Another waiting thread may have found the submission complete: the callback then runs on
        // that thread, possibly later.
        self.take_mapped(staging, bytes, mapped.recv_timeout(HANDOVER).ok())
    }
}
