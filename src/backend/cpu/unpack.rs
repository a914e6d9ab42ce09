//! Packed weights, read back in the order of their tensors.
//!
//! The inverse of [`crate::backend::pack`]: a model on this backend needs no second copy of its
//! weights.

use super::pages::Pages;
use crate::backend::pack::Element;
use crate::model::tensor::Elements;
use bytemuck::Pod;
use std::sync::Arc;

/// The packed order of a tensor's numbers, in the terms of [`crate::backend::pack`].
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// From [`crate::backend::pack::tiles`], with an unpadded depth.
    Tiles {
        /// D.
        depth: usize,
        /// Columns of each matrix.
        outputs: usize,
        /// Columns of each matrix, padded to whole tiles.
        padded: usize,
        /// Columns of a tile.
        width: usize,
    },
    /// From [`crate::backend::pack::columns_as_rows`].
    Columns {
        /// D.
        depth: usize,
        /// Columns of each matrix.
        outputs: usize,
        /// Columns of each matrix, padded.
        padded: usize,
        /// Numbers in a packed row.
        row: usize,
    },
    /// From [`crate::backend::pack::rows`].
    Rows {
        /// Rows of each group.
        rows: usize,
        /// D.
        depth: usize,
        /// Packed rows of each group.
        padded: usize,
        /// Numbers in a packed row.
        row: usize,
    },
}

/// Consecutive elements of a tensor that are evenly spaced in the packed weights.
struct Run {
    start: usize,
    stride: usize,
    len: usize,
    /// Output or row of the first element, padded, and how far the next one's is.
    output: usize,
    next_output: usize,
}

impl Order {
    /// Numbers of outputs or rows without padding.
    fn unpadded(self, padded_list: &[f32]) -> Vec<f32> {
        let (Self::Tiles { outputs: count, padded, .. }
        | Self::Columns { outputs: count, padded, .. }
        | Self::Rows { rows: count, padded, .. }) = self;
        padded_list.chunks_exact(padded.max(1)).flat_map(|group| &group[..count]).copied().collect()
    }

    /// The run that starts at element `index` of the tensor.
    fn run(self, index: usize) -> Run {
        match self {
            Self::Tiles { depth, outputs, padded, width } => {
                let (line, column) = (index / outputs, index % outputs);
                let (group, d) = (line / depth, line % depth);
                let (tile, lane) = (group * (padded / width) + column / width, column % width);
                Run {
                    start: (tile * depth + d) * width + lane,
                    stride: 1,
                    len: (width - lane).min(outputs - column),
                    output: group * padded + column,
                    next_output: 1,
                }
            }
            Self::Columns { depth, outputs, padded, row } => {
                let (line, column) = (index / outputs, index % outputs);
                let (group, d) = (line / depth, line % depth);
                Run {
                    start: (group * padded + column) * row + d,
                    stride: row,
                    len: outputs - column,
                    output: group * padded + column,
                    next_output: 1,
                }
            }
            Self::Rows { rows, depth, padded, row } => {
                let (line, d) = (index / depth, index % depth);
                let line = line / rows * padded + line % rows;
                Run { start: line * row + d, stride: 1, len: depth - d, output: line, next_output: 0 }
            }
        }
    }
}

/// A packed tensor.
pub struct Packed<E> {
    numbers: Arc<Pages<E>>,
    /// Weight / code, by output or row, padded; empty without codes.
    scales: Arc<[f32]>,
    /// The same without padding.
    own_scales: Vec<f32>,
    order: Order,
}

impl<E> Packed<E> {
    /// Packed numbers, with the scales of their outputs or rows where they are codes.
    pub fn new(numbers: &Arc<Pages<E>>, scales: &Arc<[f32]>, order: Order) -> Self {
        let own_scales = order.unpadded(scales);
        Self { numbers: numbers.clone(), scales: scales.clone(), own_scales, order }
    }
}

impl<E: Element + Pod> Elements for Packed<E> {
    fn read(&self, start: usize, out: &mut [f32]) {
        let (mut index, mut rest) = (start, out);
        while !rest.is_empty() {
            let Run { start, stride, len, output, next_output } = self.order.run(index);
            let (now, later) = rest.split_at_mut(len.min(rest.len()));
            for (out, &number) in now.iter_mut().zip(self.numbers[start..].iter().step_by(stride)) {
                *out = number.to_f32();
            }
            if !self.scales.is_empty() {
                for (k, out) in now.iter_mut().enumerate() {
                    *out *= self.scales[output + k * next_output];
                }
            }
            index += now.len();
            rest = later;
        }
    }

    fn scales(&self) -> Option<&[f32]> {
        Some(&self.own_scales[..]).filter(|scales| !scales.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use crate::backend::cpu::CpuBackend;
    use crate::backend::{Backend, WeightType};
    use crate::model::{Model, SyntheticSpec, Tensor, Weights};

    /// A random model, exact in f16.
    fn model(n_embd: usize, n_head: usize, neurons_per_head: usize, vocab_size: usize) -> Model {
        let spec = SyntheticSpec { n_layer: 1, n_embd, n_head, neurons_per_head, vocab_size, density: 0.3, seed: 5 };
        let mut model = Model::synthetic(&spec);
        model.weights = model.weights.to_f16();
        model
    }

    fn tensors(weights: &Weights) -> [&Tensor; 5] {
        [&weights.embed, &weights.encoder, &weights.encoder_v, &weights.decoder, &weights.lm_head]
    }

    #[test]
    fn unpacking_restores_every_number() {
        for (width, heads, neurons, vocab) in [(1, 1, 2, 1), (5, 3, 34, 7), (33, 2, 300, 65), (64, 1, 64, 256)] {
            let model = model(width, heads, neurons, vocab);
            for weight_type in [WeightType::F16, WeightType::F32] {
                let backend = CpuBackend::new(&model, weight_type, Some(1)).unwrap();
                let found = backend.host_weights(&model.weights);
                for (tensor, found) in tensors(&model.weights).into_iter().zip(tensors(&found)) {
                    assert_eq!((found.shape(), found.dtype()), (tensor.shape(), tensor.dtype()));
                    let expected = tensor.to_vec();
                    assert_eq!(found.to_vec(), expected);
                    for start in [1, width, expected.len() / 2, expected.len() - 1] {
                        let mut some = vec![0.0; (expected.len() - start).min(71)];
                        found.read(start, &mut some);
                        assert_eq!(some, expected[start..][..some.len()]);
                    }
                    assert!(found.fits_f16_exactly());
                }
            }
        }
    }

    #[test]
    fn rounded_tensors_keep_their_source() {
        let mut model = model(4, 1, 32, 8);
        model.weights.encoder = Tensor::from_f32(&[1, 4, 32], vec![0.1; 128]);
        let backend = CpuBackend::new(&model, WeightType::F16, Some(1)).unwrap();
        assert_eq!(backend.host_weights(&model.weights).encoder.to_vec(), [0.1; 128]);
    }

    #[test]
    #[should_panic(expected = "elements 120 and on of 128")]
    fn reading_past_the_end_panics() {
        let model = model(4, 1, 32, 8);
        let backend = CpuBackend::new(&model, WeightType::F16, Some(1)).unwrap();
        backend.host_weights(&model.weights).encoder.read(120, &mut [0.0; 9]);
    }
}
