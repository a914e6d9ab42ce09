//! Which of a directory's files are its weights. A repository on the Hub is read by the same rule.

use std::path::{Path, PathBuf};

use super::error::{ModelError, clip};
use super::files::Files;

pub(super) const WEIGHTS_FILE: &str = "model.safetensors";
/// Names of weights files, the preferred one first.
pub(super) const WEIGHTS: [&str; 9] = [
    WEIGHTS_FILE,
    "model.pt",
    "model.npz",
    "weights.npz",
    "weights.safetensors",
    "pytorch_model.bin",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
    "ckpt.pt",
];
/// Extensions of weights files under other names.
const WEIGHTS_EXTENSIONS: [&str; 6] = ["safetensors", "pt", "pth", "npz", "bin", "ckpt"];
/// What training libraries write beside the weights.
const OTHERS: [&str; 5] = ["optimizer", "scheduler", "scaler", "training_args", "rng_state"];

/// Files that may be the weights, where not exactly one may.
pub(super) struct Candidates {
    /// Their names, or that there are none.
    pub(super) found: String,
    /// Whether there are several.
    pub(super) several: bool,
}

/// The weights file of a directory.
pub(super) fn weights(files: &dyn Files, directory: &Path) -> Result<PathBuf, ModelError> {
    if let Some(name) = known(|name| files.lists(&directory.join(name))) {
        return Ok(directory.join(name));
    }
    only(files.list(directory).into_iter()).map_err(|Candidates { found, several }| ModelError::NoWeights {
        path: directory.to_owned(),
        found,
        several,
    })
}

/// The preferred one of the known names that are there.
pub(super) fn known(is_there: impl Fn(&str) -> bool) -> Option<&'static str> {
    WEIGHTS.into_iter().find(|name| is_there(name))
}

/// The one weights file among those of a directory that has none of the known names.
pub(super) fn only(files: impl Iterator<Item = PathBuf>) -> Result<PathBuf, Candidates> {
    const MOST: usize = 5;
    let mut found: Vec<PathBuf> = files.filter(|path| may_be_weights(path)).collect();
    found.sort();
    if found.len() == 1 {
        return Ok(found.remove(0));
    }
    let several = !found.is_empty();
    let name = |path: &PathBuf| clip(&path.file_name().unwrap_or_default().to_string_lossy());
    let names: Vec<String> = found.iter().take(MOST).map(name).collect();
    let more = if found.len() > MOST { ", …" } else { "" };
    let found = if several { format!("{}{more}", names.join(", ")) } else { "no weights".to_owned() };
    Err(Candidates { found, several })
}

/// Whether a file has the extension of weights and is not known to be something else.
fn may_be_weights(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    !OTHERS.iter().any(|other| stem.starts_with(other)) && has_extension(path)
}

/// Whether a name ends as those of weights files do.
pub(super) fn has_extension(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    WEIGHTS_EXTENSIONS.contains(&extension)
}
