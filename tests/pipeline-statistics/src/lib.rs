//! A Vulkan layer that writes down the driver's statistics of every compute pipeline: registers,
//! spills, workgroup memory, code size, whatever its compiler reports.
//!
//! It stands between the Vulkan loader and the driver and enables
//! `VK_KHR_pipeline_executable_properties`; the program needs no code for it. On a driver without
//! the extension nothing is written. (Mesa 22's llvmpipe has the extension, and crashes.)
//!
//! The file that [`OUTPUT`] names gets one JSON line per executable; a compute pipeline usually has
//! one. Broken into two lines here:
//!
//! ```json
//! {"pipeline": 3, "name": "encode", "executable": "compute", "subgroup": 64,
//!  "statistics": {"VGPRs": 120, "LDS size": 13824}}
//! ```
//!
//! `pipeline` numbers the pipelines of the process from 0. `name` is the program's label, or null:
//! wgpu passes labels to Vulkan if `WGPU_DEBUG=1`. A line is written once the pipeline has a name,
//! or else when it or the device is destroyed.
//!
//! One device at a time: the table of the next functions is that of the last device.

use ash::vk::{self, Handle};
use serde_json::{Map, Value, json};
use std::ffi::{CStr, c_char};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use vulkan_layer::{NegotiateLayerInterface, Next, create_instance, next};

/// Environment variable: path of the file that lines are appended to.
pub const OUTPUT: &str = "PIPELINE_STATISTICS";

/// Name of the layer, for `VK_INSTANCE_LAYERS`.
pub const LAYER: &str = "VK_LAYER_TEST_pipeline_statistics";

const EXTENSION: &CStr = ash::khr::pipeline_executable_properties::NAME;

/// Whether the extension is enabled on the device.
static CAPTURING: AtomicBool = AtomicBool::new(false);

/// Number of pipelines so far.
static PIPELINES: AtomicUsize = AtomicUsize::new(0);

/// Pipelines whose name is not known yet: handle, and a line for each executable.
static UNNAMED: Mutex<Vec<(vk::Pipeline, Vec<Value>)>> = Mutex::new(Vec::new());

/// This layer's implementation of a function, if it has one.
fn own(name: &CStr) -> vk::PFN_vkVoidFunction {
    vulkan_layer::functions! { name;
        b"vkGetInstanceProcAddr" => get_instance_proc_addr as vk::PFN_vkGetInstanceProcAddr,
        b"vkGetDeviceProcAddr" => get_device_proc_addr as vk::PFN_vkGetDeviceProcAddr,
        b"vkCreateInstance" => create_instance as vk::PFN_vkCreateInstance,
        b"vkCreateDevice" => create_device as vk::PFN_vkCreateDevice,
        b"vkDestroyDevice" => destroy_device as vk::PFN_vkDestroyDevice,
        b"vkCreateComputePipelines" => create_compute_pipelines as vk::PFN_vkCreateComputePipelines,
        b"vkDestroyPipeline" => destroy_pipeline as vk::PFN_vkDestroyPipeline,
        b"vkGetSemaphoreCounterValue" => counter_value as vk::PFN_vkGetSemaphoreCounterValue,
        b"vkGetSemaphoreCounterValueKHR" => counter_value as vk::PFN_vkGetSemaphoreCounterValue,
        b"vkSetDebugUtilsObjectNameEXT" => set_object_name as vk::PFN_vkSetDebugUtilsObjectNameEXT,
    }
}

/// Tells the loader which interface this layer speaks and where its functions are.
///
/// # Safety
/// To be called by the Vulkan loader, with its structure.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the loader looks for this name")]
pub unsafe extern "system" fn vkNegotiateLoaderLayerInterfaceVersion(
    negotiation: *mut NegotiateLayerInterface,
) -> vk::Result {
    // SAFETY: the loader hands over a valid structure.
    unsafe { vulkan_layer::negotiate(negotiation, get_instance_proc_addr, get_device_proc_addr) }
}

unsafe extern "system" fn get_instance_proc_addr(
    instance: vk::Instance,
    name: *const c_char,
) -> vk::PFN_vkVoidFunction {
    // SAFETY: the loader's arguments, passed on; names end with a zero.
    unsafe { own(CStr::from_ptr(name)).or_else(|| next().instance_function(instance, name)) }
}

unsafe extern "system" fn get_device_proc_addr(device: vk::Device, name: *const c_char) -> vk::PFN_vkVoidFunction {
    // SAFETY: as above.
    unsafe { own(CStr::from_ptr(name)).or_else(|| next().device_function(device, name)) }
}

unsafe extern "system" fn create_device(
    physical: vk::PhysicalDevice,
    info: *const vk::DeviceCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    device: *mut vk::Device,
) -> vk::Result {
    // SAFETY: as for the instance; what the changed structure points to outlives the call.
    unsafe {
        let Some((instance, get)) = vulkan_layer::next_device_link(info) else {
            return vk::Result::ERROR_INITIALIZATION_FAILED;
        };
        let create: vk::PFN_vkCreateDevice =
            vulkan_layer::function(instance(next().instance, c"vkCreateDevice".as_ptr()));
        let capturing = has_extension(instance, physical);
        let mut info = *info;
        let mut extensions: Vec<*const c_char> = match info.enabled_extension_count {
            0 => Vec::new(),
            count => std::slice::from_raw_parts(info.pp_enabled_extension_names, count as usize).to_vec(),
        };
        let mut features = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default();
        if capturing {
            extensions.push(EXTENSION.as_ptr());
            (info.enabled_extension_count, info.pp_enabled_extension_names) =
                (extensions.len() as u32, extensions.as_ptr());
            (features.pipeline_executable_info, features.p_next) = (vk::TRUE, info.p_next.cast_mut());
            info.p_next = (&raw const features).cast();
        }
        let result = create(physical, &info, allocator, device);
        if result == vk::Result::SUCCESS {
            Next::set_device(get, *device);
            CAPTURING.store(capturing, SeqCst);
        }
        result
    }
}

/// Whether an adapter has the extension.
///
/// # Safety
/// Both come from the loader.
unsafe fn has_extension(get: vk::PFN_vkGetInstanceProcAddr, physical: vk::PhysicalDevice) -> bool {
    // SAFETY: as promised; the list is as long as the call before said.
    unsafe {
        let enumerate: vk::PFN_vkEnumerateDeviceExtensionProperties =
            vulkan_layer::function(get(next().instance, c"vkEnumerateDeviceExtensionProperties".as_ptr()));
        let extensions = list(|count, extensions| {
            // An error leaves the list empty.
            let _ = enumerate(physical, std::ptr::null(), count, extensions);
        });
        extensions
            .iter()
            .any(|extension: &vk::ExtensionProperties| extension.extension_name_as_c_str() == Ok(EXTENSION))
    }
}

/// A list from a function that is called twice: for its length, and for its items.
fn list<T: Clone + Default>(get: impl Fn(&mut u32, *mut T)) -> Vec<T> {
    let mut count = 0;
    get(&mut count, std::ptr::null_mut());
    let mut items = vec![T::default(); count as usize];
    get(&mut count, items.as_mut_ptr());
    items.truncate(count as usize);
    items
}

unsafe extern "system" fn destroy_device(device: vk::Device, allocator: *const vk::AllocationCallbacks<'_>) {
    for (_, lines) in UNNAMED.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
        write(lines, None);
    }
    // SAFETY: the caller's arguments, passed on.
    unsafe { next().on(device).call::<vk::PFN_vkDestroyDevice>(c"vkDestroyDevice")(device, allocator) }
}

unsafe extern "system" fn create_compute_pipelines(
    device: vk::Device,
    cache: vk::PipelineCache,
    count: u32,
    infos: *const vk::ComputePipelineCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    pipelines: *mut vk::Pipeline,
) -> vk::Result {
    // SAFETY: the caller's arguments, passed on but for a flag; both lists have `count` items.
    unsafe {
        let create = next().on(device).call::<vk::PFN_vkCreateComputePipelines>(c"vkCreateComputePipelines");
        if !CAPTURING.load(SeqCst) {
            return create(device, cache, count, infos, allocator, pipelines);
        }
        let mut infos = std::slice::from_raw_parts(infos, count as usize).to_vec();
        for info in &mut infos {
            info.flags |= vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR;
        }
        let result = create(device, cache, count, infos.as_ptr(), allocator, pipelines);
        if result == vk::Result::SUCCESS {
            for &pipeline in std::slice::from_raw_parts(pipelines, count as usize) {
                let lines = executables(device, pipeline);
                UNNAMED.lock().unwrap_or_else(PoisonError::into_inner).push((pipeline, lines));
            }
        }
        result
    }
}

/// A line for each executable of a pipeline, without the name.
///
/// # Safety
/// The pipeline is one of the device, made with statistics.
unsafe fn executables(device: vk::Device, pipeline: vk::Pipeline) -> Vec<Value> {
    let ordinal = PIPELINES.fetch_add(1, SeqCst);
    let info = vk::PipelineInfoKHR::default().pipeline(pipeline);
    // SAFETY: as promised; `list` hands over room for as many items as it says.
    let properties: Vec<vk::PipelineExecutablePropertiesKHR<'_>> = list(|count, items| unsafe {
        let get = next()
            .on(device)
            .call::<vk::PFN_vkGetPipelineExecutablePropertiesKHR>(c"vkGetPipelineExecutablePropertiesKHR");
        let _ = get(device, &info, count, items);
    });
    let line = |(index, executable): (usize, &vk::PipelineExecutablePropertiesKHR<'_>)| {
        let info = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline).executable_index(index as u32);
        // SAFETY: as above.
        let statistics: Vec<vk::PipelineExecutableStatisticKHR<'_>> = list(|count, items| unsafe {
            let name = c"vkGetPipelineExecutableStatisticsKHR";
            let _ = next().on(device).call::<vk::PFN_vkGetPipelineExecutableStatisticsKHR>(name)(
                device, &info, count, items,
            );
        });
        let statistics: Map<String, Value> =
            statistics.iter().map(|statistic| (text(statistic.name_as_c_str()), value(statistic))).collect();
        json!({
            "pipeline": ordinal,
            "name": null,
            "executable": text(executable.name_as_c_str()),
            "subgroup": executable.subgroup_size,
            "statistics": statistics,
        })
    };
    properties.iter().enumerate().map(line).collect()
}

fn value(statistic: &vk::PipelineExecutableStatisticKHR<'_>) -> Value {
    use vk::PipelineExecutableStatisticFormatKHR as Format;
    // SAFETY: the format says which of the union's fields the driver has set.
    unsafe {
        match statistic.format {
            Format::BOOL32 => (statistic.value.b32 == vk::TRUE).into(),
            Format::INT64 => statistic.value.i64.into(),
            Format::UINT64 => statistic.value.u64.into(),
            _ => statistic.value.f64.into(),
        }
    }
}

fn text<E>(name: Result<&CStr, E>) -> String {
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

unsafe extern "system" fn set_object_name(
    device: vk::Device,
    info: *const vk::DebugUtilsObjectNameInfoEXT<'_>,
) -> vk::Result {
    // SAFETY: the caller's arguments, passed on; a name ends with a zero.
    unsafe {
        if (*info).object_type == vk::ObjectType::PIPELINE
            && let Some(lines) = take(vk::Pipeline::from_raw((*info).object_handle))
        {
            write(lines, (!(*info).p_object_name.is_null()).then(|| CStr::from_ptr((*info).p_object_name)));
        }
        // The loader emulates the extension, so a driver need not have the function.
        match next().device_function(device, c"vkSetDebugUtilsObjectNameEXT".as_ptr()) {
            Some(set) => vulkan_layer::function::<vk::PFN_vkSetDebugUtilsObjectNameEXT>(Some(set))(device, info),
            None => vk::Result::SUCCESS,
        }
    }
}

unsafe extern "system" fn destroy_pipeline(
    device: vk::Device,
    pipeline: vk::Pipeline,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    if let Some(lines) = take(pipeline) {
        write(lines, None);
    }
    // SAFETY: the caller's arguments, passed on.
    unsafe { next().on(device).call::<vk::PFN_vkDestroyPipeline>(c"vkDestroyPipeline")(device, pipeline, allocator) }
}

unsafe extern "system" fn counter_value(device: vk::Device, semaphore: vk::Semaphore, value: *mut u64) -> vk::Result {
    // SAFETY: the caller's arguments, passed on.
    unsafe {
        // mesa-drm-shim succeeds without writing a value; its work is always complete.
        *value = u64::MAX;
        next().on(device).call::<vk::PFN_vkGetSemaphoreCounterValue>(c"vkGetSemaphoreCounterValue")(
            device, semaphore, value,
        )
    }
}

/// The lines of a pipeline that has no name yet.
fn take(pipeline: vk::Pipeline) -> Option<Vec<Value>> {
    let mut unnamed = UNNAMED.lock().unwrap_or_else(PoisonError::into_inner);
    let at = unnamed.iter().position(|&(handle, _)| handle == pipeline)?;
    Some(unnamed.remove(at).1)
}

fn write(lines: Vec<Value>, name: Option<&CStr>) {
    let Some(path) = std::env::var_os(OUTPUT) else { return };
    let mut text = String::new();
    for mut line in lines {
        line["name"] = name.map(CStr::to_string_lossy).into();
        text += &format!("{line}\n");
    }
    let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
    // In one call, so that lines of several threads do not mix.
    file.and_then(|mut file| file.write_all(text.as_bytes())).unwrap_or_else(|error| panic!("{OUTPUT}: {error}"));
}
