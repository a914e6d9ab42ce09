//! The engine on a GPU: hand-written WGSL on wgpu. Nothing outside this folder knows wgpu.
//!
//! | file | contents |
//! | --- | --- |
//! | `device` | adapters, the open device, its faults |
//! | `allowance`, `layout` | how a model lies in an adapter's memory |
//! | `store`, `texels`, `binding` | buffers or images that kernels address like a line; what a bind group binds |
//! | `assemble`, `kernel`, `registry` | shader texts; what the host knows about a kernel; the list of all |
//! | `pipeline`, `compiling` | compiled kernels; whether some are being compiled |
//! | `weights`, `shared` | a model on a device |
//! | `steps`, `schedule`, `activations`, `pages` | the step table, the layers, buffers between kernels, states |
//! | `groups`, `recording` | kernels bound to buffers; a step as a list of operations |
//! | `submission`, `profile` | recordings run or timed |
//! | `slots`, `memory`, `sequences` | a set of sequences |
//! | `decode`, `prefill`, `beam` | a folder for each phase: a file per kernel, the step, its run, single stages |
//! | `staging` | inputs of single stages |
//! | `backend` | a model opened on an adapter |

mod activations;
mod allowance;
mod assemble;
mod backend;
mod beam;
mod binding;
mod compiling;
mod decode;
mod device;
mod groups;
mod kernel;
mod layout;
mod memory;
mod pages;
mod pipeline;
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
mod weights;

#[cfg(test)]
mod shader_tests;

pub use backend::{GpuBackend, GpuOptions};
pub use compiling::compiling;
pub use device::{AdapterChoice, AdapterSummary, list_adapters};
pub use kernel::{Phase, Rewrite};
pub use registry::kernel_names;
