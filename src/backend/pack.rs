//! Packs weights into the order in which kernels load them.
//!
//! Dense products (the encoder and the LM head) load *tiles*, `[group][tile][D][width]`: one lane
//! owns one output, and a workgroup streams through memory. Sparse products (encoder_v and the
//! decoder) and the embedding load *rows*, `[row][D]`. Rows are padded with zeros to `row` numbers,
//! and outputs to whole tiles: a padded neuron never fires and a padded column stays zero.
//!
//! A range of outputs or rows is packed at a time, so that a device needs no second copy of a
//! matrix. Strips of tensors in memory are narrow, to stay in the cache; those of streamed ones are
//! as long as the range.

use super::{BackendError, WeightType};
use crate::model::{Config, Model, ModelError, Tensor};
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

/// Consecutive outputs of one matrix of several.
struct Strip {
    /// Place of the first among the padded outputs of all.
    place: usize,
    /// Its matrix, and its place in it.
    group: usize,
    first: usize,
    /// How many there are, without padding.
    used: usize,
}

/// Strips of at most `longest` outputs that cover `part` of matrices whose outputs are padded to
/// `padded` each; nothing for padding alone.
fn strips(matrices: &Matrices, padded: usize, part: Range<usize>, longest: usize) -> impl Iterator<Item = Strip> {
    let (outputs, mut place) = (matrices.outputs, part.start);
    let next = move || {
        let (group, first) = (place / padded, place % padded);
        let end = part.end.min(place + longest).min(place - first + padded);
        let strip = Strip { place, group, first, used: outputs.saturating_sub(first).min(end - place) };
        place = end;
        (strip.place < end).then_some(strip)
    };
    std::iter::from_fn(next).filter(|strip| strip.used > 0)
}

/// Packs outputs `part` of matrices into tiles. All together are
/// `[groups][padded / width][padded_depth][width]`.
///
/// `padded` is the number of outputs per group with padding, a multiple of `width`; so are the ends
/// of `part`. `padded_depth` is at least the depth.
pub fn tiles<E: Element>(
    matrices: Matrices,
    scales: &Scales,
    padded_depth: usize,
    padded: usize,
    width: usize,
    part: Range<usize>,
) -> Vec<E> {
    let Matrices { tensor, depth, outputs, .. } = matrices;
    let mut packed = vec![E::ZERO; part.len() * padded_depth];
    let strip = if tensor.is_streamed() { part.len() } else { width };
    let mut values = vec![0.0; strip];
    for Strip { place, group, first, used } in strips(&matrices, padded, part.clone(), strip) {
        let own = &mut packed[(place - part.start) * padded_depth..];
        for d in 0..depth {
            tensor.read((group * depth + d) * outputs + first, &mut values[..used]);
            let tiles = own.chunks_exact_mut(padded_depth * width).zip(values[..used].chunks(width));
            for (output, (tile, values)) in (place..).step_by(width).zip(tiles) {
                for (lane, (to, &from)) in tile[d * width..][..width].iter_mut().zip(values).enumerate() {
                    *to = scales.convert(output + lane, from);
                }
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

/// Turns what kept weights from being read ([`Tensor::failure`]) into an error.
///
/// # Errors
/// [`BackendError::Weights`] if there is something.
pub fn check_failure(failure: Option<ModelError>) -> Result<(), BackendError> {
    failure.map_or(Ok(()), |error| Err(BackendError::Weights(Box::new(error))))
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

/// Packs columns `part` of matrices into rows, of all `[groups][padded][row]`.
pub fn columns_as_rows<E: Element>(
    matrices: Matrices,
    scales: &Scales,
    padded: usize,
    row: usize,
    part: Range<usize>,
) -> Vec<E> {
    // Outputs per pass over the depth.
    const STRIP: usize = 64;
    let Matrices { tensor, depth, outputs, .. } = matrices;
    let mut packed = vec![E::ZERO; part.len() * row];
    let strip = if tensor.is_streamed() { part.len() } else { STRIP };
    let mut values = vec![0.0; strip];
    for Strip { place, group, first, used } in strips(&matrices, padded, part.clone(), strip) {
        let rows = &mut packed[(place - part.start) * row..];
        for d in 0..depth {
            tensor.read((group * depth + d) * outputs + first, &mut values[..used]);
            for (i, &value) in values[..used].iter().enumerate() {
                rows[i * row + d] = scales.convert(place + i, value);
            }
        }
    }
    packed
}

/// Packs rows `part` of a tensor `[groups * rows, D]` into padded rows. All together are
/// `[groups][padded][row]`; `sizes` are `rows`, D, `padded` and `row`.
pub fn rows<E: Element>(tensor: &Tensor, scales: &Scales, sizes: [usize; 4], part: Range<usize>) -> Vec<E> {
    let [rows, depth, padded, row] = sizes;
    let mut packed = vec![E::ZERO; part.len() * row];
    let mut values = vec![0.0; depth];
    for (line, place) in packed.chunks_exact_mut(row).zip(part) {
        let (group, i) = (place / padded, place % padded);
        if i >= rows {
            continue;
        }
        tensor.read((group * rows + i) * depth, &mut values);
        for (to, &from) in line.iter_mut().zip(&values) {
            *to = scales.convert(place, from);
        }
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All outputs as `pack` packs them at once; packed part by part they must be the same.
    fn whole(outputs: usize, block: usize, pack: impl Fn(Range<usize>) -> Vec<f32>) -> Vec<f32> {
        let whole = pack(0..outputs);
        for blocks in 1..=outputs / block {
            let starts = (0..outputs).step_by(blocks * block);
            let parts = starts.flat_map(|start| pack(start..outputs.min(start + blocks * block)));
            assert_eq!(parts.collect::<Vec<_>>(), whole, "{blocks} blocks at a time");
        }
        whole
    }

    #[test]
    fn parts_of_a_matrix_make_the_whole() {
        // 70 of 72 outputs in blocks of 8 in each of 2 groups, depth 3 of 4.
        let (groups, depth, outputs, padded, row, block) = (2, 3, 70, 72, 4, 8);
        let values: Vec<f32> = (1..=groups * depth * outputs).map(|value| value as f32).collect();
        let encoder = Tensor::from_f32(&[groups, depth, outputs], values.clone());
        let matrices = Matrices { tensor: &encoder, groups, depth, outputs };
        let none = &Scales::default();
        let all = groups * padded;
        let tiles = whole(all, block, |part| tiles(matrices, none, row, padded, block, part));
        let columns = whole(all, block, |part| columns_as_rows(matrices, none, padded, row, part));
        let decoder = Tensor::from_f32(&[groups * outputs, depth], values.clone());
        let rows = whole(all, block, |part| rows(&decoder, none, [outputs, depth, padded, row], part));
        for output in 0..all {
            let (group, own) = (output / padded, output % padded);
            for d in 0..row {
                let is_there = own < outputs && d < depth;
                let in_encoder = if is_there { values[(group * depth + d) * outputs + own] } else { 0.0 };
                let in_decoder = if is_there { values[(group * outputs + own) * depth + d] } else { 0.0 };
                assert_eq!(tiles[(output / block * row + d) * block + output % block], in_encoder);
                assert_eq!((columns[output * row + d], rows[output * row + d]), (in_encoder, in_decoder));
            }
        }
    }
}
