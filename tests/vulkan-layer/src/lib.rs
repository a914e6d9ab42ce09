//! Shared by the tests' Vulkan layers: the protocol of the Vulkan loader, and the functions of the
//! next layer or the driver.

use ash::vk;
use std::ffi::{CStr, c_char, c_void};
use std::sync::{PoisonError, RwLock};

/// `VkNegotiateLayerInterface`.
#[repr(C)]
pub struct NegotiateLayerInterface {
    s_type: i32,
    next: *mut c_void,
    version: u32,
    get_instance_proc_addr: Option<vk::PFN_vkGetInstanceProcAddr>,
    get_device_proc_addr: Option<vk::PFN_vkGetDeviceProcAddr>,
    get_physical_device_proc_addr: Option<vk::PFN_vkGetInstanceProcAddr>,
}

/// Tells the loader which interface a layer speaks and where its functions are.
///
/// # Safety
/// `negotiation` is the loader's structure.
pub unsafe fn negotiate(
    negotiation: *mut NegotiateLayerInterface,
    get_instance: vk::PFN_vkGetInstanceProcAddr,
    get_device: vk::PFN_vkGetDeviceProcAddr,
) -> vk::Result {
    // SAFETY: as promised.
    let negotiation = unsafe { &mut *negotiation };
    negotiation.version = negotiation.version.min(2);
    negotiation.get_instance_proc_addr = Some(get_instance);
    negotiation.get_device_proc_addr = Some(get_device);
    negotiation.get_physical_device_proc_addr = None;
    vk::Result::SUCCESS
}

/// The layer's own implementation of the function called `name`, if it is one of the list.
#[macro_export]
macro_rules! functions {
    ($name:expr; $($text:literal => $function:ident as $kind:ty),* $(,)?) => {
        match $name.to_bytes() {
            // SAFETY: a function pointer may be kept as one of another type until it is called.
            $($text => Some(unsafe { std::mem::transmute::<$kind, unsafe extern "system" fn()>($function) }),)*
            _ => None,
        }
    };
}

/// `vkCreateInstance` of a layer that only notes the next functions.
///
/// # Safety
/// To be called by the loader.
pub unsafe extern "system" fn create_instance(
    info: *const vk::InstanceCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    instance: *mut vk::Instance,
) -> vk::Result {
    // SAFETY: the loader hands a layer the chain that leads to the next one.
    unsafe {
        let Some(get) = next_instance_link(info) else { return vk::Result::ERROR_INITIALIZATION_FAILED };
        let create: vk::PFN_vkCreateInstance = function(get(vk::Instance::null(), c"vkCreateInstance".as_ptr()));
        let result = create(info, allocator, instance);
        if result == vk::Result::SUCCESS {
            Next::set_instance(get, *instance);
        }
        result
    }
}

/// `VkLayerInstanceLink`.
#[repr(C)]
struct InstanceLink {
    next: *mut InstanceLink,
    get_instance_proc_addr: vk::PFN_vkGetInstanceProcAddr,
    get_physical_device_proc_addr: Option<vk::PFN_vkGetInstanceProcAddr>,
}

/// `VkLayerDeviceLink`.
#[repr(C)]
struct DeviceLink {
    next: *mut DeviceLink,
    get_instance_proc_addr: vk::PFN_vkGetInstanceProcAddr,
    get_device_proc_addr: vk::PFN_vkGetDeviceProcAddr,
}

/// `VkLayerInstanceCreateInfo` and `VkLayerDeviceCreateInfo`.
#[repr(C)]
struct LayerCreateInfo<Link> {
    s_type: vk::StructureType,
    next: *const c_void,
    /// 0: a link follows.
    function: i32,
    link: *mut Link,
}

/// Takes the link out of the loader's structure in a chain, which then holds the next layer's.
///
/// # Safety
/// `chain` comes from the loader.
unsafe fn take_link<Link>(
    mut chain: *const c_void,
    s_type: vk::StructureType,
    advance: impl Fn(*mut Link) -> *mut Link,
) -> Option<*mut Link> {
    while !chain.is_null() {
        // SAFETY: every structure of a chain begins like this one; the type says which it is.
        unsafe {
            let info = chain as *mut LayerCreateInfo<Link>;
            if (*info).s_type == s_type && (*info).function == 0 {
                let link = (*info).link;
                (*info).link = advance(link);
                return Some(link);
            }
            chain = (*info).next;
        }
    }
    None
}

/// The next `vkGetInstanceProcAddr`.
///
/// # Safety
/// `info` comes from the loader.
unsafe fn next_instance_link(info: *const vk::InstanceCreateInfo<'_>) -> Option<vk::PFN_vkGetInstanceProcAddr> {
    // SAFETY: as promised.
    unsafe {
        let advance = |link: *mut InstanceLink| (*link).next;
        let link = take_link((*info).p_next, vk::StructureType::LOADER_INSTANCE_CREATE_INFO, advance)?;
        Some((*link).get_instance_proc_addr)
    }
}

/// The next `vkGetInstanceProcAddr` and `vkGetDeviceProcAddr`.
///
/// # Safety
/// `info` comes from the loader.
pub unsafe fn next_device_link(
    info: *const vk::DeviceCreateInfo<'_>,
) -> Option<(vk::PFN_vkGetInstanceProcAddr, vk::PFN_vkGetDeviceProcAddr)> {
    // SAFETY: as promised.
    unsafe {
        let advance = |link: *mut DeviceLink| (*link).next;
        let link = take_link((*info).p_next, vk::StructureType::LOADER_DEVICE_CREATE_INFO, advance)?;
        Some(((*link).get_instance_proc_addr, (*link).get_device_proc_addr))
    }
}

/// A function pointer as the type that belongs to the function's name.
///
/// # Safety
/// `F` is the function pointer type of the function.
pub unsafe fn function<F: Copy>(pointer: vk::PFN_vkVoidFunction) -> F {
    assert_eq!(size_of::<F>(), size_of::<vk::PFN_vkVoidFunction>(), "a function pointer");
    // SAFETY: of the same size, and of the right type as promised.
    unsafe { std::mem::transmute_copy(&pointer.expect("the driver has the function")) }
}

/// The functions of the next layer or the driver.
#[derive(Clone, Copy)]
pub struct Next {
    pub instance: vk::Instance,
    device: vk::Device,
    get_instance: Option<vk::PFN_vkGetInstanceProcAddr>,
    get_device: Option<vk::PFN_vkGetDeviceProcAddr>,
    /// Looked up when the instance is created: later, the loader returns the layer's own.
    pub properties: vk::PFN_vkVoidFunction,
    pub properties2: vk::PFN_vkVoidFunction,
}

static NEXT: RwLock<Next> = RwLock::new(Next {
    instance: vk::Instance::null(),
    device: vk::Device::null(),
    get_instance: None,
    get_device: None,
    properties: None,
    properties2: None,
});

/// The next functions of the latest instance and device.
pub fn next() -> Next {
    *NEXT.read().unwrap_or_else(PoisonError::into_inner)
}

impl Next {
    pub fn set_instance(get: vk::PFN_vkGetInstanceProcAddr, instance: vk::Instance) {
        let mut next = NEXT.write().unwrap_or_else(PoisonError::into_inner);
        (next.get_instance, next.instance) = (Some(get), instance);
        // SAFETY: the same chain has just created the instance.
        let function = |name: &CStr| unsafe { get(instance, name.as_ptr()) };
        next.properties = function(c"vkGetPhysicalDeviceProperties");
        next.properties2 =
            function(c"vkGetPhysicalDeviceProperties2").or_else(|| function(c"vkGetPhysicalDeviceProperties2KHR"));
    }

    pub fn set_device(get: vk::PFN_vkGetDeviceProcAddr, device: vk::Device) {
        let mut next = NEXT.write().unwrap_or_else(PoisonError::into_inner);
        (next.get_device, next.device) = (Some(get), device);
    }

    /// # Safety
    /// As `vkGetInstanceProcAddr`.
    pub unsafe fn instance_function(self, instance: vk::Instance, name: *const c_char) -> vk::PFN_vkVoidFunction {
        // SAFETY: as promised.
        unsafe { self.get_instance?(instance, name) }
    }

    /// # Safety
    /// As `vkGetDeviceProcAddr`.
    pub unsafe fn device_function(self, device: vk::Device, name: *const c_char) -> vk::PFN_vkVoidFunction {
        // SAFETY: as promised.
        unsafe { self.get_device?(device, name) }
    }

    /// The same for another device than the latest.
    pub fn on(self, device: vk::Device) -> Self {
        Self { device, ..self }
    }

    /// A function of the device.
    ///
    /// # Safety
    /// `F` is its function pointer type.
    pub unsafe fn call<F: Copy>(self, name: &CStr) -> F {
        // SAFETY: as promised. Some drivers know functions of Vulkan by the extension's name only.
        unsafe {
            let found = self.device_function(self.device, name.as_ptr());
            function(found.or_else(|| {
                let extension = [name.to_bytes(), b"KHR\0"].concat();
                self.device_function(self.device, extension.as_ptr().cast())
            }))
        }
    }
}
