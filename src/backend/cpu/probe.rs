//! Profiles a thread's run.

use super::share::LayerPart;
use crate::backend::memory::WINDOW;
use crate::backend::profile::{Activity, Profile, ProfilePart};
use std::collections::BTreeMap;
use std::time::Duration;
use web_time::Instant;

/// A phase of a thread's run.
#[derive(Clone, Copy, Debug)]
pub enum Phase {
    /// Embeddings and rotary phases.
    Embed,
    /// The encoder's dense product.
    Encode,
    /// Attention to the state and the window.
    Attend,
    /// encoder_v and decoder.
    Project,
    /// Sums of the blocks' decoder outputs, and layer norms.
    Finish,
    /// The language model head.
    Logits,
    /// Drawing tokens.
    Sample,
    /// Waiting for other threads or for a run.
    Wait,
}

/// Names of the phases, in the order of [`Phase`].
const NAMES: [&str; 8] = ["embed", "encode", "attend", "project", "finish", "logits", "sample", "wait"];

/// Bit of a neuron with u > 0.
const FIRED: u8 = 1;
/// Bit of a neuron with g > 0.
const OPENED: u8 = 2;

/// Measures one thread.
#[derive(Debug)]
pub struct Probe {
    since: Instant,
    times: [Duration; NAMES.len()],
    activity: Activity,
    /// Bits of each neuron of a block, by layer, block and sequence.
    touched: BTreeMap<[usize; 3], Vec<u8>>,
}

impl Probe {
    /// Starts measuring.
    pub fn start() -> Self {
        Self {
            since: Instant::now(),
            times: Default::default(),
            activity: Activity::default(),
            touched: BTreeMap::new(),
        }
    }

    /// Charges the time since the last lap to `phase`.
    pub fn lap(&mut self, phase: Phase) {
        let now = Instant::now();
        self.times[phase as usize] += now - self.since;
        self.since = now;
    }

    /// Counts a step of `tokens` sequences, once for all threads.
    pub fn step(&mut self, tokens: usize, logits: bool) {
        self.activity.steps += 1;
        self.activity.tokens += tokens as u64;
        self.activity.logits += u64::from(logits);
    }

    /// Counts the activations of the sequences `active` in `[S][block]`, of a layer and block.
    pub fn neurons(&mut self, at: [usize; 2], u: &[f32], stride: usize, active: &[usize]) {
        let (neurons, shared) = count(u, stride, active);
        self.activity.neurons += neurons;
        self.activity.shared_neurons += shared;
        for &slot in active {
            let (pairs, _) = u[slot * stride..][..stride].as_chunks::<2>();
            self.activity.pairs += pairs.iter().filter(|pair| pair.iter().any(|&u| u != 0.0)).count() as u64;
        }
        self.touch(at, u, stride, active, FIRED);
        self.since = Instant::now();
    }

    /// [`Probe::neurons`] for gates.
    pub fn gates(&mut self, at: [usize; 2], g: &[f32], stride: usize, active: &[usize]) {
        let (gates, shared) = count(g, stride, active);
        self.activity.gates += gates;
        self.activity.shared_gates += shared;
        self.touch(at, g, stride, active, OPENED);
        self.since = Instant::now();
    }

    /// Sets `bit` of the neurons whose numbers are not zero.
    fn touch(&mut self, [layer, block]: [usize; 2], numbers: &[f32], stride: usize, active: &[usize], bit: u8) {
        for &slot in active {
            let touched = self.touched.entry([layer, block, slot]).or_insert_with(|| vec![0; stride]);
            for (touched, &number) in touched.iter_mut().zip(&numbers[slot * stride..]) {
                *touched |= u8::from(number != 0.0) * bit;
            }
        }
    }

    /// Counts a block's pairs that settle at `position`: those with tokens in the window.
    pub fn settled(&mut self, memory: &LayerPart<'_>, position: u32) {
        let pairs = memory.rotated.chunks_exact(2 * WINDOW).skip(position as usize % WINDOW).step_by(WINDOW);
        self.activity.settled += pairs.filter(|window| window.iter().any(|&q| q != 0.0)).count() as u64;
        self.since = Instant::now();
    }

    /// Merges the results of all threads.
    pub fn merge(probes: &[Self]) -> Profile {
        let threads = probes.len().max(1) as u32;
        let part = |(index, &name): (usize, &&'static str)| {
            let time = probes.iter().map(|probe| probe.times[index]).sum::<Duration>() / threads;
            ProfilePart { name, dispatches: None, time }
        };
        let sum = |of: fn(&Activity) -> u64| probes.iter().map(|probe| of(&probe.activity)).sum();
        let all = touched_by_any(probes);
        let touched = |bit| touched(&all, bit);
        let ([touched_neurons, touched_pairs], [touched_gates, _]) = (touched(FIRED), touched(OPENED));
        let activity = Activity {
            steps: sum(|a| a.steps),
            logits: sum(|a| a.logits),
            tokens: sum(|a| a.tokens),
            neurons: sum(|a| a.neurons),
            pairs: sum(|a| a.pairs),
            gates: sum(|a| a.gates),
            settled: sum(|a| a.settled),
            shared_neurons: sum(|a| a.shared_neurons),
            shared_gates: sum(|a| a.shared_gates),
            touched_neurons,
            touched_pairs,
            touched_gates,
        };
        Profile { parts: NAMES.iter().enumerate().map(part).collect(), activity: Some(activity) }
    }
}

/// The neurons that any thread has touched: blocks do not always run on the same thread.
fn touched_by_any(probes: &[Probe]) -> BTreeMap<[usize; 3], Vec<u8>> {
    let mut all = BTreeMap::<_, Vec<u8>>::new();
    for (&at, neurons) in probes.iter().flat_map(|probe| &probe.touched) {
        let touched = all.entry(at).or_insert_with(|| vec![0; neurons.len()]);
        touched.iter_mut().zip(neurons).for_each(|(touched, bits)| *touched |= bits);
    }
    all
}

/// Neurons with `bit` set, and pairs with such a neuron.
fn touched(all: &BTreeMap<[usize; 3], Vec<u8>>, bit: u8) -> [u64; 2] {
    let pairs = || all.values().flat_map(|neurons| neurons.as_chunks::<2>().0);
    let neurons = pairs().flatten().filter(|&&neuron| neuron & bit != 0).count();
    let pairs = pairs().filter(|[first, second]| (first | second) & bit != 0).count();
    [neurons as u64, pairs as u64]
}

/// Nonzero numbers in the rows `active` of `[S][stride]`, and columns with such a number.
fn count(numbers: &[f32], stride: usize, active: &[usize]) -> (u64, u64) {
    let (mut all, mut shared) = (0, 0);
    for column in 0..stride {
        let here = active.iter().filter(|&&slot| numbers[slot * stride + column] != 0.0).count() as u64;
        all += here;
        shared += here.min(1);
    }
    (all, shared)
}
