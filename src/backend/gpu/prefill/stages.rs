//! Runs prefill's kernels one at a time.

use crate::backend::gpu::activations::floats;
use crate::backend::gpu::backend::GpuBackend;
use crate::backend::gpu::prefill::chunk::Prefill;
use crate::backend::gpu::schedule::BOTH;
use crate::backend::gpu::slots::GpuSlots;
use crate::backend::prefill::{
    PrefillAttendInput, PrefillAttendOutput, PrefillEncodeOutput, PrefillProjectInput, PrefillProjectOutput,
    PrefillResidual, PrefillResidualInput, PrefillStages,
};
use crate::backend::{BackendError, Chunk, ChunkToken};
use maybe_async::maybe_async;

/// Tokens whose values do not matter.
fn tokens(count: usize) -> Vec<ChunkToken> {
    vec![ChunkToken { token: 0, read_scale: 1.0, write_scale: 1.0 }; count]
}

#[maybe_async]
impl GpuBackend {
    /// One slot with a started chunk.
    async fn chunk_bench(&self, tokens: Vec<ChunkToken>, position: u32) -> Result<GpuSlots, BackendError> {
        let mut bench = GpuSlots::new(self.shared.clone(), 1, &BOTH[..1], false).await?;
        bench.prefill_of(0).await?.start(&Chunk { position, rescale: None, tokens, logits: false }).await?;
        Ok(bench)
    }

    /// Writes `[T, H, N]` numbers to the segments' buffers, with zeros in the last tile's padding.
    async fn write_neurons(&self, buffers: &[wgpu::Buffer], numbers: &[f32]) -> Result<(), BackendError> {
        let layout = &self.shared.layout;
        let g = &layout.geometry;
        let tokens: Vec<Vec<f32>> = numbers
            .chunks_exact(g.heads * g.neurons)
            .map(|token| {
                let mut padded = vec![0.0; g.all_neurons()];
                g.pad(token, 1, &mut padded, 1);
                padded
            })
            .collect();
        for (buffer, segment) in buffers.iter().zip(&layout.segments) {
            let part = |token: &Vec<f32>| token[segment.start * g.block..segment.end * g.block].to_vec();
            let mut part: Vec<f32> = tokens.iter().flat_map(part).collect();
            part.resize(segment.len() * g.block * tokens.len().next_multiple_of(layout.chunk.tile), 0.0);
            self.shared.gpu.upload(buffer, 0, bytemuck::cast_slice(&part)).await?;
        }
        Ok(())
    }

    /// Reads `[T, H, N]` numbers from the segments' buffers.
    async fn read_neurons(&self, buffers: &[wgpu::Buffer], tokens: usize) -> Result<Vec<f32>, BackendError> {
        let layout = &self.shared.layout;
        let g = &layout.geometry;
        let mut padded = vec![0f32; tokens * g.all_neurons()];
        for (buffer, segment) in buffers.iter().zip(&layout.segments) {
            let size = segment.len() * g.block;
            let part = floats(&self.shared.gpu.download(buffer, 0, (4 * tokens * size) as u64).await?);
            for (token, part) in padded.chunks_exact_mut(g.all_neurons()).zip(part.chunks_exact(size)) {
                token[segment.start * g.block..segment.end * g.block].copy_from_slice(part);
            }
        }
        Ok(g.unpad(&padded, 1, 1))
    }

    /// Writes x and, if given, x times its write scale.
    async fn write_chunk_residual(&self, prefill: &Prefill, x: &[f32], scaled: &[f32]) -> Result<(), BackendError> {
        let mut both = self.pad(x);
        if !scaled.is_empty() {
            both.resize(self.shared.layout.chunk.tokens * self.shared.layout.geometry.row, 0.0);
            both.extend(self.pad(scaled));
        }
        prefill.buffers.residual.upload(&self.shared.gpu, 0, bytemuck::cast_slice(&both)).await
    }

    /// The first D numbers of padded rows, from row `first` of a buffer on.
    async fn read_rows(&self, buffer: &wgpu::Buffer, first: usize, count: usize) -> Result<Vec<f32>, BackendError> {
        let g = &self.shared.layout.geometry;
        let bytes = self.shared.gpu.download(buffer, (4 * first * g.row) as u64, (4 * count * g.row) as u64).await?;
        Ok(floats(&bytes).chunks_exact(g.row).flat_map(|row| &row[..g.width]).copied().collect())
    }
}

#[maybe_async(?Send)]
impl PrefillStages for GpuBackend {
    async fn prefill_residual(&self, input: &PrefillResidualInput) -> Result<PrefillResidual, BackendError> {
        let (gpu, g) = (&self.shared.gpu, &self.shared.layout.geometry);
        let count = input.tokens.len();
        let mut bench = self.chunk_bench(input.tokens.clone(), 0).await?;
        let prefill = bench.prefill_of(0).await?;
        match &input.before {
            None => prefill.execute(&[prefill.kernels.embed(prefill.shape())]).await?,
            Some(before) => {
                self.write_chunk_residual(prefill, &before.residual, &[]).await?;
                // Each token's update is the share of a different part.
                let parts = self.shared.layout.chunk.all_parts();
                let mut updates = vec![0f32; count * parts * g.row];
                for (t, update) in before.update.chunks_exact(g.width).enumerate() {
                    updates[(t * parts + t % parts) * g.row..][..g.width].copy_from_slice(update);
                }
                gpu.upload(&prefill.buffers.updates, 0, bytemuck::cast_slice(&updates)).await?;
                prefill.execute(&[prefill.kernels.finish(prefill.shape())]).await?
            }
        };
        let rows = floats(&prefill.buffers.residual.download(gpu, 0, prefill.buffers.residual.size()).await?);
        let rows = |first: usize| -> Vec<f32> {
            let rows = rows[first * g.row..].chunks_exact(g.row).take(count);
            rows.flat_map(|row| &row[..g.width]).copied().collect()
        };
        Ok(PrefillResidual { residual: rows(0), scaled: rows(self.shared.layout.chunk.tokens) })
    }

    async fn prefill_encode(&self, residual: &[f32], position: u32) -> Result<PrefillEncodeOutput, BackendError> {
        let count = residual.len() / self.shared.layout.geometry.width;
        let mut bench = self.chunk_bench(tokens(count), position).await?;
        let prefill = bench.prefill_of(0).await?;
        self.write_chunk_residual(prefill, residual, &[]).await?;
        prefill.execute(&prefill.kernels.encode(prefill.shape())).await?;
        Ok(PrefillEncodeOutput {
            activations: self.read_neurons(&prefill.buffers.activations, count).await?,
            rotated: self.read_neurons(&prefill.buffers.rotated, count).await?,
        })
    }

    async fn prefill_attend(&self, input: &PrefillAttendInput) -> Result<PrefillAttendOutput, BackendError> {
        let g = &self.shared.layout.geometry;
        let count = input.tokens.len();
        let mut bench = self.chunk_bench(input.tokens.clone(), 0).await?;
        bench.write_numbers(0, 0, &input.state).await?;
        let prefill = bench.prefill_of(0).await?;
        self.write_neurons(&prefill.buffers.rotated, &input.rotated).await?;
        self.write_chunk_residual(prefill, &[], &input.scaled).await?;
        prefill.execute(&prefill.kernels.attend(prefill.shape(), prefill.state(0), 0)).await?;
        let mut attention = vec![0.0; count * g.heads * g.width];
        for head in 0..g.heads {
            let rows =
                self.read_rows(&prefill.buffers.attention, head * self.shared.layout.chunk.tokens, count).await?;
            for (t, row) in rows.chunks_exact(g.width).enumerate() {
                attention[(t * g.heads + head) * g.width..][..g.width].copy_from_slice(row);
            }
        }
        Ok(PrefillAttendOutput { attention, state: bench.read_memory(0, 0).await?.state })
    }

    async fn prefill_project(&self, input: &PrefillProjectInput) -> Result<PrefillProjectOutput, BackendError> {
        let (gpu, g) = (&self.shared.gpu, &self.shared.layout.geometry);
        let count = input.attention.len() / (g.heads * g.width);
        let mut bench = self.chunk_bench(tokens(count), 0).await?;
        let prefill = bench.prefill_of(0).await?;
        self.write_neurons(&prefill.buffers.activations, &input.activations).await?;
        for head in 0..g.heads {
            let rows = input.attention.chunks_exact(g.width).skip(head).step_by(g.heads);
            let rows: Vec<f32> = rows.flat_map(|row| self.pad(row)).collect();
            let at = (4 * head * self.shared.layout.chunk.tokens * g.row) as u64;
            gpu.upload(&prefill.buffers.attention, at, bytemuck::cast_slice(&rows)).await?;
        }
        prefill.execute(&prefill.kernels.project(prefill.shape())).await?;
        let parts = self.shared.layout.chunk.all_parts();
        let shares = self.read_rows(&prefill.buffers.updates, 0, count * parts).await?;
        let sum = |shares: &[f32], d: usize| shares.chunks_exact(g.width).map(|share| share[d]).sum::<f32>();
        let tokens = shares.chunks_exact(parts * g.width);
        let update = tokens.flat_map(|shares| (0..g.width).map(move |d| sum(shares, d))).collect();
        Ok(PrefillProjectOutput { gates: self.read_neurons(&prefill.buffers.activations, count).await?, update })
    }

    async fn prefill_logits(&self, residual: &[f32]) -> Result<Vec<f32>, BackendError> {
        let g = &self.shared.layout.geometry;
        let count = residual.len() / g.width;
        let mut bench = self.chunk_bench(tokens(count), 0).await?;
        let prefill = bench.prefill_of(0).await?;
        self.write_chunk_residual(prefill, residual, &[]).await?;
        prefill.execute(&[prefill.kernels.logits(prefill.shape())]).await?;
        prefill.read_logits().await
    }
}
