//! Vulkan layers that cargo builds beside the tests.

use std::path::{Path, PathBuf};

/// Describes a layer to the Vulkan loader, in a file in `folder`. Returns the variables that load
/// the layer into a program.
pub fn environment(folder: &Path, layer: &str, library: &str) -> [(&'static str, PathBuf); 2] {
    let manifest = serde_json::json!({"file_format_version": "1.1.2", "layer": {
        "name": layer, "type": "GLOBAL", "library_path": path(library), "api_version": "1.3.0",
        "implementation_version": "1", "description": "for tests",
    }});
    std::fs::write(folder.join("layer.json"), manifest.to_string()).expect("a manifest");
    [("VK_LAYER_PATH", folder.to_path_buf()), ("VK_INSTANCE_LAYERS", layer.into())]
}

fn path(library: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test's path");
    let path = test.with_file_name(library);
    assert!(path.exists(), "{} is missing: it is built with the tests", path.display());
    path
}
