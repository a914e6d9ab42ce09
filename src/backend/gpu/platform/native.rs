//! A graphics API of the system. Waiting for a device blocks the calling thread.

use super::patience::{self, Patience};
use crate::backend::gpu::device::{Fault, Faults, Gpu, describe, lock, note, one_line};
use crate::backend::{BackendError, DeviceKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

/// APIs in use. OpenGL is left out: it adds no adapter to the others', and probing it prints noise
/// on machines without a display.
pub const BACKENDS: wgpu::Backends = wgpu::Backends::VULKAN.union(wgpu::Backends::METAL).union(wgpu::Backends::DX12);

/// Longest wait for another thread of this process that has found a submission complete.
const HANDOVER: Duration = Duration::from_secs(3600);

/// Largest buffer and binding of [`Gpu::without_device`]: what wgpu allows on most cards.
const LARGEST_BUFFER: u64 = i32::MAX as u64;

/// The output of one of wgpu's futures.
pub fn outcome<F: Future>(future: F) -> F::Output {
    pollster::block_on(future)
}

/// Every adapter of this machine.
pub fn adapters(instance: &wgpu::Instance) -> Vec<wgpu::Adapter> {
    outcome(instance.enumerate_adapters(BACKENDS))
}

/// The name of an open device, from that of its adapter.
pub fn name(_: &wgpu::Device, adapter: String) -> String {
    adapter
}

/// Notes the errors that calls leave behind.
pub fn record_errors(device: &wgpu::Device, faults: Arc<Mutex<Faults>>) {
    device.on_uncaptured_error(Arc::new(move |error| {
        let fault = match error {
            wgpu::Error::OutOfMemory { .. } => Fault::OutOfMemory,
            error => Fault::Rejected(error.to_string()),
        };
        note(&faults, fault);
    }));
}

impl Gpu {
    /// A stand-in for a graphics card of the usual limits, which runs nothing: buffers hold no data.
    /// Recordings need no more.
    pub fn without_device() -> Result<Self, BackendError> {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = wgpu::Backends::NOOP;
        descriptor.backend_options.noop.enable = true;
        let adapters = outcome(wgpu::Instance::new(descriptor).enumerate_adapters(wgpu::Backends::NOOP));
        let none = || BackendError::NoAdapter { wanted: "wgpu's stand-in for a device".into(), adapters: Vec::new() };
        let adapter = adapters.first().ok_or_else(none)?;
        let limits = wgpu::Limits {
            max_compute_workgroup_storage_size: 32 << 10,
            max_storage_buffer_binding_size: LARGEST_BUFFER,
            max_buffer_size: LARGEST_BUFFER,
            ..wgpu::Limits::default()
        };
        let gpu = Self::request(adapter, describe(adapter), wgpu::Features::empty(), limits)?;
        Ok(Self { stores_data: false, ..gpu })
    }

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
