//! Files of a model that JavaScript reads: a file of the page's user, a download, a disk.

use crate::engine::Engine;
use crate::errors::{error, thrown};
use crate::options::Loading;
use bdh_gpu::model::files::{companion_names, weights_names};
use bdh_gpu::model::{FileSet, Model, ReadAt};
use js_sys::{Array, Function, Object, Reflect, Uint8Array};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};

thread_local! {
    /// Objects of JavaScript with a function `read`, by number. The loader's files may be shared
    /// among threads, which these objects may not.
    static READERS: RefCell<HashMap<u32, JsValue>> = RefCell::default();
    static NEXT: Cell<u32> = const { Cell::new(0) };
    /// The error that `read` threw last.
    static FAILURE: RefCell<Option<JsValue>> = const { RefCell::new(None) };
    /// Bytes read since the phase began.
    static READ: Cell<u64> = const { Cell::new(0) };
    static PROGRESS: RefCell<Option<Progress>> = const { RefCell::new(None) };
}

/// Bytes between two reports of progress.
const STEP: u64 = 8 << 20;

/// Who hears of a loading's progress.
struct Progress {
    each: Function,
    phase: &'static str,
    /// Bytes of all files.
    total: u64,
}

/// Begins a phase of a loading, whose files have `total` bytes, or ends the last one.
fn begin(phase: Option<(&'static str, &Function, u64)>) {
    READ.set(0);
    PROGRESS.set(phase.map(|(phase, each, total)| Progress { each: each.clone(), phase, total }));
    report();
}

/// Says how much has been read. Weights are read more than once: to check them, and to pack them.
fn report() {
    PROGRESS.with_borrow(|progress| {
        if let Some(Progress { each, phase, total }) = progress {
            let done = READ.get().min(*total) as f64;
            // A page that cannot show it does not end the loading.
            let _ = each.call3(&JsValue::UNDEFINED, &(*phase).into(), &done.into(), &(*total as f64).into());
        }
    });
}

/// A number in [`READERS`].
struct Reader(u32);

impl Reader {
    fn new(file: JsValue) -> Self {
        let number = NEXT.replace(NEXT.get().wrapping_add(1));
        READERS.with_borrow_mut(|readers| readers.insert(number, file));
        Self(number)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        READERS.with_borrow_mut(|readers| readers.remove(&self.0));
    }
}

impl ReadAt for Reader {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let file = READERS.with_borrow(|readers| readers.get(&self.0).cloned()).unwrap_or_default();
        let read = Reflect::get(&file, &"read".into()).ok().and_then(|read| read.dyn_into::<Function>().ok());
        let read = read.ok_or_else(|| io::Error::other("the file has no function read"))?;
        let bytes = read.call2(&file, &(offset as f64).into(), &(into.len() as f64).into()).map_err(|thrown| {
            let message = Reflect::get(&thrown, &"message".into()).ok().and_then(|message| message.as_string());
            FAILURE.set(Some(thrown));
            io::Error::other(message.unwrap_or_else(|| "it cannot be read".to_owned()))
        })?;
        let bytes: Uint8Array = bytes.dyn_into().map_err(|_| io::Error::other("read returned no Uint8Array"))?;
        if bytes.length() as usize != into.len() {
            let message = format!("{} bytes came instead of {}", bytes.length(), into.len());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        bytes.copy_to(into);
        let before = READ.get();
        READ.set(before + into.len() as u64);
        if before / STEP != READ.get() / STEP {
            report();
        }
        Ok(())
    }
}

#[wasm_bindgen]
impl Engine {
    /// Loads a model and puts it on a device. `files` are `{ path, size, read(offset, length) }`;
    /// `path` is one of them, or empty for the folder of all. `progress` receives the phase, and
    /// how much of it is done of how much.
    pub async fn load(
        name: String,
        path: String,
        files: Vec<JsValue>,
        options: JsValue,
        progress: Function,
    ) -> Result<Self, JsValue> {
        let loading = Loading::read(&options)?;
        let (mut set, mut total) = (FileSet::new(), 0);
        for file in files {
            let get = |key: &str| Reflect::get(&file, &key.into()).unwrap_or_default();
            let (Some(path), Some(size)) = (get("path").as_string(), get("size").as_f64()) else {
                return Err(error("options", "a file must have path, size and read"));
            };
            total += size as u64;
            set.insert_source(&path, size as u64, Arc::new(Reader::new(file)));
        }
        FAILURE.take();
        // The error that `read` threw says more than the loader's.
        let original = |error: JsValue| FAILURE.take().unwrap_or(error);
        begin(Some(("reading", &progress, total)));
        let mut model = Model::from_file_set(&set, &path, &loading.load).map_err(|error| original(thrown(error)))?;
        model.name = name;
        begin(Some(("uploading", &progress, total)));
        let engine = Self::open(model, loading).await.map_err(original)?;
        // A browser does not tell how many kernels are left.
        begin(Some(("compiling", &progress, 1)));
        engine.warm_up().await?;
        READ.set(1);
        report();
        begin(None);
        Ok(engine)
    }
}

/// Names that a folder's files may have: `weights`, the preferred one first, and `companions`.
#[wasm_bindgen]
pub fn known_files() -> Result<Object, JsValue> {
    let names = Object::new();
    let list = |names: &mut dyn Iterator<Item = String>| names.map(JsValue::from).collect::<Array>();
    let weights = list(&mut weights_names().iter().map(|name| (*name).to_owned()));
    Reflect::set(&names, &"weights".into(), &weights)?;
    Reflect::set(&names, &"companions".into(), &list(&mut companion_names().into_iter()))?;
    Ok(names)
}
