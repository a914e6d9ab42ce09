//! The files of a model: which are needed, which are missing, and in which order they come.
//!
//! A snapshot with weights is complete: they come last. The reference to it comes after them, so
//! that a broken download leaves the revision before it in use.

use std::path::PathBuf;

use serde_json::Value;

use super::cache::ModelCache;
use super::client::{self, Client};
use super::download::Download;
use super::listing::Listing;
use super::settings::Settings;
use super::watch::{Events, watched};
use super::{HubError, HubName, Local, Watch};
use crate::model::files::{Disk, Files};
use crate::model::json::JsonFile;
use crate::model::{CONFIG, ModelError, TOKENIZER_PATH, directory, shards};

/// Finds a model in the cache, after downloading what is not in it.
pub(super) fn locate(name: &HubName, watch: &mut Watch<'_>) -> Result<Local, ModelError> {
    let settings = Settings::of_environment()?;
    let wanted = name.clone();
    watched(name, watch, move |events| fetch(&wanted, &settings, events))
}

fn fetch(name: &HubName, settings: &Settings, events: &Events) -> Result<Local, ModelError> {
    let cache = hf_hub::Cache::new(settings.cache.clone());
    let cache = ModelCache::new(cache, client::repo(name, name.revision()));
    if settings.offline {
        let offline = || HubError::Offline { name: name.to_string(), cache: settings.cache.clone() };
        let path = cached(name, &cache).ok_or_else(offline)?;
        return Ok(Local { path, notes: Vec::new() });
    }
    let client = Client::new(name, settings)?;
    let (commit, listing) = match client.listing() {
        Ok(found) => found,
        Err(error) => {
            let HubError::Unreachable { endpoint, reason, .. } = &error else { return Err(error.into()) };
            let note = format!("{endpoint} cannot be reached ({reason}); the cached {name} is used");
            let path = cached(name, &cache).ok_or(error)?;
            return Ok(Local { path, notes: vec![note] });
        }
    };
    let missing = Missing { name, client: &client, cache: &cache, events, commit: &commit, listing: &listing };
    missing.download_all()?;
    cache.set_commit(&commit)?;
    Ok(Local { path: place(name, cache.snapshot(&commit)), notes: Vec::new() })
}

/// Where a model was last downloaded to.
fn cached(name: &HubName, cache: &ModelCache) -> Option<PathBuf> {
    let snapshot = cache.snapshot(&cache.commit()?);
    let weights = match &name.file {
        Some(file) => snapshot.join(file),
        None => directory::weights(&Disk, &snapshot).ok()?,
    };
    weights.is_file().then(|| place(name, snapshot))
}

/// What of a snapshot is loaded: the whole, or the file that is named.
fn place(name: &HubName, snapshot: PathBuf) -> PathBuf {
    match &name.file {
        Some(file) => snapshot.join(file),
        None => snapshot,
    }
}

/// What a snapshot lacks.
struct Missing<'a> {
    name: &'a HubName,
    client: &'a Client,
    cache: &'a ModelCache,
    events: &'a Events,
    commit: &'a str,
    listing: &'a Listing,
}

impl Missing<'_> {
    /// Downloads the model: configuration and tokenizer first, the weights last.
    fn download_all(&self) -> Result<(), ModelError> {
        let weights = self.listing.weights(self.name)?;
        let folder = self.name.folder();
        self.download(&self.listing.companions(folder))?;
        self.download(&self.named_tokenizer(folder))?;
        if weights.ends_with(shards::INDEX) {
            self.download(&self.parts(folder, &weights)?)?;
        }
        Ok(self.download(&[weights])?)
    }

    /// The tokenizer that the configuration names.
    fn named_tokenizer(&self, folder: &str) -> Vec<String> {
        let config = JsonFile::read(&Disk, self.cache.snapshot(self.commit).join(format!("{folder}{CONFIG}")));
        // One that cannot be read is an error when the model is loaded.
        let Ok(Some(config)) = config else { return Vec::new() };
        let path = config.get(TOKENIZER_PATH).and_then(Value::as_str).unwrap_or_default();
        self.listing.tokenizer_at(folder, path)
    }

    /// The parts that an index names. The index itself does not become part of the snapshot yet.
    fn parts(&self, folder: &str, index: &str) -> Result<Vec<String>, ModelError> {
        let path = self.cache.snapshot(self.commit).join(index);
        let storage = if path.is_file() {
            Disk.open(&path)?
        } else {
            let remote = self.client.describe(self.commit, index)?;
            self.blob(index, &remote, 0, remote.size)?;
            Disk.open(&self.cache.blob(&remote.etag))?
        };
        let json = JsonFile::parse(&path, &storage.read(0..storage.len())?)?;
        let parts = shards::parts(&json)?.into_iter().map(|part| format!("{folder}{part}"));
        // The loader names those that are missing.
        Ok(parts.filter(|part| self.listing.holds(part)).collect())
    }

    /// Downloads those of the files that the snapshot lacks.
    fn download(&self, files: &[String]) -> Result<(), HubError> {
        let snapshot = self.cache.snapshot(self.commit);
        let lacking = files.iter().filter(|file| !snapshot.join(file).is_file());
        let described = lacking.map(|file| {
            self.events.alive()?;
            Ok((file, self.client.describe(self.commit, file)?))
        });
        let described = described.collect::<Result<Vec<_>, HubError>>()?;
        let total = described.iter().fold(0_u64, |total, (_, remote)| total.saturating_add(remote.size));
        let mut before = 0_u64;
        for (file, remote) in described {
            self.blob(file, &remote, before, total)?;
            self.cache.link(self.commit, file, &remote.etag)?;
            before = before.saturating_add(remote.size);
        }
        Ok(())
    }

    fn blob(&self, file: &str, remote: &super::answer::Remote, before: u64, total: u64) -> Result<(), HubError> {
        let Self { client, cache, events, commit, .. } = *self;
        Download { client, cache, events, commit, file, remote, before, total }.run()
    }
}
