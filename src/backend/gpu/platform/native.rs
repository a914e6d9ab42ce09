//! A graphics API of the system.

use crate::backend::gpu::faults::{Fault, Faults, note};
use std::sync::{Arc, Mutex};

/// APIs in use. OpenGL is left out: it adds no adapter to the others', and probing it prints noise
/// on machines without a display.
pub const BACKENDS: wgpu::Backends = wgpu::Backends::VULKAN.union(wgpu::Backends::METAL).union(wgpu::Backends::DX12);

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
