//! The adapter that the GPU tests run on.
#![allow(dead_code, reason = "every test crate uses a part")]

use bdh_gpu::backend::gpu::{AdapterChoice, GpuBackend, GpuOptions, list_adapters};
use bdh_gpu::backend::{Backend, BackendError, StateType, WeightType};
use bdh_gpu::generation::DeviceChoice;
use bdh_gpu::model::Model;

/// Names the adapter to test, where there are several: a part of its name.
const ADAPTER: &str = "BDH_TEST_ADAPTER";

/// The adapter under test.
///
/// # Panics
/// If there is none. These tests never pass for want of a device.
pub fn adapter() -> AdapterChoice {
    assert!(
        !list_adapters().is_empty(),
        "the GPU tests need a Vulkan, Metal or DX12 adapter, and this machine has none: \
         install a driver (Debian's software one: apt-get install mesa-vulkan-drivers)"
    );
    match std::env::var(ADAPTER) {
        Ok(name) => AdapterChoice::Name(name),
        Err(_) => AdapterChoice::Any,
    }
}

/// The adapter under test, as a user names it.
pub fn device() -> DeviceChoice {
    match adapter() {
        AdapterChoice::Name(name) => DeviceChoice::Name(name),
        _ => DeviceChoice::Gpu,
    }
}

/// A model on the adapter under test.
pub fn backend(model: &Model, weights: WeightType, options: GpuOptions) -> GpuBackend {
    GpuBackend::with_options(model, weights, &adapter(), options).expect("the adapter takes the model")
}

/// As [`backend`], in the form in which the verification asks for it.
pub fn opener(options: GpuOptions) -> impl Fn(&Model, WeightType, StateType) -> Result<Box<dyn Backend>, BackendError> {
    let adapter = adapter();
    move |model, weights, state| {
        let options = GpuOptions { state, ..options.clone() };
        let gpu = GpuBackend::with_options(model, weights, &adapter, options)?;
        Ok(Box::new(gpu) as Box<dyn Backend>)
    }
}
