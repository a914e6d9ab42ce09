//! Weights in the CPU's layout.

use super::pages::Pages;
use super::simd::{Isa, LANES};
use super::unpack::{Order, Packed};
use crate::backend::pack::{self, Element, Geometry, Scales};
use crate::backend::{BackendError, WeightType};
use crate::model::{Dtype, Model, Tensor, Weights as ModelWeights, rotary::Rotary};
use bytemuck::Pod;
use std::ops::Range;
use std::sync::Arc;

/// Outputs in a tile of a dense product: four vectors, whose independent sums hide the latency of a
/// multiply-add.
pub const TILE: usize = 4 * LANES;

/// A type of numbers, loaded as vectors of sixteen.
pub trait Vectors: Pod + Send + Sync {
    /// Rows to prefetch ahead, as a multiple of [`Isa::prefetch_distance`].
    const AHEAD: usize = 1;
    /// Loads sixteen numbers as f32.
    fn load<I: Isa>(isa: I, from: &[Self; LANES]) -> I::V;
}

impl Vectors for f32 {
    #[inline(always)]
    fn load<I: Isa>(isa: I, from: &[Self; LANES]) -> I::V {
        isa.load(from)
    }
}

/// Half floats, as bits.
impl Vectors for u16 {
    #[inline(always)]
    fn load<I: Isa>(isa: I, from: &[Self; LANES]) -> I::V {
        isa.load_half(from)
    }
}

impl Vectors for i16 {
    const AHEAD: usize = 2;

    #[inline(always)]
    fn load<I: Isa>(isa: I, from: &[Self; LANES]) -> I::V {
        isa.load_i16(from)
    }
}

impl Vectors for i8 {
    const AHEAD: usize = 4;

    #[inline(always)]
    fn load<I: Isa>(isa: I, from: &[Self; LANES]) -> I::V {
        isa.load_i8(from)
    }
}

/// A type of weights.
pub trait Weight: Element + Vectors {
    /// Whether the rows of the encoders and of the decoder have scales.
    const SCALED: bool;
    /// Type of the embedding and of the LM head, without scales.
    type Table: Weight;
}

impl Weight for f32 {
    const SCALED: bool = false;
    type Table = f32;
}

impl Weight for u16 {
    const SCALED: bool = false;
    type Table = u16;
}

impl Weight for i8 {
    const SCALED: bool = true;
    type Table = u16;
}

/// A matrix whose outputs or rows belong to neurons.
pub struct Matrix<E> {
    /// The weights, or codes.
    pub numbers: Arc<Pages<E>>,
    /// Weight / code, `[neurons]`; empty without scales.
    scales: Arc<[f32]>,
}

impl<E: Weight> Matrix<E> {
    /// The scales of some neurons; none without scales.
    pub fn scales(&self, neurons: Range<usize>) -> &[f32] {
        self.scales.get(neurons).unwrap_or_default()
    }

    fn bytes(&self) -> usize {
        self.numbers.len() * size_of::<E>() + 4 * self.scales.len()
    }
}

/// A model's weights, packed (see [`pack`]) as numbers of type `E`.
pub struct Weights<E: Weight> {
    /// Rows `[V][row]`.
    pub embed: Arc<Pages<E::Table>>,
    /// Tiles `[blocks][block / TILE][D][TILE]`.
    pub encoder: Matrix<E>,
    /// Biases of clamped neurons before the rectifier, `[neurons]`; empty if there are none.
    biases: Vec<f32>,
    /// Rows `[neurons][row]`.
    pub encoder_v: Matrix<E>,
    /// Rows `[neurons][row]`.
    pub decoder: Matrix<E>,
    /// Tiles `[V / TILE][D][TILE]`.
    pub lm_head: Arc<Pages<E::Table>>,
}

/// Packed numbers where they stay.
fn keep<T: Pod>(packed: &[T]) -> Result<Arc<Pages<T>>, BackendError> {
    Pages::copied(packed, "the weights").map(Arc::new)
}

impl<E: Weight> Weights<E> {
    /// Packs a model's weights.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`] if they do not fit, [`BackendError::Weights`] if they cannot
    /// be read.
    pub fn pack(model: &Model, g: &Geometry) -> Result<Self, BackendError> {
        let w = &model.weights;
        let (padded, padded_vocab) = (g.padded_neurons(), g.vocab.next_multiple_of(TILE));
        let all = 0..g.all_neurons();
        let matrix = |tensor: &Tensor, pack: &dyn Fn(&Scales) -> Vec<E>| {
            let scales = if E::SCALED { Scales::of(tensor, g.heads, padded) } else { Scales::default() };
            Ok(Matrix { numbers: keep(&pack(&scales))?, scales: scales.scales.into() })
        };
        let [encoder, encoder_v] = [g.heads_of(&w.encoder), g.heads_of(&w.encoder_v)];
        let none = &Scales::default();
        let packed = Self {
            embed: keep(&pack::rows(&w.embed, none, [g.vocab, g.width, g.vocab, g.row], 0..g.vocab))?,
            encoder: matrix(&w.encoder, &|scales| pack::tiles(encoder, scales, g.width, padded, TILE, all.clone()))?,
            biases: pack::biases(model, g),
            encoder_v: matrix(&w.encoder_v, &|scales| {
                pack::columns_as_rows(encoder_v, scales, padded, g.row, all.clone())
            })?,
            decoder: matrix(&w.decoder, &|scales| {
                pack::rows(&w.decoder, scales, [g.neurons, g.width, padded, g.row], all.clone())
            })?,
            lm_head: keep(&pack::tiles(g.lm_head_of(&w.lm_head), none, g.width, padded_vocab, TILE, 0..padded_vocab))?,
        };
        pack::check_failure(w.failure())?;
        Ok(packed)
    }

    /// The biases of some neurons; none if no neuron is clamped.
    pub fn biases(&self, neurons: Range<usize>) -> &[f32] {
        self.biases.get(neurons).unwrap_or_default()
    }

    /// Returns `weights`, from which these were packed, with tensors that read the packed numbers.
    /// Tensors that this type does not hold exactly keep their source.
    pub fn as_model(&self, weights: &ModelWeights, g: &Geometry) -> ModelWeights {
        fn read<T: Weight>(tensor: &Tensor, numbers: &Arc<Pages<T>>, scales: &Arc<[f32]>, order: Order) -> Tensor {
            let exact = match tensor.dtype() {
                Dtype::F64 => false,
                Dtype::I8 => T::SCALED,
                _ => !T::SCALED && (size_of::<T>() == size_of::<f32>() || tensor.fits_f16_exactly()),
            };
            match exact {
                true => tensor.moved_to(Arc::new(Packed::new(numbers, scales, order))),
                false => tensor.clone(),
            }
        }
        fn matrix<T: Weight>(tensor: &Tensor, matrix: &Matrix<T>, order: Order) -> Tensor {
            read(tensor, &matrix.numbers, &matrix.scales, order)
        }
        let none = &Arc::default();
        let padded = g.padded_neurons();
        let (depth, row) = (g.width, g.row);
        let tiles = |outputs, padded| Order::Tiles { depth, outputs, padded, width: TILE };
        let rows = |rows, padded| Order::Rows { rows, depth, padded, row };
        ModelWeights {
            embed: read(&weights.embed, &self.embed, none, rows(g.vocab, g.vocab)),
            encoder: matrix(&weights.encoder, &self.encoder, tiles(g.neurons, padded)),
            encoder_v: matrix(
                &weights.encoder_v,
                &self.encoder_v,
                Order::Columns { depth, outputs: g.neurons, padded, row },
            ),
            decoder: matrix(&weights.decoder, &self.decoder, rows(g.neurons, padded)),
            lm_head: read(&weights.lm_head, &self.lm_head, none, tiles(g.vocab, g.vocab.next_multiple_of(TILE))),
            freqs: weights.freqs.clone(),
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        let tables = (self.embed.len() + self.lm_head.len()) * size_of::<E::Table>();
        let matrices = [&self.encoder, &self.encoder_v, &self.decoder].map(Matrix::bytes);
        (tables + matrices.iter().sum::<usize>() + 4 * self.biases.len()) as u64
    }
}

/// A packed model.
pub struct CpuModel {
    /// Sizes.
    pub geometry: Geometry,
    /// Rotary frequencies in fixed point, in turns per position, padded with zeros to whole blocks,
    /// `[padded N]`.
    pub turns: Vec<u64>,
    /// The weights.
    pub weights: AnyWeights,
}

/// Weights in one of the types.
pub enum AnyWeights {
    /// 32-bit floats.
    F32(Weights<f32>),
    /// 16-bit floats.
    F16(Weights<u16>),
    /// 8-bit codes.
    I8(Weights<i8>),
}

/// Evaluates an expression over [`AnyWeights`], compiled for each type.
macro_rules! on_weights {
    ($any:expr, $weights:ident => $result:expr) => {
        match $any {
            $crate::backend::cpu::weights::AnyWeights::F32($weights) => $result,
            $crate::backend::cpu::weights::AnyWeights::F16($weights) => $result,
            $crate::backend::cpu::weights::AnyWeights::I8($weights) => $result,
        }
    };
}
pub(super) use on_weights;

impl CpuModel {
    /// Packs a model.
    ///
    /// # Errors
    /// [`BackendError::Overflow`] if a weight exceeds the type, and as [`Weights::pack`].
    pub fn new(model: &Model, weight_type: WeightType) -> Result<Self, BackendError> {
        pack::check_range(model, weight_type)?;
        let neurons = model.config.neurons();
        let largest = if neurons <= 16_384 { 256 } else { 512 };
        let block = model.config.neurons_per_head.next_multiple_of(TILE).min(largest);
        let geometry = Geometry::new(&model.config, LANES, block);
        let mut turns = Rotary::new(&model.weights.freqs).turns().to_vec();
        turns.resize(geometry.padded_neurons(), 0);
        let weights = match weight_type {
            WeightType::F32 => AnyWeights::F32(Weights::pack(model, &geometry)?),
            WeightType::F16 => AnyWeights::F16(Weights::pack(model, &geometry)?),
            WeightType::I8 => AnyWeights::I8(Weights::pack(model, &geometry)?),
        };
        Ok(Self { geometry, turns, weights })
    }
}
