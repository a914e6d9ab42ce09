//! Layout of stores in images; see [`super::store`].

/// Vectors in a row of an image.
pub(super) const TEXELS: u32 = 1024;

/// The contents of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Read by kernels; vectors of u32.
    Weights,
    /// Read and written by kernels; vectors of f32.
    Floats,
}

impl Use {
    /// Format in an image.
    pub fn format(self) -> wgpu::TextureFormat {
        match self {
            Self::Weights => wgpu::TextureFormat::Rgba32Uint,
            Self::Floats => wgpu::TextureFormat::Rgba32Float,
        }
    }

    /// Uses that an adapter must allow for that format.
    pub fn needs(self) -> wgpu::TextureFormatFeatureFlags {
        match self {
            Self::Weights => wgpu::TextureFormatFeatureFlags::STORAGE_READ_ONLY,
            Self::Floats => {
                wgpu::TextureFormatFeatureFlags::STORAGE_READ_ONLY | wgpu::TextureFormatFeatureFlags::STORAGE_READ_WRITE
            }
        }
    }
}
