//! Host side of `shaders/chunk_*.wgsl`: sources and bindings of the kernels that read a chunk of tokens.

use super::compiling::FirstRun;
use super::device::Gpu;
use super::kernels::{Binding, CompileOptions, KernelSpec, Pipeline, compile, source};
use super::layout::Layout;
use crate::backend::BackendError;
use Binding::{Read, ReadFloats, Uniform, Weights, Write, WriteFloats};

/// Mirrors `ChunkParams`; one for every segment serves all kernels.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct ChunkParams {
    pub tokens: u32,
    pub tiles: u32,
    pub position: u32,
    pub block_begin: u32,
    pub block_count: u32,
    pub part_begin: u32,
    pub state_begin: u32,
    pub padding: u32,
}

/// Mirrors `ChunkToken`.
#[repr(C)]
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct GpuChunkToken {
    pub token: u32,
    pub read_scale: f32,
    pub write_scale: f32,
    pub pad: u32,
}

macro_rules! sources {
    ($($name:literal)*) => {
        &[$(include_str!(concat!("../../../shaders/", $name, ".wgsl"))),*]
    };
}

const FINISH: &[&str] =
    sources!("chunk" "vectors" "exchange_workgroup" "exchange_subgroup" "norm" "gather" "chunk_finish");

/// The first layer's residual stream: the tokens' embeddings.
pub(super) const EMBED: KernelSpec = KernelSpec {
    name: "prefill/embed",
    entry: "first",
    sources: FINISH,
    bindings: &[Uniform, Read, Read, WriteFloats],
};

/// Every other layer's residual stream: finishes the layer before.
pub(super) const FINISH_LAYER: KernelSpec = KernelSpec {
    name: "prefill/finish",
    entry: "main",
    sources: FINISH,
    bindings: &[Uniform, Read, Read, WriteFloats],
};

/// Residual stream to activations.
pub(super) const ENCODE: KernelSpec = KernelSpec {
    name: "prefill/encode",
    entry: "main",
    sources: sources!("chunk" "vectors" "exchange_workgroup" "exchange_subgroup" "chunk_dense" "chunk_encode"),
    bindings: &[Uniform, ReadFloats, Weights, Write],
};

/// Activations to rotated activations.
pub(super) const ROTATE: KernelSpec = KernelSpec {
    name: "prefill/rotate",
    entry: "main",
    sources: sources!("chunk" "rotary" "chunk_rotate"),
    bindings: &[Uniform, Read, Read, Write],
};

/// What the tokens of a chunk are to each other.
pub(super) const SCORES: KernelSpec = KernelSpec {
    name: "prefill/scores",
    entry: "main",
    sources: sources!("chunk" "chunk_scores"),
    bindings: &[Uniform, Read, Write],
};

/// What the state is to the tokens.
pub(super) const READ: KernelSpec = KernelSpec {
    name: "prefill/read",
    entry: "main",
    sources: sources!("chunk" "vectors" "exchange_workgroup" "exchange_subgroup" "memory" "chunk_read"),
    bindings: &[Uniform, Read, ReadFloats, Write],
};

/// The attention output of both.
pub(super) const ATTEND: KernelSpec = KernelSpec {
    name: "prefill/attend",
    entry: "main",
    sources: sources!("chunk" "vectors" "exchange_workgroup" "exchange_subgroup" "norm" "gather" "chunk_attend"),
    bindings: &[Uniform, Read, ReadFloats, Read, Read, Write],
};

/// The tokens enter the state.
pub(super) const WRITE: KernelSpec = KernelSpec {
    name: "prefill/write",
    entry: "main",
    sources: sources!("chunk" "vectors" "exchange_workgroup" "exchange_subgroup" "memory" "chunk_write"),
    bindings: &[Uniform, Read, ReadFloats, WriteFloats],
};

/// Attention output to gates.
pub(super) const GATE: KernelSpec = KernelSpec {
    name: "prefill/gate",
    entry: "main",
    sources: sources!("chunk" "vectors" "exchange_workgroup" "exchange_subgroup" "chunk_gate"),
    bindings: &[Uniform, Read, Weights, Write],
};

/// Gates to updates.
pub(super) const DECODE: KernelSpec = KernelSpec {
    name: "prefill/decode",
    entry: "main",
    sources: sources!("chunk" "vectors" "chunk_decode"),
    bindings: &[Uniform, Read, Weights, Write],
};

/// Residual stream to logits.
pub(super) const LOGITS: KernelSpec = KernelSpec {
    name: "prefill/logits",
    entry: "main",
    sources: sources!("chunk" "vectors" "exchange_workgroup" "exchange_subgroup" "chunk_dense" "chunk_logits"),
    bindings: &[Uniform, ReadFloats, Weights, Write],
};

/// Every kernel that reads a chunk, in the order in which a layer runs them.
pub(super) const CHUNK_KERNELS: [&KernelSpec; 11] =
    [&EMBED, &FINISH_LAYER, &ENCODE, &ROTATE, &SCORES, &READ, &ATTEND, &WRITE, &GATE, &DECODE, &LOGITS];

/// All of them, compiled for a layout.
pub(super) struct ChunkPipelines {
    pub embed: Pipeline,
    pub finish: Pipeline,
    pub encode: Pipeline,
    pub rotate: Pipeline,
    pub scores: Pipeline,
    pub read: Pipeline,
    pub attend: Pipeline,
    pub write: Pipeline,
    pub gate: Pipeline,
    pub decode: Pipeline,
    pub logits: Pipeline,
    pub first_run: FirstRun,
}

impl ChunkPipelines {
    pub fn compile(gpu: &Gpu, layout: &Layout, options: &CompileOptions) -> Result<Self, BackendError> {
        let build = |spec| compile(gpu, spec, &source(spec, layout, 1, options), options.checked, layout.images);
        Ok(Self {
            embed: build(&EMBED)?,
            finish: build(&FINISH_LAYER)?,
            encode: build(&ENCODE)?,
            rotate: build(&ROTATE)?,
            scores: build(&SCORES)?,
            read: build(&READ)?,
            attend: build(&ATTEND)?,
            write: build(&WRITE)?,
            gate: build(&GATE)?,
            decode: build(&DECODE)?,
            logits: build(&LOGITS)?,
            first_run: FirstRun::default(),
        })
    }
}
