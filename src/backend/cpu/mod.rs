//! The CPU backend, which is also the reference that GPU kernels are verified against.
//!
//! Every shader has a twin here with the same name, over the same blocks of neurons: `decode`,
//! `prefill` and `beam` follow the folders of `shaders`, and the files beside them follow
//! `shaders/shared`. A team of threads divides the blocks. Partial sums are added in block order, so
//! results do not depend on the number of threads, nor on which of them computes a block.

mod beam;
mod bell;
mod decode;
mod dense;
mod exchange;
mod gather;
mod norm;
mod padded;
mod pages;
mod past;
mod prefill;
mod probe;
mod rotary;
mod rows;
mod share;
pub mod simd;
mod slots;
mod state;
mod stream;
mod team;
mod threads;
mod time_slice;
mod unpack;
mod watch;
mod weights;
mod worker;

use super::beams::{BeamStages, Beams};
use super::prefill::PrefillStages;
use super::{Backend, BackendError, DeviceInfo, DeviceKind, Slots, StateType, WeightType, stage};
use crate::model::{Model, Weights};
use beam::CpuBeams;
use maybe_async::maybe_async;
use simd::{LANES, Level};
use slots::CpuSlots;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use threads::Threads;
use weights::{AnyWeights, CpuModel, on_weights};

/// A model's weights in host memory and the threads that use them.
pub struct CpuBackend {
    shared: Arc<Shared>,
}

/// State shared by all slots and beams of a backend.
struct Shared {
    model: CpuModel,
    state_type: StateType,
    level: Level,
    threads: Threads,
    /// Serialises runs: the threads of a run wait for one another.
    run_lock: Mutex<()>,
    device: DeviceInfo,
}

impl CpuBackend {
    /// Packs a model's weights for `threads` threads; by default one per processor.
    ///
    /// # Errors
    /// [`BackendError::Overflow`] and [`BackendError::OutOfMemory`] if the weights do not fit,
    /// [`BackendError::Driver`] if the threads do not start.
    pub fn new(model: &Model, weight_type: WeightType, threads: Option<usize>) -> Result<Self, BackendError> {
        let model = CpuModel::new(model, weight_type)?;
        let threads = threads.unwrap_or_else(Threads::available).clamp(1, model.geometry.blocks());
        let threads = Threads::start(threads)?;
        let count = threads.count();
        let level = Level::detect();
        let plural = if count == 1 { "" } else { "s" };
        let device = DeviceInfo {
            name: format!("CPU ({count} thread{plural}, {})", format!("{level:?}").to_lowercase()),
            api: "CPU".into(),
            driver: String::new(),
            kind: DeviceKind::Cpu,
        };
        let (state_type, run_lock) = (StateType::F32, Mutex::new(()));
        Ok(Self { shared: Arc::new(Shared { model, state_type, level, threads, run_lock, device }) })
    }

    /// The same backend with states of another type.
    ///
    /// # Panics
    /// If there are slots or beams already.
    #[must_use]
    pub fn with_state(mut self, state_type: StateType) -> Self {
        Arc::get_mut(&mut self.shared).expect("a backend without slots").state_type = state_type;
        self
    }
}

/// Bytes of states that stay in the cache together. Small models decode fastest within this limit.
const CACHED_STATES: u64 = 24 << 20;
/// Batch size for states beyond the cache: a few sequences already amortise most of the weight
/// traffic.
const STREAMED_SLOTS: usize = 8;

#[maybe_async(?Send)]
impl Backend for CpuBackend {
    fn device(&self) -> &DeviceInfo {
        &self.shared.device
    }

    fn weight_type(&self) -> WeightType {
        match self.shared.model.weights {
            AnyWeights::F32(_) => WeightType::F32,
            AnyWeights::F16(_) => WeightType::F16,
            AnyWeights::I8(_) => WeightType::I8,
        }
    }

    fn state_type(&self) -> StateType {
        self.shared.state_type
    }

    fn weight_bytes(&self) -> u64 {
        on_weights!(&self.shared.model.weights, weights => weights.bytes())
    }

    fn host_weights(&self, weights: &Weights) -> Weights {
        let CpuModel { geometry, weights: packed, .. } = &self.shared.model;
        on_weights!(packed, packed => packed.as_model(weights, geometry))
    }

    fn preferred_slots(&self, state_bytes: u64) -> usize {
        match (CACHED_STATES / state_bytes.max(1)) as usize {
            0 => STREAMED_SLOTS,
            cached => cached,
        }
    }

    fn chunk_tokens(&self) -> usize {
        prefill::CHUNK_TOKENS
    }

    async fn create_slots(&self, count: usize) -> Result<Box<dyn Slots>, BackendError> {
        Ok(Box::new(CpuSlots::new(self.shared.clone(), count)?))
    }

    async fn create_beams(&self, count: usize) -> Result<Box<dyn Beams>, BackendError> {
        Ok(Box::new(CpuBeams::new(self.shared.clone(), count)?))
    }

    fn stages(&self) -> &dyn stage::Stages {
        self
    }

    fn beam_stages(&self) -> &dyn BeamStages {
        self
    }

    fn prefill_stages(&self) -> &dyn PrefillStages {
        self
    }
}

/// Locks a mutex and ignores poison: its contents stay usable after a panic elsewhere.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const _: () = assert!(LANES == 16, "rows are padded to whole vectors");

#[cfg(test)]
mod level_tests;
