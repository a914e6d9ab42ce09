//! The kernels: their sources, their bindings, and the pipelines made of them.

use super::chunk_kernels;
use super::compiling::FirstRun;
use super::device::Gpu;
use super::layout::Layout;
use super::store::{TEXELS, Use};
use super::{beam_attend, beam_counts, beam_encode, beam_fold, beam_select};
use super::{encode, logits, project, rescale, sample, settle};
use crate::backend::memory::WINDOW;
use crate::backend::{BackendError, WeightType};
use std::fmt::Write as _;

/// How a kernel uses a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    /// A uniform buffer.
    Uniform,
    /// A storage buffer that is read.
    Read,
    /// A [`Store`](super::store::Store) of weights.
    Weights,
    /// A store of floats that is read.
    ReadFloats,
    /// A store of floats that is read and written.
    WriteFloats,
    /// A storage buffer that is read and written.
    Write,
    /// As `Read`, at an offset given with every dispatch.
    ReadStep,
    /// As `Write`, at an offset given with every dispatch.
    WriteStep,
}

/// How a source begins that belongs to kernels with workgroups of any size.
const FOR_WORKGROUPS: &str = "// For workgroups of any size.\n";
/// How a source begins that belongs to kernels whose workgroups are one subgroup.
const FOR_SUBGROUPS: &str = "// For workgroups of one subgroup.\n";

/// One kernel: what to compile and what it binds, in order.
pub(super) struct KernelSpec {
    pub name: &'static str,
    pub entry: &'static str,
    pub sources: &'static [&'static str],
    pub bindings: &'static [Binding],
}

/// Every kernel, in the order in which a step runs them; `settle` runs between steps.
pub(super) const KERNELS: [&KernelSpec; 7] = [
    &settle::KERNEL,
    &rescale::KERNEL,
    &encode::FIRST,
    &encode::KERNEL,
    &project::KERNEL,
    &logits::KERNEL,
    &sample::KERNEL,
];

/// What a step of a beam search runs besides `project` and `logits`, in its order.
pub(super) const BEAM_KERNELS: [&KernelSpec; 7] = [
    &beam_fold::KERNEL,
    &beam_counts::KERNEL,
    &beam_encode::FIRST,
    &beam_encode::KERNEL,
    &beam_attend::KERNEL,
    &beam_select::KERNEL,
    &beam_select::MERGE,
];

/// A compiled kernel.
pub(super) struct Pipeline {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

/// All kernels, compiled for a layout and a number of slots per tile.
pub(super) struct Pipelines {
    pub settle: Pipeline,
    pub rescale: Pipeline,
    pub first: Pipeline,
    pub encode: Pipeline,
    pub project: Pipeline,
    pub logits: Pipeline,
    pub sample: Pipeline,
    pub first_run: FirstRun,
}

impl Pipeline {
    /// Binds buffers in the order of the kernel's bindings.
    pub fn bind(&self, gpu: &Gpu, bound: &[Bound]) -> wgpu::BindGroup {
        let entries: Vec<wgpu::BindGroupEntry> = bound
            .iter()
            .enumerate()
            .map(|(binding, &bound)| wgpu::BindGroupEntry {
                binding: binding as u32,
                resource: match bound {
                    Bound::Buffer(buffer, offset, size) => wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer,
                        offset,
                        size: size.and_then(std::num::NonZero::new),
                    }),
                    Bound::Image(view) => wgpu::BindingResource::TextureView(view),
                },
            })
            .collect();
        gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &self.layout,
            entries: &entries,
        })
    }
}

/// What a bind group binds.
#[derive(Clone, Copy)]
pub(super) enum Bound<'a> {
    /// A buffer, an offset, and a size where it is not the rest of the buffer.
    Buffer(&'a wgpu::Buffer, u64, Option<u64>),
    /// An image.
    Image(&'a wgpu::TextureView),
}

/// All kernels of a beam search, compiled for a layout and a number of slots per tile.
pub(super) struct BeamPipelines {
    pub fold: Pipeline,
    pub counts: Pipeline,
    pub first: Pipeline,
    pub encode: Pipeline,
    pub attend: Pipeline,
    pub project: Pipeline,
    pub logits: Pipeline,
    pub select: Pipeline,
    pub merge: Pipeline,
    pub first_run: FirstRun,
}

/// How to compile.
#[derive(Clone, Debug, Default)]
pub(super) struct CompileOptions {
    /// Keep the bounds checks that wgpu adds to shaders.
    pub checked: bool,
    /// A kernel to break on purpose.
    pub corrupt: Option<String>,
    /// Both neurons of a rotary pair share a frequency.
    pub paired: bool,
    /// What becomes of a kernel's text.
    pub rewrite: Option<Rewrite>,
}

/// Makes another text of a kernel, given its name and its text.
pub type Rewrite = fn(&str, String) -> String;

impl Pipelines {
    pub fn compile(
        gpu: &Gpu,
        layout: &Layout,
        slot_tile: usize,
        options: &CompileOptions,
    ) -> Result<Self, BackendError> {
        let build =
            |spec| compile(gpu, spec, &source(spec, layout, slot_tile, options), options.checked, layout.images);
        Ok(Self {
            settle: build(&settle::KERNEL)?,
            rescale: build(&rescale::KERNEL)?,
            first: build(&encode::FIRST)?,
            encode: build(&encode::KERNEL)?,
            project: build(&project::KERNEL)?,
            logits: build(&logits::KERNEL)?,
            sample: build(&sample::KERNEL)?,
            first_run: FirstRun::default(),
        })
    }
}

impl BeamPipelines {
    pub fn compile(
        gpu: &Gpu,
        layout: &Layout,
        slot_tile: usize,
        options: &CompileOptions,
    ) -> Result<Self, BackendError> {
        let build = |spec, slot_tile| {
            compile(gpu, spec, &source(spec, layout, slot_tile, options), options.checked, layout.images)
        };
        Ok(Self {
            fold: build(&beam_fold::KERNEL, 1)?,
            counts: build(&beam_counts::KERNEL, 1)?,
            first: build(&beam_encode::FIRST, slot_tile)?,
            encode: build(&beam_encode::KERNEL, slot_tile)?,
            attend: build(&beam_attend::KERNEL, 1)?,
            project: build(&project::KERNEL, slot_tile)?,
            logits: build(&logits::KERNEL, slot_tile)?,
            select: build(&beam_select::KERNEL, 1)?,
            merge: build(&beam_select::MERGE, 1)?,
            first_run: FirstRun::default(),
        })
    }
}

/// A kernel's whole WGSL text: the header of constants and its sources.
pub(super) fn source(spec: &KernelSpec, layout: &Layout, slot_tile: usize, options: &CompileOptions) -> String {
    let g = &layout.geometry;
    let heads = [logits::KERNEL.name, chunk_kernels::LOGITS.name];
    let block = if heads.contains(&spec.name) { layout.vocab_block } else { g.block };
    let workgroup = match spec.name {
        name if name == sample::KERNEL.name => layout.sample_workgroup(),
        name if name == beam_select::KERNEL.name || name == beam_select::MERGE.name => layout.select_workgroup(),
        name if name.starts_with("beam/") => layout.search_workgroup(),
        _ => layout.workgroup,
    };
    let mut text = String::new();
    let constants = [
        ("W", workgroup as usize),
        ("D", g.width),
        ("ROW4", g.row / 4),
        ("BLOCK", block),
        ("BLOCKS_PER_HEAD", g.blocks_per_head),
        ("BLOCKS", g.blocks()),
        ("WINDOW", WINDOW),
        ("SLOT_TILE", slot_tile),
        ("ROW_LANES", layout.row_lanes as usize),
        ("TEAM_ROWS", layout.team_rows),
        ("VOCAB_BLOCKS", layout.padded_vocab() / layout.vocab_block),
        ("V", g.vocab),
        ("LOGITS_STRIDE", layout.padded_vocab()),
        ("CHUNK", layout.chunk.tokens),
        ("TILE", layout.chunk.tile),
        ("COLUMNS", layout.chunk.columns),
        ("PART_BLOCKS", layout.chunk.part_blocks),
        ("PARTS", layout.chunk.all_parts()),
    ];
    for (name, value) in constants {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "const {name}: u32 = {value}u;");
    }
    let flags = [("F16", layout.weight_type == WeightType::F16), ("PAIRED", options.paired), ("FORCE_LARGE", false)];
    for (name, value) in flags {
        let _ = writeln!(text, "const {name}: bool = {value};");
    }
    let other = if layout.subgroup == Some(workgroup) { FOR_WORKGROUPS } else { FOR_SUBGROUPS };
    for source in spec.sources.iter().filter(|source| !source.starts_with(other)) {
        text.push_str(source);
    }
    if layout.images {
        text = with_images(text);
    }
    if let Some(rewrite) = options.rewrite {
        text = rewrite(spec.name, text);
    }
    if options.corrupt.as_deref() == Some(spec.name) {
        text = corrupt(spec, &text);
    }
    text
}

/// A kernel whose weights and states lie in images. The bindings that are stores, and the functions that read and
/// write them, are declared one to a line: `NAME`, `return NAME[at];`, `NAME[at] = value;`.
fn with_images(mut text: String) -> String {
    let weights = ["dense_weights", "value_rows", "decoder_rows"].map(|name| (name, "u32"));
    let floats = ["state", "partials", "neurons", "updates", "chunk_residual"].map(|name| (name, "f32"));
    for (name, element) in weights.into_iter().chain(floats) {
        let format = if element == "u32" { "rgba32uint" } else { "rgba32float" };
        for access in ["read", "read_write"] {
            text = text.replace(
                &format!("var<storage, {access}> {name}: array<vec4<{element}>>;"),
                &format!("var {name}: texture_storage_2d<{format}, {access}>;"),
            );
        }
        let place = format!("vec2(at % {TEXELS}u, at / {TEXELS}u)");
        text = text
            .replace(&format!("return {name}[at];"), &format!("return textureLoad({name}, {place});"))
            .replace(&format!("    {name}[at] = value;"), &format!("    textureStore({name}, {place}, value);"));
    }
    text.replace("storageBarrier();", "storageBarrier();\n    textureBarrier();")
}

/// Breaks a kernel in one place, small enough to look plausible: what `verify` must notice.
fn corrupt(spec: &KernelSpec, text: &str) -> String {
    let (right, wrong) = match spec.name {
        "settle" => ("WINDOW) % RECENT_ROWS;", "WINDOW + 1u) % RECENT_ROWS;"),
        "rescale" => ("state_at(at) * factor", "state_at(at) * 1.01 * factor"),
        "embed" => (
            "load_columns(i, at)));\n}",
            "load_columns(i, at)));\n    for (var c = i; c < ROW4; c += W) {\n        rows[at + c] *= 1.01;\n    }\n}",
        ),
        "encode" => ("four.zw, pair % 2u == 1u", "four.zw, pair % 4u == 1u"),
        "project" => ("relu(vec4(sum)).x", "vec4(sum).x"),
        "logits" => ("products[s * (BLOCK / 4u) + p];", "products[s * (BLOCK / 4u) + p].yxzw;"),
        "beam/embed" => ("steps[slot].node * NODE", "(steps[slot].node ^ 1u) * NODE"),
        "beam/encode" => ("rotate(u.zw, neuron + 2u, position)", "rotate(u.zw, neuron, position)"),
        "beam/attend" => ("* bitcast<f32>(paths[first + k].y)", "* 1.01 * bitcast<f32>(paths[first + k].y)"),
        "beam/fold" => ("][n % 4u], x)", "][(n + 1u) % 4u], x)"),
        "beam/counts" => ("beams[beam].parent * V", "beam * V"),
        "beam/select" => ("a.y < b.y", "a.y > b.y"),
        "beam/merge" => ("candidates[best.y].y, 0u)", "candidates[best.y].y ^ 1u, 0u)"),
        "prefill/embed" => ("scaled = x * tokens[t].write_scale", "scaled = x"),
        "prefill/finish" => {
            ("columns[k] += residual_at(t * ROW4 + c);", "columns[k] += 0.99 * residual_at(t * ROW4 + c);")
        }
        "prefill/encode" => ("column] = relu(sum)", "column] = relu(sum.yxzw)"),
        "prefill/rotate" => ("params.position + group.y", "params.position + group.y + 1u"),
        "prefill/scores" => ("sums[t][s] += dot(q, keys[s])", "sums[t][s] += dot(q.yxzw, keys[s])"),
        "prefill/read" => ("sums[t][c] = add_scaled(sum, q.w, r3[c])", "sums[t][c] = add_scaled(sum, q.w, r2[c])"),
        "prefill/attend" => ("s < t; s++", "s <= t; s++"),
        "prefill/write" => ("add_scaled(row, q1[k], x[1][c])", "add_scaled(row, -q1[k], x[1][c])"),
        "prefill/gate" => ("u * relu(vec4(sums[t][n])).x", "u * vec4(sums[t][n]).x"),
        "prefill/decode" => ("bits &= bits - 1u;", "bits &= (bits - 1u) & 0x7fffffffu;"),
        "prefill/logits" => ("column] = sum;", "column] = sum.yxzw;"),
        _ => ("control[slot].token =", "control[slot].token = 1u ^"),
    };
    assert!(text.contains(right), "kernel {} has nothing to corrupt", spec.name);
    text.replace(right, wrong)
}

#[allow(unsafe_code, reason = "shaders without bounds checks at run time")]
pub(super) fn compile(
    gpu: &Gpu,
    spec: &KernelSpec,
    source: &str,
    checked: bool,
    images: bool,
) -> Result<Pipeline, BackendError> {
    let device = &gpu.device;
    let descriptor =
        wgpu::ShaderModuleDescriptor { label: Some(spec.name), source: wgpu::ShaderSource::Wgsl(source.into()) };
    let module = if checked {
        device.create_shader_module(descriptor)
    } else {
        // SAFETY: the kernels index only within the bounds that `layout` computes and their loops end; the
        // tests run all of them in checked mode too and compare the results.
        unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
    };
    let bindings = spec.bindings.iter().enumerate();
    let entries: Vec<wgpu::BindGroupLayoutEntry> =
        bindings.map(|(index, &binding)| entry(index as u32, binding, images)).collect();
    let layout =
        device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(spec.name), entries: &entries });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(spec.name),
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(spec.name),
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some(spec.entry),
        compilation_options: wgpu::PipelineCompilationOptions {
            // Every slot of workgroup memory is written before it is read.
            zero_initialize_workgroup_memory: false,
            ..Default::default()
        },
        cache: None,
    });
    gpu.check_allocation("a compiled kernel", 0)?;
    Ok(Pipeline { pipeline, layout })
}

fn entry(binding: u32, kind: Binding, images: bool) -> wgpu::BindGroupLayoutEntry {
    let buffer = |ty| wgpu::BindingType::Buffer {
        ty,
        has_dynamic_offset: matches!(kind, Binding::ReadStep | Binding::WriteStep),
        min_binding_size: None,
    };
    let storage = |read_only| buffer(wgpu::BufferBindingType::Storage { read_only });
    let store = |purpose: Use, access| match images {
        true => wgpu::BindingType::StorageTexture {
            access,
            format: purpose.format(),
            view_dimension: wgpu::TextureViewDimension::D2,
        },
        false => storage(access == wgpu::StorageTextureAccess::ReadOnly),
    };
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: match kind {
            Binding::Uniform => buffer(wgpu::BufferBindingType::Uniform),
            Binding::Read | Binding::ReadStep => storage(true),
            Binding::Write | Binding::WriteStep => storage(false),
            Binding::Weights => store(Use::Weights, wgpu::StorageTextureAccess::ReadOnly),
            Binding::ReadFloats => store(Use::Floats, wgpu::StorageTextureAccess::ReadOnly),
            Binding::WriteFloats => store(Use::Floats, wgpu::StorageTextureAccess::ReadWrite),
        },
        count: None,
    }
}
