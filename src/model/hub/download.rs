//! One file of the Hub, into the cache: resumed where an earlier attempt ended, checked, and only
//! then put in its place.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

use super::HubError;
use super::answer::Remote;
use super::cache::{ModelCache, create_folder_of};
use super::client::{Client, Part};
use super::watch::Events;

/// Attempts in a row that bring nothing worth mentioning.
const ATTEMPTS: u32 = 5;
/// Bytes that make an attempt worth another one.
const WORTHWHILE: u64 = 1 << 20;
/// The pause after a broken attempt; each is twice as long as the one before.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes read at a time.
const CHUNK: usize = 1 << 16;

/// One file to be downloaded.
pub(super) struct Download<'a> {
    pub(super) client: &'a Client,
    pub(super) cache: &'a ModelCache,
    pub(super) events: &'a Events,
    pub(super) commit: &'a str,
    pub(super) file: &'a str,
    pub(super) remote: &'a Remote,
    /// Bytes of the files before it.
    pub(super) before: u64,
    /// Bytes of all files.
    pub(super) total: u64,
}

/// How an attempt ended that did not fail for good.
enum Attempt {
    Complete,
    Broken(String),
}

impl Download<'_> {
    /// Downloads the file, unless the cache has its content already.
    pub(super) fn run(&self) -> Result<(), HubError> {
        let blob = self.cache.blob(&self.remote.etag);
        if self.is_complete(&blob) {
            return Ok(());
        }
        let failed = |source| HubError::Cache { path: blob.clone(), source };
        create_folder_of(&blob).map_err(failed)?;
        let _lock = self.cache.lock(&self.remote.etag, self.events)?;
        if self.is_complete(&blob) {
            return Ok(());
        }
        let partial = PathBuf::from(format!("{}.incomplete", blob.display()));
        let checked = self.receive(&partial).and_then(|()| self.check(&partial));
        if let Err(HubError::Size { .. } | HubError::Hash { .. }) = checked {
            // To be downloaded anew the next time.
            let _ = std::fs::remove_file(&partial);
        }
        checked?;
        std::fs::rename(&partial, &blob).map_err(failed)
    }

    /// Whether a blob is there. It was checked before it was put there, but another program may
    /// have cut it short.
    fn is_complete(&self, blob: &Path) -> bool {
        blob.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == self.remote.size)
    }

    fn address(&self) -> String {
        self.client.address(self.commit, self.file)
    }

    /// Appends what is missing to what is there, in as many attempts as are worth it.
    fn receive(&self, partial: &Path) -> Result<(), HubError> {
        let failed = |source| HubError::Cache { path: partial.to_owned(), source };
        let mut file = File::options().create(true).append(true).open(partial).map_err(failed)?;
        let mut failures = 0;
        let mut done = file.metadata().map_err(failed)?.len();
        if done > self.remote.size {
            file.set_len(0).map_err(failed)?;
            done = 0;
        }
        while done < self.remote.size {
            let before = done;
            let attempt = self.attempt(&mut file, &mut done, partial)?;
            let Attempt::Broken(reason) = attempt else { break };
            failures = if done >= before.saturating_add(WORTHWHILE) { 1 } else { failures + 1 };
            if failures == ATTEMPTS {
                return Err(HubError::Broken { file: self.address(), done, total: self.remote.size, reason });
            }
            self.pause(failures)?;
        }
        file.sync_all().map_err(failed)
    }

    /// Asks for the bytes from `done` on and appends them, as far as they come.
    fn attempt(&self, file: &mut File, done: &mut u64, partial: &Path) -> Result<Attempt, HubError> {
        let failed = |source| HubError::Cache { path: partial.to_owned(), source };
        let opened = match self.client.open(self.commit, self.file, *done) {
            Err(HubError::Unreachable { reason, .. }) => return Ok(Attempt::Broken(reason)),
            other => other?,
        };
        let Part { start, length, mut bytes } = match opened {
            Some(part) => part,
            None => Part { start: 0, length: None, bytes: Box::new(io::empty()) },
        };
        if start != *done {
            // All of it comes again.
            file.set_len(0).map_err(failed)?;
            *done = 0;
        }
        let size = |found: String| HubError::Size { file: self.address(), found, expected: self.remote.size };
        if let Some(length) = length.map(|length| start.saturating_add(length))
            && length != self.remote.size
        {
            return Err(size(length.to_string()));
        }
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = match bytes.read(&mut chunk) {
                Ok(0) if *done < self.remote.size => {
                    return Ok(Attempt::Broken("the connection was closed".to_owned()));
                }
                Ok(0) => return Ok(Attempt::Complete),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Ok(Attempt::Broken(error.to_string())),
            };
            if read as u64 > self.remote.size - *done {
                return Err(size("more".to_owned()));
            }
            file.write_all(&chunk[..read]).map_err(failed)?;
            *done += read as u64;
            self.events.progress(self.file, self.before + *done, self.total)?;
        }
    }

    fn pause(&self, failures: u32) -> Result<(), HubError> {
        for _ in 0..1_u32 << (failures - 1) {
            self.events.alive()?;
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Compares a complete file with its ETag, if that is a hash: SHA-256 for large files, Git's
    /// SHA-1 for others; of mirrors also plain SHA-1.
    fn check(&self, partial: &Path) -> Result<(), HubError> {
        let failed = |source| HubError::Cache { path: partial.to_owned(), source };
        let expected = self.remote.etag.to_ascii_lowercase();
        let is_hash = expected.bytes().all(|byte| byte.is_ascii_hexdigit());
        let (kind, mut hashes) = match expected.len() {
            64 if is_hash => ("SHA-256", vec![Context::new(&SHA256)]),
            40 if is_hash => {
                let mut git = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
                git.update(format!("blob {}\0", self.remote.size).as_bytes());
                ("SHA-1", vec![git, Context::new(&SHA1_FOR_LEGACY_USE_ONLY)])
            }
            _ => return Ok(()),
        };
        let mut file = File::open(partial).map_err(failed)?;
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = file.read(&mut chunk).map_err(failed)?;
            if read == 0 {
                break;
            }
            hashes.iter_mut().for_each(|hash| hash.update(&chunk[..read]));
            self.events.alive()?;
        }
        let hex = |hash: Context| hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let found: Vec<String> = hashes.into_iter().map(hex).collect();
        if found.contains(&expected) {
            return Ok(());
        }
        Err(HubError::Hash {
            file: self.address(),
            kind,
            found: found.concat().chars().take(expected.len()).collect(),
            expected,
        })
    }
}
