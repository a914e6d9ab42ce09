//! Layout of stores in images; see [`super::store`].

/// Vectors in a row of an image.
pub(super) const TEXELS: u32 = 1024;

/// The contents of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Weights, and sequences' memories; vectors of u32.
    Words,
    /// Activations; vectors of f32.
    Floats,
}

impl Use {
    /// Format in an image.
    pub fn format(self) -> wgpu::TextureFormat {
        match self {
            Self::Words => wgpu::TextureFormat::Rgba32Uint,
            Self::Floats => wgpu::TextureFormat::Rgba32Float,
        }
    }
}
