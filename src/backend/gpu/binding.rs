//! The resources of a bind group.

/// A resource that a kernel's shader names.
#[derive(Clone, Copy)]
pub(super) enum Resource<'a> {
    /// A buffer, an offset, and a size unless it is the rest of the buffer.
    Buffer(&'a wgpu::Buffer, u64, Option<u64>),
    /// An image.
    Image(&'a wgpu::TextureView),
}

impl<'a> Resource<'a> {
    /// A whole buffer.
    pub fn whole(buffer: &'a wgpu::Buffer) -> Self {
        Self::Buffer(buffer, 0, None)
    }

    /// The first `bytes` of a buffer, from an offset that every dispatch gives.
    pub fn entry(buffer: &'a wgpu::Buffer, bytes: u64) -> Self {
        Self::Buffer(buffer, 0, Some(bytes))
    }

    /// The wgpu form.
    pub fn bound(self) -> wgpu::BindingResource<'a> {
        match self {
            Self::Buffer(buffer, offset, size) => wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer,
                offset,
                size: size.and_then(std::num::NonZero::new),
            }),
            Self::Image(view) => wgpu::BindingResource::TextureView(view),
        }
    }
}
