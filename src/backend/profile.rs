//! The time that the parts of a plan take, and the share of a model that its tokens use.

use serde::Serialize;
use std::time::Duration;

/// Result of [`super::Slots::profile`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// Time by kernel or phase, in the order of a step.
    pub parts: Vec<ProfilePart>,
    /// Counts of active neurons, from devices that count them.
    pub activity: Option<Activity>,
}

impl Profile {
    /// A profile that tells nothing apart.
    pub fn of_one_part(name: &'static str, time: Duration) -> Self {
        Self { parts: vec![ProfilePart { name, dispatches: None, time }], activity: None }
    }

    /// Adds the parts of another profile of the same device to this one's.
    pub fn add(&mut self, other: Self) {
        for part in other.parts {
            match self.parts.iter_mut().find(|own| own.name == part.name) {
                Some(own) => {
                    own.time += part.time;
                    own.dispatches = own.dispatches.zip(part.dispatches).map(|(own, more)| own + more);
                }
                None => self.parts.push(part),
            }
        }
    }
}

/// One kernel of a GPU, or one phase of the CPU's threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfilePart {
    /// Its name.
    pub name: &'static str,
    /// Dispatches in the whole plan, over all pages and segments of a layer; absent for phases.
    pub dispatches: Option<u64>,
    /// Time in the whole plan; for a phase, the mean over the threads.
    pub time: Duration,
}

/// Active neurons and the rows that they load, summed over a plan's steps, layers and sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Steps.
    pub steps: u64,
    /// Steps that computed logits.
    pub logits: u64,
    /// Tokens of all sequences.
    pub tokens: u64,
    /// Neurons with u > 0.
    pub neurons: u64,
    /// Rotary pairs with an active neuron: both rows of the state are loaded.
    pub pairs: u64,
    /// Neurons with g > 0.
    pub gates: u64,
    /// Pairs that settled: both rows of the state are loaded and stored.
    pub settled: u64,
    /// `neurons`, where a neuron that several sequences of a step activate counts once: rows of
    /// encoder_v.
    pub shared_neurons: u64,
    /// `gates`, counted like `shared_neurons`: rows of the decoder.
    pub shared_gates: u64,
    /// `neurons`, where a neuron that several tokens of a sequence activate counts once: rows of
    /// encoder_v if the plan were one chunk.
    pub touched_neurons: u64,
    /// `pairs`, counted like `touched_neurons`.
    pub touched_pairs: u64,
    /// `gates`, counted like `touched_neurons`: rows of the decoder.
    pub touched_gates: u64,
}

/// Shares, from 0 to 1, of neurons and pairs that fired, over all layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Density {
    /// Neurons with u > 0.
    pub u: f64,
    /// Rotary pairs with u > 0 in at least one neuron.
    pub pair: f64,
    /// Neurons with g > 0.
    pub g: f64,
}
