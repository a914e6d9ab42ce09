//! Models that are larger than what may lie in memory: their weights go from a source to a device
//! piece by piece.

#[path = "common/allocation.rs"]
mod allocation;
#[path = "common/gpu.rs"]
mod gpu;

use allocation::{Counting, measured};
use bdh_gpu::backend::cpu::CpuBackend;
use bdh_gpu::backend::gpu::{GpuBackend, GpuOptions};
use bdh_gpu::backend::{Backend, BackendError, WeightType};
use bdh_gpu::generation::Bdh;
use bdh_gpu::model::{FileSet, LoadOptions, Model, ReadAt};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MIB: usize = 1 << 20;
/// Bytes that the library reads at once at most.
const LARGEST_READ: u64 = 1 << 20;
const SIZES: [(&str, &[usize]); 5] = [
    ("embed.weight", &[256, 2048]),
    ("encoder", &[1, 2048, 8192]),
    ("encoder_v", &[1, 2048, 8192]),
    ("decoder", &[8192, 2048]),
    ("lm_head", &[2048, 256]),
];
const CONFIG: &str =
    r#"{"n_layer": 1, "n_embd": 2048, "n_head": 1, "mlp_internal_dim_multiplier": 4, "vocab_size": 256}"#;

/// A safetensors file of 98 MiB that is nowhere: a number of type f16 is computed from its place.
struct Imagined {
    header: Vec<u8>,
    len: u64,
    reads: AtomicU64,
    bytes: AtomicU64,
    largest: AtomicU64,
    /// Number of the read that fails, as all after it do; 0 for none.
    broken: AtomicU64,
}

impl Imagined {
    fn new() -> Arc<Self> {
        let mut entries = Vec::new();
        let mut end = 0;
        for (name, shape) in SIZES {
            let begin = end;
            end += 2 * shape.iter().product::<usize>();
            entries.push(format!(r#""{name}":{{"dtype":"F16","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#));
        }
        let mut text = format!("{{{}}}", entries.join(","));
        text.push_str(if text.len() % 2 == 1 { " " } else { "" });
        let header = [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
        let (len, zero) = ((header.len() + end) as u64, || AtomicU64::new(0));
        Arc::new(Self { header, len, reads: zero(), bytes: zero(), largest: zero(), broken: zero() })
    }

    fn forget(&self) {
        [&self.reads, &self.bytes, &self.largest].iter().for_each(|count| count.store(0, Relaxed));
    }

    fn counted(&self) -> [u64; 3] {
        [&self.reads, &self.bytes, &self.largest].map(|count| count.load(Relaxed))
    }

    fn byte(&self, at: u64) -> u8 {
        if let Some(&byte) = self.header.get(at as usize) {
            return byte;
        }
        let half = ((at / 2).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u16;
        // Numbers of both signs from 1/64 to 1/32.
        (half & 0x83ff | 0x2400).to_le_bytes()[(at % 2) as usize]
    }
}

impl ReadAt for Imagined {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let number = self.reads.fetch_add(1, Relaxed) + 1;
        self.bytes.fetch_add(into.len() as u64, Relaxed);
        self.largest.fetch_max(into.len() as u64, Relaxed);
        assert!(offset + into.len() as u64 <= self.len);
        if (1..=number).contains(&self.broken.load(Relaxed)) {
            return Err(io::Error::other("the cable is out"));
        }
        into.iter_mut().zip(offset..).for_each(|(byte, at)| *byte = self.byte(at));
        Ok(())
    }
}

fn set(source: &Arc<Imagined>) -> FileSet {
    let mut set = FileSet::new();
    set.insert_bytes("config.json", CONFIG.into());
    set.insert_source("model.safetensors", source.len, source.clone());
    set
}

fn load(set: &FileSet) -> Model {
    Model::from_file_set(set, "", &LoadOptions::default()).unwrap()
}

/// The logits after a token.
fn logits(model: Model, backend: impl Backend + 'static) -> Vec<f32> {
    let mut session = Bdh::on(model, backend).session().unwrap();
    session.feed(&[1]).unwrap();
    session.next_logits().unwrap()
}

#[test]
fn a_model_goes_to_a_device_in_pieces() {
    let source = Imagined::new();
    let (model, peak) = measured(|| load(&set(&source)));
    let [reads, bytes, largest] = source.counted();
    assert!(peak < 4 * MIB, "loading took {peak} bytes of memory");
    assert!(largest <= LARGEST_READ && bytes <= source.len + 4 * LARGEST_READ, "{largest} {bytes}");
    assert!(reads < 2 * source.len.div_ceil(LARGEST_READ), "{reads} reads");

    let mut whole = vec![0; source.len as usize];
    source.read_at(0, &mut whole).unwrap();
    let mut in_memory = set(&source);
    in_memory.insert_bytes("model.safetensors", whole);
    let copy = load(&in_memory);
    // Software adapters keep weights in images, others in buffers.
    for hardware_layout in [false, true] {
        let open = |model: &Model| {
            let options = GpuOptions { hardware_layout, ..GpuOptions::default() };
            gpu::backend(model, WeightType::F16, options)
        };
        source.forget();
        let (streamed, peak) = measured(|| open(&model));
        let [reads, bytes, largest] = source.counted();
        // A piece, and what drivers and shaders take.
        assert!(peak < 24 * MIB, "the upload took {peak} bytes of memory");
        assert!(largest <= LARGEST_READ && bytes <= source.len + 4 * LARGEST_READ, "{largest} {bytes}");
        assert!(bytes / reads >= 8 << 10, "{reads} reads of {bytes} bytes");
        let expected = logits(copy.clone(), open(&copy));
        assert!(expected.iter().any(|logit| logit.abs() > 1e-3), "{expected:?}");
        assert_eq!(logits(model.clone(), streamed), expected);
    }
    let cpu = |model: &Model| logits(model.clone(), CpuBackend::new(model, WeightType::F16, Some(2)).unwrap());
    assert_eq!(cpu(&model), cpu(&copy));
}

#[test]
fn a_source_that_fails_later_is_an_error() {
    const MESSAGE: &str = "model.safetensors: cannot be read: the cable is out";
    let source = Imagined::new();
    let set = set(&source);
    let (first, second) = (load(&set), load(&set));
    source.broken.store(1, Relaxed);
    source.forget();
    let refused = |result: Result<(), BackendError>| match result {
        Err(error @ BackendError::Weights(_)) => assert_eq!(error.to_string(), MESSAGE),
        other => panic!("{other:?}"),
    };
    refused(GpuBackend::with_options(&first, WeightType::F16, &gpu::adapter(), GpuOptions::default()).map(drop));
    assert_eq!(source.counted()[0], 1, "nothing is read after a failure");
    refused(CpuBackend::new(&second, WeightType::F16, Some(1)).map(drop));
    assert_eq!(first.weights.failure().unwrap().to_string(), MESSAGE);
    let folder = tempfile::tempdir().unwrap();
    let saved = second.save(folder.path().join("m"), &Default::default());
    assert_eq!(saved.unwrap_err().to_string(), MESSAGE);
    assert!(!folder.path().join("m").exists());
    // In the midst of a load, too, after which the same set loads again.
    source.broken.store(50, Relaxed);
    source.forget();
    let error = Model::from_file_set(&set, "", &LoadOptions::default()).unwrap_err();
    assert_eq!((error.to_string().as_str(), source.counted()[0]), (MESSAGE, 50));
    source.broken.store(0, Relaxed);
    assert!(load(&set).weights.failure().is_none());
}
