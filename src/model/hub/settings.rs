//! The environment variables that all of the Hub's programs obey.

use std::path::PathBuf;

use super::HubError;

/// Where the Hub is when nothing else is said.
const ENDPOINT: &str = "https://huggingface.co";

/// What they say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    /// Where the Hub is, without a slash at its end.
    pub(super) endpoint: String,
    /// The folder of all cached models.
    pub(super) cache: PathBuf,
    pub(super) token: Option<String>,
    /// Whether nothing must be downloaded.
    pub(super) offline: bool,
}

impl Settings {
    /// Those of this process.
    pub(super) fn of_environment() -> Result<Self, HubError> {
        Self::read(|name| std::env::var(name).ok(), std::env::home_dir())
    }

    fn read(variable: impl Fn(&str) -> Option<String>, home: Option<PathBuf>) -> Result<Self, HubError> {
        let given = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let is_on = |name: &str| given(name).is_some_and(|value| is_true(&value));
        let path = |name: &str| given(name).map(PathBuf::from);
        let hub_home = path("HF_HOME")
            .or_else(|| path("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
            .or_else(|| home.map(|home| home.join(".cache/huggingface")));
        let cache = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| hub_home.as_ref().map(|home| home.join("hub")))
            .ok_or(HubError::NoHome)?;
        let token_file = path("HF_TOKEN_PATH").or_else(|| hub_home.map(|home| home.join("token")));
        let token = match is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN") {
            true => None,
            false => given("HF_TOKEN").or_else(|| std::fs::read_to_string(token_file?).ok()),
        };
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        let endpoint = given("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let endpoint = endpoint.trim().trim_end_matches('/').to_owned();
        Ok(Self { endpoint, cache, token, offline: is_on("HF_HUB_OFFLINE") })
    }
}

/// What the Hub's own library takes for yes.
fn is_true(value: &str) -> bool {
    matches!(value.trim().to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Settings {
        let variable = |name: &str| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Settings::read(variable, Some("/home/somebody".into())).unwrap()
    }

    #[test]
    fn without_variables_the_cache_is_in_the_home_directory() {
        let settings = read(&[("HF_ENDPOINT", ""), ("HF_HUB_OFFLINE", "0")]);
        let cache = PathBuf::from("/home/somebody/.cache/huggingface/hub");
        let endpoint = ENDPOINT.to_owned();
        assert_eq!(settings, Settings { endpoint, cache, token: None, offline: false });
        assert!(matches!(Settings::read(|_| None, None), Err(HubError::NoHome)));
    }

    #[test]
    fn variables_move_the_cache_and_the_hub() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        std::fs::write(folder.path().join("token"), "from the file\n").unwrap();
        let settings = read(&[("HF_HOME", home), ("HF_ENDPOINT", "http://mirror/"), ("HF_HUB_OFFLINE", "yes")]);
        assert_eq!(settings.cache, folder.path().join("hub"));
        assert_eq!((settings.endpoint.as_str(), settings.offline), ("http://mirror", true));
        assert_eq!(settings.token.as_deref(), Some("from the file"));
        let settings = read(&[("HF_HOME", home), ("HF_HUB_CACHE", "/cache"), ("HF_TOKEN", "given")]);
        assert_eq!((settings.cache, settings.token.as_deref()), ("/cache".into(), Some("given")));
        assert_eq!(read(&[("HF_HOME", home), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]).token, None);
        assert_eq!(read(&[("XDG_CACHE_HOME", "/xdg")]).cache, PathBuf::from("/xdg/huggingface/hub"));
    }
}
