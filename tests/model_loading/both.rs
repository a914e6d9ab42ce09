//! Loads models from disk and from a set of sources, which must agree in everything.

use bdh_gpu::model::{FileSet, LoadOptions, Model, ModelError, ReadAt, Tensor};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A file's bytes, which may fail, and notes of how they were read.
pub struct Watched {
    pub bytes: Vec<u8>,
    pub reads: Arc<Reads>,
}

/// Reads of all files of a set.
#[derive(Default)]
pub struct Reads {
    pub count: AtomicUsize,
    /// Number of the read that fails, as all after it do; 0 for none.
    pub broken: AtomicUsize,
}

impl ReadAt for Watched {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let number = self.reads.count.fetch_add(1, Relaxed) + 1;
        if (1..=number).contains(&self.reads.broken.load(Relaxed)) {
            return Err(io::Error::other("the cable is out"));
        }
        into.copy_from_slice(&self.bytes[offset as usize..][..into.len()]);
        Ok(())
    }
}

/// All files below a folder. An empty one gets a file, without which it would not exist.
pub fn insert(set: &mut FileSet, reads: &Arc<Reads>, folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    let paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    if paths.is_empty() {
        set.insert_bytes(folder.join("empty"), Vec::new());
    }
    for path in paths {
        if path.is_dir() {
            insert(set, reads, &path);
        } else if let Ok(bytes) = fs::read(&path) {
            let len = bytes.len() as u64;
            set.insert_source(&path, len, Arc::new(Watched { bytes, reads: reads.clone() }));
        }
    }
}

/// The folder of a model.
pub fn folder(path: &Path) -> &Path {
    if path.is_dir() { path } else { path.parent().unwrap_or(path) }
}

/// As [`Model::from_path`].
#[track_caller]
pub fn from_path(path: impl AsRef<Path>) -> Result<Model, ModelError> {
    from_path_with(path, &LoadOptions::default())
}

/// As [`Model::from_path_with`].
#[track_caller]
pub fn from_path_with(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Model, ModelError> {
    let path = path.as_ref();
    let (mut set, reads) = (FileSet::new(), Arc::new(Reads::default()));
    insert(&mut set, &reads, folder(path));
    if let Some(tokenizer) = &options.tokenizer {
        insert(&mut set, &reads, folder(tokenizer));
    }
    let (disk, other) = (Model::from_path_with(path, options), Model::from_file_set(&set, path, options));
    match (&disk, &other) {
        (Ok(disk), Ok(other)) => assert_same(disk, other),
        (Err(disk), Err(other)) => assert_eq!(format!("{disk}\n{disk:?}"), format!("{other}\n{other:?}")),
        _ => panic!("{}: {disk:?} from disk, but {other:?}", path.display()),
    }
    disk
}

#[track_caller]
fn assert_same(disk: &Model, other: &Model) {
    assert_eq!(format!("{disk:?}"), format!("{other:?}"));
    assert_eq!(disk.weights.freqs, other.weights.freqs);
    let tensors = |model: &Model| {
        let w = &model.weights;
        [&w.embed, &w.encoder, &w.encoder_v, &w.decoder, &w.lm_head].map(Tensor::clone)
    };
    for (disk, other) in tensors(disk).iter().zip(&tensors(other)) {
        let bits = |tensor: &Tensor| tensor.to_vec().into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert!(bits(disk) == bits(other) && disk.stored_bytes() == other.stored_bytes(), "{disk:?}");
    }
    assert!(other.weights.failure().is_none());
}
