//! A model's weights on a device.
//!
//! They are packed and uploaded in pieces of whole blocks: the host holds one piece, however large
//! the model is.

use super::device::Gpu;
use super::layout::Layout;
use super::store::{ROW_BYTES, Store};
use super::texels::Use;
use crate::backend::pack::{self, Element, Geometry, Scales};
use crate::backend::{BackendError, WeightType};
use crate::model::{Model, Tensor, rotary::Rotary};
use maybe_async::maybe_async;
use std::ops::Range;

/// Weights and tables on the device.
pub(super) struct Weights {
    pub embed: wgpu::Buffer,
    /// Per segment.
    pub encoder: Vec<Store>,
    pub encoder_v: Vec<Store>,
    pub decoder: Vec<Store>,
    /// Per segment of the LM head.
    pub lm_head: Vec<Store>,
    /// Rotary frequencies.
    pub turns: wgpu::Buffer,
    /// Tables of the sampling kernel.
    pub tables: wgpu::Buffer,
}

/// Bytes that are packed and uploaded at once, unless a block has more.
const PIECE: usize = 16 << 20;

/// A matrix, packed for a device as numbers of type `E`.
struct Packed<'a, E> {
    what: &'static str,
    tensor: &'a Tensor,
    /// Blocks of so many outputs or rows.
    block: usize,
    /// Numbers of an output or row.
    row: usize,
    /// Packs a range of outputs or rows.
    numbers: &'a dyn Fn(Range<usize>) -> Vec<E>,
    /// Weight / code of every output or row; empty if numbers are weights.
    scales: &'a [f32],
    /// Bias of every output; empty if there are none.
    biases: &'a [f32],
}

#[maybe_async]
impl<E: bytemuck::Pod> Packed<'_, E> {
    /// Puts the blocks of each segment into a store, piece by piece. A block's scales lie behind
    /// its weights, its biases behind both.
    async fn upload(&self, gpu: &Gpu, segments: &[Range<usize>], images: bool) -> Result<Vec<Store>, BackendError> {
        let block_bytes = self.block * (self.row * size_of::<E>() + size_of::<f32>() * self.extras().count());
        let together = blocks_together(block_bytes, images);
        let mut stores = Vec::with_capacity(segments.len());
        for segment in segments {
            let store = Store::new(gpu, self.what, segment.len() as u64 * block_bytes as u64, Use::Words, images)?;
            for start in segment.clone().step_by(together) {
                let piece = self.pack(start..segment.end.min(start + together))?;
                let offset = (start - segment.start) as u64 * block_bytes as u64;
                store.upload(gpu, offset, bytemuck::cast_slice(&piece)).await?;
                if together < segment.len() {
                    // Frees the device's copy of the piece.
                    gpu.wait(gpu.queue.submit([])).await?;
                }
            }
            stores.push(store);
        }
        Ok(stores)
    }

    /// The numbers of some blocks, with what lies behind them.
    fn pack(&self, blocks: Range<usize>) -> Result<Vec<E>, BackendError> {
        let outputs = blocks.start * self.block..blocks.end * self.block;
        let numbers = (self.numbers)(outputs.clone());
        pack::check_failure(self.tensor.failure())?;
        if self.extras().next().is_none() {
            return Ok(numbers);
        }
        let extra_numbers = self.extras().count() * size_of::<f32>() / size_of::<E>() * outputs.len();
        let mut all = Vec::with_capacity(numbers.len() + extra_numbers);
        for (start, numbers) in outputs.step_by(self.block).zip(numbers.chunks_exact(self.block * self.row)) {
            all.extend_from_slice(numbers);
            for extra in self.extras() {
                all.extend_from_slice(bytemuck::cast_slice(&extra[start..][..self.block]));
            }
        }
        Ok(all)
    }

    fn extras(&self) -> impl Iterator<Item = &[f32]> {
        [self.scales, self.biases].into_iter().filter(|extra| !extra.is_empty())
    }
}

/// Blocks in a piece. In images, pieces are whole rows.
fn blocks_together(block_bytes: usize, images: bool) -> usize {
    let unit = if images { ROW_BYTES as usize } else { 1 };
    let step = (1..=unit).find(|blocks| (blocks * block_bytes).is_multiple_of(unit)).unwrap_or(unit);
    (PIECE / (step * block_bytes)).max(1) * step
}

/// The embedding, in rows of numbers of type `T`.
#[maybe_async]
async fn embedding<T: Element + bytemuck::Pod>(
    tensor: &Tensor,
    gpu: &Gpu,
    g: &Geometry,
) -> Result<wgpu::Buffer, BackendError> {
    let row_bytes = g.row * size_of::<T>();
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
    let buffer = gpu.buffer("the embedding", g.vocab as u64 * row_bytes as u64, usage)?;
    let together = blocks_together(row_bytes, false);
    for start in (0..g.vocab).step_by(together) {
        let rows = start..g.vocab.min(start + together);
        let piece = pack::rows::<T>(tensor, &Scales::default(), [g.vocab, g.width, g.vocab, g.row], rows);
        pack::check_failure(tensor.failure())?;
        gpu.upload(&buffer, start as u64 * row_bytes as u64, bytemuck::cast_slice(&piece)).await?;
        if together < g.vocab {
            gpu.wait(gpu.queue.submit([])).await?;
        }
    }
    Ok(buffer)
}

#[maybe_async]
impl Weights {
    /// Uploads a model with neurons' weights of type `N`, and the tables' of type `T`.
    pub async fn upload<N: Element + bytemuck::Pod, T: Element + bytemuck::Pod>(
        model: &Model,
        rotary: &Rotary,
        gpu: &Gpu,
        layout: &Layout,
    ) -> Result<Self, BackendError> {
        let (g, w) = (&layout.geometry, &model.weights);
        let padded = g.padded_neurons();
        let mut turns: Vec<[u32; 2]> =
            rotary.turns().iter().map(|&turns| [turns as u32, (turns >> 32) as u32]).collect();
        turns.resize(padded, [0, 0]);
        let tables = gpu.buffer(
            "the sampling tables",
            4 * crate::sampling::TABLE_LEN as u64,
            wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
        )?;
        gpu.upload(&tables, 0, bytemuck::cast_slice(crate::sampling::tables().as_slice())).await?;
        Ok(Self {
            embed: embedding::<T>(&w.embed, gpu, g).await?,
            encoder: neurons("the encoder", &w.encoder, &pack::biases(model, g), gpu, layout, &|scales, part| {
                pack::tiles::<N>(g.heads_of(&w.encoder), scales, g.row, padded, g.block, part)
            })
            .await?,
            encoder_v: neurons("encoder_v", &w.encoder_v, &[], gpu, layout, &|scales, part| {
                pack::columns_as_rows::<N>(g.heads_of(&w.encoder_v), scales, padded, g.row, part)
            })
            .await?,
            decoder: neurons("the decoder", &w.decoder, &[], gpu, layout, &|scales, part| {
                pack::rows::<N>(&w.decoder, scales, [g.neurons, g.width, padded, g.row], part)
            })
            .await?,
            lm_head: lm_head::<T>(&w.lm_head, gpu, layout).await?,
            turns: gpu.filled("the rotary frequencies", bytemuck::cast_slice(&turns)).await?,
            tables,
        })
    }
}

/// Uploads a matrix of neurons; `pack` packs a range of its outputs or rows with their scales.
#[maybe_async]
async fn neurons<N: Element + bytemuck::Pod>(
    what: &'static str,
    tensor: &Tensor,
    biases: &[f32],
    gpu: &Gpu,
    layout: &Layout,
    pack: &dyn Fn(&Scales, Range<usize>) -> Vec<N>,
) -> Result<Vec<Store>, BackendError> {
    let g = &layout.geometry;
    // Without scales, numbers are weights.
    let scales = match layout.weight_type {
        WeightType::I8 => Scales::of(tensor, g.heads, g.padded_neurons()),
        WeightType::F32 | WeightType::F16 => Scales::default(),
    };
    let numbers = |part: Range<usize>| pack(&scales, part);
    let (block, row, scales) = (g.block, g.row, &scales.scales);
    let packed = Packed { what, tensor, block, row, numbers: &numbers, scales, biases };
    packed.upload(gpu, &layout.segments, layout.images).await
}

#[maybe_async]
async fn lm_head<T: Element + bytemuck::Pod>(
    tensor: &Tensor,
    gpu: &Gpu,
    layout: &Layout,
) -> Result<Vec<Store>, BackendError> {
    let (g, none) = (&layout.geometry, &Scales::default());
    let (block, row, padded) = (layout.vocab_block, g.row, layout.padded_vocab());
    let numbers = |part: Range<usize>| pack::tiles::<T>(g.lm_head_of(tensor), none, row, padded, block, part);
    let packed = Packed { what: "the LM head", tensor, block, row, numbers: &numbers, scales: &[], biases: &[] };
    packed.upload(gpu, &layout.lm_head_segments, layout.images).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_whole_blocks_and_in_images_whole_rows() {
        for block_bytes in [16, 48, 4096, 33_024, 100_000, 262_400, 5 << 20, 40 << 20] {
            let together = blocks_together(block_bytes, false);
            assert!(together == 1 || together * block_bytes <= PIECE, "{block_bytes}");
            assert!((together + 1) * block_bytes > PIECE, "{block_bytes}");
            assert_eq!(blocks_together(block_bytes, true) * block_bytes % ROW_BYTES as usize, 0, "{block_bytes}");
        }
        assert_eq!(blocks_together(32 << 10, true), 512);
    }
}
