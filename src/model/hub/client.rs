//! Requests to the Hub. hf-hub makes the addresses and asks for the listing.

use std::io::Read;
use std::time::Duration;

use hf_hub::api::RepoInfo;
use hf_hub::api::sync::{Api, ApiBuilder};
use hf_hub::{Cache, Repo, RepoType};
use ureq::config::RedirectAuthHeaders;
use ureq::http::{HeaderMap, Response, StatusCode, header};
use ureq::{Agent, Body, RequestBuilder, typestate::WithoutBody};

use super::answer::{self, Question, Remote};
use super::cache::is_commit;
use super::listing::Listing;
use super::settings::Settings;
use super::{HubError, HubName};
use crate::model::error::clip;

/// Most bytes of a listing.
const LONGEST_LISTING: u64 = 64 << 20;
/// Most redirections on the way to a file's headers.
const MAX_REDIRECTIONS: u32 = 8;
/// How long the Hub may take to be found, to accept a connection, and to begin an answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a download may stand still.
const SILENCE: Duration = Duration::from_secs(60);

/// The Hub, asked about one model.
pub(super) struct Client {
    name: HubName,
    settings: Settings,
    api: Api,
    /// Follows redirections.
    follower: Agent,
    /// Follows none: a file's hash is in the headers of the first answer.
    asker: Agent,
}

/// The bytes of a file, from `start` on.
pub(super) struct Part {
    pub(super) start: u64,
    /// How many there are, if the answer says so.
    pub(super) length: Option<u64>,
    pub(super) bytes: Box<dyn Read>,
}

impl Client {
    pub(super) fn new(name: &HubName, settings: &Settings) -> Result<Self, HubError> {
        let builder = ApiBuilder::from_cache(Cache::new(settings.cache.clone()))
            .with_endpoint(settings.endpoint.clone())
            .with_token(settings.token.clone())
            .with_progress(false)
            .with_user_agent(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        let api = builder.build().map_err(|error| unreachable(name, settings, error.to_string()))?;
        let agent = |redirections| {
            Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(redirections)
                .max_redirects_will_error(redirections > 0)
                .redirect_auth_headers(RedirectAuthHeaders::SameHost)
                .timeout_resolve(Some(PATIENCE))
                .timeout_connect(Some(PATIENCE))
                .timeout_recv_response(Some(PATIENCE))
                .timeout_per_read(Some(SILENCE))
                .build()
                .new_agent()
        };
        let (follower, asker) = (agent(MAX_REDIRECTIONS), agent(0));
        Ok(Self { name: name.clone(), settings: settings.clone(), api, follower, asker })
    }

    /// The commit that the revision is, and its files.
    pub(super) fn listing(&self) -> Result<(String, Listing), HubError> {
        let repo = repo(&self.name, self.name.revision());
        let url = format!("{}/api/{}", self.settings.endpoint, repo.api_url());
        let request = self.api.repo(repo).info_request();
        let request = request.config().http_status_as_error(false).timeout_global(Some(SILENCE)).build();
        let mut response = request.call().map_err(|error| self.unreachable(error))?;
        self.check(&url, &response)?;
        let body = response.body_mut().with_config().limit(LONGEST_LISTING).read_to_vec();
        let body = body.map_err(|error| self.unreachable(error))?;
        let expected = "the description of a model, as JSON";
        let malformed = |found: String| HubError::Answer { url: url.clone(), found, expected };
        let info: RepoInfo =
            serde_json::from_slice(&body).map_err(|error| malformed(format!("answers something else ({error})")))?;
        if !is_commit(&info.sha) {
            return Err(malformed(format!("the commit is {:?}", clip(&info.sha))));
        }
        Ok((info.sha, Listing::new(info.siblings.into_iter().map(|file| file.rfilename))))
    }

    /// Length and hash of a file.
    pub(super) fn describe(&self, commit: &str, file: &str) -> Result<Remote, HubError> {
        let mut url = self.address(commit, file);
        for _ in 0..MAX_REDIRECTIONS {
            let request = self.with_headers(self.asker.head(&url), self.is_ours(&url));
            let response = request.call().map_err(|error| self.unreachable(error))?;
            self.check(&url, &response)?;
            let headers = response.headers();
            match answer::text(headers, header::LOCATION.as_str()) {
                // What it says of the file counts, not what a server says that only stores it.
                Some(location) if response.status().is_redirection() && !headers.contains_key("x-linked-etag") => {
                    url = joined(&url, location);
                }
                _ => return Remote::read(headers, &url),
            }
        }
        let found = "redirects again and again".to_owned();
        Err(HubError::Answer { url, found, expected: "a file's headers" })
    }

    /// The bytes of a file from `start` on. Servers may answer with all of them; `None` if there
    /// are none from there.
    pub(super) fn open(&self, commit: &str, file: &str, start: u64) -> Result<Option<Part>, HubError> {
        let url = self.address(commit, file);
        let mut request = self.with_headers(self.follower.get(&url), true);
        if start > 0 {
            request = request.header(header::RANGE, format!("bytes={start}-"));
        }
        let response = request.call().map_err(|error| self.unreachable(error))?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(None);
        }
        self.check(&url, &response)?;
        let partial = response.status() == StatusCode::PARTIAL_CONTENT;
        let begins = if partial { answer::range_start(response.headers()) } else { Some(0) };
        if begins.is_none_or(|begins| begins != 0 && begins != start) {
            let range = answer::text(response.headers(), header::CONTENT_RANGE.as_str()).unwrap_or_default();
            let found = format!("sends the range {:?}", clip(range));
            return Err(HubError::Answer { url, found, expected: "the range that was asked for" });
        }
        let length = response.body().content_length();
        let bytes = Box::new(response.into_body().into_reader());
        Ok(Some(Part { start: begins.unwrap_or(0), length, bytes }))
    }

    /// A file's address.
    pub(super) fn address(&self, commit: &str, file: &str) -> String {
        self.api.repo(repo(&self.name, commit)).url(&encoded(file))
    }

    fn with_headers(&self, request: RequestBuilder<WithoutBody>, with_token: bool) -> RequestBuilder<WithoutBody> {
        let agent = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));
        // Compressed, ranges and lengths would be those of other bytes.
        let request = request.header(header::USER_AGENT, agent).header(header::ACCEPT_ENCODING, "identity");
        match &self.settings.token {
            Some(token) if with_token => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
            _ => request,
        }
    }

    /// Whether an address is the Hub's own: no other server is told the token.
    fn is_ours(&self, url: &str) -> bool {
        url.strip_prefix(&self.settings.endpoint).is_some_and(|rest| rest.starts_with('/'))
    }

    fn check(&self, url: &str, response: &Response<Body>) -> Result<(), HubError> {
        let (status, headers): (_, &HeaderMap) = (response.status(), response.headers());
        if answer::is_passing(status) {
            return Err(unreachable(&self.name, &self.settings, format!("answers {status}")));
        }
        let token = self.settings.token.is_some();
        let question = Question { name: &self.name, endpoint: &self.settings.endpoint, token, url };
        question.error(status, headers).map_or(Ok(()), Err)
    }

    fn unreachable(&self, error: ureq::Error) -> HubError {
        unreachable(&self.name, &self.settings, error.to_string())
    }
}

/// A model as hf-hub names it.
pub(super) fn repo(name: &HubName, revision: &str) -> Repo {
    Repo::with_revision(name.repository(), RepoType::Model, revision.to_owned())
}

fn unreachable(name: &HubName, settings: &Settings, reason: String) -> HubError {
    let (endpoint, cache) = (settings.endpoint.clone(), settings.cache.clone());
    HubError::Unreachable { endpoint, reason: clip(&reason), name: name.to_string(), cache }
}

/// A path as part of an address.
fn encoded(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    path.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Where a redirection leads to: a path on the same server, or a whole address.
fn joined(url: &str, location: &str) -> String {
    if !location.starts_with('/') || location.starts_with("//") {
        return location.to_owned();
    }
    let host = url.find("://").map_or(0, |colon| colon + 3);
    let end = url[host..].find('/').map_or(url.len(), |slash| host + slash);
    format!("{}{location}", &url[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_hold_any_name() {
        assert_eq!(encoded("x/my model#1 é.pt"), "x/my%20model%231%20%C3%A9.pt");
        let join = |location| joined("http://hub:80/a/b", location);
        assert_eq!((join("/c?d=e"), join("https://cdn/f")), ("http://hub:80/c?d=e".into(), "https://cdn/f".into()));
        assert_eq!(joined("http://hub", "/c"), "http://hub/c");
    }
}
