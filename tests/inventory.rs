//! docs/reliability.md lists every `unsafe` block, and docs/dependencies.md every dependency.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Every `unsafe` of the program stands in the documentation's table, file by file, with its number.
#[test]
fn the_inventory_of_unsafe_code_is_complete() {
    let mut paths = Vec::new();
    sources(&repository().join("src"), &mut paths);
    let mut found = BTreeMap::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
        let count: usize = code
            .map(|line| {
                ["unsafe {", "unsafe impl", "unsafe fn"].map(|word| line.matches(word).count()).iter().sum::<usize>()
            })
            .sum();
        if count > 0 {
            let name = path.strip_prefix(repository()).unwrap().to_str().unwrap().replace('\\', "/");
            found.insert(name, count);
        }
    }
    let document = fs::read_to_string(repository().join("docs/reliability.md")).unwrap();
    let row = |line: &str| {
        let mut cells = line.strip_prefix("| `src/")?.split('|');
        let name = cells.next()?.trim().trim_end_matches('`');
        Some((format!("src/{name}"), cells.next()?.trim().parse().ok()?))
    };
    let listed: BTreeMap<String, usize> = document.lines().filter_map(row).collect();
    assert_eq!(found, listed, "the code, and the table in docs/reliability.md");
}

/// The npm package's types, which are written by hand, have every generation option.
#[test]
fn every_option_has_a_type_in_the_npm_package() {
    let types = fs::read_to_string(repository().join("web/js/index.d.ts")).unwrap();
    for spec in bdh_gpu::options::OPTIONS {
        let mut parts = spec.name.split('_');
        let mut name = parts.next().unwrap().to_owned();
        parts.for_each(|part| name.extend([&part[..1].to_uppercase(), &part[1..]]));
        let name = if name == "maxNewTokens" { "maxTokens" } else { &name };
        assert!(types.contains(&format!("    {name}?: ")), "web/js/index.d.ts has no {name}");
    }
}

/// docs/dependencies.md gives the purpose of every dependency.
#[test]
fn every_dependency_is_explained() {
    let manifest = fs::read_to_string(repository().join("Cargo.toml")).unwrap();
    let is_section = |text: &&str| text.split(']').next().is_some_and(|name| name.ends_with("dependencies"));
    let sections = manifest.split("\n[").filter(is_section).filter(|text| !text.contains("dev-dependencies]"));
    let lines = sections.flat_map(|text| text.lines().skip(1));
    let names = lines.filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
    let document = fs::read_to_string(repository().join("docs/dependencies.md")).unwrap();
    let listed: Vec<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .flat_map(|cell| cell.split([' ', ',', '(']))
        .collect();
    let missing: Vec<&str> = names.filter(|name| !listed.contains(name)).collect();
    assert!(missing.is_empty(), "docs/dependencies.md does not explain {missing:?}");
}
