//! Where a decoded token's time goes.

use super::cases::text;
use super::{BenchError, BenchOptions};
use crate::backend::profile::Profile;
use crate::backend::{Input, Output, Plan, SlotStep};
use crate::generation::{Bdh, GenerationOptions};
use crate::model::forgetting::{Clock, Forgetting};
use crate::sampling::SamplerParams;
use std::time::{Duration, Instant};

/// Tokens that are decoded before anything is measured.
const WARM_UP: usize = 32;

/// One device's profile.
#[derive(Clone, Debug)]
pub struct DeviceProfile {
    /// Where the time went.
    pub profile: Profile,
    /// Sequences that ran together.
    pub batch: usize,
    /// Position of the first token.
    pub depth: u32,
    /// Steps in the profile.
    pub steps: usize,
    /// Time of as many steps in ordinary bursts.
    pub ordinary: Duration,
}

/// Profiles the decoding of `options.new_tokens` tokens for every batch, at the first depth.
///
/// # Errors
/// [`BenchError`] for options that make no sense, where a device fails, and where it cannot time its kernels.
pub fn profile(bdh: &Bdh, options: &BenchOptions) -> Result<Vec<DeviceProfile>, BenchError> {
    options.validate()?;
    let steps = options.new_tokens.max(1);
    let depth = options.depths[0];
    options.batches.iter().map(|&batch| profile_batch(bdh, batch, depth, steps)).collect()
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
    Ok(DeviceProfile { profile, batch, depth, steps: count, ordinary: start.elapsed() })
}
