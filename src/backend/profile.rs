//! Where the time of a plan goes, and how much of a model its tokens touch.

use std::time::Duration;

/// What [`super::Slots::profile`] found out about a plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// Time by kernel or phase, in the order in which a step runs them.
    pub parts: Vec<ProfilePart>,
    /// What the plan's tokens touched, from devices that count it.
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
    /// How often it ran in the whole plan, all pages and segments of a layer together; phases do not say.
    pub dispatches: Option<u64>,
    /// Time in the whole plan; of a phase the mean over the threads.
    pub time: Duration,
}

/// What the tokens of a plan touched, summed over its steps, layers and sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Steps.
    pub steps: u64,
    /// Steps that computed logits.
    pub logits: u64,
    /// Tokens that entered a state.
    pub tokens: u64,
    /// Neurons with u > 0.
    pub neurons: u64,
    /// Rotary pairs of which a neuron has u > 0: both rows of the state are read.
    pub pairs: u64,
    /// Neurons with g > 0.
    pub gates: u64,
    /// Pairs whose window entered the state: both rows are read and written.
    pub settled: u64,
    /// As `neurons`, but a neuron that several sequences of a step activate counts once: rows of
    /// encoder_v.
    pub shared_neurons: u64,
    /// As `gates`, counted like `shared_neurons`: rows of the decoder.
    pub shared_gates: u64,
    /// As `neurons`, but a neuron that several tokens of a sequence activate counts once: rows of encoder_v, were
    /// the plan one chunk.
    pub touched_neurons: u64,
    /// As `pairs`, counted like `touched_neurons`.
    pub touched_pairs: u64,
    /// As `gates`, counted like `touched_neurons`: rows of the decoder.
    pub touched_gates: u64,
}
