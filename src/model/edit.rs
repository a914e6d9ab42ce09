//! Interventions: neurons whose activation u is a constant in all layers, whatever the text.
//!
//! An edited neuron's column of the encoder reads as zeros, so x · encoder is exactly 0. That alone
//! ablates it. A clamped neuron also has a bias, which backends add before the rectifier:
//! u ← relu(x · encoder + bias).

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::error::ModelError;
use super::neuron::{NeuronError, NeuronName};
use super::tensor::{Elements, Tensor};
use super::{Config, Model};

/// An intervention on a neuron, for all layers and positions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NeuronEdit {
    /// u ← 0.
    Ablate(NeuronName),
    /// u ← this number, which is finite and not negative.
    Clamp(NeuronName, f32),
}

/// Why neurons cannot be edited.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// The model has no such neuron.
    #[error(transparent)]
    Neuron(#[from] NeuronError),
    /// No activation has this value.
    #[error("neuron {neuron} cannot be clamped to {value}, expected a finite number of 0 or more")]
    Value {
        /// The neuron.
        neuron: NeuronName,
        /// The number that was given.
        value: f32,
    },
    /// Two edits are about one neuron.
    #[error("neuron {neuron} is edited twice, expected one edit per neuron")]
    Twice {
        /// The neuron.
        neuron: NeuronName,
    },
}

impl NeuronEdit {
    /// The neuron.
    pub fn neuron(self) -> NeuronName {
        match self {
            Self::Ablate(neuron) | Self::Clamp(neuron, _) => neuron,
        }
    }

    /// Its activation from now on.
    pub fn value(self) -> f32 {
        match self {
            Self::Ablate(_) => 0.0,
            // -0 becomes 0.
            Self::Clamp(_, value) => value + 0.0,
        }
    }

    fn check(self, config: &Config) -> Result<(), EditError> {
        let (neuron, value) = (self.neuron(), self.value());
        neuron.number(config)?;
        if !value.is_finite() || value < 0.0 {
            return Err(EditError::Value { neuron, value });
        }
        Ok(())
    }
}

impl Model {
    /// Edits neurons. The edits belong to the model: every backend made of it from now on has them,
    /// with weights of any type. A neuron that has been edited before gets its new value. Clones
    /// made before are not affected.
    ///
    /// An edited model is another model: state files of the unedited one do not fit it.
    ///
    /// # Errors
    /// [`EditError`] if one of the edits is impossible, or two are about the same neuron; nothing
    /// is edited then.
    pub fn edit(&mut self, edits: &[NeuronEdit]) -> Result<(), EditError> {
        let mut seen = HashSet::new();
        for edit in edits {
            edit.check(&self.config)?;
            let neuron = edit.neuron();
            if !seen.insert(neuron) {
                return Err(EditError::Twice { neuron });
            }
        }
        let new = edits.iter().map(|edit| edit.neuron()).filter(|neuron| !self.edits.contains_key(neuron)).collect();
        self.weights.encoder = silenced(&self.weights.encoder, new);
        self.edits.extend(edits.iter().map(|edit| (edit.neuron(), edit.value())));
        Ok(())
    }

    /// The edited neurons and their activations, in order; 0 for those that are ablated.
    pub fn edits(&self) -> &BTreeMap<NeuronName, f32> {
        &self.edits
    }

    /// The neurons that have a bias, with the bias.
    pub(crate) fn clamped(&self) -> impl Iterator<Item = (NeuronName, f32)> {
        self.edits.iter().map(|(&neuron, &value)| (neuron, value)).filter(|(_, value)| *value > 0.0)
    }

    /// Says why there are no plain weights that compute the same, if that is so.
    pub(crate) fn without_weights(&self) -> Option<String> {
        let (first, _) = self.clamped().next()?;
        let (count, name) = (self.clamped().count(), &self.name);
        let plural = if count == 1 { "" } else { "s" };
        Some(format!("{name} has {count} clamped neuron{plural} (first {first}), expected weights alone"))
    }
}

/// An encoder `[H, D, N]` whose columns of some neurons read as zeros. It holds no copy.
fn silenced(encoder: &Tensor, neurons: Vec<NeuronName>) -> Tensor {
    let &[heads, depth, outputs] = encoder.shape() else { panic!("an encoder of shape {:?}", encoder.shape()) };
    if neurons.is_empty() {
        return encoder.clone();
    }
    let mut columns = vec![Vec::new(); heads];
    neurons.iter().for_each(|neuron| columns[neuron.head as usize].push(neuron.index as usize));
    columns.iter_mut().for_each(|columns| columns.sort_unstable());
    encoder.moved_to(Arc::new(Silenced { encoder: encoder.clone(), depth, outputs, columns }))
}

/// See [`silenced`].
struct Silenced {
    encoder: Tensor,
    /// D.
    depth: usize,
    /// N.
    outputs: usize,
    /// Columns of zeros of every head, in order.
    columns: Vec<Vec<usize>>,
}

impl Elements for Silenced {
    fn is_streamed(&self) -> bool {
        self.encoder.is_streamed()
    }

    fn failure(&self) -> Option<ModelError> {
        self.encoder.failure()
    }

    fn read(&self, start: usize, out: &mut [f32]) {
        self.encoder.read(start, out);
        let end = start + out.len();
        for line in start / self.outputs..end.div_ceil(self.outputs) {
            let begin = line * self.outputs;
            let range = start.max(begin) - begin..end.min(begin + self.outputs) - begin;
            let columns = &self.columns[line / self.depth];
            let first = columns.partition_point(|&column| column < range.start);
            for column in columns[first..].iter().take_while(|&&column| column < range.end) {
                out[begin + column - start] = 0.0;
            }
        }
    }

    fn scales(&self) -> Option<&[f32]> {
        self.encoder.own_scales()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_part_of_a_silenced_encoder_has_zeros_in_its_columns() {
        let (heads, depth, outputs) = (2, 3, 5);
        let values: Vec<f32> = (1..=heads * depth * outputs).map(|value| value as f32).collect();
        let encoder = Tensor::from_f32(&[heads, depth, outputs], values.clone());
        let neuron = |head, index| NeuronName { head, index };
        let silenced = silenced(&encoder, vec![neuron(1, 4), neuron(1, 0), neuron(0, 2)]);
        let silent = |at: usize| match at / (depth * outputs) {
            0 => at % outputs == 2,
            _ => [0, 4].contains(&(at % outputs)),
        };
        let zeroed = |at: usize| if silent(at) { 0.0 } else { values[at] };
        let expected: Vec<f32> = (0..values.len()).map(zeroed).collect();
        for start in 0..values.len() {
            for end in start..=values.len() {
                let mut part = vec![f32::NAN; end - start];
                silenced.read(start, &mut part);
                assert_eq!(part, expected[start..end], "{start}..{end}");
            }
        }
        assert_eq!(encoder.to_vec(), values);
    }
}
