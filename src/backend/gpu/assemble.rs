//! A small preprocessor assembles shaders from the files below `shaders/`.
//!
//! | directive | effect |
//! | --- | --- |
//! | `#import a::b` | inserts `shaders/a/b.wgsl`, unless the text has it already |
//! | `#ifdef FLAG`, `#else`, `#endif` | keeps lines for a variant; [`Variant`] has the flags |
//! | `#store(N, access) name: vec4<f32>` | a store at binding N, with `load_name`, `store_name` |
//! | `#needs declaration` | names what the importing kernel must declare; see [`assemble_alone`] |
//! | `#host` | marks a structure whose host side `build.rs` generates from the shader's text |
//!
//! `shared/constants.wgsl` holds example values; the host's values replace it.

use super::texels::{TEXELS, Use};
use std::collections::HashSet;
use std::fmt::Write as _;

/// Every file below `shaders/`: its path without extension, and its text.
const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/shader_files.rs"));
/// The file that the host's constants replace.
const CONSTANTS: &str = "shared/constants";

/// How a kernel uses a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BindingKind {
    /// A uniform buffer.
    Uniform,
    /// A storage buffer.
    Storage {
        /// Whether the kernel writes to it.
        write: bool,
    },
    /// A [`Store`](super::store::Store).
    Store {
        /// Words or floats.
        purpose: Use,
        /// Whether the kernel writes to it.
        write: bool,
    },
}

/// A binding that a shader declares, in group 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binding {
    pub index: u32,
    pub name: String,
    pub kind: BindingKind,
}

/// An assembled shader.
#[derive(Clone, Debug, Default)]
pub(super) struct Text {
    pub wgsl: String,
    /// By index.
    pub bindings: Vec<Binding>,
}

/// The variant of a shader's text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Variant<'a> {
    /// Replaces `shared/constants.wgsl`, if given.
    pub constants: Option<&'a str>,
    /// Whether a workgroup is one subgroup.
    pub subgroup: bool,
    /// Whether stores lie in images.
    pub images: bool,
    /// Whether rows of the state are codes with a scale.
    pub codes: bool,
    /// Whether the host reads the gates.
    pub watched: bool,
    /// Whether the encoder's blocks have biases.
    pub clamped: bool,
}

/// The whole text of the kernel whose shader is `path`.
///
/// # Panics
/// If an imported file does not exist or a directive is malformed. The tests assemble every kernel.
pub(super) fn assemble(path: &str, variant: Variant) -> Text {
    let mut assembly = Assembly::new(variant);
    assembly.include(path);
    assembly.text.bindings.sort_by_key(|binding| binding.index);
    assembly.text
}

/// As [`assemble`], for any file. Declares what the file needs from the kernel that imports it.
#[cfg(test)]
pub(super) fn assemble_alone(path: &str, variant: Variant) -> Text {
    let mut assembly = Assembly::new(variant);
    assembly.include(path);
    let Assembly { mut text, needs, .. } = assembly;
    let declared: HashSet<&str> = text.wgsl.lines().filter_map(declared_name).collect();
    let mut missing: Vec<&str> = needs.into_iter().filter(|need| !declared.contains(name_of(need))).collect();
    missing.sort_unstable();
    missing.dedup();
    let missing = missing.join("\n");
    text.wgsl += &missing;
    text
}

/// Paths of all files.
#[cfg(test)]
pub(super) fn paths() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(path, _)| *path)
}

struct Assembly<'a> {
    variant: Variant<'a>,
    text: Text,
    included: HashSet<String>,
    needs: Vec<&'a str>,
}

impl<'a> Assembly<'a> {
    fn new(variant: Variant<'a>) -> Self {
        Self { variant, text: Text::default(), included: HashSet::new(), needs: Vec::new() }
    }

    fn include(&mut self, path: &str) {
        if !self.included.insert(path.to_string()) {
            return;
        }
        let index = FILES.binary_search_by_key(&path, |(path, _)| path);
        let index = index.unwrap_or_else(|_| panic!("there is no shaders/{path}.wgsl"));
        let own: &'a str = match self.variant.constants {
            Some(constants) if path == CONSTANTS => constants,
            _ => FILES[index].1,
        };
        let mut own_text = String::new();
        // For every `#ifdef` around the line: whether its lines are kept.
        let mut kept = Vec::new();
        for line in own.lines() {
            let (directive, rest) = line.split_once(' ').unwrap_or((line, ""));
            match directive {
                "#ifdef" => kept.push(self.has(path, rest)),
                "#else" => {
                    let last = kept.last_mut().unwrap_or_else(|| panic!("{path}: #else without #ifdef"));
                    *last = !*last;
                }
                "#endif" => assert!(kept.pop().is_some(), "{path}: #endif without #ifdef"),
                _ if kept.contains(&false) => {}
                "#import" => {
                    // An import precedes the lines that follow it.
                    self.flush(path, &mut own_text);
                    self.include(&rest.replace("::", "/"));
                }
                "#needs" => self.needs.push(rest),
                "#host" => {}
                _ if directive.starts_with("#store(") => own_text += &self.store(path, line),
                _ if directive.starts_with('#') => panic!("{path}: unknown directive {line:?}"),
                _ => {
                    self.text.bindings.extend(declared_binding(line));
                    own_text += line;
                    own_text.push('\n');
                }
            }
        }
        assert!(kept.is_empty(), "{path}: #ifdef without #endif");
        self.flush(path, &mut own_text);
    }

    /// Appends a file's pending lines, under its name.
    fn flush(&mut self, path: &str, own_text: &mut String) {
        if !own_text.trim().is_empty() {
            let _ = writeln!(self.text.wgsl, "// ==== {path}.wgsl\n{}\n", own_text.trim());
        }
        own_text.clear();
    }

    fn has(&self, path: &str, flag: &str) -> bool {
        match flag {
            "SUBGROUP" => self.variant.subgroup,
            "IMAGES" => self.variant.images,
            "CODES" => self.variant.codes,
            "WATCHED" => self.variant.watched,
            "CLAMPED" => self.variant.clamped,
            _ => panic!("{path}: unknown flag {flag:?}"),
        }
    }

    /// The text of `#store(index, access) name: type`. Records the binding.
    fn store(&mut self, path: &str, line: &str) -> String {
        let parts = line.strip_prefix("#store(").and_then(|rest| {
            let (head, declaration) = rest.split_once(") ")?;
            let (index, access) = head.split_once(", ")?;
            let (name, element) = declaration.split_once(": ")?;
            Some((index.parse().ok()?, access, name, element))
        });
        let (index, access, name, element) = parts.unwrap_or_else(|| panic!("{path}: malformed {line:?}"));
        let (load, write) = match access {
            "read" => (true, false),
            "write" => (false, true),
            "read_write" => (true, true),
            _ => panic!("{path}: unknown access in {line:?}"),
        };
        let (purpose, format) = match element {
            "vec4<u32>" => (Use::Words, "rgba32uint"),
            "vec4<f32>" => (Use::Floats, "rgba32float"),
            _ => panic!("{path}: unknown type in {line:?}"),
        };
        self.text.bindings.push(Binding { index, name: name.to_string(), kind: BindingKind::Store { purpose, write } });
        let access = if write { "read_write" } else { "read" };
        let place = format!("vec2(at % {TEXELS}u, at / {TEXELS}u)");
        let (variable, loaded, stored) = match self.variant.images {
            true => (
                format!("var {name}: texture_storage_2d<{format}, {access}>;"),
                format!("textureLoad({name}, {place})"),
                format!("textureStore({name}, {place}, value)"),
            ),
            false => (
                format!("var<storage, {access}> {name}: array<{element}>;"),
                format!("{name}[at]"),
                format!("{name}[at] = value"),
            ),
        };
        let mut text = format!("@group(0) @binding({index}) {variable}\n");
        if load {
            text += &format!("fn load_{name}(at: u32) -> {element} {{\n    return {loaded};\n}}\n");
        }
        if write {
            text += &format!("fn store_{name}(at: u32, value: {element}) {{\n    {stored};\n}}\n");
        }
        text
    }
}

/// The binding that a line declares, if any.
fn declared_binding(line: &str) -> Option<Binding> {
    let rest = line.strip_prefix("@group(0) @binding(")?;
    let (index, rest) = rest.split_once(") var<")?;
    let (space, rest) = rest.split_once("> ")?;
    let kind = match space {
        "uniform" => BindingKind::Uniform,
        _ => BindingKind::Storage { write: space == "storage, read_write" },
    };
    let (name, _) = rest.split_once(':')?;
    Some(Binding { index: index.parse().ok()?, name: name.to_string(), kind })
}

/// The name that a line declares at module scope, if any.
#[cfg(test)]
fn declared_name(line: &str) -> Option<&str> {
    ["fn ", "var", "const ", "struct ", "@group"].iter().any(|start| line.starts_with(start)).then(|| name_of(line))
}

/// The name that a declaration at module scope gives.
#[cfg(test)]
fn name_of(declaration: &str) -> &str {
    let declaration = declaration.rsplit_once(") var").map_or(declaration, |(_, rest)| rest);
    let end = declaration.find(['(', ':', '{']).unwrap_or(declaration.len());
    declaration[..end].trim_end().rsplit([' ', '>']).next().unwrap_or_default()
}
