//! The shaders as naga reads them: they are valid, their structures are the host's, and they stay
//! within the limits that every adapter has.

#[path = "common/gpu.rs"]
mod gpu;

use bdh_gpu::backend::WeightType;
use bdh_gpu::backend::gpu::{GpuBackend, GpuOptions};
use bdh_gpu::model::{Model, SyntheticSpec};
use bdh_gpu::sampling::{SamplerParams, SamplerState};
use naga::back::{hlsl, msl};
use naga::valid::{
    Capabilities, GlobalUse, ModuleInfo, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator,
};
use naga::{AddressSpace, Block, Expression, Function, Module, Statement, TypeInner};
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

fn shaders(backend: &GpuBackend, sequences: usize) -> Vec<Shader> {
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
    backend.shader_sources(sequences).into_iter().map(parse).collect()
}

/// Shaders for a few models of both weight types, as the adapter under test gets them.
fn all_shaders() -> Vec<Shader> {
    shaders_with(&GpuOptions::default(), 1)
}

/// As graphics cards get them and as the adapter under test does, for one sequence and for several.
fn shaders_in_all_layouts() -> impl Iterator<Item = Shader> {
    [(true, 1), (true, 8), (false, 1), (false, 8)].into_iter().flat_map(|(hardware_layout, sequences)| {
        shaders_with(&GpuOptions { hardware_layout, ..GpuOptions::default() }, sequences)
    })
}

fn shaders_with(options: &GpuOptions, sequences: usize) -> Vec<Shader> {
    let models = [(24, 40, 97), (256, 1024, 256), (10, 6, 5000)];
    let types = [WeightType::F32, WeightType::F16];
    let pairs = models.iter().flat_map(|&(d, n, v)| types.map(|weights| (model(d, n, v), weights)));
    pairs.flat_map(|(model, weights)| shaders(&gpu::backend(&model, weights, options.clone()), sequences)).collect()
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
    let control = shape_of!(SamplerState: token generated status top_k_key top_p_key mass_lo mass_hi draw_lo draw_hi);
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

/// Every statement of a block and of the blocks within.
fn statements<'a>(block: &'a Block, each: &mut impl FnMut(&'a Statement)) {
    for statement in block {
        each(statement);
        match statement {
            Statement::Block(inner) => statements(inner, each),
            Statement::If { accept, reject, .. } => {
                [accept, reject].into_iter().for_each(|inner| statements(inner, each))
            }
            Statement::Loop { body, continuing, .. } => {
                [body, continuing].into_iter().for_each(|inner| statements(inner, each));
            }
            Statement::Switch { cases, .. } => cases.iter().for_each(|case| statements(&case.body, each)),
            _ => {}
        }
    }
}

/// Whoever writes a component of a vector may write all of it (WGSL, "Vector access expression"), so that invocations that write two
/// components of one vector lose what the other has written; and FXC, the older compiler of Direct3D 12, rejects a component with an
/// index from run time as the target of an assignment in a loop.
#[test]
fn no_kernel_writes_a_part_of_a_vector_that_others_see_or_by_an_index_from_run_time() {
    let mut stores = 0;
    for Shader { kernel, module, info } in shaders_in_all_layouts() {
        let functions = module.functions.iter().map(|(handle, function)| (function, &info[handle]));
        let entries = module.entry_points.iter().enumerate();
        let entries = entries.map(|(index, entry)| (&entry.function, info.get_entry_point(index)));
        for (function, info) in functions.chain(entries) {
            let Function { name, expressions, body, .. } = function;
            statements(body, &mut |statement| {
                let Statement::Store { pointer, .. } = *statement else { return };
                stores += 1;
                let (base, from_run_time) = match expressions[pointer] {
                    Expression::Access { base, .. } => (base, true),
                    Expression::AccessIndex { base, .. } => (base, false),
                    _ => return,
                };
                let (in_vector, space) = match *info[base].ty.inner_with(&module.types) {
                    TypeInner::Pointer { base, space } => {
                        (matches!(module.types[base].inner, TypeInner::Vector { .. }), space)
                    }
                    TypeInner::ValuePointer { size, space, .. } => (size.is_some(), space),
                    _ => return,
                };
                let own = matches!(space, AddressSpace::Function | AddressSpace::Private);
                assert!(!in_vector || own && !from_run_time, "{kernel}: {name:?} writes a part of a vector");
            });
        }
    }
    assert!(stores > 1000, "only {stores} stores were looked at");
}

#[test]
fn kernels_can_be_written_for_metal_and_for_direct3d() {
    for Shader { kernel, module, info } in shaders_in_all_layouts() {
        let metal = msl::Options { lang_version: (2, 4), fake_missing_bindings: true, ..Default::default() };
        let direct3d = hlsl::Options { fake_missing_bindings: true, ..Default::default() };
        for entry in &module.entry_points {
            let entry_point = Some((entry.stage, entry.name.clone()));
            let options = msl::PipelineOptions { entry_point: entry_point.clone(), ..Default::default() };
            let written = msl::write_string(&module, &info, &metal, &options);
            assert!(written.is_ok(), "{kernel}/{}: {}", entry.name, written.unwrap_err());
            let options = hlsl::PipelineOptions { entry_point };
            let mut text = String::new();
            let written = hlsl::Writer::new(&mut text, &direct3d, &options).write(&module, &info, None);
            assert!(written.is_ok(), "{kernel}/{}: {}", entry.name, written.unwrap_err());
            // naga writes a function for every type that is zeroed, called by the type's shape: an alias of an array and the same
            // array without a name would be two of one name.
            let mut defined: Vec<&str> = text.lines().filter(|line| line.starts_with("typedef")).collect();
            defined.sort_unstable();
            let twice = defined.windows(2).find(|two| two[0] == two[1]);
            assert_eq!(twice, None, "{kernel}/{}", entry.name);
        }
    }
}
