//! Costs of a decode step, read off its recording. No device takes part: a recording is a function
//! of model and layout.

use super::backend::{GpuBackend, GpuOptions};
use super::cost::{Cost, Dispatch};
use super::device::{Gpu, describe};
use super::platform::outcome;
use super::recording::{Bound, Op};
use crate::backend::profile::Density;
use crate::backend::{BackendError, Input, Output, SlotStep, StateType, WeightType};
use crate::model::Model;

/// Largest buffer and binding of [`Gpu::without_device`]: what wgpu allows on most cards.
const LARGEST_BUFFER: u64 = i32::MAX as u64;

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
}

/// One dispatch of a recording.
#[derive(Clone, Debug)]
pub struct DispatchCost {
    /// Name of the kernel.
    pub kernel: &'static str,
    /// Workgroups.
    pub workgroups: u64,
    /// Bytes and chain.
    pub cost: Cost,
}

impl GpuBackend {
    /// A model laid out for a graphics card whose largest binding is `max_binding` bytes. It
    /// records; it cannot compute.
    ///
    /// # Errors
    /// [`BackendError`] if the model does not fit such a card.
    pub fn without_device(
        model: &Model,
        weight_type: WeightType,
        state: StateType,
        max_binding: u64,
    ) -> Result<Self, BackendError> {
        let max_binding = Some(max_binding);
        let options = GpuOptions { state, max_binding, hardware_layout: true, ..GpuOptions::default() };
        Self::on(Gpu::without_device()?, model, weight_type, options)
    }

    /// Costs of all dispatches of a step in which `slots` slots draw a token each.
    ///
    /// # Errors
    /// [`BackendError`] if so many slots do not fit.
    ///
    /// # Panics
    /// If a kernel of the step states no cost; a test checks them all.
    pub fn step_costs(&self, slots: usize, density: Density) -> Result<Vec<DispatchCost>, BackendError> {
        let layout = &self.shared.layout;
        let set = self.slots(slots)?;
        let slot = SlotStep { input: Input::Previous, output: Output::Token, ..SlotStep::IDLE };
        let mut costs = Vec::new();
        for op in set.decode.step(0, &vec![slot; slots]) {
            let Op::Run(bound, _) = op else { continue };
            let kernel = bound.kernel;
            let cost = kernel.cost.unwrap_or_else(|| panic!("kernel {} states no cost", kernel.name));
            let tile = kernel.slot_tile(set.activations.slot_tile);
            let tiles = tiles(&bound, slots.div_ceil(tile) as u32, layout.segments.len());
            for part in bound.parts.iter() {
                let dispatch = Dispatch {
                    layout,
                    workgroups: part.workgroups,
                    invocations: (kernel.workgroup)(layout) as usize,
                    tile,
                    tiles,
                    slots,
                    density,
                };
                let workgroups = part.workgroups.iter().map(|&count| u64::from(count)).product();
                costs.push(DispatchCost { kernel: kernel.name, workgroups, cost: cost(&dispatch) });
            }
        }
        Ok(costs)
    }
}

/// Tiles of all slots in a kernel's dispatches: `whole`, or more if states lie in several pages.
fn tiles(bound: &Bound, whole: u32, segments: usize) -> u32 {
    let parts = || bound.parts.iter().map(|part| part.workgroups[0]);
    if parts().all(|tiles| tiles == whole) { whole } else { parts().sum::<u32>() / segments as u32 }
}
