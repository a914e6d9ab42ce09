//! A device against the CPU backend: every kernel on many shapes, then a whole model.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `cases` | the shapes, and inputs of a known density |
//! | `sampling` | inputs of the sampler |
//! | `random` | random numbers for them |
//! | `kernels` | each kernel against its twin |
//! | `beams` | each kernel of the beam search against its twin |
//! | `chunks` | each kernel that reads a chunk of tokens against its twin |
//! | `whole` | a whole model on both devices |
//! | `start` | the first tokens of a text on both devices, before it is written |
//! | `compare` | tolerances, and why they are what they are |
//! | `report` | the rows of the table |
//!
//! Kernels run through [`Stages`](crate::backend::stage::Stages),
//! [`BeamStages`](crate::backend::beams::BeamStages) and
//! [`PrefillStages`](crate::backend::prefill::PrefillStages), on equal inputs; the twins' own
//! reference is in the tests (results of the reference implementation, and a naive pass in f64).

mod beams;
mod cases;
mod compare;
mod kernels;
mod prefill;
mod random;
mod report;
mod sampling;
mod start;
mod whole;

pub use cases::{Suite, beam_suites, clamped_suites, coded_suites, prefill_suites, suites};
use maybe_async::maybe_async;
pub use report::{CaseReport, Report};
pub use start::{Start, StartError, check_start};
use std::cell::Cell;
use std::ops::ControlFlow;

use crate::backend::cpu::CpuBackend;
use crate::backend::gpu::{AdapterChoice, GpuBackend, GpuOptions, Phase, kernel_names};
use crate::backend::{Backend, BackendError, StateType, WeightType};
use crate::generation::{DeviceChoice, WeightChoice};
use crate::model::{Model, ModelError};
use cases::Bench;
use compare::Comparison;

/// What to verify.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// The model for the whole-model runs; the embedded one if there is none.
    pub model: Option<Model>,
    /// The device. [`DeviceChoice::Auto`] takes the best adapter there is, a software one included.
    pub device: DeviceChoice,
    /// Breaks this kernel on purpose: the verification must then fail.
    pub corrupt: Option<String>,
    /// Whether each kernel is checked by itself, on many shapes, before the whole model.
    pub single_kernels: bool,
    /// Of the shapes that each kernel is checked on, take every so many; at least 1, which is all.
    pub stride: usize,
    /// Tokens that the whole-model runs generate.
    pub whole_model_tokens: usize,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self {
            model: None,
            device: DeviceChoice::Auto,
            corrupt: None,
            single_kernels: true,
            stride: 1,
            whole_model_tokens: 256,
        }
    }
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The CPU backend was to be verified.
    #[error(
        "the CPU backend is the reference and there is nothing here to verify it against (the goldens of `cargo test` do)"
    )]
    CpuIsTheReference,
    /// This build has no model of its own.
    #[error("this build has no embedded model")]
    NoModel,
    /// There is no kernel of this name to corrupt.
    #[error("there is no kernel {name:?} to corrupt; kernels are {}", known.join(", "))]
    UnknownKernel {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<&'static str>,
    },
    /// The embedded model cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A device failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// Puts models on the device that is verified; natively, any function that does.
#[maybe_async(?Send)]
pub trait Open {
    /// Puts a model on the device.
    async fn open(
        &self,
        model: &Model,
        weights: WeightType,
        state: StateType,
    ) -> Result<Box<dyn Backend>, BackendError>;
}

#[cfg(not(target_family = "wasm"))]
impl<F: Fn(&Model, WeightType, StateType) -> Result<Box<dyn Backend>, BackendError>> Open for F {
    fn open(&self, model: &Model, weights: WeightType, state: StateType) -> Result<Box<dyn Backend>, BackendError> {
        self(model, weights, state)
    }
}

/// An adapter, and a kernel that is broken on it on purpose.
struct Adapter {
    choice: AdapterChoice,
    corrupt: Option<String>,
}

#[maybe_async(?Send)]
impl Open for Adapter {
    async fn open(
        &self,
        model: &Model,
        weights: WeightType,
        state: StateType,
    ) -> Result<Box<dyn Backend>, BackendError> {
        let options = GpuOptions { state, corrupt: self.corrupt.clone(), ..GpuOptions::default() };
        Ok(Box::new(GpuBackend::with_options(model, weights, &self.choice, options).await?))
    }
}

/// Runs every kernel on every shape, if that is asked for, then the whole model. `progress` hears
/// of each row and may end the verification, at the next shape.
///
/// # Errors
/// [`VerifyError`] where there is nothing to verify, or the device cannot be opened or was lost. A
/// device that merely computes wrong numbers, or refuses a shape, gives a report that has not passed.
#[maybe_async]
pub async fn run(
    options: &VerifyOptions,
    progress: &mut dyn FnMut(&CaseReport) -> ControlFlow<()>,
) -> Result<Report, VerifyError> {
    let choice = adapter(&options.device)?;
    if let Some(name) = &options.corrupt {
        let known = [Phase::Decode, Phase::Prefill, Phase::Beam].map(kernel_names).concat();
        if !known.contains(&name.as_str()) {
            return Err(VerifyError::UnknownKernel { name: name.clone(), known });
        }
    }
    let embedded;
    let model = match &options.model {
        Some(model) => model,
        None => {
            embedded = embedded_model()?;
            &embedded
        }
    };
    let adapter = Adapter { choice, corrupt: options.corrupt.clone() };
    // Opened first, so that a missing adapter or a model that does not fit is reported at once.
    let device = adapter.open(model, WeightChoice::Auto.resolve(model), StateType::F32).await?;
    let (mut cases, goes_on) = (Vec::new(), Cell::new(true));
    let mut each = |case: CaseReport| {
        if goes_on.get() {
            goes_on.set(progress(&case).is_continue());
            cases.push(case);
        }
    };
    let shapes = |lists: &[Vec<Suite>]| {
        let taken = lists.concat().into_iter().step_by(options.stride.max(1));
        taken.take_while(|_| goes_on.get())
    };
    if options.single_kernels {
        for suite in shapes(&[suites(), coded_suites(), clamped_suites()]) {
            check_kernels(&suite, &adapter, &mut each).await?;
        }
        for suite in shapes(&[beam_suites(), clamped_suites()]) {
            check_beam_kernels(&suite, &adapter, &mut each).await?;
        }
        for suite in shapes(&[prefill_suites(), clamped_suites()]) {
            check_prefill_kernels(&suite, &adapter, &mut each).await?;
        }
    }
    if goes_on.get() {
        check_model(model, &*device, options.whole_model_tokens, &mut each).await?;
    }
    Ok(Report { device: device.device().to_string(), cases })
}

/// The adapter that a device choice names; without a preference the best there is, a software one included.
fn adapter(device: &DeviceChoice) -> Result<AdapterChoice, VerifyError> {
    Ok(match device {
        DeviceChoice::Cpu => return Err(VerifyError::CpuIsTheReference),
        DeviceChoice::Auto | DeviceChoice::Gpu => AdapterChoice::Any,
        DeviceChoice::Index(index) => AdapterChoice::Index(*index),
        DeviceChoice::Name(name) => AdapterChoice::Name(name.clone()),
    })
}

/// Every kernel's shader, as its path below `shaders/` without the ending, and the whole WGSL text that a device gets of it
/// for a model.
///
/// # Errors
/// [`VerifyError`] if the device is the CPU or cannot take the model.
#[maybe_async]
pub async fn shader_texts(model: &Model, device: &DeviceChoice) -> Result<Vec<(&'static str, String)>, VerifyError> {
    let gpu = GpuBackend::new(model, WeightChoice::Auto.resolve(model), &adapter(device)?).await?;
    Ok(gpu.shader_texts(1))
}

#[cfg(feature = "embedded-model")]
fn embedded_model() -> Result<Model, VerifyError> {
    Ok(Model::embedded()?)
}

#[cfg(not(feature = "embedded-model"))]
fn embedded_model() -> Result<Model, VerifyError> {
    Err(VerifyError::NoModel)
}

/// Runs every kernel on one shape, on the device that `open` opens and on the CPU backend; `each` receives
/// the rows.
///
/// # Errors
/// [`VerifyError::Backend`] where the device was lost. Its other errors become a row that has not passed.
#[maybe_async]
pub async fn check_kernels(
    suite: &Suite,
    open: &dyn Open,
    each: &mut dyn FnMut(CaseReport),
) -> Result<(), VerifyError> {
    let mut bench = Bench::new(suite);
    let result = match bench.devices(open).await {
        Ok((device, twin)) => kernels::check(&mut bench, device.stages(), twin.stages(), each).await,
        Err(error) => Err(error),
    };
    report_error(result, suite.to_string(), each)
}

/// As [`check_kernels`], for the kernels that only a beam search runs; with as many beams as the suite has
/// sequences.
///
/// # Errors
/// As [`check_kernels`].
#[maybe_async]
pub async fn check_beam_kernels(
    suite: &Suite,
    open: &dyn Open,
    each: &mut dyn FnMut(CaseReport),
) -> Result<(), VerifyError> {
    let mut bench = Bench::new(suite);
    let result = match bench.devices(open).await {
        Ok((device, twin)) => beams::check(&mut bench, device.beam_stages(), twin.beam_stages(), each).await,
        Err(error) => Err(error),
    };
    report_error(result, suite.to_string(), each)
}

/// As [`check_kernels`], for the kernels that read a chunk of tokens, in chunks of several lengths.
///
/// # Errors
/// As [`check_kernels`].
#[maybe_async]
pub async fn check_prefill_kernels(
    suite: &Suite,
    open: &dyn Open,
    each: &mut dyn FnMut(CaseReport),
) -> Result<(), VerifyError> {
    let mut bench = Bench::new(suite);
    let result = match bench.devices(open).await {
        Ok((device, twin)) => prefill::check(&mut bench, &*device, twin.prefill_stages(), each).await,
        Err(error) => Err(error),
    };
    report_error(result, suite.to_string(), each)
}

/// Runs a whole model on `device` and on the CPU backend, `tokens` tokens at a time; `each` receives the
/// rows.
///
/// # Errors
/// As [`check_kernels`].
#[maybe_async]
pub async fn check_model(
    model: &Model,
    device: &dyn Backend,
    tokens: usize,
    each: &mut dyn FnMut(CaseReport),
) -> Result<(), VerifyError> {
    let weights = device.weight_type();
    let shape = format!("{} {weights}", model.name);
    let result = match CpuBackend::new(model, weights, None) {
        Ok(twin) => whole::check(model, device, &twin, tokens, &shape, each).await,
        Err(error) => Err(error),
    };
    report_error(result, shape, each)
}

/// A lost device ends the verification; other errors are findings.
fn report_error(
    result: Result<(), BackendError>,
    shape: String,
    each: &mut dyn FnMut(CaseReport),
) -> Result<(), VerifyError> {
    match result {
        Ok(()) => Ok(()),
        Err(error @ (BackendError::Lost { .. } | BackendError::NoAdapter { .. })) => Err(error.into()),
        Err(error) => {
            let mut failed = Comparison::exact();
            failed.fail(error.to_string());
            each(failed.report("device", shape, String::new(), true));
            Ok(())
        }
    }
}
