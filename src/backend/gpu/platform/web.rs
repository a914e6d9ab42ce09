//! A browser's WebGPU. Waiting for a device is a promise: the event loop goes on.

use crate::backend::BackendError;
use crate::backend::gpu::device::{Fault, Faults, Gpu, note};
use crate::event_loop;
use futures_channel::oneshot;
use js_sys::Reflect;
use std::sync::{Arc, Mutex};
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};

/// The output of one of wgpu's futures.
pub async fn outcome<F: Future>(future: F) -> F::Output {
    future.await
}

/// The API.
pub const BACKENDS: wgpu::Backends = wgpu::Backends::BROWSER_WEBGPU;

/// The adapter that the browser gives to those who ask for speed, if it gives one.
pub async fn adapters(instance: &wgpu::Instance) -> Vec<wgpu::Adapter> {
    let options = wgpu::RequestAdapterOptions {
        power_preference: wgpu::PowerPreference::HighPerformance,
        ..wgpu::RequestAdapterOptions::default()
    };
    instance.request_adapter(&options).await.into_iter().collect()
}

/// The name of an open device: browsers leave the adapter's name empty, but tell the vendor.
pub fn name(device: &wgpu::Device, adapter: String) -> String {
    if !adapter.is_empty() {
        return adapter;
    }
    let info = device.as_webgpu().map(|device| device.adapter_info());
    let parts = info.map(|info| [info.vendor(), info.architecture()].join(" "));
    parts.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).unwrap_or_else(|| "WebGPU".to_owned())
}

/// Notes the errors that calls leave behind. They arrive as events, after the calls.
pub fn record_errors(device: &wgpu::Device, faults: Arc<Mutex<Faults>>) {
    // wgpu's own handler panics at an internal error, of which a GPU that has no memory left for a
    // pipeline is one.
    let record = Closure::<dyn FnMut(JsValue)>::new(move |event: JsValue| {
        let get = |object: &JsValue, key: &str| Reflect::get(object, &key.into()).unwrap_or_default();
        let error = get(&event, "error");
        let kind = get(&get(&error, "constructor"), "name").as_string();
        let message = get(&error, "message").as_string().unwrap_or_default();
        note(
            &faults,
            match kind.as_deref() {
                Some("GPUOutOfMemoryError") => Fault::OutOfMemory,
                _ => Fault::Rejected(message),
            },
        );
    });
    if let Some(device) = device.as_webgpu() {
        device.set_onuncapturederror(Some(record.as_ref().unchecked_ref()));
    }
    // The browser's from now on.
    record.forget();
}

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
