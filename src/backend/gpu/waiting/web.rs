//! Waiting is a promise: the event loop goes on.

use crate::backend::BackendError;
use crate::backend::gpu::device::Gpu;
use crate::event_loop;
use futures_channel::oneshot;

impl Gpu {
    /// Waits for a submission. A browser ends it when the device is lost.
    pub async fn wait(&self, _submission: wgpu::SubmissionIndex) -> Result<(), BackendError> {
        self.check()?;
        let (sender, done) = oneshot::channel();
        self.queue.on_submitted_work_done(move || {
            // If nobody is waiting any more, the call was given up.
            let _ = sender.send(());
        });
        let answered = done.await.is_ok();
        self.check()?;
        if answered { Ok(()) } else { Err(self.failed("cannot wait for results".into())) }
    }

    /// Reads a staging buffer that `submission` fills.
    pub async fn map(
        &self,
        staging: &wgpu::Buffer,
        bytes: u64,
        _submission: wgpu::SubmissionIndex,
    ) -> Result<Vec<u8>, BackendError> {
        self.check()?;
        let (sender, mapped) = oneshot::channel();
        staging.map_async(wgpu::MapMode::Read, 0..bytes, move |result| {
            let _ = sender.send(result);
        });
        let mapped = mapped.await;
        if !matches!(mapped, Ok(Ok(()))) {
            // The news that the device is lost may come after the end of what was pending on it.
            event_loop::turn().await;
        }
        self.check()?;
        self.take_mapped(staging, bytes, mapped.ok())
    }
}
