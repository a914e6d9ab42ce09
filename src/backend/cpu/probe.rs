//! Profiles a thread's run.

use super::share::LayerMemory;
use crate::backend::memory::WINDOW;
use crate::backend::profile::{Activity, Profile, ProfilePart};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

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
    /// Bits of each of the thread's neurons, by layer and sequence.
    touched: BTreeMap<(usize, usize), Vec<u8>>,
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

    /// Counts a layer's activations of the sequences `active` in `[S][stride]`.
    pub fn neurons(&mut self, layer: usize, u: &[f32], stride: usize, active: &[usize]) {
        let (neurons, shared) = count(u, stride, active);
        self.activity.neurons += neurons;
        self.activity.shared_neurons += shared;
        for &slot in active {
            let (pairs, _) = u[slot * stride..][..stride].as_chunks::<2>();
            self.activity.pairs += pairs.iter().filter(|pair| pair.iter().any(|&u| u != 0.0)).count() as u64;
        }
        self.touch(layer, u, stride, active, FIRED);
        self.since = Instant::now();
    }

    /// [`Probe::neurons`] for gates.
    pub fn gates(&mut self, layer: usize, g: &[f32], stride: usize, active: &[usize]) {
        let (gates, shared) = count(g, stride, active);
        self.activity.gates += gates;
        self.activity.shared_gates += shared;
        self.touch(layer, g, stride, active, OPENED);
        self.since = Instant::now();
    }

    /// Sets `bit` of the neurons whose numbers are not zero.
    fn touch(&mut self, layer: usize, numbers: &[f32], stride: usize, active: &[usize], bit: u8) {
        for &slot in active {
            let touched = self.touched.entry((layer, slot)).or_insert_with(|| vec![0; stride]);
            for (touched, &number) in touched.iter_mut().zip(&numbers[slot * stride..]) {
                *touched |= u8::from(number != 0.0) * bit;
            }
        }
    }

    /// Neurons with `bit` set, and pairs with such a neuron.
    fn touched(&self, bit: u8) -> [u64; 2] {
        let all = || self.touched.values().flat_map(|neurons| neurons.as_chunks::<2>().0);
        let neurons = all().flatten().filter(|&&neuron| neuron & bit != 0).count();
        let pairs = all().filter(|[first, second]| (first | second) & bit != 0).count();
        [neurons as u64, pairs as u64]
    }

    /// Counts a layer's pairs that settle at `position`: those with tokens in the window.
    pub fn settled(&mut self, memory: &LayerMemory<&mut [f32]>, position: u32) {
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
        let touched = |bit| {
            let counts = probes.iter().map(|probe| probe.touched(bit));
            counts.fold([0; 2], |sum, [neurons, pairs]| [sum[0] + neurons, sum[1] + pairs])
        };
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
