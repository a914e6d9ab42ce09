//! Time per kernel, from timestamp queries.
//!
//! Timestamps are portable only at the ends of a pass, so every kernel runs in its own pass. A step
//! takes longer than in one pass; each kernel's own time stays the same.

use super::device::Gpu;
use super::groups::Groups;
use super::recording::Op;
use super::submission;
use crate::backend::BackendError;
use crate::backend::profile::{Profile, ProfilePart};
use maybe_async::maybe_async;
use std::time::Duration;
use wgpu::BufferUsages;

/// Most timed passes in a submission: each takes two queries, and a set holds 4,096.
const MAX_PASSES: usize = 2048;

/// Timestamps of up to [`MAX_PASSES`] passes.
pub(super) struct Stopwatch {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
}

#[maybe_async]
impl Stopwatch {
    /// A stopwatch of a device.
    ///
    /// # Errors
    /// [`BackendError::NoTimestamps`] if the adapter has no timestamps.
    pub fn new(gpu: &Gpu) -> Result<Self, BackendError> {
        if !gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Err(BackendError::NoTimestamps { device: gpu.info.name.clone() });
        }
        let count = 2 * MAX_PASSES as u32;
        let queries = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("kernel times"),
            ty: wgpu::QueryType::Timestamp,
            count,
        });
        let usage = BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC;
        let resolved = gpu.buffer("the kernels' times", u64::from(count) * 8, usage)?;
        gpu.check()?;
        Ok(Self { queries, resolved })
    }

    /// Runs operations one after another and adds the kernels' times to a profile.
    pub async fn time(
        &self,
        gpu: &Gpu,
        groups: &Groups,
        ops: &[Op],
        profile: &mut Profile,
    ) -> Result<(), BackendError> {
        for ops in ops.chunks(MAX_PASSES) {
            self.time_one_submission(gpu, groups, ops, profile).await?;
        }
        Ok(())
    }

    async fn time_one_submission(
        &self,
        gpu: &Gpu,
        groups: &Groups,
        ops: &[Op],
        profile: &mut Profile,
    ) -> Result<(), BackendError> {
        let mut timed = Vec::new();
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        for op in ops {
            let Op::Run(bound, _) = op else {
                submission::encode(groups, std::slice::from_ref(op), &mut encoder);
                continue;
            };
            let query = 2 * timed.len() as u32;
            let timestamp_writes = Some(wgpu::ComputePassTimestampWrites {
                query_set: &self.queries,
                beginning_of_pass_write_index: Some(query),
                end_of_pass_write_index: Some(query + 1),
            });
            let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes };
            submission::dispatch(groups, op, &mut encoder.begin_compute_pass(&descriptor));
            timed.push(bound.kernel.name);
        }
        encoder.resolve_query_set(&self.queries, 0..2 * timed.len() as u32, &self.resolved, 0);
        gpu.wait(gpu.queue.submit([encoder.finish()])).await?;
        let times = gpu.download(&self.resolved, 0, 16 * timed.len() as u64).await?;
        let period = f64::from(gpu.queue.get_timestamp_period());
        for (name, times) in timed.into_iter().zip(times.chunks_exact(16)) {
            let [begin, end]: [u64; 2] = bytemuck::pod_read_unaligned(times);
            let time = Duration::from_nanos((end.saturating_sub(begin) as f64 * period) as u64);
            profile.add(Profile { parts: vec![ProfilePart { name, dispatches: Some(1), time }], activity: None });
        }
        Ok(())
    }
}
