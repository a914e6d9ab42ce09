//! Dispatches that are bound once and recorded with every step, and what their bindings are made of.

use super::kernels::{Bound, Pipeline};
use crate::backend::{Input, Output, SlotStep};

/// Dynamic offsets and the entries of the parameter buffer are multiples of this.
pub(super) const ALIGNMENT: u64 = 256;

/// Mirrors `Step` of the shaders.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct GpuStep {
    pub input: u32,
    pub position: u32,
    pub read_scale: f32,
    pub write_scale: f32,
    pub sample: u32,
    pub logits: u32,
    pub rescale: f32,
    pub node: u32,
}

pub(super) const INPUT_IDLE: u32 = u32::MAX;
pub(super) const INPUT_PREVIOUS: u32 = u32::MAX - 1;

impl From<&SlotStep> for GpuStep {
    fn from(step: &SlotStep) -> Self {
        Self {
            input: match step.input {
                Input::Idle => INPUT_IDLE,
                Input::Token(token) => token,
                Input::Previous => INPUT_PREVIOUS,
            },
            position: step.position,
            read_scale: step.read_scale,
            write_scale: step.write_scale,
            sample: (step.output == Output::Token) as u32,
            logits: (step.output >= Output::Logits) as u32,
            rescale: step.rescale.unwrap_or(1.0),
            node: 0,
        }
    }
}

/// Which kernel starts a layer, and whose state it uses.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScheduledLayer {
    /// Start from the token's embedding instead of the layer before.
    pub first: bool,
    /// Index of the layer's state.
    pub state: usize,
}

/// The schedule of a whole model.
pub(super) fn layer_schedule(layers: usize) -> Vec<ScheduledLayer> {
    (0..layers).map(|state| ScheduledLayer { first: state == 0, state }).collect()
}

/// A dispatch that every step repeats: its bindings and its size.
pub(super) struct Dispatch {
    pub group: wgpu::BindGroup,
    pub workgroups: [u32; 3],
}

/// Records dispatches of a kernel, with the offsets of its step.
pub(super) fn record(pass: &mut wgpu::ComputePass, pipeline: &Pipeline, dispatches: &[Dispatch], offsets: &[u32]) {
    pass.set_pipeline(&pipeline.pipeline);
    for dispatch in dispatches {
        let [x, y, z] = dispatch.workgroups;
        pass.set_bind_group(0, &dispatch.group, offsets);
        pass.dispatch_workgroups(x, y, z);
    }
}

/// Kernel parameters, each in an entry of its own of one uniform buffer.
pub(super) struct ParamTable {
    pub bytes: Vec<u8>,
}

impl ParamTable {
    pub fn push<P: bytemuck::Pod>(&mut self, params: P) -> u64 {
        let offset = self.bytes.len() as u64;
        self.bytes.extend_from_slice(bytemuck::bytes_of(&params));
        self.bytes.resize((offset + ALIGNMENT) as usize, 0);
        offset
    }
}

pub(super) fn whole(buffer: &wgpu::Buffer) -> Bound<'_> {
    Bound::Buffer(buffer, 0, None)
}

/// Little-endian floats.
pub(super) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(bytemuck::pod_read_unaligned).collect()
}
