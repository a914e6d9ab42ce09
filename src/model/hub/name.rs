//! Names of models on the Hub, and how they differ from paths.

use std::fmt;
use std::path::{Component, Path};

use super::HubError;
use crate::model::directory;

/// A model on the Hub: `owner/name[@revision][:file]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubName {
    /// Who published it.
    pub owner: String,
    /// Its name among the owner's models.
    pub name: String,
    /// A branch, a tag or a commit hash; `None` is the branch main.
    pub revision: Option<String>,
    /// The weights file, with its folders; `None` is the one that a model directory would be read
    /// from.
    pub file: Option<String>,
}

impl HubName {
    /// Reads a name. `None` for a text that can only be a path: one that starts with `.`, `/` or
    /// `~`, has no slash or more than one, or ends as weights files do.
    ///
    /// # Errors
    /// [`HubError::Name`] for a name whose revision or file cannot be one.
    pub fn parse(text: &str) -> Option<Result<Self, HubError>> {
        let (repository, rest) = text.split_at(text.find(['@', ':']).unwrap_or(text.len()));
        let (owner, name) = repository.split_once('/')?;
        let ending = Path::new(name);
        let ends_as_a_file = directory::has_extension(ending) || ending.extension().is_some_and(|end| end == "json");
        if !is_plain(owner) || !is_plain(name) || ends_as_a_file {
            return None;
        }
        let (revision, file) = match (rest.strip_prefix('@'), rest.strip_prefix(':')) {
            (Some(rest), _) => match rest.split_once(':') {
                Some((revision, file)) => (Some(revision), Some(file)),
                None => (Some(rest), None),
            },
            (None, file) => (None, file),
        };
        let wrong = |reason| Some(Err(HubError::Name { name: text.to_owned(), reason }));
        if revision.is_some_and(|revision| !is_revision(revision)) {
            return wrong("the revision is no branch, tag or commit hash");
        }
        if file.is_some_and(|file| !is_file(file)) {
            return wrong("the file is no path inside a model");
        }
        let owned = |part: Option<&str>| part.map(str::to_owned);
        let (owner, name) = (owner.to_owned(), name.to_owned());
        Some(Ok(Self { owner, name, revision: owned(revision), file: owned(file) }))
    }

    /// `owner/name`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// The revision that is asked for.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    /// The folder inside the repository that holds the model, with a slash at its end, or nothing.
    pub fn folder(&self) -> &str {
        let file = self.file.as_deref().unwrap_or_default();
        &file[..file.rfind('/').map_or(0, |slash| slash + 1)]
    }
}

impl fmt::Display for HubName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.name)?;
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        self.file.iter().try_for_each(|file| write!(f, ":{file}"))
    }
}

/// Whether a text can be an owner or a model's name.
fn is_plain(part: &str) -> bool {
    let ends = |end| part.starts_with(end) || part.ends_with(end);
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !part.is_empty() && part.len() <= 96 && part.chars().all(allowed) && !ends('.') && !ends('-')
}

/// Whether a text can be a revision, as part of an address and of a path.
fn is_revision(revision: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '+');
    revision.chars().all(allowed) && is_file(revision)
}

/// Whether a text can be a file's path inside a repository: no way out of it, on any system.
pub(super) fn is_file(path: &str) -> bool {
    let allowed = |c: char| !c.is_control() && !matches!(c, '\\' | ':' | '?' | '*' | '"' | '<' | '>' | '|');
    let parts_are_plain = path.split('/').all(|part| {
        let mut components = Path::new(part).components();
        matches!((components.next(), components.next()), (Some(Component::Normal(_)), None))
    });
    path.len() <= 1024 && path.chars().all(allowed) && parts_are_plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_an_owner_a_revision_and_a_file() {
        let parse = |text: &str| HubName::parse(text).unwrap().unwrap();
        let name = parse("pathway/bdh-25m");
        assert_eq!(
            (name.owner.as_str(), name.name.as_str(), name.revision(), name.folder()),
            ("pathway", "bdh-25m", "main", "")
        );
        let name = parse("a/b.c@refs/pr/1:folder/inner/weights.pt");
        assert_eq!(
            (name.revision(), name.file.as_deref(), name.folder()),
            ("refs/pr/1", Some("folder/inner/weights.pt"), "folder/inner/")
        );
        for text in ["a/b", "a/b@v1.0", "a/b:model.pt", "a/b@v1.0:model.pt"] {
            assert_eq!(parse(text).to_string(), text);
        }
    }

    #[test]
    fn paths_are_not_looked_up() {
        let paths = [
            "",
            "model",
            "models/",
            "/models",
            "./model",
            "../model",
            "~/model",
            "~user/model",
            "a/b/c",
            "a/b/c@main",
            "models/weights.pt",
            "models/model.safetensors",
            "models/config.json",
            "models/model.ckpt@1",
            "C:\\a/b",
            "C:/a",
            "a\\b/c",
            "my models/one",
            "a/.hidden",
            "a/b/",
            "a//b",
            "-a/b",
            "é/b",
            "model@a/b",
        ];
        for path in paths {
            assert!(HubName::parse(path).is_none(), "{path}");
        }
    }

    #[test]
    fn impossible_revisions_and_files_are_refused() {
        for name in ["a/b@", "a/b@:f.pt", "a/b@..", "a/b@../x", "a/b@a b", "a/b@/x", "a/b@x?y", "a/b@#1"] {
            assert!(HubName::parse(name).unwrap().unwrap_err().to_string().contains("revision"), "{name}");
        }
        for name in
            ["a/b:", "a/b:/etc/passwd", "a/b:../x.pt", "a/b:x/../y", "a/b:x//y", "a/b:x\\y", "a/b:x:y", "a/b@m:a\nb"]
        {
            assert!(HubName::parse(name).unwrap().unwrap_err().to_string().contains("file"), "{name}");
        }
    }
}
