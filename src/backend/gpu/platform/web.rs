//! A browser's WebGPU.

use crate::backend::gpu::faults::{Fault, Faults, note};
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
