//! Generates Rust from the shaders: a table of all files below `shaders/`, and the host's side of
//! every structure that a shader marks by `#host`. The shader's text is the only definition of such
//! a structure.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=shaders");
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("shaders");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    let mut table = String::from("&[\n");
    let mut host = String::from("&[\n");
    for file in &files {
        let path = file.strip_prefix(&root).expect("below the root").with_extension("");
        let name: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        // Not the file's path, which another checkout with the same target directory does not have.
        writeln!(table, "({:?}, {text:?}),", name.join("/")).expect("a string takes all");
        for (name, fields, structure) in structures(&text) {
            fs::write(out.join(format!("{name}.rs")), structure).expect("OUT_DIR can be written");
            writeln!(host, "({name:?}, {fields}),").expect("a string takes all");
        }
    }
    host.push(']');
    fs::write(out.join("host_structs.rs"), host).expect("OUT_DIR can be written");
    table.push(']');
    fs::write(out.join("shader_files.rs"), table).expect("OUT_DIR can be written");
}

/// Every `.wgsl` file below a folder.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("a folder's entry can be read").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "wgsl") {
            files.push(path);
        }
    }
}

/// Name, number of fields and Rust text of every structure below a line `#host`.
fn structures(text: &str) -> Vec<(String, usize, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let marked = lines.iter().enumerate().filter(|(_, line)| **line == "#host");
    marked.map(|(at, _)| structure(&lines, at)).collect()
}

/// The structure below line `at`. The comments above it and above its fields become documentation.
fn structure(lines: &[&str], at: usize) -> (String, usize, String) {
    let above = lines[..at].iter().rev().take_while(|line| line.starts_with("// ")).count();
    let mut rust = String::new();
    for line in &lines[at - above..at] {
        writeln!(rust, "///{}", &line[2..]).expect("a string takes all");
    }
    let name = lines[at + 1].strip_prefix("struct ").and_then(|rest| rest.strip_suffix(" {"));
    let name = name.unwrap_or_else(|| panic!("no structure below #host: {:?}", lines[at + 1]));
    let fields: Vec<&str> = lines[at + 2..].iter().take_while(|line| **line != "}").map(|line| line.trim()).collect();
    let equal = if fields.iter().any(|field| field.ends_with(": f32,")) { "PartialEq" } else { "PartialEq, Eq" };
    let traits = format!("Clone, Copy, Debug, Default, {equal}, bytemuck::Pod, bytemuck::Zeroable");
    writeln!(rust, "#[repr(C)]\n#[derive({traits})]").expect("a string takes all");
    writeln!(rust, "pub struct {name} {{").expect("a string takes all");
    let mut names = Vec::new();
    let mut documented = false;
    for field in fields {
        if let Some(comment) = field.strip_prefix("//") {
            writeln!(rust, "    ///{comment}").expect("a string takes all");
            documented = true;
            continue;
        }
        let (field, kind) = field.trim_end_matches(',').split_once(": ").expect("a field and its type");
        assert!(["u32", "f32"].contains(&kind), "{name}.{field} has type {kind}: #host takes u32 and f32");
        if !documented {
            writeln!(rust, "    /// See the field before.").expect("a string takes all");
        }
        writeln!(rust, "    pub {field}: {kind},").expect("a string takes all");
        names.push(field);
        documented = false;
    }
    rust.push_str("}\n");
    writeln!(rust, "const _: () = assert!(size_of::<{name}>() == {});", 4 * names.len()).expect("a string takes all");
    (name.to_string(), names.len(), rust)
}
