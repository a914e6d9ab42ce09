//! Time per kernel, from timestamp queries.
//!
//! Timestamps are portable only at the ends of a pass, so every kernel runs in a pass of its own. A step
//! takes longer like this than in one pass; each kernel's own time is what it is.

use super::encode::{FIRST, KERNEL as ENCODE};
use super::logits::KERNEL as LOGITS;
use super::project::KERNEL as PROJECT;
use super::rescale::KERNEL as RESCALE;
use super::sample::KERNEL as SAMPLE;
use super::slots::GpuSlots;
use crate::backend::profile::{Profile, ProfilePart};
use crate::backend::{BackendError, Output, Plan, SlotStep};
use std::time::Duration;
use wgpu::BufferUsages;

/// Most timed passes in a submission: two queries each, of which a set holds 4,096.
const MAX_PASSES: usize = 2048;

/// A kernel's part of a step: its name and what records it.
type Timed<'a> = (&'static str, Box<dyn Fn(&mut wgpu::ComputePass) + 'a>);

/// Timestamps of up to [`MAX_PASSES`] passes.
struct Stopwatch {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
}

impl GpuSlots {
    /// Runs a plan with every kernel in a pass of its own; see [`crate::backend::Slots::profile`].
    pub(super) fn profile_plan(&mut self, plan: &Plan) -> Result<Profile, BackendError> {
        let gpu = &self.shared.gpu;
        if !gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY) {
            return Err(BackendError::NoTimestamps { device: gpu.info.name.clone() });
        }
        let queries = 2 * MAX_PASSES as u32;
        let stopwatch = Stopwatch {
            queries: gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("kernel times"),
                ty: wgpu::QueryType::Timestamp,
                count: queries,
            }),
            resolved: gpu.buffer(
                "the kernels' times",
                u64::from(queries) * 8,
                BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC,
            )?,
        };
        gpu.check()?;
        let mut profile = Profile::default();
        for step in &plan.steps {
            self.write_steps(std::slice::from_ref(step))?;
            for kernels in self.kernels(step).chunks(MAX_PASSES) {
                self.time(&stopwatch, kernels, &mut profile)?;
            }
        }
        Ok(profile)
    }

    /// The kernels of a step, in order.
    fn kernels(&self, step: &[SlotStep]) -> Vec<Timed<'_>> {
        let mut kernels: Vec<Timed> = Vec::new();
        if step.iter().any(|slot| slot.rescale.is_some()) {
            kernels.push((RESCALE.name, Box::new(|pass| self.record_rescale(pass, 0))));
        }
        for layer in 0..self.shared.layout.geometry.layers {
            let name = if layer == 0 { FIRST.name } else { ENCODE.name };
            kernels.push((name, Box::new(move |pass| self.record_encode(pass, layer, 0))));
            kernels.push((PROJECT.name, Box::new(|pass| self.record_project(pass, 0))));
        }
        if step.iter().any(|slot| slot.output >= Output::Logits) {
            kernels.push((LOGITS.name, Box::new(|pass| self.record_logits(pass, 0))));
        }
        if step.iter().any(|slot| slot.output == Output::Token) {
            kernels.push((SAMPLE.name, Box::new(|pass| self.record_sample(pass, 0))));
        }
        kernels
    }

    /// Runs kernels one after another and adds their times to a profile.
    fn time(&self, stopwatch: &Stopwatch, kernels: &[Timed], profile: &mut Profile) -> Result<(), BackendError> {
        let bytes = 16 * kernels.len() as u64;
        self.execute(|encoder| {
            for (index, (_, record)) in kernels.iter().enumerate() {
                let timestamps = wgpu::ComputePassTimestampWrites {
                    query_set: &stopwatch.queries,
                    beginning_of_pass_write_index: Some(2 * index as u32),
                    end_of_pass_write_index: Some(2 * index as u32 + 1),
                };
                let descriptor = wgpu::ComputePassDescriptor { label: None, timestamp_writes: Some(timestamps) };
                record(&mut encoder.begin_compute_pass(&descriptor));
            }
            encoder.resolve_query_set(&stopwatch.queries, 0..2 * kernels.len() as u32, &stopwatch.resolved, 0);
        })?;
        let gpu = &self.shared.gpu;
        let times = gpu.download(&stopwatch.resolved, 0, bytes)?;
        let period = f64::from(gpu.queue.get_timestamp_period());
        for ((name, _), times) in kernels.iter().zip(times.chunks_exact(16)) {
            let [begin, end]: [u64; 2] = bytemuck::pod_read_unaligned(times);
            let time = Duration::from_nanos((end.saturating_sub(begin) as f64 * period) as u64);
            match profile.parts.iter_mut().find(|part| part.name == *name) {
                Some(part) => {
                    part.dispatches = part.dispatches.map(|dispatches| dispatches + 1);
                    part.time += time;
                }
                None => profile.parts.push(ProfilePart { name, dispatches: Some(1), time }),
            }
        }
        Ok(())
    }
}
