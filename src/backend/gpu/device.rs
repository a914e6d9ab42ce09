//! Adapters, devices and the handling of their errors.

use super::faults::{Fault, Faults, lock, one_line};
use super::platform::{self, BACKENDS, outcome};
use super::texels::Use;
use crate::backend::{BackendError, DeviceInfo, DeviceKind};
use maybe_async::maybe_async;
use std::sync::{Arc, Mutex};
use std::thread;

/// Features to use if an adapter has them.
const USEFUL: wgpu::Features =
    wgpu::Features::TIMESTAMP_QUERY.union(wgpu::Features::TEXTURE_ADAPTER_SPECIFIC_FORMAT_FEATURES);
/// The same for adapters that run on the CPU, whose workgroups are small enough to be one subgroup.
const USEFUL_IN_SOFTWARE: wgpu::Features = USEFUL.union(wgpu::Features::SUBGROUP);

/// An adapter as `bdh-gpu devices` lists it.
#[derive(Clone, Debug)]
pub struct AdapterSummary {
    /// Its number in `--device INDEX`.
    pub index: usize,
    /// Its description.
    pub info: DeviceInfo,
    /// Largest buffer, bytes.
    pub max_buffer: u64,
    /// Largest storage binding, bytes.
    pub max_binding: u64,
    /// Workgroup memory, bytes.
    pub workgroup_memory: u32,
    /// "discrete", "integrated", "virtual", "software" or "other".
    pub device_type: &'static str,
    /// Its place on the bus as the driver reports it, "0000:65:00.0" for instance; empty if it does not.
    pub pci_bus_id: String,
    /// Whether an automatic choice takes it.
    pub automatic: bool,
}

/// Which adapter to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdapterChoice {
    /// The best adapter; a software one only if there is no other.
    Any,
    /// The best hardware adapter.
    Hardware,
    /// By its number in the list.
    Index(usize),
    /// The first whose name contains this text, ignoring case.
    Name(String),
}

fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = BACKENDS;
    // Validation layers and labels are for debugging this program: WGPU_VALIDATION=1 and
    // WGPU_DEBUG=1 turn them on.
    descriptor.flags = wgpu::InstanceFlags::empty().with_env();
    wgpu::Instance::new(descriptor)
}

pub(super) fn describe(adapter: &wgpu::Adapter) -> DeviceInfo {
    let info = adapter.get_info();
    let kind = match info.device_type {
        wgpu::DeviceType::Cpu => DeviceKind::SoftwareGpu,
        _ => DeviceKind::Gpu,
    };
    let driver = [info.driver, info.driver_info].join(" ").trim().to_string();
    DeviceInfo { name: info.name, api: format!("{:?}", info.backend), driver, kind }
}

fn type_name(device_type: wgpu::DeviceType) -> &'static str {
    match device_type {
        wgpu::DeviceType::DiscreteGpu => "discrete",
        wgpu::DeviceType::IntegratedGpu => "integrated",
        wgpu::DeviceType::VirtualGpu => "virtual",
        wgpu::DeviceType::Cpu => "software",
        wgpu::DeviceType::Other => "other",
    }
}

/// [`rank`] of drivers that compute on the CPU.
const SOFTWARE_RANK: u32 = 4;

/// Lower is better.
fn rank(adapter: &wgpu::Adapter) -> u32 {
    match adapter.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => SOFTWARE_RANK,
    }
}

/// Every adapter of this machine.
#[maybe_async]
pub async fn list_adapters() -> Vec<AdapterSummary> {
    let adapters = platform::adapters(&instance()).await;
    // As in `choose`: the first of the best.
    let hardware = adapters.iter().enumerate().filter(|(_, adapter)| rank(adapter) < SOFTWARE_RANK);
    let automatic = hardware.min_by_key(|(_, adapter)| rank(adapter)).map(|(index, _)| index);
    let summarise = |(index, adapter): (usize, &wgpu::Adapter)| {
        let limits = adapter.limits();
        AdapterSummary {
            index,
            info: describe(adapter),
            max_buffer: limits.max_buffer_size,
            max_binding: limits.max_storage_buffer_binding_size,
            workgroup_memory: limits.max_compute_workgroup_storage_size,
            device_type: type_name(adapter.get_info().device_type),
            pci_bus_id: adapter.get_info().device_pci_bus_id,
            automatic: automatic == Some(index),
        }
    };
    adapters.iter().enumerate().map(summarise).collect()
}

/// The adapter that a choice means, if there is one.
///
/// # Errors
/// [`BackendError::NoAdapter`], which lists the adapters that exist.
#[maybe_async]
pub(super) async fn choose(choice: &AdapterChoice) -> Result<wgpu::Adapter, BackendError> {
    let mut adapters = platform::adapters(&instance()).await;
    let names: Vec<String> =
        adapters.iter().enumerate().map(|(i, adapter)| format!("{i}: {}", describe(adapter).name)).collect();
    let best =
        |adapters: Vec<wgpu::Adapter>, worst: u32| adapters.into_iter().filter(|a| rank(a) <= worst).min_by_key(rank);
    let (found, wanted) = match choice {
        AdapterChoice::Any => (best(adapters, 4), "a graphics adapter".to_string()),
        AdapterChoice::Hardware => (best(adapters, 3), "a hardware graphics adapter".to_string()),
        AdapterChoice::Index(index) if *index < adapters.len() => (Some(adapters.swap_remove(*index)), String::new()),
        AdapterChoice::Index(index) => (None, format!("adapter {index}")),
        AdapterChoice::Name(name) => {
            let wanted = name.to_lowercase();
            let matches = |adapter: &wgpu::Adapter| describe(adapter).name.to_lowercase().contains(&wanted);
            (adapters.into_iter().find(matches), format!("an adapter named {name:?}"))
        }
    };
    found.ok_or(BackendError::NoAdapter { wanted, adapters: names })
}

/// An open device.
pub(super) struct Gpu {
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    pub info: DeviceInfo,
    pub limits: wgpu::Limits,
    /// Whether kernels may read and write the images that a [`Store`](super::store::Store) makes.
    pub images: bool,
    /// Invocations of every subgroup, if kernels may use subgroups and all are of one size.
    pub subgroup: Option<u32>,
    /// Whether buffers hold data; those of [`Gpu::without_device`] do not.
    pub stores_data: bool,
    pub(super) faults: Arc<Mutex<Faults>>,
}

/// Reasons of a device loss that mean that memory ran out.
const OUT_OF_MEMORY: [&str; 2] = ["Out of memory", "Not enough memory left."];

#[maybe_async]
impl Gpu {
    /// Opens an adapter, with all its limits or with the base limits that every adapter has.
    pub async fn open(adapter: &wgpu::Adapter, base_limits: bool) -> Result<Self, BackendError> {
        let info = describe(adapter);
        let (features, limits) = match base_limits {
            true => (wgpu::Features::empty(), wgpu::Limits::default()),
            false if info.kind == DeviceKind::SoftwareGpu => {
                (adapter.features() & USEFUL_IN_SOFTWARE, adapter.limits())
            }
            false => (adapter.features() & USEFUL, adapter.limits()),
        };
        Self::request(adapter, info, features, limits).await
    }

    pub(super) async fn request(
        adapter: &wgpu::Adapter,
        info: DeviceInfo,
        features: wgpu::Features,
        limits: wgpu::Limits,
    ) -> Result<Self, BackendError> {
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("bdh-gpu"),
            required_features: features,
            required_limits: limits.clone(),
            memory_hints: wgpu::MemoryHints::Performance,
            ..Default::default()
        };
        let (device, queue) = outcome(adapter.request_device(&descriptor))
            .await
            .map_err(|error| BackendError::Open { device: info.name.clone(), message: one_line(&error.to_string()) })?;
        let faults = Arc::new(Mutex::new(Faults::default()));
        platform::record_errors(&device, faults.clone());
        let record = faults.clone();
        device.set_device_lost_callback(move |reason, message| {
            let reason = if message.is_empty() { format!("{reason:?}") } else { one_line(&message) };
            lock(&record).lost.get_or_insert(reason);
        });
        let images = [Use::Words, Use::Floats].iter().all(|purpose| {
            let allowed = adapter.get_texture_format_features(purpose.format()).flags;
            let needed = wgpu::TextureFormatFeatureFlags::STORAGE_READ_ONLY
                | wgpu::TextureFormatFeatureFlags::STORAGE_READ_WRITE;
            device.features().contains(wgpu::Features::TEXTURE_ADAPTER_SPECIFIC_FORMAT_FEATURES)
                && allowed.contains(needed)
        });
        let sizes = adapter.get_info();
        let subgroup = (device.features().contains(wgpu::Features::SUBGROUP)
            && sizes.subgroup_min_size == sizes.subgroup_max_size)
            .then_some(sizes.subgroup_max_size);
        let info = DeviceInfo { name: platform::name(&device, info.name), ..info };
        Ok(Self { device, queue, info, limits, images, subgroup, stores_data: true, faults })
    }

    /// Closes the device.
    pub fn close(&self) {
        lock(&self.faults).lost.get_or_insert_with(|| "it was closed".into());
        self.device.destroy();
    }

    /// Reports the first fault of this thread's calls since its last check, if there was one.
    pub fn check(&self) -> Result<(), BackendError> {
        self.check_allocation("what a command needs", 0)
    }

    /// As [`Gpu::check`], after an allocation for `what`, of `bytes` if that is known.
    pub fn check_allocation(&self, what: &'static str, bytes: u64) -> Result<(), BackendError> {
        let mut faults = lock(&self.faults);
        let device = self.info.name.clone();
        if let Some(reason) = &faults.lost {
            return Err(match OUT_OF_MEMORY.contains(&reason.as_str()) {
                true => BackendError::OutOfMemory { device, what, bytes },
                false => BackendError::Lost { device, reason: reason.clone() },
            });
        }
        match faults.errors.remove(&thread::current().id()) {
            None => Ok(()),
            Some(Fault::OutOfMemory) => Err(BackendError::OutOfMemory { device, what, bytes }),
            Some(Fault::Rejected(message)) => Err(BackendError::Driver { device, message: one_line(&message) }),
        }
    }

    /// A zeroed buffer of `bytes`, rounded up to a multiple of 16 (at least 16).
    pub fn buffer(
        &self,
        what: &'static str,
        bytes: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<wgpu::Buffer, BackendError> {
        let size = bytes.max(16).next_multiple_of(16);
        if size > self.limits.max_buffer_size {
            return Err(BackendError::Limit {
                device: self.info.name.clone(),
                what,
                needed: size,
                allowed: self.limits.max_buffer_size,
            });
        }
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(what),
            size: if self.stores_data { size } else { 16 },
            usage,
            mapped_at_creation: false,
        });
        self.check_allocation(what, size)?;
        Ok(buffer)
    }

    /// A storage buffer that holds `contents`.
    pub async fn filled(&self, what: &'static str, contents: &[u8]) -> Result<wgpu::Buffer, BackendError> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let buffer = self.buffer(what, contents.len() as u64, usage)?;
        self.upload(&buffer, 0, contents).await?;
        Ok(buffer)
    }

    /// Writes to a buffer in pieces, which keeps staging memory small.
    pub async fn upload(&self, buffer: &wgpu::Buffer, offset: u64, contents: &[u8]) -> Result<(), BackendError> {
        if !self.stores_data {
            return Ok(());
        }
        const PIECE: usize = 16 << 20;
        for (index, piece) in contents.chunks(PIECE).enumerate() {
            self.queue.write_buffer(buffer, offset + (index * PIECE) as u64, piece);
            if contents.len() > PIECE {
                self.wait(self.queue.submit([])).await?;
            }
        }
        self.check_allocation("the copy of an upload", contents.len().min(PIECE) as u64)
    }

    /// Reads bytes back. Waits for everything submitted before.
    pub async fn download(&self, buffer: &wgpu::Buffer, offset: u64, bytes: u64) -> Result<Vec<u8>, BackendError> {
        const PIECE: u64 = 16 << 20;
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let staging = self.buffer("a staging buffer", bytes.min(PIECE), usage)?;
        let mut contents = Vec::with_capacity(bytes as usize);
        let mut at = 0;
        while at < bytes {
            let size = PIECE.min(bytes - at);
            let mut encoder = self.device.create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(buffer, offset + at, &staging, 0, size);
            let submission = self.queue.submit([encoder.finish()]);
            contents.extend_from_slice(&self.map(&staging, size, submission).await?);
            at += size;
        }
        Ok(contents)
    }
}
