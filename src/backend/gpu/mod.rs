//! The engine on a GPU: hand-written WGSL on wgpu. Nothing outside this folder knows wgpu.
//!
//! | file | contents |
//! | --- | --- |
//! | `device`, `faults` | adapters, the open device, its faults |
//! | `platform`, `waiting` | what differs in a browser: the API, and waiting for a device |
//! | `allowance`, `layout` | layout of a model in an adapter's memory |
//! | `store`, `texels`, `binding` | linearly addressed buffers or images; what bind groups bind |
//! | `assemble`, `kernel`, `registry` | shader texts; a kernel's description; all kernels |
//! | `pipeline`, `compiling` | compiled kernels; whether some are being compiled |
//! | `weights`, `shared` | a model on a device |
//! | `steps`, `schedule` | the step table, the layers |
//! | `activations`, `pages` | buffers between kernels, states |
//! | `groups`, `recording` | kernels bound to buffers; a step as a list of operations |
//! | `submission`, `profile`, `watched` | recordings run, timed, or shown layer by layer |
//! | `cost`, `fragment_costs`, `predict` | bytes and chains of kernels; those of a recorded step |
//! | `slots`, `memory`, `sequences`, `draws` | a set of sequences; their draws, counted |
//! | `decode`, `prefill`, `beam` | one phase each: a file per kernel, the step, its run, stages |
//! | `staging` | inputs of single stages |
//! | `backend` | a model opened on an adapter |

mod activations;
mod allowance;
mod assemble;
mod backend;
mod beam;
mod binding;
mod compiling;
mod cost;
mod decode;
mod device;
mod draws;
mod faults;
mod fragment_costs;
mod groups;
mod kernel;
mod layout;
mod memory;
mod pages;
mod pipeline;
mod platform;
#[cfg(not(target_family = "wasm"))]
mod predict;
mod prefill;
mod profile;
mod recording;
mod registry;
mod schedule;
mod sequences;
mod shared;
mod slots;
mod staging;
mod steps;
mod store;
mod submission;
mod texels;
mod waiting;
mod watched;
mod weights;

#[cfg(test)]
mod shader_tests;

pub use backend::{GpuBackend, GpuOptions};
pub use compiling::compiling;
pub use cost::{Access, Cost};
pub use device::{AdapterChoice, AdapterSummary, list_adapters};
pub use kernel::{Phase, Rewrite};
#[cfg(not(target_family = "wasm"))]
pub use predict::DispatchCost;
pub use registry::kernel_names;
