//! The file that an interrupted pass goes on from.

use super::tally::{Sizes, Tally};
use super::{AtlasError, Corpus};
use crate::files::PendingFile;
use crate::generation::Bdh;
use crate::model::forgetting::Forgetting;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

/// The file of a pass, and the key of its input.
pub(super) struct Saved {
    path: PathBuf,
    /// Hash over the model, the corpus, the segments and the forgetting.
    key: [u8; 32],
}

impl Saved {
    pub fn new(folder: &Path, bdh: &Bdh, corpus: &Corpus, forgetting: Forgetting) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(concat!("atlas 1 ", env!("CARGO_PKG_VERSION")).as_bytes());
        hasher.update(bdh.fingerprint());
        hasher.update(&(corpus.segment as u64).to_le_bytes());
        hasher.update(format!("{forgetting:?} {} {}", bdh.backend().weight_type(), bdh.device()).as_bytes());
        hasher.update(bytemuck::cast_slice(corpus.tokens));
        Self { path: folder.join("progress.bin"), key: hasher.finalize().into() }
    }

    /// The counts so far, if they are of the same pass and whole.
    pub fn load(&self, sizes: Sizes) -> Option<Tally> {
        let mut file = BufReader::new(File::open(&self.path).ok()?);
        let mut key = [0; 32];
        file.read_exact(&mut key).ok()?;
        if key != self.key {
            return None;
        }
        Tally::load(sizes, &mut file).ok()
    }

    /// Saves the counts so far; the file takes its place when it is complete.
    pub fn save(&self, tally: &Tally) -> Result<(), AtlasError> {
        let write = || -> io::Result<()> {
            let mut file = PendingFile::create(&self.path)?;
            file.write_all(&self.key)?;
            tally.save(&mut file)?;
            file.commit()
        };
        write().map_err(|error| AtlasError::File { path: self.path.clone(), error })
    }

    /// Removes the file: the pass is over.
    pub fn remove(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
