//! The structure of the GPU backend and its shaders, read off their files: `cargo test --test structure -- --nocapture`
//! prints it.
//!
//! No file of `src/backend/gpu` imports one that imports it in turn, and no shader either; functions are short; a shader
//! has a kernel, or another shader imports it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Most lines of a function.
const LONGEST_FUNCTION: usize = 80;

/// What every file imports, by name.
type Imports = BTreeMap<String, BTreeSet<String>>;

fn root(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)
}

/// Every file below a folder with an ending: its path without the ending, parts separated by `/`, and its text.
fn files(folder: &Path, ending: &str) -> BTreeMap<String, String> {
    fn collect(folder: &Path, ending: &str, base: &Path, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                collect(&path, ending, base, found);
            } else if path.extension().is_some_and(|extension| extension == ending) {
                let name = path.strip_prefix(base).expect("below").with_extension("");
                let name: Vec<_> = name.iter().map(|part| part.to_string_lossy()).collect();
                found.insert(name.join("/"), fs::read_to_string(&path).expect("text"));
            }
        }
    }
    let mut found = BTreeMap::new();
    collect(folder, ending, folder, &mut found);
    found
}

/// Every path of a `use` declaration: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn expand(tree: &str) -> Vec<String> {
    let Some((prefix, rest)) = tree.split_once('{') else { return vec![tree.trim().to_string()] };
    let (mut parts, mut depth, mut part) = (Vec::new(), 0, String::new());
    for character in rest.trim_end().strip_suffix('}').expect("a closed brace").chars() {
        match character {
            ',' if depth == 0 => parts.push(std::mem::take(&mut part)),
            _ => {
                depth += (character == '{') as i32 - (character == '}') as i32;
                part.push(character);
            }
        }
    }
    parts.push(part);
    let prefix = prefix.trim();
    parts
        .iter()
        .map(|part| part.trim())
        .filter(|part| !part.is_empty())
        .flat_map(|part| expand(part).into_iter().map(move |inner| format!("{prefix}{inner}")))
        .collect()
}

/// Imports among the files of the GPU backend. A path names a file by its modules: the longest one that is a file.
fn rust_imports() -> Imports {
    let files = files(&root("src/backend/gpu"), "rs");
    let mut imports = Imports::new();
    for (name, text) in &files {
        let text = text.split("#[cfg(test)]\nmod").next().expect("a part");
        let own = imports.entry(name.clone()).or_default();
        let mut modules: Vec<&str> = name.split('/').collect();
        // `super` of a file is its folder, and that of a folder's `mod` the folder above.
        modules.pop();
        if name.ends_with("/mod") {
            modules.pop();
        }
        for declaration in text.split("\nuse ").skip(1) {
            let declaration = declaration.split(';').next().expect("a part");
            for path in expand(&declaration.split_whitespace().collect::<Vec<_>>().join(" ").replace(":: ", "::")) {
                let path = match path.strip_prefix("crate::backend::gpu::") {
                    Some(path) => path.to_string(),
                    None => match path.strip_prefix("super::") {
                        Some(path) => modules.iter().map(|module| format!("{module}::")).collect::<String>() + path,
                        None => continue,
                    },
                };
                let path: Vec<&str> = path.split(" as ").next().expect("a part").split("::").collect();
                let named = (1..=path.len()).rev().map(|length| path[..length].join("/"));
                let target =
                    named.flat_map(|path| [path.clone(), format!("{path}/mod")]).find(|path| files.contains_key(path));
                own.extend(target.filter(|target| target != name));
            }
        }
        // A list of kernels names them by their paths.
        for (other, _) in files.iter().filter(|(other, _)| *other != name) {
            if text.contains(&format!("{}::KERNEL", other.replace('/', "::"))) {
                own.insert(other.clone());
            }
        }
    }
    imports
}

fn shader_imports() -> Imports {
    let import = |line: &str| line.strip_prefix("#import ").map(|path| path.replace("::", "/"));
    let imports = |text: &str| text.lines().filter_map(import).collect();
    files(&root("shaders"), "wgsl").iter().map(|(name, text)| (name.clone(), imports(text))).collect()
}

/// A circle of imports, if there is one.
fn circle(imports: &Imports) -> Option<Vec<String>> {
    fn visit(
        name: &str,
        imports: &Imports,
        path: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|other| other == name) {
            return Some(path[start..].to_vec());
        }
        if !done.contains(name) {
            path.push(name.to_string());
            for other in imports.get(name).into_iter().flatten() {
                if let Some(found) = visit(other, imports, path, done) {
                    return Some(found);
                }
            }
            path.pop();
            done.insert(name.to_string());
        }
        None
    }
    let mut done = BTreeSet::new();
    imports.keys().find_map(|name| visit(name, imports, &mut Vec::new(), &mut done))
}

fn assert_no_circle(what: &str, imports: &Imports) {
    println!("{what}: {} files, {} imports", imports.len(), imports.values().map(BTreeSet::len).sum::<usize>());
    for (name, others) in imports {
        println!("  {name}: {}", others.iter().map(String::as_str).collect::<Vec<_>>().join(" "));
        for other in others {
            assert!(imports.contains_key(other), "{name} imports {other}, which is no file");
        }
    }
    assert_eq!(circle(imports), None, "{what}");
}

#[test]
fn no_file_of_the_gpu_backend_is_part_of_a_circle() {
    let imports = rust_imports();
    assert!(imports.values().map(BTreeSet::len).sum::<usize>() > 150, "the imports are not found");
    assert_no_circle("src/backend/gpu", &imports);
}

#[test]
fn no_shader_is_part_of_a_circle() {
    assert_no_circle("shaders", &shader_imports());
}

#[test]
fn circles_are_found() {
    let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
    let mut imports =
        Imports::from([("a".into(), names(&["b"])), ("b".into(), names(&["c"])), ("c".into(), names(&[]))]);
    assert_eq!(circle(&imports), None);
    imports.insert("c".into(), names(&["b"]));
    assert_eq!(circle(&imports), Some(vec!["b".into(), "c".into()]));
    assert_eq!(expand("super::{a::{b, c}, d}"), ["super::a::b", "super::a::c", "super::d"]);
}

#[test]
fn every_shader_has_a_kernel_or_is_imported() {
    let imports = shader_imports();
    let registry: String = files(&root("src/backend/gpu"), "rs").into_values().collect();
    let imported: BTreeSet<&String> = imports.values().flatten().collect();
    for name in imports.keys() {
        let kernel = registry.contains(&format!("shader: \"{name}\""));
        assert!(kernel || imported.contains(name), "nobody uses shaders/{name}.wgsl");
    }
}

#[test]
fn functions_of_the_gpu_backend_are_short() {
    for (name, text) in files(&root("src/backend/gpu"), "rs") {
        let lines: Vec<&str> = text.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let words: Vec<&str> = line.split_whitespace().collect();
            let is_function = words.iter().take(4).any(|word| *word == "fn") && !line.trim_start().starts_with("//");
            if !is_function {
                continue;
            }
            let end = lines[start..].iter().position(|line| *line == format!("{}}}", " ".repeat(indent)));
            let length = end.map_or(0, |end| end + 1);
            assert!(length <= LONGEST_FUNCTION, "{name}: {} takes {length} lines", line.trim());
        }
    }
}

/// Kernels are compared as values, never by their names.
#[test]
fn no_kernels_name_is_compared_with_a_string() {
    for (name, text) in files(&root("src/backend/gpu"), "rs") {
        for (number, line) in text.lines().enumerate() {
            let compared =
                line.contains(".name == \"") || line.contains("name.starts_with") || line.contains("match spec.name");
            assert!(!compared, "{name}:{}: {line}", number + 1);
        }
    }
}

/// The string literals of a file's code, without comments, character literals and the test module at its end.
fn strings(text: &str) -> Vec<String> {
    let text = text.split("#[cfg(test)]\nmod").next().expect("a part");
    let mut strings = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['"', '\'', '/']) {
        let before = &rest[..at];
        let hashes = before.len() - before.trim_end_matches('#').len();
        let raw = before[..before.len() - hashes].ends_with('r');
        rest = &rest[at..];
        if rest.starts_with("//") {
            rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
        } else if rest.starts_with('"') && raw {
            let end = format!("\"{}", "#".repeat(hashes));
            let (string, after) = rest[1..].split_once(&end).expect("the end of a string");
            strings.push(string.to_string());
            rest = after;
        } else if rest.starts_with('"') {
            let mut escaped = false;
            let end = rest[1..].find(|character| {
                let ends = character == '"' && !escaped;
                escaped = character == '\\' && !escaped;
                ends
            });
            let (string, after) = rest[1..].split_at(end.expect("the end of a string"));
            strings.push(string.to_string());
            rest = &after[1..];
        } else if let Some(after) = rest.strip_prefix("'\\") {
            rest = after[1..].split_once('\'').expect("the end of a character").1;
        } else {
            // A character, a lifetime or a division.
            let character = rest.chars().nth(2) == Some('\'');
            let length: usize = rest.chars().take(if character { 3 } else { 1 }).map(char::len_utf8).sum();
            rest = &rest[length..];
        }
    }
    strings
}

/// What a string says that only the command line's users understand: a flag, a command of the prompt loop, or of the
/// program.
fn command_line(string: &str, commands: &[&str]) -> Option<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    let starts = |at: usize| !string[..at].ends_with(|c: char| c.is_alphanumeric() || "-/.".contains(c));
    let flag = string.match_indices("--").map(|(at, _)| (at, &string[at + 2..]));
    let flag = flag.filter(|(at, rest)| starts(*at) && rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '{'));
    let slash = string.match_indices('/').map(|(at, _)| (at, &string[at + 1..]));
    let slash = slash.filter(|(at, rest)| starts(*at) && commands.contains(&word(rest).as_str()));
    let program = string.match_indices("bdh-gpu ").map(|(at, _)| (at, &string[at + 8..]));
    let program = program.filter(|(_, rest)| rest.starts_with(|c: char| c.is_ascii_lowercase()));
    let found = flag.chain(slash).chain(program).next();
    found.map(|(at, _)| string[at..].chars().take(20).collect())
}

/// A library's error names an option as its callers write it. Flags and advice are added by `src/cli/advice.rs`.
#[test]
fn the_library_knows_nothing_of_the_command_line() {
    let commands = fs::read_to_string(root("src/cli/interactive/commands.rs")).expect("text");
    let names = commands.split("entry(\"").skip(1).map(|entry| entry.split('"').next().expect("a part"));
    let of_options = bdh_gpu::options::OPTIONS.iter().filter_map(|spec| spec.command.as_ref());
    let names: Vec<&str> = names.chain(of_options.map(|command| command.name)).collect();
    assert!(names.contains(&"save") && names.len() > 15, "the commands are not found: {names:?}");
    let (mut number, mut found) = (0, Vec::new());
    for folder in ["src", "python/src"] {
        for (name, text) in files(&root(folder), "rs") {
            if folder == "src" && (name.starts_with("cli/") || name == "main") {
                continue;
            }
            for string in strings(&text) {
                number += 1;
                found.extend(command_line(&string, &names).map(|words| format!("{folder}/{name}.rs: {words}")));
            }
        }
    }
    assert!(number > 1000, "the strings are not found: {number}");
    assert!(found.is_empty(), "for the command line's users alone: {found:#?}");
}

#[test]
fn words_of_the_command_line_are_found() {
    let text = "// \"--no\"\nf('\"', \"a --top-k\", r#\"b \"/save\"#, b'\\'', 'a: &'a \"c \\\" `bdh-gpu verify`\");";
    let strings = strings(text);
    assert_eq!(strings, ["a --top-k", "b \"/save", "c \\\" `bdh-gpu verify`"]);
    assert!(strings.iter().all(|string| command_line(string, &["save"]).is_some()));
    for harmless in ["a version of bdh-gpu", "models/save", "/saved", "one -- two", "https://a/save"] {
        assert_eq!(command_line(harmless, &["save"]), None);
    }
}
