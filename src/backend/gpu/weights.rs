//! A model's weights on a device.

use super::device::Gpu;
use super::layout::Layout;
use super::store::Store;
use crate::backend::BackendError;
use crate::backend::pack::{self, Element, Scales};
use crate::model::{Model, rotary::Rotary};

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

impl Weights {
    pub fn upload<E: Element + bytemuck::Pod>(
        model: &Model,
        rotary: &Rotary,
        gpu: &Gpu,
        layout: &Layout,
    ) -> Result<Self, BackendError> {
        let (g, w) = (&layout.geometry, &model.weights);
        let padded = g.padded_neurons();
        let block = g.block * g.row;
        let split = |what, packed: Vec<E>| -> Result<Vec<_>, BackendError> {
            let part = |s: &std::ops::Range<usize>| bytemuck::cast_slice(&packed[s.start * block..s.end * block]);
            layout.segments.iter().map(|segment| Store::weights(gpu, what, part(segment), layout.images)).collect()
        };
        let lm_head = pack::tiles::<E>(
            g.lm_head_of(&w.lm_head),
            &Scales::default(),
            g.row,
            layout.padded_vocab(),
            layout.vocab_block,
        );
        let lm_head_block = layout.vocab_block * g.row;
        let lm_head_part =
            |s: &std::ops::Range<usize>| bytemuck::cast_slice(&lm_head[s.start * lm_head_block..s.end * lm_head_block]);
        let mut turns: Vec<[u32; 2]> =
            rotary.turns().iter().map(|&turns| [turns as u32, (turns >> 32) as u32]).collect();
        turns.resize(padded, [0, 0]);
        let embed = pack::rows::<E>(&w.embed, &Scales::default(), 1, g.vocab, g.width, g.vocab, g.row);
        let tables = gpu.buffer(
            "the sampling tables",
            4 * crate::sampling::TABLE_LEN as u64,
            wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
        )?;
        gpu.upload(&tables, 0, bytemuck::cast_slice(crate::sampling::tables().as_slice()))?;
        Ok(Self {
            embed: gpu.filled("the embedding", bytemuck::cast_slice(&embed))?,
            encoder: split(
                "the encoder",
                pack::tiles(g.heads_of(&w.encoder), &Scales::default(), g.row, padded, g.block),
            )?,
            encoder_v: split(
                "encoder_v",
                pack::columns_as_rows(g.heads_of(&w.encoder_v), &Scales::default(), padded, g.row),
            )?,
            decoder: split(
                "the decoder",
                pack::rows(&w.decoder, &Scales::default(), g.heads, g.neurons, g.width, padded, g.row),
            )?,
            lm_head: layout
                .lm_head_segments
                .iter()
                .map(|segment| Store::weights(gpu, "the LM head", lm_head_part(segment), layout.images))
                .collect::<Result<_, _>>()?,
            turns: gpu.filled("the rotary frequencies", bytemuck::cast_slice(&turns))?,
            tables,
        })
    }
}
