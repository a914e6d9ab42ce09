//! Which files of a repository a model needs: those that a local model directory would be read
//! from.

use std::path::PathBuf;

use super::name::is_file;
use super::{HubError, HubName};
use crate::model::directory::{self, Candidates};
use crate::model::error::clip;
use crate::model::files::companion_names;
use crate::model::tokenizer_files;

/// The files of a repository.
pub(super) struct Listing(Vec<String>);

impl Listing {
    /// Of the names that the Hub lists. Those that are no plain paths are left out.
    pub(super) fn new(names: impl Iterator<Item = String>) -> Self {
        Self(names.filter(|name| is_file(name)).collect())
    }

    pub(super) fn holds(&self, file: &str) -> bool {
        self.0.iter().any(|name| name == file)
    }

    /// The weights file of a model.
    pub(super) fn weights(&self, name: &HubName) -> Result<String, HubError> {
        let chosen = match directory::known(|weights| self.holds(weights)) {
            Some(known) => Ok(known.to_owned()),
            None => directory::only(self.top()).map(|only| only.to_string_lossy().into_owned()),
        };
        let Some(file) = &name.file else {
            return chosen.map_err(|Candidates { found, several }| HubError::NoWeights {
                name: name.to_string(),
                found,
                several,
            });
        };
        if self.holds(file) {
            return Ok(file.clone());
        }
        let found = chosen.unwrap_or_else(|candidates| candidates.found);
        let (repository, revision) = (name.repository(), name.revision().to_owned());
        Err(HubError::NoFile { repository, revision, file: clip(file), found: clip(&found) })
    }

    /// Configuration and tokenizer, of those that are there.
    pub(super) fn companions(&self, folder: &str) -> Vec<String> {
        self.present(companion_names().iter().map(|name| format!("{folder}{name}")).collect())
    }

    /// The tokenizer that a configuration's path names: a file and those beside it, or the files of
    /// a folder.
    pub(super) fn tokenizer_at(&self, folder: &str, path: &str) -> Vec<String> {
        let path = path.trim_start_matches("./").trim_end_matches('/');
        if !is_file(path) {
            return Vec::new();
        }
        let path = format!("{folder}{path}");
        let inside = match self.holds(&path) {
            true => path[..path.rfind('/').map_or(0, |slash| slash + 1)].to_owned(),
            false => format!("{path}/"),
        };
        let files = tokenizer_files::names().map(|name| format!("{inside}{name}"));
        self.present(files.chain([path.clone()]).collect())
    }

    fn present(&self, mut wanted: Vec<String>) -> Vec<String> {
        wanted.retain(|file| self.holds(file));
        wanted
    }

    /// The files outside of folders.
    fn top(&self) -> impl Iterator<Item = PathBuf> {
        self.0.iter().filter(|name| !name.contains('/')).map(PathBuf::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(names: &[&str]) -> Listing {
        Listing::new(names.iter().map(|name| (*name).to_owned()))
    }

    fn name(text: &str) -> HubName {
        HubName::parse(text).unwrap().unwrap()
    }

    #[test]
    fn weights_are_chosen_as_in_a_directory() {
        let weights = |names: &[&str]| listing(names).weights(&name("a/b")).unwrap();
        assert_eq!(weights(&["model.pt", "model.safetensors", "other.pt"]), "model.safetensors");
        assert_eq!(weights(&["epoch_3.pt", "optimizer.pt", "README.md", "old/epoch_2.pt"]), "epoch_3.pt");
        let error = |names: &[&str], text: &str| listing(names).weights(&name(text)).unwrap_err().to_string();
        assert!(error(&["a.pt", "b.pt"], "a/b").contains("holds a.pt, b.pt, expected one weights file; name one"));
        assert!(error(&["README.md"], "a/b").contains("holds no weights"));
        assert!(error(&["a.pt", "b.pt"], "a/b:c.pt").contains("expected one of its weights: a.pt, b.pt"));
        assert_eq!(listing(&["a.pt", "x/b.pt"]).weights(&name("a/b:x/b.pt")).unwrap(), "x/b.pt");
    }

    #[test]
    fn only_what_a_model_is_read_from_is_wanted() {
        let all = ["config.json", "tokenizer/tokenizer.json", "README.md", "train.py", "x/config.json", "vocab.json"];
        assert_eq!(listing(&all).companions(""), ["config.json", "vocab.json", "tokenizer/tokenizer.json"]);
        assert_eq!(listing(&all).companions("x/"), ["x/config.json"]);
        let all = ["bpe/tokenizer.json", "bpe/tokenizer_config.json", "x/bpe/own.json", "x/bpe/vocab.json"];
        assert_eq!(listing(&all).tokenizer_at("", "./bpe/"), ["bpe/tokenizer.json", "bpe/tokenizer_config.json"]);
        assert_eq!(listing(&all).tokenizer_at("x/", "bpe/own.json"), ["x/bpe/vocab.json", "x/bpe/own.json"]);
        assert!(listing(&all).tokenizer_at("", "../bpe").is_empty());
    }

    #[test]
    fn names_that_leave_the_repository_are_left_out() {
        let listing = listing(&["../model.pt", "/model.pt", "a\\model.pt", "x/../model.pt"]);
        assert!(listing.weights(&name("a/b")).unwrap_err().to_string().contains("no weights"));
    }
}
