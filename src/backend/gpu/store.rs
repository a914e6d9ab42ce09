//! Vectors of 16 bytes that kernels read and write, in a storage buffer or in an image.
//!
//! llvmpipe reads a texel of four words with one load, but a buffer word by word in a loop over the
//! lanes, ten times slower. On software adapters that allow it, weights and states therefore lie in
//! two-dimensional images, row after row, addressed like a buffer. On hardware there is nothing to
//! gain.
//!
//! Experiments: `docs/performance/shared.md#storage-layout-images-and-buffers`.

use super::binding::Resource;
use super::device::Gpu;
use super::texels::{TEXELS, Use};
use crate::backend::BackendError;
use maybe_async::maybe_async;

/// Bytes in a row of an image.
pub(super) const ROW_BYTES: u64 = 16 * TEXELS as u64;
/// Bytes per upload or download: whole rows.
const PIECE: u64 = 16 << 20;
/// Bytes per clear: whole rows.
const CLEARED: u64 = 1 << 20;

enum Kind {
    Buffer(wgpu::Buffer),
    Image(wgpu::Texture, wgpu::TextureView),
}

/// A browser keeps a buffer until its garbage collector finds that nobody has it.
#[cfg(target_family = "wasm")]
impl Drop for Store {
    fn drop(&mut self) {
        match &self.kind {
            Kind::Buffer(buffer) => buffer.destroy(),
            Kind::Image(texture, _) => texture.destroy(),
        }
    }
}

/// Whole vectors of 16 bytes, initially zero. In images, offsets are multiples of [`ROW_BYTES`].
pub(super) struct Store {
    kind: Kind,
    bytes: u64,
}

#[maybe_async]
impl Store {
    /// A store of `bytes`.
    pub fn new(gpu: &Gpu, what: &'static str, bytes: u64, purpose: Use, image: bool) -> Result<Self, BackendError> {
        if !image {
            let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
            let buffer = gpu.buffer(what, bytes, usage)?;
            return Ok(Self { bytes: buffer.size(), kind: Kind::Buffer(buffer) });
        }
        let rows = bytes.div_ceil(ROW_BYTES).max(1);
        let texture = gpu.device.create_texture(&wgpu::TextureDescriptor {
            label: Some(what),
            size: wgpu::Extent3d { width: TEXELS, height: rows as u32, depth_or_array_layers: 1 },
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: purpose.format(),
            usage: wgpu::TextureUsages::STORAGE_BINDING | wgpu::TextureUsages::COPY_DST | wgpu::TextureUsages::COPY_SRC,
            view_formats: &[],
        });
        let bytes = rows * ROW_BYTES;
        gpu.check_allocation(what, bytes)?;
        let view = texture.create_view(&Default::default());
        Ok(Self { kind: Kind::Image(texture, view), bytes })
    }

    /// Bytes on the device.
    pub fn size(&self) -> u64 {
        self.bytes
    }

    /// The resource that a bind group binds.
    pub fn resource(&self) -> Resource<'_> {
        match &self.kind {
            Kind::Buffer(buffer) => Resource::whole(buffer),
            Kind::Image(_, view) => Resource::Image(view),
        }
    }

    /// Writes `contents` in pieces, which keeps staging memory small.
    pub async fn upload(&self, gpu: &Gpu, offset: u64, contents: &[u8]) -> Result<(), BackendError> {
        let texture = match &self.kind {
            Kind::Buffer(buffer) => return gpu.upload(buffer, offset, contents).await,
            Kind::Image(texture, _) => texture,
        };
        for (index, piece) in contents.chunks(PIECE as usize).enumerate() {
            let mut padded = Vec::new();
            let whole_rows = piece.len().next_multiple_of(ROW_BYTES as usize);
            let rows = if whole_rows == piece.len() {
                piece
            } else {
                padded.extend_from_slice(piece);
                padded.resize(whole_rows, 0);
                &padded
            };
            let at = offset + index as u64 * PIECE;
            gpu.queue.write_texture(image_part(texture, at), rows, rows_of_a_buffer(), extent(rows.len() as u64));
            if contents.len() as u64 > PIECE {
                gpu.wait(gpu.queue.submit([])).await?;
            }
        }
        gpu.check()
    }

    /// Reads bytes back. Waits for everything submitted before.
    pub async fn download(&self, gpu: &Gpu, offset: u64, bytes: u64) -> Result<Vec<u8>, BackendError> {
        if let Kind::Buffer(buffer) = &self.kind {
            return gpu.download(buffer, offset, bytes).await;
        }
        let staging = gpu.buffer(
            "a staging buffer",
            bytes.next_multiple_of(ROW_BYTES).min(PIECE),
            wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        )?;
        let mut contents = Vec::with_capacity(bytes as usize);
        for at in (0..bytes).step_by(PIECE as usize) {
            let piece = PIECE.min(bytes - at);
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            self.copy_out(&mut encoder, offset + at, piece, &staging);
            let submission = gpu.queue.submit([encoder.finish()]);
            contents.extend_from_slice(&gpu.map(&staging, piece, submission).await?);
        }
        Ok(contents)
    }

    /// Copies bytes to the start of a buffer that has room for whole rows.
    pub fn copy_out(&self, encoder: &mut wgpu::CommandEncoder, offset: u64, bytes: u64, to: &wgpu::Buffer) {
        match &self.kind {
            Kind::Buffer(buffer) => encoder.copy_buffer_to_buffer(buffer, offset, to, 0, bytes),
            Kind::Image(texture, _) => {
                let to = wgpu::TexelCopyBufferInfo { buffer: to, layout: rows_of_a_buffer() };
                encoder.copy_texture_to_buffer(image_part(texture, offset), to, extent(bytes));
            }
        }
    }

    /// The reverse of [`Store::copy_out`].
    pub fn copy_in(&self, encoder: &mut wgpu::CommandEncoder, offset: u64, bytes: u64, from: &wgpu::Buffer) {
        match &self.kind {
            Kind::Buffer(buffer) => encoder.copy_buffer_to_buffer(from, 0, buffer, offset, bytes),
            Kind::Image(texture, _) => {
                let from = wgpu::TexelCopyBufferInfo { buffer: from, layout: rows_of_a_buffer() };
                encoder.copy_buffer_to_texture(from, image_part(texture, offset), extent(bytes));
            }
        }
    }

    /// Bytes of zeros that [`Store::clear`] needs.
    pub fn zeros_wanted(&self) -> u64 {
        match &self.kind {
            Kind::Buffer(_) => 0,
            Kind::Image(..) => CLEARED.min(self.bytes),
        }
    }

    /// Writes zeros from a buffer that holds at least [`Store::zeros_wanted`] bytes of them.
    pub fn clear(&self, encoder: &mut wgpu::CommandEncoder, offset: u64, bytes: u64, zeros: &wgpu::Buffer) {
        match &self.kind {
            Kind::Buffer(buffer) => encoder.clear_buffer(buffer, offset, Some(bytes)),
            Kind::Image(..) => {
                let piece = self.zeros_wanted();
                for at in (0..bytes).step_by(piece as usize) {
                    self.copy_in(encoder, offset + at, piece.min(bytes - at), zeros);
                }
            }
        }
    }
}

fn image_part(texture: &wgpu::Texture, offset: u64) -> wgpu::TexelCopyTextureInfo<'_> {
    wgpu::TexelCopyTextureInfo {
        texture,
        mip_level: 0,
        origin: wgpu::Origin3d { x: 0, y: (offset / ROW_BYTES) as u32, z: 0 },
        aspect: wgpu::TextureAspect::All,
    }
}

fn rows_of_a_buffer() -> wgpu::TexelCopyBufferLayout {
    wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(ROW_BYTES as u32), rows_per_image: None }
}

/// Whole rows of `bytes`.
fn extent(bytes: u64) -> wgpu::Extent3d {
    wgpu::Extent3d { width: TEXELS, height: bytes.div_ceil(ROW_BYTES) as u32, depth_or_array_layers: 1 }
}
