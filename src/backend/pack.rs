//! Packs weights into the order in which kernels load them.
//!
//! Dense products (the encoder and the LM head) load *tiles*, `[group][tile][D][width]`: one lane
//! owns one output, and a workgroup streams through memory. Sparse products (encoder_v and the
//! decoder) and the embedding load *rows*, `[row][D]`. Rows are padded with zeros to `row` numbers,
//! and outputs to whole tiles: a padded neuron never fires and a padded column stays zero.

use super::{BackendError, WeightType};
use crate::model::{Config, Model, Tensor};
use half::f16;
use std::ops::Range;

/// A type of weights on a device.
pub trait Element: Copy + Send + Sync + 'static {
    /// Zero.
    const ZERO: Self;
    /// Rounds `x` to the type.
    fn from_f32(x: f32) -> Self;
    /// Converts to f32.
    fn to_f32(self) -> f32;
}

impl Element for f32 {
    const ZERO: Self = 0.0;
    fn from_f32(x: f32) -> Self {
        x
    }
    fn to_f32(self) -> f32 {
        self
    }
}

/// A code, without its scale.
impl Element for i8 {
    const ZERO: Self = 0;
    fn from_f32(x: f32) -> Self {
        x.round_ties_even() as Self
    }
    fn to_f32(self) -> f32 {
        self.into()
    }
}

/// A half float as bits.
impl Element for u16 {
    const ZERO: Self = 0;
    fn from_f32(x: f32) -> Self {
        f16::from_f32(x).to_bits()
    }
    fn to_f32(self) -> f32 {
        f16::from_bits(self).to_f32()
    }
}

/// Sizes of a model in a device's layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Layers, L.
    pub layers: usize,
    /// Width of the residual stream, D.
    pub width: usize,
    /// Width padded to whole vectors.
    pub row: usize,
    /// Heads, H.
    pub heads: usize,
    /// Neurons per head, N.
    pub neurons: usize,
    /// Neurons in a block, the unit of work of a workgroup or task.
    pub block: usize,
    /// Blocks per head, whose neurons are padded to whole blocks.
    pub blocks_per_head: usize,
    /// Tokens, V.
    pub vocab: usize,
}

impl Geometry {
    /// Sizes of `config`, with rows padded to multiples of `lane` and blocks of `block` neurons
    /// (even).
    pub fn new(config: &Config, lane: usize, block: usize) -> Self {
        Self {
            layers: config.n_layer,
            width: config.n_embd,
            row: config.n_embd.next_multiple_of(lane),
            heads: config.n_head,
            neurons: config.neurons_per_head,
            block,
            blocks_per_head: config.neurons_per_head.div_ceil(block),
            vocab: config.vocab_size,
        }
    }

    /// Blocks of all heads.
    pub fn blocks(&self) -> usize {
        self.heads * self.blocks_per_head
    }

    /// Neurons of a head, padded to whole blocks.
    pub fn padded_neurons(&self) -> usize {
        self.blocks_per_head * self.block
    }

    /// Neurons of all heads, padded.
    pub fn all_neurons(&self) -> usize {
        self.blocks() * self.block
    }

    /// A block's neurons among those of all heads.
    pub fn neurons_of(&self, block: usize) -> Range<usize> {
        block * self.block..(block + 1) * self.block
    }

    /// The matrices of an encoder, one per head.
    pub fn heads_of<'a>(&self, tensor: &'a Tensor) -> Matrices<'a> {
        Matrices { tensor, groups: self.heads, depth: self.width, outputs: self.neurons }
    }

    /// The matrix of the LM head.
    pub fn lm_head_of<'a>(&self, tensor: &'a Tensor) -> Matrices<'a> {
        Matrices { tensor, groups: 1, depth: self.width, outputs: self.vocab }
    }

    /// Copies `[H, N, size]` numbers to `[neurons][padded]`, with heads padded to whole blocks.
    pub fn pad<T: Copy>(&self, from: &[T], size: usize, to: &mut [T], padded: usize) {
        let heads = to.chunks_exact_mut(self.padded_neurons() * padded);
        for (head, from) in heads.zip(from.chunks_exact(self.neurons * size)) {
            for (row, from) in head.chunks_exact_mut(padded).zip(from.chunks_exact(size)) {
                row[..size].copy_from_slice(from);
            }
        }
    }

    /// Copies `[H, N, size]` numbers from `[neurons][padded]`, with heads padded to whole blocks.
    pub fn unpad<T: Copy>(&self, from: &[T], padded: usize, size: usize) -> Vec<T> {
        let heads = from.chunks_exact(self.padded_neurons() * padded);
        let rows = heads.flat_map(|head| head.chunks_exact(padded).take(self.neurons));
        rows.flat_map(|row| &row[..size]).copied().collect()
    }

    /// Numbers in one layer's state, padded.
    pub fn layer_state(&self) -> usize {
        self.all_neurons() * self.row
    }
}

/// A tensor of `groups` matrices `[depth, outputs]`: an encoder or the LM head.
#[derive(Clone, Copy)]
pub struct Matrices<'a> {
    /// The numbers.
    pub tensor: &'a Tensor,
    /// Number of matrices.
    pub groups: usize,
    /// D.
    pub depth: usize,
    /// Columns of each matrix.
    pub outputs: usize,
}

/// Factors from weights to what is packed, one per output of a matrix or row of a tensor, padded
/// like them; none where weights are packed as they are.
#[derive(Clone, Debug, Default)]
pub struct Scales {
    /// weight / code, `[groups][padded]`.
    pub scales: Vec<f32>,
    /// Their reciprocals; 0 for 0.
    reciprocals: Vec<f32>,
}

impl Scales {
    /// The scales of a tensor's outputs or rows (`model::eight_bits`), `padded` for each of
    /// `groups`.
    pub fn of(tensor: &Tensor, groups: usize, padded: usize) -> Self {
        let own = tensor.eight_bit_scales();
        let mut scales = vec![0.0; groups * padded];
        let rows = scales.chunks_exact_mut(padded).zip(own.chunks_exact((own.len() / groups).max(1)));
        rows.for_each(|(to, from)| to[..from.len()].copy_from_slice(from));
        let reciprocals = scales.iter().map(|&scale| if scale == 0.0 { 0.0 } else { 1.0 / scale }).collect();
        Self { scales, reciprocals }
    }

    /// A weight of an output as it is packed.
    fn convert<E: Element>(&self, output: usize, weight: f32) -> E {
        E::from_f32(self.reciprocals.get(output).map_or(weight, |reciprocal| weight * reciprocal))
    }
}

/// Packs matrices into tiles, `[groups][padded / width][padded_depth][width]`.
///
/// `padded` is the number of outputs per group with padding, a multiple of `width`. `padded_depth`
/// is at least the depth.
pub fn tiles<E: Element>(
    matrices: Matrices,
    scales: &Scales,
    padded_depth: usize,
    padded: usize,
    width: usize,
) -> Vec<E> {
    let Matrices { tensor, groups, depth, outputs } = matrices;
    let mut packed = vec![E::ZERO; groups * padded * padded_depth];
    let mut values = vec![0.0; width];
    for (index, tile) in packed.chunks_exact_mut(padded_depth * width).enumerate() {
        let (group, first) = (index / (padded / width), index % (padded / width) * width);
        let used = outputs.saturating_sub(first).min(width);
        if used == 0 {
            continue;
        }
        for (d, line) in tile.chunks_exact_mut(width).take(depth).enumerate() {
            tensor.read((group * depth + d) * outputs + first, &mut values[..used]);
            for (lane, (to, &from)) in line.iter_mut().zip(&values[..used]).enumerate() {
                *to = scales.convert(group * padded + first + lane, from);
            }
        }
    }
    packed
}

/// Biases of a model's neurons before the rectifier, `[H][padded N]`; none if none is clamped
/// ([`Model::edit`]).
pub fn biases(model: &Model, g: &Geometry) -> Vec<f32> {
    let mut biases = Vec::new();
    for (neuron, bias) in model.clamped() {
        biases.resize(g.all_neurons(), 0.0);
        biases[neuron.head as usize * g.padded_neurons() + neuron.index as usize] = bias;
    }
    biases
}

/// Checks that every weight is within the range of `weight_type`.
///
/// # Errors
/// [`BackendError::Overflow`] for the first weight that is not.
pub fn check_range(model: &Model, weight_type: WeightType) -> Result<(), BackendError> {
    if weight_type == WeightType::F32 {
        return Ok(());
    }
    let w = &model.weights;
    let tables = [("embed.weight", &w.embed), ("lm_head", &w.lm_head)];
    let matrices = [("encoder", &w.encoder), ("encoder_v", &w.encoder_v), ("decoder", &w.decoder)];
    // Codes have scales of their own.
    let matrices = matrices.into_iter().filter(|_| weight_type == WeightType::F16);
    match tables.into_iter().chain(matrices).find_map(|(name, tensor)| Some((name, tensor, tensor.first_beyond_f16()?)))
    {
        None => Ok(()),
        Some((name, tensor, (at, value))) => {
            Err(BackendError::Overflow { tensor: name, index: tensor.index(at), value })
        }
    }
}

/// Packs the columns of matrices into rows, one per output: `[groups][padded][row]`.
pub fn columns_as_rows<E: Element>(matrices: Matrices, scales: &Scales, padded: usize, row: usize) -> Vec<E> {
    // Outputs per pass over the depth.
    const STRIP: usize = 64;
    let Matrices { tensor, groups, depth, outputs } = matrices;
    let mut packed = vec![E::ZERO; groups * padded * row];
    let mut values = [0.0; STRIP];
    for (group, rows) in packed.chunks_exact_mut(padded * row).enumerate() {
        for first in (0..outputs).step_by(STRIP) {
            let used = STRIP.min(outputs - first);
            for d in 0..depth {
                tensor.read((group * depth + d) * outputs + first, &mut values[..used]);
                for (i, &value) in values[..used].iter().enumerate() {
                    rows[(first + i) * row + d] = scales.convert(group * padded + first + i, value);
                }
            }
        }
    }
    packed
}

/// Packs a tensor `[groups * rows, D]` into padded rows: `[groups][padded][row]`.
pub fn rows<E: Element>(
    tensor: &Tensor,
    scales: &Scales,
    groups: usize,
    rows: usize,
    depth: usize,
    padded: usize,
    row: usize,
) -> Vec<E> {
    let mut packed = vec![E::ZERO; groups * padded * row];
    let mut values = vec![0.0; depth];
    for (group, part) in packed.chunks_exact_mut(padded * row).enumerate() {
        for (i, line) in part.chunks_exact_mut(row).take(rows).enumerate() {
            tensor.read((group * rows + i) * depth, &mut values);
            for (to, &from) in line.iter_mut().zip(&values) {
                *to = scales.convert(group * padded + i, from);
            }
        }
    }
    packed
}
