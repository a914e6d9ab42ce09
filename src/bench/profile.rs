//! Where the time of decode, of a prompt or of a beam search goes.

use super::cases::text;
use super::{BenchError, BenchOptions};
use crate::backend::beams::{BeamFold, BeamSelection, BeamStep, Beams};
use crate::backend::profile::Profile;
use crate::backend::{BackendError, Input, Output, Plan, SlotStep, Slots};
use crate::generation::chunks::next_chunk;
use crate::generation::{Bdh, BeamOptions, GenerationOptions};
use crate::model::forgetting::{Clock, Forgetting};
use crate::sampling::{SamplerParams, SamplingOptions};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Tokens that are decoded before anything is measured.
const WARM_UP: usize = 32;
/// Beams of a beam search that is profiled.
const BEAMS: usize = 4;

/// What to profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profiled {
    /// Decoding [`BenchOptions::new_tokens`] tokens, for every batch. A step is a token of every sequence.
    Decode,
    /// Reading a prompt of [`BenchOptions::prompt_tokens`] tokens. A step is a chunk of it.
    Prefill,
    /// Searching [`BenchOptions::new_tokens`] tokens with four beams. A step is a token of every beam.
    Beam,
}

/// One device's profile.
#[derive(Clone, Debug)]
pub struct DeviceProfile {
    /// What was profiled.
    pub profiled: Profiled,
    /// Where the time went.
    pub profile: Profile,
    /// Sequences, or beams, that ran together.
    pub batch: usize,
    /// Position of the first token.
    pub depth: u32,
    /// Steps in the profile.
    pub steps: usize,
    /// Time of as many steps without a profile.
    pub ordinary: Duration,
}

/// Profiles a phase, at the first depth.
///
/// # Errors
/// [`BenchError`] for options that make no sense, where a device fails, and where it cannot time its kernels.
pub fn profile(bdh: &Bdh, options: &BenchOptions, profiled: Profiled) -> Result<Vec<DeviceProfile>, BenchError> {
    options.validate()?;
    let steps = options.new_tokens.max(1);
    let depth = options.depths[0];
    match profiled {
        Profiled::Decode => options.batches.iter().map(|&batch| profile_batch(bdh, batch, depth, steps)).collect(),
        Profiled::Prefill => Ok(vec![profile_prompt(bdh, depth, options.prompt_tokens.max(1))?]),
        Profiled::Beam => Ok(vec![profile_beams(bdh, depth, steps)?]),
    }
}

fn profile_batch(bdh: &Bdh, batch: usize, depth: u32, count: usize) -> Result<DeviceProfile, BenchError> {
    let model = bdh.model();
    let mut slots = bdh.backend().create_slots(batch)?;
    let options = GenerationOptions::of_model(model).sampling;
    let counts = vec![0; model.config.vocab_size];
    for slot in 0..batch {
        slots.set_sampler(slot, &SamplerParams::new(&options, 1, slot as u32), &counts, 0)?;
    }
    let mut clock = Clock::at(Forgetting::of_model(&model.config), depth.saturating_sub(WARM_UP as u32));
    let mut steps = |inputs: &dyn Fn(usize) -> Input, count: usize| -> Plan {
        let step = |_| {
            let tick = clock.tick();
            let step = |slot| SlotStep {
                input: inputs(slot),
                output: Output::Token,
                position: tick.position,
                read_scale: tick.read_scale,
                write_scale: tick.write_scale,
                rescale: tick.rescale,
            };
            (0..batch).map(step).collect()
        };
        Plan { steps: (0..count).map(step).collect(), trace_logits: false }
    };
    let previous = |_| Input::Previous;
    slots.run(&steps(&|slot| Input::Token(text(model.config.vocab_size, 1, slot)[0]), 1))?;
    slots.run(&steps(&previous, WARM_UP - 1))?;
    let plan = steps(&previous, count);
    let profile = slots.profile(&plan)?;
    let plan = steps(&previous, count);
    let start = Instant::now();
    slots.run(&plan)?;
    let ordinary = start.elapsed();
    Ok(DeviceProfile { profiled: Profiled::Decode, profile, batch, depth, steps: count, ordinary })
}

/// A way to read a chunk.
type Read<'a> = &'a mut dyn FnMut(&mut dyn Slots, &crate::backend::Chunk) -> Result<(), BackendError>;

fn profile_prompt(bdh: &Bdh, depth: u32, count: usize) -> Result<DeviceProfile, BenchError> {
    let config = &bdh.model().config;
    let most = bdh.backend().chunk_tokens();
    let tokens = text(config.vocab_size, count, 0);
    let mut slots = bdh.backend().create_slots(1)?;
    let mut steps = 0;
    let mut read = |read: Read| -> Result<Duration, BackendError> {
        slots.clear(0)?;
        let mut clock = Clock::at(Forgetting::of_model(config), depth);
        let (mut rest, start) = (&tokens[..], Instant::now());
        steps = 0;
        while !rest.is_empty() {
            read(&mut *slots, &next_chunk(&mut rest, most, &mut clock, false))?;
            steps += 1;
        }
        Ok(start.elapsed())
    };
    let mut ordinarily = |slots: &mut dyn Slots, chunk: &crate::backend::Chunk| slots.prefill(0, chunk).map(drop);
    // Warms up; kernels compile, and submissions find their length.
    read(&mut ordinarily)?;
    let ordinary = read(&mut ordinarily)?;
    let mut profile = Profile::default();
    read(&mut |slots, chunk| {
        profile.add(slots.profile_prefill(0, chunk)?);
        Ok(())
    })?;
    Ok(DeviceProfile { profiled: Profiled::Prefill, profile, batch: 1, depth, steps, ordinary })
}

fn profile_beams(bdh: &Bdh, depth: u32, steps: usize) -> Result<DeviceProfile, BenchError> {
    let model = bdh.model();
    let forgetting = Forgetting::of_model(&model.config);
    // The prompt fills state and window as they are in the midst of a text.
    let prompt = text(model.config.vocab_size, (depth as usize).clamp(1, WARM_UP), 0);
    let beam = BeamOptions { num_beams: BEAMS, max_new_tokens: steps, ..BeamOptions::default() };
    let timed = || -> Result<Timed, BenchError> {
        Ok(Timed { beams: bdh.backend().create_beams(BEAMS)?, profile: None, stepping: Duration::ZERO })
    };
    let search = |timed: &mut Timed| {
        let go_on = |_| ControlFlow::Continue(());
        bdh.beam_search_on(timed, &prompt, &SamplingOptions::default(), &beam, forgetting, go_on)
    };
    // Warms up: kernels compile.
    search(&mut timed()?)?;
    let mut plain = timed()?;
    search(&mut plain)?;
    let mut profiled = Timed { profile: Some(Profile::default()), ..timed()? };
    search(&mut profiled)?;
    Ok(DeviceProfile {
        profiled: Profiled::Beam,
        profile: profiled.profile.unwrap_or_default(),
        batch: BEAMS,
        depth,
        steps,
        ordinary: plain.stepping,
    })
}

/// Beams whose steps are timed, or profiled.
struct Timed {
    beams: Box<dyn Beams>,
    /// Collects profiles, if given.
    profile: Option<Profile>,
    /// Time of all steps.
    stepping: Duration,
}

impl Beams for Timed {
    fn count(&self) -> usize {
        self.beams.count()
    }

    fn base(&mut self) -> Result<&mut dyn Slots, BackendError> {
        self.beams.base()
    }

    fn start(&mut self, params: &SamplerParams, counts: &[u32]) -> Result<(), BackendError> {
        self.beams.start(params, counts)
    }

    fn set_biases(&mut self, biases: &[f32]) -> Result<(), BackendError> {
        self.beams.set_biases(biases)
    }

    fn fold(&mut self, folds: &[BeamFold]) -> Result<(), BackendError> {
        self.beams.fold(folds)
    }

    fn step(&mut self, step: &BeamStep) -> Result<BeamSelection, BackendError> {
        let start = Instant::now();
        let selection = match &mut self.profile {
            None => self.beams.step(step)?,
            Some(profile) => {
                let (selection, part) = self.beams.profile_step(step)?;
                profile.add(part);
                selection
            }
        };
        self.stepping += start.elapsed();
        Ok(selection)
    }

    fn state_bytes(&self) -> u64 {
        self.beams.state_bytes()
    }
}
