//! A Vulkan layer that lets calls fail on request.
//!
//! It stands between the Vulkan loader and the driver, so that a program meets driver errors exactly as it would on a
//! broken device, and holds no code for them itself. The file that [`PLAN`] names holds one instruction a line, and is
//! read at every call, so that a test can change its mind:
//!
//! | line | |
//! | --- | --- |
//! | `vkQueueSubmit -4 from 12` | the function returns the result (-4 is `VK_ERROR_DEVICE_LOST`) from the 12th submission on, counted from 1 |
//! | `vkWait -4 from 12` | the same for the waits for a submission |
//! | `hang from 12` | from the 12th submission on, nothing ever completes |
//! | `largest 1000` | buffers and images of more than 1000 bytes find no memory |
//! | `hardware` | the adapter says that it is a graphics card |
//! | `binding 1000` | the adapter allows storage bindings of 1000 bytes |
//! | `miscompile` | shaders add where they should multiply |
//!
//! Beside the plan, a file with the ending `.submissions` holds the number of submissions, once the device is closed.
//! One device at a time: the table of the next functions is that of the last device.

mod plan;

use ash::vk;
use plan::Plan;
use std::ffi::{CStr, c_char};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use vulkan_layer::{Next, create_instance, next};

/// Environment variable: path of the plan.
pub const PLAN: &str = "VULKAN_FAULTS";

/// Name of the layer, for `VK_INSTANCE_LAYERS`.
pub const LAYER: &str = "VK_LAYER_TEST_faults";

static SUBMISSIONS: AtomicU64 = AtomicU64::new(0);

/// What this layer answers for a function, if it has an answer of its own.
fn own(name: &CStr) -> vk::PFN_vkVoidFunction {
    vulkan_layer::functions! { name;
        b"vkGetInstanceProcAddr" => get_instance_proc_addr as vk::PFN_vkGetInstanceProcAddr,
        b"vkGetDeviceProcAddr" => get_device_proc_addr as vk::PFN_vkGetDeviceProcAddr,
        b"vkCreateInstance" => create_instance as vk::PFN_vkCreateInstance,
        b"vkCreateDevice" => create_device as vk::PFN_vkCreateDevice,
        b"vkDestroyDevice" => destroy_device as vk::PFN_vkDestroyDevice,
        b"vkGetPhysicalDeviceProperties" => properties as vk::PFN_vkGetPhysicalDeviceProperties,
        b"vkGetPhysicalDeviceProperties2" => properties2 as vk::PFN_vkGetPhysicalDeviceProperties2,
        b"vkGetPhysicalDeviceProperties2KHR" => properties2 as vk::PFN_vkGetPhysicalDeviceProperties2,
        b"vkCreateBuffer" => create_buffer as vk::PFN_vkCreateBuffer,
        b"vkCreateImage" => create_image as vk::PFN_vkCreateImage,
        b"vkAllocateMemory" => allocate_memory as vk::PFN_vkAllocateMemory,
        b"vkMapMemory" => map_memory as vk::PFN_vkMapMemory,
        b"vkCreateShaderModule" => create_shader_module as vk::PFN_vkCreateShaderModule,
        b"vkCreateComputePipelines" => create_compute_pipelines as vk::PFN_vkCreateComputePipelines,
        b"vkQueueSubmit" => queue_submit as vk::PFN_vkQueueSubmit,
        b"vkQueueWaitIdle" => queue_wait_idle as vk::PFN_vkQueueWaitIdle,
        b"vkDeviceWaitIdle" => device_wait_idle as vk::PFN_vkDeviceWaitIdle,
        b"vkWaitForFences" => wait_for_fences as vk::PFN_vkWaitForFences,
        b"vkWaitSemaphores" => wait_semaphores as vk::PFN_vkWaitSemaphores,
        b"vkWaitSemaphoresKHR" => wait_semaphores as vk::PFN_vkWaitSemaphores,
        b"vkGetSemaphoreCounterValue" => counter_value as vk::PFN_vkGetSemaphoreCounterValue,
        b"vkGetSemaphoreCounterValueKHR" => counter_value as vk::PFN_vkGetSemaphoreCounterValue,
    }
}

/// Tells the loader which interface this layer speaks and where its functions are.
///
/// # Safety
/// To be called by the Vulkan loader, with its structure.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the loader looks for this name")]
pub unsafe extern "system" fn vkNegotiateLoaderLayerInterfaceVersion(
    negotiation: *mut vulkan_layer::NegotiateLayerInterface,
) -> vk::Result {
    // SAFETY: the loader hands over a valid structure.
    unsafe { vulkan_layer::negotiate(negotiation, get_instance_proc_addr, get_device_proc_addr) }
}

unsafe extern "system" fn get_instance_proc_addr(
    instance: vk::Instance,
    name: *const c_char,
) -> vk::PFN_vkVoidFunction {
    // SAFETY: the loader's arguments are passed on as they are; names end with a zero.
    unsafe { own(CStr::from_ptr(name)).or_else(|| next().instance_function(instance, name)) }
}

unsafe extern "system" fn get_device_proc_addr(device: vk::Device, name: *const c_char) -> vk::PFN_vkVoidFunction {
    // SAFETY: as above. What the driver does not have, this layer does not have either.
    unsafe {
        let real = next().device_function(device, name);
        real.and_then(|_| own(CStr::from_ptr(name))).or(real)
    }
}

unsafe extern "system" fn create_device(
    physical: vk::PhysicalDevice,
    info: *const vk::DeviceCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    device: *mut vk::Device,
) -> vk::Result {
    if let Some(result) = Plan::read().result("vkCreateDevice", 0) {
        return result;
    }
    // SAFETY: as for the instance.
    unsafe {
        let Some((instance, get)) = vulkan_layer::next_device_link(info) else {
            return vk::Result::ERROR_INITIALIZATION_FAILED;
        };
        let create: vk::PFN_vkCreateDevice =
            vulkan_layer::function(instance(next().instance, c"vkCreateDevice".as_ptr()));
        let result = create(physical, info, allocator, device);
        if result == vk::Result::SUCCESS {
            Next::set_device(get, *device);
        }
        result
    }
}

unsafe extern "system" fn destroy_device(device: vk::Device, allocator: *const vk::AllocationCallbacks<'_>) {
    plan::note_submissions(SUBMISSIONS.load(SeqCst));
    // SAFETY: the caller's arguments, passed on.
    unsafe { next().call::<vk::PFN_vkDestroyDevice>(c"vkDestroyDevice")(device, allocator) }
}

/// What the plan makes of an adapter.
fn pretend(properties: &mut vk::PhysicalDeviceProperties) {
    let plan = Plan::read();
    if plan.hardware {
        properties.device_type = vk::PhysicalDeviceType::DISCRETE_GPU;
    }
    if let Some(bytes) = plan.binding {
        properties.limits.max_storage_buffer_range = bytes;
    }
}

unsafe extern "system" fn properties(physical: vk::PhysicalDevice, answer: *mut vk::PhysicalDeviceProperties) {
    // SAFETY: the caller's arguments, passed on; the answer is valid afterwards.
    unsafe {
        let get: vk::PFN_vkGetPhysicalDeviceProperties = vulkan_layer::function(next().properties);
        get(physical, answer);
        pretend(&mut *answer);
    }
}

unsafe extern "system" fn properties2(physical: vk::PhysicalDevice, answer: *mut vk::PhysicalDeviceProperties2<'_>) {
    // SAFETY: as above.
    unsafe {
        let get: vk::PFN_vkGetPhysicalDeviceProperties2 = vulkan_layer::function(next().properties2);
        get(physical, answer);
        pretend(&mut (*answer).properties);
    }
}

unsafe extern "system" fn create_buffer(
    device: vk::Device,
    info: *const vk::BufferCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    buffer: *mut vk::Buffer,
) -> vk::Result {
    // SAFETY: the caller's arguments, passed on.
    unsafe {
        match Plan::read().creation("vkCreateBuffer", SUBMISSIONS.load(SeqCst), (*info).size) {
            Some(result) => result,
            None => next().call::<vk::PFN_vkCreateBuffer>(c"vkCreateBuffer")(device, info, allocator, buffer),
        }
    }
}

unsafe extern "system" fn create_image(
    device: vk::Device,
    info: *const vk::ImageCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    image: *mut vk::Image,
) -> vk::Result {
    // SAFETY: the caller's arguments, passed on.
    unsafe {
        let vk::Extent3D { width, height, depth } = (*info).extent;
        // The only images here hold vectors of four words.
        let bytes = 16 * u64::from(width) * u64::from(height) * u64::from(depth);
        match Plan::read().creation("vkCreateImage", SUBMISSIONS.load(SeqCst), bytes) {
            Some(result) => result,
            None => next().call::<vk::PFN_vkCreateImage>(c"vkCreateImage")(device, info, allocator, image),
        }
    }
}

/// Passes a call on unless the plan has a result for it.
macro_rules! may_fail {
    ($function:ident, $name:literal, $kind:ty, ($($argument:ident: $type:ty),*)) => {
        unsafe extern "system" fn $function($($argument: $type),*) -> vk::Result {
            if let Some(result) = Plan::read().result($name.to_str().expect("ASCII"), SUBMISSIONS.load(SeqCst)) {
                return result;
            }
            // SAFETY: the caller's arguments, passed on.
            unsafe { next().call::<$kind>($name)($($argument),*) }
        }
    };
}

may_fail!(allocate_memory, c"vkAllocateMemory", vk::PFN_vkAllocateMemory, (
    device: vk::Device,
    info: *const vk::MemoryAllocateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    memory: *mut vk::DeviceMemory
));
may_fail!(map_memory, c"vkMapMemory", vk::PFN_vkMapMemory, (
    device: vk::Device,
    memory: vk::DeviceMemory,
    offset: vk::DeviceSize,
    size: vk::DeviceSize,
    flags: vk::MemoryMapFlags,
    data: *mut *mut std::ffi::c_void
));
may_fail!(create_compute_pipelines, c"vkCreateComputePipelines", vk::PFN_vkCreateComputePipelines, (
    device: vk::Device,
    cache: vk::PipelineCache,
    count: u32,
    infos: *const vk::ComputePipelineCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    pipelines: *mut vk::Pipeline
));

unsafe extern "system" fn create_shader_module(
    device: vk::Device,
    info: *const vk::ShaderModuleCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    module: *mut vk::ShaderModule,
) -> vk::Result {
    // SAFETY: the caller's arguments, passed on; the code is as long as it says.
    unsafe {
        let create = next().call::<vk::PFN_vkCreateShaderModule>(c"vkCreateShaderModule");
        if !Plan::read().miscompile {
            return create(device, info, allocator, module);
        }
        let mut info = *info;
        let mut code = std::slice::from_raw_parts(info.p_code, info.code_size / 4).to_vec();
        plan::miscompile(&mut code);
        info.p_code = code.as_ptr();
        create(device, &info, allocator, module)
    }
}

unsafe extern "system" fn queue_submit(
    queue: vk::Queue,
    count: u32,
    submits: *const vk::SubmitInfo<'_>,
    fence: vk::Fence,
) -> vk::Result {
    let submissions = SUBMISSIONS.fetch_add(1, SeqCst) + 1;
    if let Some(result) = Plan::read().result("vkQueueSubmit", submissions) {
        return result;
    }
    // SAFETY: the caller's arguments, passed on.
    unsafe { next().call::<vk::PFN_vkQueueSubmit>(c"vkQueueSubmit")(queue, count, submits, fence) }
}

/// Whether the device has stopped to answer.
fn hangs() -> bool {
    Plan::read().hang.is_some_and(|from| SUBMISSIONS.load(SeqCst) >= from)
}

/// A wait without a limit, on a device that does not answer.
fn wait_for_ever() -> ! {
    loop {
        std::thread::park();
    }
}

unsafe extern "system" fn queue_wait_idle(queue: vk::Queue) -> vk::Result {
    if hangs() {
        wait_for_ever();
    }
    if let Some(result) = Plan::read().result("vkQueueWaitIdle", SUBMISSIONS.load(SeqCst)) {
        return result;
    }
    // SAFETY: the caller's arguments, passed on.
    unsafe { next().call::<vk::PFN_vkQueueWaitIdle>(c"vkQueueWaitIdle")(queue) }
}

unsafe extern "system" fn device_wait_idle(device: vk::Device) -> vk::Result {
    if hangs() {
        wait_for_ever();
    }
    // SAFETY: the caller's arguments, passed on.
    unsafe { next().call::<vk::PFN_vkDeviceWaitIdle>(c"vkDeviceWaitIdle")(device) }
}

unsafe extern "system" fn wait_for_fences(
    device: vk::Device,
    count: u32,
    fences: *const vk::Fence,
    all: vk::Bool32,
    timeout: u64,
) -> vk::Result {
    if hangs() {
        // The time is over at once: no test waits for it.
        return if timeout == u64::MAX { wait_for_ever() } else { vk::Result::TIMEOUT };
    }
    if let Some(result) = Plan::read().result("vkWait", SUBMISSIONS.load(SeqCst)) {
        return result;
    }
    // SAFETY: the caller's arguments, passed on.
    unsafe { next().call::<vk::PFN_vkWaitForFences>(c"vkWaitForFences")(device, count, fences, all, timeout) }
}

unsafe extern "system" fn wait_semaphores(
    device: vk::Device,
    info: *const vk::SemaphoreWaitInfo<'_>,
    timeout: u64,
) -> vk::Result {
    if hangs() {
        return if timeout == u64::MAX { wait_for_ever() } else { vk::Result::TIMEOUT };
    }
    if let Some(result) = Plan::read().result("vkWait", SUBMISSIONS.load(SeqCst)) {
        return result;
    }
    // SAFETY: the caller's arguments, passed on.
    unsafe { next().call::<vk::PFN_vkWaitSemaphores>(c"vkWaitSemaphores")(device, info, timeout) }
}

unsafe extern "system" fn counter_value(device: vk::Device, semaphore: vk::Semaphore, value: *mut u64) -> vk::Result {
    // SAFETY: the caller's arguments, passed on; the answer is valid afterwards.
    unsafe {
        let get = next().call::<vk::PFN_vkGetSemaphoreCounterValue>(c"vkGetSemaphoreCounterValue");
        let result = get(device, semaphore, value);
        if hangs() {
            *value = 0;
        }
        result
    }
}
