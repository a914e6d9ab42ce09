//! A model's weights on a device.

use super::device::Gpu;
use super::layout::Layout;
use super::store::Store;
use crate::backend::pack::{self, Element, Scales};
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

/// A matrix of numbers of type `E`, packed for a device.
struct Packed<E> {
    what: &'static str,
    /// Blocks of so many outputs or rows.
    block: usize,
    /// Numbers of an output or row.
    row: usize,
    numbers: Vec<E>,
    /// Weight / code of every output or row; empty if numbers are weights.
    scales: Vec<f32>,
    /// Bias of every output; empty if there are none.
    biases: Vec<f32>,
}

#[maybe_async]
impl<E: bytemuck::Pod> Packed<E> {
    /// Puts the blocks of each segment into a store. A block's scales lie behind its weights, its
    /// biases behind both.
    async fn upload(&self, gpu: &Gpu, segments: &[Range<usize>], images: bool) -> Result<Vec<Store>, BackendError> {
        let mut stores = Vec::new();
        for segment in segments {
            let outputs = segment.start * self.block..segment.end * self.block;
            let numbers: &[u8] = bytemuck::cast_slice(&self.numbers[outputs.start * self.row..outputs.end * self.row]);
            let extras = [&self.scales, &self.biases].into_iter().filter(|extra| !extra.is_empty());
            let extras: Vec<&[f32]> = extras.map(|extra| &extra[outputs.clone()]).collect();
            if extras.is_empty() {
                stores.push(Store::weights(gpu, self.what, numbers, images).await?);
                continue;
            }
            let mut all = Vec::with_capacity(numbers.len() + extras.len() * size_of::<f32>() * outputs.len());
            for (block, numbers) in numbers.chunks_exact(numbers.len() / segment.len()).enumerate() {
                all.extend_from_slice(numbers);
                for extra in &extras {
                    all.extend_from_slice(bytemuck::cast_slice(&extra[block * self.block..][..self.block]));
                }
            }
            stores.push(Store::weights(gpu, self.what, &all, images).await?);
        }
        Ok(stores)
    }
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
        let none = &Scales::default();
        let matrix = |what, tensor: &Tensor, biases, pack: &dyn Fn(&Scales) -> Vec<N>| {
            let scaled = layout.weight_type == WeightType::I8;
            let scales = if scaled { Scales::of(tensor, g.heads, padded) } else { Scales::default() };
            let numbers = pack(&scales);
            Packed { what, block: g.block, row: g.row, numbers, scales: scales.scales, biases }
        };
        let vocab_block = layout.vocab_block;
        let lm_head = Packed {
            what: "the LM head",
            block: vocab_block,
            row: g.row,
            numbers: pack::tiles::<T>(g.lm_head_of(&w.lm_head), none, g.row, layout.padded_vocab(), vocab_block),
            scales: Vec::new(),
            biases: Vec::new(),
        };
        let mut turns: Vec<[u32; 2]> =
            rotary.turns().iter().map(|&turns| [turns as u32, (turns >> 32) as u32]).collect();
        turns.resize(padded, [0, 0]);
        let embed = pack::rows::<T>(&w.embed, none, 1, g.vocab, g.width, g.vocab, g.row);
        let tables = gpu.buffer(
            "the sampling tables",
            4 * crate::sampling::TABLE_LEN as u64,
            wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
        )?;
        gpu.upload(&tables, 0, bytemuck::cast_slice(crate::sampling::tables().as_slice())).await?;
        let [encoder, encoder_v] = [g.heads_of(&w.encoder), g.heads_of(&w.encoder_v)];
        Ok(Self {
            embed: gpu.filled("the embedding", bytemuck::cast_slice(&embed)).await?,
            encoder: matrix("the encoder", &w.encoder, pack::biases(model, g), &|scales| {
                pack::tiles(encoder, scales, g.row, padded, g.block)
            })
            .upload(gpu, &layout.segments, layout.images)
            .await?,
            encoder_v: matrix("encoder_v", &w.encoder_v, Vec::new(), &|scales| {
                pack::columns_as_rows(encoder_v, scales, padded, g.row)
            })
            .upload(gpu, &layout.segments, layout.images)
            .await?,
            decoder: matrix("the decoder", &w.decoder, Vec::new(), &|scales| {
                pack::rows(&w.decoder, scales, g.heads, g.neurons, g.width, padded, g.row)
            })
            .upload(gpu, &layout.segments, layout.images)
            .await?,
            lm_head: lm_head.upload(gpu, &layout.lm_head_segments, layout.images).await?,
            turns: gpu.filled("the rotary frequencies", bytemuck::cast_slice(&turns)).await?,
            tables,
        })
    }
}
