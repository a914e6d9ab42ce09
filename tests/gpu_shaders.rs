//! The shaders as naga reads them: they are valid, their structures are the host's, and they stay
//! within the limits that every adapter has.

#[path = "common/gpu.rs"]
mod gpu;

use bdh_gpu::backend::WeightType;
use bdh_gpu::backend::gpu::{GpuBackend, GpuOptions};
use bdh_gpu::model::{Model, SyntheticSpec};
use bdh_gpu::sampling::{Control, SamplerParams};
use naga::valid::{
    Capabilities, GlobalUse, ModuleInfo, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator,
};
use naga::{AddressSpace, Module, TypeInner};
use std::mem::offset_of;

/// Storage buffers that a stage may bind on any adapter.
const STORAGE_BUFFERS: usize = 8;
/// Bytes of workgroup memory on any adapter.
const WORKGROUP_MEMORY: u32 = 16 << 10;

/// Name and offset of every member of a structure, and its size.
#[derive(Debug, PartialEq)]
struct Shape {
    members: Vec<(String, u32)>,
    size: u32,
}

impl Shape {
    /// A host structure of 32-bit numbers. Padding has no name: it is called otherwise in a shader.
    fn of(members: &[(&str, usize)], size: usize) -> Self {
        let members = members.iter().map(|&(name, offset)| (name.to_string(), offset as u32)).collect();
        Self { members, size: size as u32 }
    }

    /// A host structure that is private to the backend, as its source declares it: all of its fields
    /// are 32 bits wide (or arrays of such, at the end), so that an offset is four times an index.
    fn declared(source: &str, name: &str) -> Self {
        let start = source.find(&format!("struct {name} {{")).unwrap_or_else(|| panic!("no struct {name}"));
        let attributes = &source[source[..start].rfind("#[repr").expect("an attribute")..start];
        assert!(attributes.starts_with("#[repr(C)]"), "{name} needs a layout of its own");
        let body = source[start..].split_once('{').unwrap().1.split_once('}').unwrap().0;
        let (mut members, mut offset) = (Vec::new(), 0);
        for field in body.split(",\n").map(str::trim).filter(|field| !field.is_empty()) {
            let (field, kind) = field.lines().last().unwrap().split_once(':').unwrap();
            let field = field.trim().rsplit(' ').next().unwrap();
            let words = match kind.trim() {
                "u32" | "f32" => 1,
                "[u32; 2]" => 2,
                "[u32; 3]" => 3,
                other => panic!("{name}.{field} has type {other}"),
            };
            members.push((field.to_string(), offset));
            offset += 4 * words;
        }
        Self { members, size: offset }.without_padding()
    }

    fn without_padding(mut self) -> Self {
        self.members.retain(|(name, _)| !name.starts_with("pad"));
        self
    }
}

struct Shader {
    kernel: &'static str,
    module: Module,
    info: ModuleInfo,
}

fn model(width: usize, neurons: usize, vocab: usize) -> Model {
    Model::synthetic(&SyntheticSpec {
        n_layer: 1,
        n_embd: width,
        n_head: 2,
        neurons_per_head: neurons,
        vocab_size: vocab,
        density: 0.5,
        seed: 1,
    })
}

fn shaders(backend: &GpuBackend) -> Vec<Shader> {
    // What unpack2x16float asks for; WGSL has it without a feature. And what a software adapter with subgroups gets.
    let capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32 | Capabilities::SUBGROUP;
    let parse = |(kernel, source): (&'static str, String)| {
        let module = naga::front::wgsl::parse_str(&source)
            .unwrap_or_else(|error| panic!("{kernel}: {}", error.emit_to_string(&source)));
        let info = Validator::new(ValidationFlags::all(), capabilities)
            .subgroup_stages(ShaderStages::COMPUTE)
            .subgroup_operations(SubgroupOperationSet::all())
            .validate(&module)
            .unwrap_or_else(|error| panic!("{kernel}: {}", error.emit_to_string(&source)));
        Shader { kernel, module, info }
    };
    backend.shader_sources().into_iter().map(parse).collect()
}

/// Shaders for a few models of both weight types.
fn all_shaders() -> Vec<Shader> {
    let models = [(24, 40, 97), (256, 1024, 256), (10, 6, 5000)];
    let types = [WeightType::F32, WeightType::F16];
    let pairs = models.iter().flat_map(|&(d, n, v)| types.map(|weights| (model(d, n, v), weights)));
    pairs.flat_map(|(model, weights)| shaders(&gpu::backend(&model, weights, GpuOptions::default()))).collect()
}

/// The structure of a name in a shader.
fn shape(shader: &Shader, name: &str) -> Option<Shape> {
    let (_, ty) = shader.module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some(name))?;
    let TypeInner::Struct { members, span } = &ty.inner else { panic!("{name} is no structure") };
    let member = |member: &naga::StructMember| (member.name.clone().unwrap_or_default(), member.offset);
    Some(Shape { members: members.iter().map(member).collect(), size: *span })
}

macro_rules! shape_of {
    ($type:ty: $($field:ident)*) => {
        Shape::of(&[$((stringify!($field), offset_of!($type, $field))),*], size_of::<$type>())
    };
}

#[test]
fn structures_are_laid_out_as_on_the_host() {
    let params = shape_of!(SamplerParams: flags repetition repetition_inverse frequency presence scale scale_shift
        top_k top_p min_p min_new_tokens sequence seed_lo seed_hi zero padding)
    .without_padding();
    let control = shape_of!(Control: token generated status top_k_key top_p_key mass_lo mass_hi draw_lo draw_hi);
    let step = Shape::declared(include_str!("../src/backend/gpu/dispatch.rs"), "GpuStep");
    let encode = Shape::declared(include_str!("../src/backend/gpu/encode.rs"), "EncodeParams");
    let project = Shape::declared(include_str!("../src/backend/gpu/project.rs"), "ProjectParams");
    let logits = Shape::declared(include_str!("../src/backend/gpu/logits.rs"), "LogitsParams");
    let rescale = Shape::declared(include_str!("../src/backend/gpu/rescale.rs"), "RescaleParams");
    let settle = Shape::declared(include_str!("../src/backend/gpu/settle.rs"), "SettleParams");
    let chunk_kernels = include_str!("../src/backend/gpu/chunk_kernels.rs");
    let chunk = Shape::declared(chunk_kernels, "ChunkParams");
    let chunk_token = Shape::declared(chunk_kernels, "GpuChunkToken");
    let beam_attend = Shape::declared(include_str!("../src/backend/gpu/beam_attend.rs"), "BeamAttendParams");
    let beam_fold = Shape::declared(include_str!("../src/backend/gpu/beam_fold.rs"), "BeamFoldParams");
    let beam_counts = Shape::declared(include_str!("../src/backend/gpu/beam_counts.rs"), "BeamCountsParams");
    let beam_select = Shape::declared(include_str!("../src/backend/gpu/beam_select.rs"), "BeamSelectParams");
    let beam = Shape::declared(include_str!("../src/backend/gpu/beam_select.rs"), "BeamRecord");
    assert_eq!((params.size, control.size, step.size), (64, 48, 32));

    let mut compared = 0;
    for shader in all_shaders() {
        let mut check = |name: &str, host: &Shape, stored_in_array: bool| {
            let Some(device) = shape(&shader, name).map(Shape::without_padding) else { return };
            let kernel = shader.kernel;
            compared += 1;
            // The sampler leaves out what it does not use of a step.
            let expected = host.members.iter().filter(|(name, _)| device.members.iter().any(|(d, _)| d == name));
            assert!(device.members.iter().eq(expected), "{kernel}: {name} {device:?} is not {host:?}");
            assert!(
                kernel == "sample" && name == "Step" || device.members.len() == host.members.len(),
                "{kernel}: {name}"
            );
            if stored_in_array {
                assert_eq!(device.size, host.size, "{kernel}: {name}");
            } else {
                // A uniform of one structure: the host may add padding, but must not fall short.
                assert!(device.size <= host.size, "{kernel}: {name} {} bytes of {}", device.size, host.size);
            }
        };
        check("SamplerParams", &params, true);
        check("Control", &control, true);
        check("Step", &step, true);
        check("EncodeParams", &encode, false);
        check("ProjectParams", &project, false);
        check("LogitsParams", &logits, false);
        check("RescaleParams", &rescale, false);
        check("SettleParams", &settle, false);
        check("BeamAttendParams", &beam_attend, false);
        check("BeamFoldParams", &beam_fold, false);
        check("BeamCountsParams", &beam_counts, false);
        check("BeamSelectParams", &beam_select, false);
        check("Beam", &beam, true);
        check("ChunkParams", &chunk, false);
        check("ChunkToken", &chunk_token, true);
    }
    // Per model: six kernels with a step, a control record and parameters of their own, and the sampler
    // with three. Of the beam search, three kernels of the first kind, the fold with its parameters, the
    // counts with parameters and beams, and two that select, with options besides.
    // Of a chunk, eleven with parameters, three of which read its tokens.
    assert_eq!(compared, 6 * (6 * 3 + 3 + 3 * 3 + 1 + 2 + 2 * 3 + 11 + 3));
}

#[test]
fn kernels_stay_within_the_limits_of_every_adapter() {
    for Shader { kernel, module, info } in all_shaders() {
        let layouts = |ty| info_size(&module, ty);
        for (index, entry) in module.entry_points.iter().enumerate() {
            let used = info.get_entry_point(index);
            let globals = || module.global_variables.iter().filter(|(handle, _)| used[*handle] != GlobalUse::empty());
            let storage = globals().filter(|(_, global)| matches!(global.space, AddressSpace::Storage { .. })).count();
            assert!(storage <= STORAGE_BUFFERS, "{kernel}/{}: {storage} storage buffers", entry.name);
            let workgroup = globals().filter(|(_, global)| global.space == AddressSpace::WorkGroup);
            let memory: u32 = workgroup.map(|(_, global)| layouts(global.ty).next_multiple_of(16)).sum();
            assert!(memory <= WORKGROUP_MEMORY, "{kernel}/{}: {memory} bytes of workgroup memory", entry.name);
            let [x, y, z] = entry.workgroup_size;
            assert!((8..=256).contains(&x) && x.is_power_of_two() && (y, z) == (1, 1), "{kernel}: {x} {y} {z}");
            let mut bound: Vec<_> = globals().filter_map(|(_, global)| global.binding).collect();
            bound.sort_by_key(|binding| binding.binding);
            assert!(bound.windows(2).all(|pair| pair[0] != pair[1]), "{kernel}/{}: {bound:?}", entry.name);
            assert!(bound.iter().all(|binding| binding.group == 0), "{kernel}/{}", entry.name);
        }
    }
}

fn info_size(module: &Module, ty: naga::Handle<naga::Type>) -> u32 {
    module.types[ty].inner.size(module.to_ctx())
}
