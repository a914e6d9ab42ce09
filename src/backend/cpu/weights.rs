//! Weights in the CPU's layout.

use super::pages::Pages;
use super::simd::{Isa, LANES};
use super::unpack::{Order, Packed};
use crate::backend::pack::{self, Element, Geometry};
use crate::backend::{BackendError, WeightType};
use crate::model::{Dtype, Model, Tensor, Weights as ModelWeights, rotary::Rotary};
use bytemuck::Pod;
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
pub trait Weight: Element + Vectors {}

impl<T: Element + Vectors> Weight for T {}

/// A model's weights, packed (see [`pack`]) as numbers of type `E`.
pub struct Weights<E> {
    /// Rows `[V][row]`.
    pub embed: Arc<Pages<E>>,
    /// Tiles `[blocks][block / TILE][D][TILE]`.
    pub encoder: Arc<Pages<E>>,
    /// Rows `[neurons][row]`.
    pub encoder_v: Arc<Pages<E>>,
    /// Rows `[neurons][row]`.
    pub decoder: Arc<Pages<E>>,
    /// Tiles `[V / TILE][D][TILE]`.
    pub lm_head: Arc<Pages<E>>,
}

impl<E: Weight> Weights<E> {
    /// Packs a model's weights.
    ///
    /// # Errors
    /// [`BackendError::OutOfMemory`] if they do not fit.
    pub fn pack(model: &Model, g: &Geometry) -> Result<Self, BackendError> {
        let w = &model.weights;
        let padded = g.padded_neurons();
        let keep = |packed: Vec<E>| Pages::copied(&packed, "the weights").map(Arc::new);
        Ok(Self {
            embed: keep(pack::rows(&w.embed, 1, g.vocab, g.width, g.vocab, g.row))?,
            encoder: keep(pack::tiles(g.heads_of(&w.encoder), g.width, padded, TILE))?,
            encoder_v: keep(pack::columns_as_rows(g.heads_of(&w.encoder_v), padded, g.row))?,
            decoder: keep(pack::rows(&w.decoder, g.heads, g.neurons, g.width, padded, g.row))?,
            lm_head: keep(pack::tiles(g.lm_head_of(&w.lm_head), g.width, g.vocab.next_multiple_of(TILE), TILE))?,
        })
    }

    /// Returns `weights`, from which these were packed, with tensors that read the packed numbers.
    /// Tensors that this type does not hold exactly keep their source.
    pub fn as_model(&self, weights: &ModelWeights, g: &Geometry) -> ModelWeights {
        let exact = |tensor: &Tensor| match tensor.dtype() {
            Dtype::F64 => false,
            _ => size_of::<E>() == size_of::<f32>() || tensor.fits_f16_exactly(),
        };
        let read = |tensor: &Tensor, numbers: &Arc<Pages<E>>, order| match exact(tensor) {
            true => tensor.moved_to(Arc::new(Packed { numbers: numbers.clone(), order })),
            false => tensor.clone(),
        };
        let padded = g.padded_neurons();
        let (depth, row) = (g.width, g.row);
        let tiles = |outputs, padded| Order::Tiles { depth, outputs, padded, width: TILE };
        let rows = |rows, padded| Order::Rows { rows, depth, padded, row };
        ModelWeights {
            embed: read(&weights.embed, &self.embed, rows(g.vocab, g.vocab)),
            encoder: read(&weights.encoder, &self.encoder, tiles(g.neurons, padded)),
            encoder_v: read(
                &weights.encoder_v,
                &self.encoder_v,
                Order::Columns { depth, outputs: g.neurons, padded, row },
            ),
            decoder: read(&weights.decoder, &self.decoder, rows(g.neurons, padded)),
            lm_head: read(&weights.lm_head, &self.lm_head, tiles(g.vocab, g.vocab.next_multiple_of(TILE))),
            freqs: weights.freqs.clone(),
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> u64 {
        let numbers =
            self.embed.len() + self.encoder.len() + self.encoder_v.len() + self.decoder.len() + self.lm_head.len();
        (numbers * size_of::<E>()) as u64
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

/// Weights in 32 or 16 bits.
pub enum AnyWeights {
    /// 32-bit floats.
    F32(Weights<f32>),
    /// 16-bit floats.
    F16(Weights<u16>),
}

/// Evaluates an expression over [`AnyWeights`], compiled for each type.
macro_rules! on_weights {
    ($any:expr, $weights:ident => $result:expr) => {
        match $any {
            $crate::backend::cpu::weights::AnyWeights::F32($weights) => $result,
            $crate::backend::cpu::weights::AnyWeights::F16($weights) => $result,
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
        };
        Ok(Self { geometry, turns, weights })
    }
}
