//! Names of neurons: "3.1021" is neuron 1021 of head 3, in every layer.

use std::fmt;
use std::str::FromStr;

use super::Config;

/// A neuron by head and index. Layers share their weights, so it is the same neuron in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NeuronName {
    /// Its head, h.
    pub head: u32,
    /// Its index in the head, i.
    pub index: u32,
}

/// Why a text or a number names no neuron of a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NeuronError {
    /// The text has another form.
    #[error("{found:?} is no neuron, expected its head and its index there, as 3.1021")]
    Form {
        /// The text.
        found: String,
    },
    /// The model has fewer heads, or fewer neurons in a head.
    #[error("neuron {neuron} does not exist, expected 0.0 to {last}")]
    Outside {
        /// The neuron.
        neuron: NeuronName,
        /// The model's last neuron.
        last: NeuronName,
    },
}

impl NeuronName {
    /// The neuron of a number h·N + i, as watched neurons are numbered.
    pub fn of_number(number: u32, config: &Config) -> Self {
        let neurons = u32::try_from(config.neurons_per_head.max(1)).unwrap_or(u32::MAX);
        Self { head: number / neurons, index: number % neurons }
    }

    /// Its number h·N + i among all neurons of a model.
    ///
    /// # Errors
    /// [`NeuronError::Outside`] if the model has no such neuron.
    pub fn number(self, config: &Config) -> Result<u32, NeuronError> {
        let size = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        let (heads, neurons) = (size(config.n_head), size(config.neurons_per_head));
        if self.head >= heads || self.index >= neurons {
            let last = Self { head: heads.saturating_sub(1), index: neurons.saturating_sub(1) };
            return Err(NeuronError::Outside { neuron: self, last });
        }
        Ok(self.head * neurons + self.index)
    }
}

impl fmt::Display for NeuronName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{}", self.head, self.index))
    }
}

impl FromStr for NeuronName {
    type Err = NeuronError;

    /// Reads a name as [`Display`](fmt::Display) writes it. No neuron has two names.
    fn from_str(text: &str) -> Result<Self, NeuronError> {
        let parts = text.split_once('.').and_then(|(head, index)| Some((head.parse().ok()?, index.parse().ok()?)));
        let name = parts.map(|(head, index)| Self { head, index }).filter(|name| name.to_string() == text);
        name.ok_or_else(|| NeuronError::Form { found: text.to_owned() })
    }
}
