//! The shaders as naga reads them, without a device: every file resolves by itself; every kernel is valid in every layout and
//! variant, binds what the host thinks it binds, stays within the limits that every adapter has, and can be written for
//! Metal and Direct3D.

use super::allowance::Allowance;
use super::assemble::{self, BindingKind, Text, Variant};
use super::kernel::{CompileOptions, Kernel};
use super::layout::Layout;
use super::registry::KERNELS;
use crate::backend::{StateType, WeightType};
use crate::model::Config;
use naga::back::{hlsl, msl};
use naga::valid::{
    Capabilities, GlobalUse, ModuleInfo, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator,
};
use naga::{AddressSpace, Block, Expression, Function, Module, Statement, TypeInner};
use std::path::PathBuf;

/// Name and number of fields of every structure that a shader marks by `#host`.
const HOST_STRUCTS: &[(&str, usize)] = include!(concat!(env!("OUT_DIR"), "/host_structs.rs"));
/// Names a folder that receives every text, for compilers other than naga.
const TEXTS: &str = "BDH_SHADER_TEXTS";
/// Storage buffers that a stage may bind on any adapter.
const STORAGE_BUFFERS: usize = 8;
/// Bytes of workgroup memory on any adapter.
const WORKGROUP_MEMORY: u32 = 16 << 10;

/// A model's shape: D, H, N, V.
const SHAPES: [(usize, usize, usize, usize); 5] =
    [(24, 2, 40, 97), (256, 2, 1024, 256), (10, 2, 6, 5000), (128, 4, 1024, 256), (256, 4, 8192, 256)];

/// A kind of adapter.
struct Adapter {
    name: &'static str,
    software: bool,
    images: bool,
    subgroup: Option<u32>,
    workgroup_memory: u64,
}

const fn software(name: &'static str, images: bool, subgroup: Option<u32>) -> Adapter {
    Adapter { name, software: true, images, subgroup, workgroup_memory: 32 << 10 }
}

const fn hardware(name: &'static str, workgroup_memory: u64) -> Adapter {
    Adapter { name, software: false, images: false, subgroup: None, workgroup_memory }
}

const ADAPTERS: [Adapter; 5] = [
    hardware("hardware", 32 << 10),
    hardware("base", 16 << 10),
    software("software", true, Some(8)),
    software("software-shared", true, None),
    software("software-buffers", false, None),
];

/// A kernel's text in a layout.
struct Assembled {
    kernel: &'static Kernel,
    layout: String,
    text: Text,
}

fn config((n_embd, n_head, neurons_per_head, vocab_size): (usize, usize, usize, usize)) -> Config {
    Config {
        n_layer: 1,
        n_embd,
        n_head,
        neurons_per_head,
        vocab_size,
        trained_context: None,
        bos_token_id: None,
        eos_token_ids: Vec::new(),
        tied_embeddings: false,
    }
}

/// Every kernel for a shape, on an adapter, for so many sequences; and the variants of those that
/// differ where neurons are clamped and watched.
fn assembled(
    adapter: &Adapter,
    shape: (usize, usize, usize, usize),
    (weights, state): (WeightType, StateType),
    sequences: usize,
    paired: bool,
) -> Vec<Assembled> {
    let &Adapter { name, software, images, subgroup, workgroup_memory } = adapter;
    let allowance = Allowance {
        device: name.into(),
        software,
        images,
        subgroup,
        max_binding: 128 << 20,
        workgroup_memory,
        invocations: 256,
        workgroups: 65_535,
    };
    let layout = Layout::new(&config(shape), weights, state, allowance, None).expect("the shape fits");
    let slot_tile = layout.slot_tile(sequences);
    let options = CompileOptions { paired, ..CompileOptions::default() };
    let (d, h, n, v) = shape;
    let pairs = if paired { "paired" } else { "unpaired" };
    let label = format!("{name}-{d}x{h}x{n}x{v}-{weights}-{state}-{sequences}-{pairs}");
    let text = |kernel: &&'static Kernel| Assembled {
        kernel,
        layout: label.clone(),
        text: kernel.text(&layout, slot_tile, &options),
    };
    let plain: Vec<Assembled> = KERNELS.iter().map(text).collect();
    let clamped = Layout { clamped: true, ..layout.clone() };
    let watched = CompileOptions { watched: true, ..options.clone() };
    let variant = |plain: &Assembled| Assembled {
        kernel: plain.kernel,
        layout: format!("{label}-clamped-watched"),
        text: plain.kernel.text(&clamped, slot_tile, &watched),
    };
    let differ = |(variant, plain): &(Assembled, &Assembled)| variant.text.wgsl != plain.text.wgsl;
    let variants: Vec<Assembled> = plain.iter().map(variant).zip(&plain).filter(differ).map(|(own, _)| own).collect();
    plain.into_iter().chain(variants).collect()
}

/// Kernels that differ where neurons are clamped, `embed`, `encode`, `encode_finished`, `beam/embed`,
/// `beam/encode` and `prefill/encode`, or watched, `project` and `project_collected`.
const VARIANTS: usize = 8;

/// Types of weights and states. Every kernel depends on one of them at most.
const TYPES: [(WeightType, StateType); 5] = [
    (WeightType::F32, StateType::F32),
    (WeightType::F16, StateType::F32),
    (WeightType::F32, StateType::I16),
    (WeightType::F16, StateType::I8),
    (WeightType::I8, StateType::F32),
];

/// Every kernel × adapter × shape × types × one or eight sequences.
fn all() -> impl Iterator<Item = Assembled> {
    let cases = ADAPTERS.iter().flat_map(move |adapter| {
        SHAPES.into_iter().flat_map(move |shape| TYPES.into_iter().map(move |types| (adapter, shape, types)))
    });
    cases.flat_map(|(adapter, shape, types)| {
        [1, 8].into_iter().flat_map(move |sequences| assembled(adapter, shape, types, sequences, sequences == 1))
    })
}

/// The kernels that hardware and llvmpipe get: what is expensive to look at is looked at here.
fn telling() -> impl Iterator<Item = Shader> {
    // Adapter, shape, types, sequences.
    let cases = [
        (0, 0, 0, 1),
        (0, 1, 1, 8),
        (0, 2, 0, 8),
        (2, 0, 0, 8),
        (2, 1, 1, 1),
        (2, 2, 0, 1),
        (0, 0, 2, 1),
        (0, 1, 3, 1),
        (2, 0, 2, 1),
        (2, 1, 3, 1),
        (0, 1, 4, 8),
        (2, 1, 4, 1),
    ];
    let both = |(adapter, shape, types, sequences): (usize, usize, usize, usize)| {
        assembled(&ADAPTERS[adapter], SHAPES[shape], TYPES[types], sequences, shape == 1)
    };
    cases.into_iter().flat_map(both).map(|assembled| Shader::new(&assembled))
}

struct Shader {
    name: String,
    module: Module,
    info: ModuleInfo,
}

impl Shader {
    fn new(assembled: &Assembled) -> Self {
        let name = format!("{} in {}", assembled.kernel.name, assembled.layout);
        let (module, info) = validated(&name, &assembled.text.wgsl);
        Self { name, module, info }
    }
}

/// A text as naga understands it.
fn validated(name: &str, wgsl: &str) -> (Module, ModuleInfo) {
    // What unpack2x16float asks for; WGSL has it without a feature. And the subgroups of a software adapter.
    let capabilities = Capabilities::SHADER_FLOAT16_IN_FLOAT32 | Capabilities::SUBGROUP;
    let module =
        naga::front::wgsl::parse_str(wgsl).unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(wgsl)));
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .subgroup_stages(ShaderStages::COMPUTE)
        .subgroup_operations(SubgroupOperationSet::all())
        .validate(&module)
        .unwrap_or_else(|error| panic!("{name}: {}", error.emit_to_string(wgsl)));
    (module, info)
}

#[test]
fn every_file_resolves_by_itself() {
    for path in assemble::paths() {
        let variants = [(false, false, false), (true, true, false), (true, false, false), (true, false, true)];
        for (subgroup, images, edited) in variants {
            // The example's constants are those of floats.
            let codes = false;
            let (watched, clamped) = (edited, edited);
            let variant = Variant { constants: None, subgroup, images, codes, watched, clamped };
            validated(path, &assemble::assemble_alone(path, variant).wgsl);
        }
    }
}

#[test]
fn the_example_has_the_constants_that_the_host_gives() {
    fn declared(text: &str) -> Vec<&str> {
        text.lines().filter_map(|line| line.strip_prefix("const ")?.split_once(" = ")).map(|(name, _)| name).collect()
    }
    let example = assemble::assemble_alone("shared/constants", Variant::default()).wgsl;
    let given = &assembled(&ADAPTERS[0], SHAPES[0], TYPES[0], 1, true)[0].text.wgsl;
    let given = given.split("// ==== ").find(|part| part.starts_with("shared/constants")).expect("constants");
    assert_eq!(declared(&example), declared(given));
}

#[test]
fn every_kernel_is_valid_in_every_layout() {
    let folder = std::env::var_os(TEXTS).map(PathBuf::from);
    let mut count = 0;
    for assembled in all() {
        let shader = Shader::new(&assembled);
        assert_bindings(&shader, &assembled.text);
        assert_structures(&shader);
        assert_limits(&shader);
        let right = assembled.kernel.canary.right;
        assert!(assembled.text.wgsl.contains(right), "{}: there is no {right:?} to corrupt", shader.name);
        if let Some(folder) = &folder {
            let path = folder.join(&assembled.layout).join(assembled.kernel.shader).with_extension("wgsl");
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder can be made");
            std::fs::write(path, assembled.text.wgsl).expect("a text can be written");
        }
        count += 1;
    }
    assert_eq!(count, (KERNELS.len() + VARIANTS) * ADAPTERS.len() * SHAPES.len() * TYPES.len() * 2);
}

/// The bindings that the preprocessor found are those that naga finds.
fn assert_bindings(Shader { name, module, .. }: &Shader, text: &Text) {
    let mut found = Vec::new();
    for (_, global) in module.global_variables.iter() {
        let Some(binding) = &global.binding else { continue };
        let writes = |access: naga::StorageAccess| access.contains(naga::StorageAccess::STORE);
        let write = match (global.space, &module.types[global.ty].inner) {
            (AddressSpace::Storage { access }, _) => Some(writes(access)),
            (_, TypeInner::Image { class: naga::ImageClass::Storage { access, .. }, .. }) => Some(writes(*access)),
            (AddressSpace::Uniform, _) => None,
            other => panic!("{name}: {other:?}"),
        };
        found.push((binding.binding, global.name.clone().unwrap_or_default(), write));
    }
    found.sort();
    let expected = text.bindings.iter().map(|binding| {
        let write = match binding.kind {
            BindingKind::Uniform => None,
            BindingKind::Storage { write } | BindingKind::Store { write, .. } => Some(write),
        };
        (binding.index, binding.name.clone(), write)
    });
    assert_eq!(found, expected.collect::<Vec<_>>(), "{name}");
}

/// Structures that the host shares are laid out as on the host: numbers of 32 bits, one after the other.
fn assert_structures(Shader { name, module, .. }: &Shader) {
    for (_, ty) in module.types.iter() {
        let Some(structure) = &ty.name else { continue };
        let Some((_, fields)) = HOST_STRUCTS.iter().find(|(name, _)| name == structure) else { continue };
        let TypeInner::Struct { members, span } = &ty.inner else { panic!("{name}: {structure} is no structure") };
        let offsets: Vec<u32> = members.iter().map(|member| member.offset).collect();
        let expected: Vec<u32> = (0..*fields as u32).map(|index| 4 * index).collect();
        assert_eq!((offsets, *span), (expected, 4 * *fields as u32), "{name}: {structure}");
    }
}

fn assert_limits(Shader { name, module, info }: &Shader) {
    assert_eq!(module.entry_points.len(), 1, "{name}");
    let used = info.get_entry_point(0);
    let globals = || module.global_variables.iter().filter(|(handle, _)| used[*handle] != GlobalUse::empty());
    let storage = globals().filter(|(_, global)| matches!(global.space, AddressSpace::Storage { .. })).count();
    assert!(storage <= STORAGE_BUFFERS, "{name}: {storage} storage buffers");
    let workgroup = globals().filter(|(_, global)| global.space == AddressSpace::WorkGroup);
    let size = |ty| module.types[ty].inner.size(module.to_ctx());
    let memory: u32 = workgroup.map(|(_, global)| size(global.ty).next_multiple_of(16)).sum();
    let allowed = if name.contains("base-") { WORKGROUP_MEMORY } else { 2 * WORKGROUP_MEMORY };
    assert!(memory <= allowed, "{name}: {memory} bytes of workgroup memory");
    let [x, y, z] = module.entry_points[0].workgroup_size;
    assert!((8..=256).contains(&x) && x.is_power_of_two() && (y, z) == (1, 1), "{name}: {x} {y} {z}");
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

/// Writing a component of a vector may write all of it (WGSL, "Vector access expression"): invocations that write two components
/// of one vector lose what the other has written. And FXC, the older compiler of Direct3D 12, rejects a component with an
/// index from run time as the target of an assignment in a loop.
#[test]
fn no_kernel_writes_a_part_of_a_vector_that_others_see_or_by_an_index_from_run_time() {
    let mut stores = 0;
    for Shader { name: kernel, module, info } in telling() {
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
    for Shader { name, module, info } in telling() {
        let metal = msl::Options { lang_version: (2, 4), fake_missing_bindings: true, ..Default::default() };
        let direct3d = hlsl::Options { fake_missing_bindings: true, ..Default::default() };
        for entry in &module.entry_points {
            let entry_point = Some((entry.stage, entry.name.clone()));
            let options = msl::PipelineOptions { entry_point: entry_point.clone(), ..Default::default() };
            let written = msl::write_string(&module, &info, &metal, &options);
            assert!(written.is_ok(), "{name}: {}", written.unwrap_err());
            let options = hlsl::PipelineOptions { entry_point };
            let mut text = String::new();
            let written = hlsl::Writer::new(&mut text, &direct3d, &options).write(&module, &info, None);
            assert!(written.is_ok(), "{name}: {}", written.unwrap_err());
            // naga writes a function for every type that is zeroed, called by the type's shape: an alias of an array and
            // the same array without a name would be two of one name.
            let mut defined: Vec<&str> = text.lines().filter(|line| line.starts_with("typedef")).collect();
            defined.sort_unstable();
            let twice = defined.windows(2).find(|two| two[0] == two[1]);
            assert_eq!(twice, None, "{name}");
        }
    }
}
