//! Prefill of chunks: kernels bound to the buffers of a chunk and to the states of slots. Buffers
//! are sized for the longest chunk, whatever the length of a prompt.

use crate::backend::gpu::activations::floats;
use crate::backend::gpu::groups::{ALIGNMENT, Binder, Groups};
use crate::backend::gpu::pages::Page;
use crate::backend::gpu::prefill::buffers::ChunkBuffers;
use crate::backend::gpu::prefill::shape::{PrefillParams, PrefillToken, Shape};
use crate::backend::gpu::prefill::step::{Kernels, StateKernels};
use crate::backend::gpu::shared::Shared;
use crate::backend::{BackendError, Chunk};
use maybe_async::maybe_async;
use std::sync::Arc;

/// Prefills chunks for any slot of a set.
pub struct Prefill {
    pub shared: Arc<Shared>,
    pub buffers: ChunkBuffers,
    pub groups: Groups,
    pub kernels: Kernels,
    /// By slot; bound on first use.
    states: Vec<Option<StateKernels>>,
    /// Offset of the current slot's memory in its page, in vec4, by segment.
    state_begins: Vec<u32>,
    /// Tokens of the current chunk.
    pub count: usize,
    /// Dispatches in the next submission.
    pub burst: usize,
}

#[maybe_async]
impl Prefill {
    /// Allocates buffers for the longest chunk.
    pub async fn new(shared: Arc<Shared>) -> Result<Self, BackendError> {
        let buffers = ChunkBuffers::new(&shared)?;
        let mut groups = Groups::default();
        let mut binder = Binder::new(&shared, 1, &groups);
        let kernels = Kernels::bind(&mut binder, &shared, &buffers)?;
        binder.finish(&mut groups).await?;
        Ok(Self {
            state_begins: vec![0; shared.layout.segments.len()],
            states: Vec::new(),
            count: 0,
            burst: 4,
            kernels,
            groups,
            buffers,
            shared,
        })
    }

    /// Uploads a chunk's tokens and the kernels' parameters.
    ///
    /// # Panics
    /// If the chunk has more tokens than the layout's longest chunk.
    pub async fn start(&mut self, chunk: &Chunk) -> Result<(), BackendError> {
        let (gpu, layout) = (&self.shared.gpu, &self.shared.layout);
        let (count, most) = (chunk.tokens.len(), layout.chunk.tokens);
        assert!(count <= most, "a chunk of {count} tokens, at most {most}");
        self.count = count;
        let common = PrefillParams {
            tokens: count as u32,
            tiles: self.shape().tiles() as u32,
            position: chunk.position,
            ..PrefillParams::default()
        };
        let segments = layout.segments.iter().zip(&layout.chunk.parts).zip(&self.state_begins);
        let neurons = segments.map(|((segment, parts), &state_begin)| PrefillParams {
            block_begin: segment.start as u32,
            block_count: segment.len() as u32,
            part_begin: parts.start as u32,
            state_begin,
            ..common
        });
        let lm_head = layout.lm_head_segments.iter().map(|segment| PrefillParams {
            block_begin: segment.start as u32,
            block_count: segment.len() as u32,
            ..common
        });
        let mut table = Vec::new();
        for (index, params) in neurons.chain(lm_head).enumerate() {
            table.resize(index * ALIGNMENT as usize, 0);
            table.extend_from_slice(bytemuck::bytes_of(&params));
        }
        gpu.upload(&self.buffers.params, 0, &table).await?;
        let token = |token: &crate::backend::ChunkToken| PrefillToken {
            token: token.token,
            read_scale: token.read_scale,
            write_scale: token.write_scale,
            pad: 0,
        };
        let tokens: Vec<PrefillToken> = chunk.tokens.iter().map(token).collect();
        gpu.upload(&self.buffers.tokens, 0, bytemuck::cast_slice(&tokens)).await
    }

    /// Selects a slot: binds the pages of its state, `[layers · segments]`, each with the offset
    /// of the slot's memory in bytes.
    pub async fn select(&mut self, slot: usize, pages: &[(&Page, u64)]) -> Result<(), BackendError> {
        let begins = pages.iter().take(self.state_begins.len()).map(|(_, offset)| (offset / 16) as u32);
        self.state_begins = begins.collect();
        if self.states.len() <= slot {
            self.states.resize_with(slot + 1, || None);
        }
        if self.states[slot].is_none() {
            let shared = self.shared.clone();
            let mut binder = Binder::new(&shared, 1, &self.groups);
            let bound = StateKernels::bind(&mut binder, &shared, &self.buffers, pages)?;
            binder.finish(&mut self.groups).await?;
            self.states[slot] = Some(bound);
        }
        Ok(())
    }

    /// The kernels that use a slot's state.
    ///
    /// # Panics
    /// If the slot was never selected.
    pub fn state(&self, slot: usize) -> &StateKernels {
        self.states[slot].as_ref().expect("the slot's state is bound")
    }

    /// The shape of the current chunk.
    pub fn shape(&self) -> Shape<'_> {
        Shape { layout: &self.shared.layout, tokens: self.count }
    }

    /// Bytes of a token's row in the buffer of logits.
    pub fn logits_row(&self) -> u64 {
        4 * self.shared.layout.padded_vocab() as u64
    }

    /// The activations of the chunk's tokens, or the gates once they are in their place:
    /// `[T][blocks · block]`.
    pub async fn read_activations(&self) -> Result<Vec<Vec<f32>>, BackendError> {
        let layout = &self.shared.layout;
        let mut rows = vec![Vec::with_capacity(layout.geometry.all_neurons()); self.count];
        for (segment, buffer) in layout.segments.iter().zip(&self.buffers.activations) {
            let size = 4 * segment.len() * layout.geometry.block;
            let bytes = self.shared.gpu.download(buffer, 0, (self.count * size) as u64).await?;
            rows.iter_mut().zip(bytes.chunks_exact(size)).for_each(|(row, part)| row.extend(floats(part)));
        }
        Ok(rows)
    }

    /// The logits of the chunk's tokens, `[T, V]`.
    pub async fn read_logits(&self) -> Result<Vec<f32>, BackendError> {
        let layout = &self.shared.layout;
        let row = self.logits_row();
        let bytes = self.shared.gpu.download(&self.buffers.logits, 0, self.count as u64 * row).await?;
        let rows = bytes.chunks_exact(row as usize);
        Ok(rows.flat_map(|row| floats(&row[..4 * layout.geometry.vocab])).collect())
    }
}
