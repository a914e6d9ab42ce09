//! Weights as they lie in their file, converted to f32 when read.

use std::fmt;
use std::sync::Arc;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::storage::Storage;

/// Element type of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    BF16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
}

impl Dtype {
    /// Size of one element in bytes.
    pub fn size(self) -> usize {
        match self {
            Self::F16 | Self::BF16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::F32 => "f32",
            Self::F64 => "f64",
        })
    }
}

/// A row-major array of numbers. Cloning shares the numbers.
#[derive(Clone)]
pub struct Tensor {
    shape: Arc<[usize]>,
    len: usize,
    data: Data,
}

#[derive(Clone)]
enum Data {
    /// Little-endian elements from byte `offset` on, at any alignment.
    Stored {
        storage: Storage,
        offset: usize,
        dtype: Dtype,
    },
    Owned(Arc<Vec<f32>>),
}

impl Tensor {
    /// Makes an f32 tensor of the given shape from its elements in row-major order.
    ///
    /// # Panics
    /// If the number of elements is not the product of the shape.
    pub fn from_f32(shape: &[usize], data: Vec<f32>) -> Self {
        let len = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size));
        assert_eq!(len, Some(data.len()), "number of elements for shape {shape:?}");
        Self { shape: shape.into(), len: data.len(), data: Data::Owned(Arc::new(data)) }
    }

    /// A view of a file's bytes from `offset` on. `None` if the file has too few of them.
    pub(crate) fn stored(storage: Storage, offset: usize, dtype: Dtype, shape: &[usize]) -> Option<Self> {
        let len = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size))?;
        let end = len.checked_mul(dtype.size())?.checked_add(offset)?;
        if end > storage.bytes().len() {
            return None;
        }
        Some(Self { shape: shape.into(), len, data: Data::Stored { storage, offset, dtype } })
    }

    /// Element type in the file.
    pub fn dtype(&self) -> Dtype {
        match self.data {
            Data::Stored { dtype, .. } => dtype,
            Data::Owned(_) => Dtype::F32,
        }
    }

    /// Size of each dimension, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Converts the `out.len()` elements from element `start` on to f32, in row-major order.
    ///
    /// # Panics
    /// If the tensor ends before element `start + out.len()`.
    pub fn read(&self, start: usize, out: &mut [f32]) {
        match &self.data {
            Data::Owned(values) => out.copy_from_slice(&values[start..][..out.len()]),
            Data::Stored { dtype, .. } => {
                let bytes = &self.bytes()[start * dtype.size()..][..out.len() * dtype.size()];
                match dtype {
                    Dtype::F16 => read_f16(bytes, out),
                    Dtype::BF16 => convert(bytes, out, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)),
                    Dtype::F32 => convert(bytes, out, f32::from_le_bytes),
                    Dtype::F64 => convert(bytes, out, |b| f64::from_le_bytes(b) as f32),
                }
            }
        }
    }

    /// All elements as f32, in row-major order.
    pub fn to_vec(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.len];
        self.read(0, &mut values);
        values
    }

    /// Whether every value, as f32, survives the way to f16 and back unchanged.
    pub fn fits_f16_exactly(&self) -> bool {
        const BLOCK: usize = 1024;
        if self.dtype() == Dtype::F16 {
            return true;
        }
        let mut values = [0.0; BLOCK];
        let mut halves = [f16::ZERO; BLOCK];
        let mut returned = [0.0; BLOCK];
        (0..self.len).step_by(BLOCK).all(|start| {
            let count = BLOCK.min(self.len - start);
            self.read(start, &mut values[..count]);
            halves[..count].convert_from_f32_slice(&values[..count]);
            halves[..count].convert_to_f32_slice(&mut returned[..count]);
            values[..count] == returned[..count]
        })
    }

    /// The first element that is a NaN, an infinity or, in f64, too large for f32: its place in
    /// row-major order and its value.
    pub(crate) fn first_non_finite(&self) -> Option<(usize, f64)> {
        // Tests of the exponent's bits alone: several times faster than converting.
        let place = match &self.data {
            Data::Owned(values) => values.iter().position(|value| !value.is_finite()),
            Data::Stored { dtype, .. } => match dtype {
                Dtype::F16 => first(self.bytes(), |b| u16::from_le_bytes(b) & 0x7c00 == 0x7c00),
                Dtype::BF16 => first(self.bytes(), |b| u16::from_le_bytes(b) & 0x7f80 == 0x7f80),
                Dtype::F32 => first(self.bytes(), |b| u32::from_le_bytes(b) & 0x7f80_0000 == 0x7f80_0000),
                Dtype::F64 => first(self.bytes(), |b| !(f64::from_le_bytes(b) as f32).is_finite()),
            },
        }?;
        let value = match &self.data {
            Data::Stored { dtype: Dtype::F64, .. } => {
                self.bytes().as_chunks::<8>().0.get(place).map_or(f64::NAN, |&b| f64::from_le_bytes(b))
            }
            _ => {
                let mut value = [0.0];
                self.read(place, &mut value);
                f64::from(value[0])
            }
        };
        Some((place, value))
    }

    /// Index in each dimension of the element at a place in row-major order.
    pub(crate) fn index(&self, place: usize) -> Vec<usize> {
        let mut rest = place;
        let mut index: Vec<usize> = self
            .shape
            .iter()
            .rev()
            .map(|&size| {
                let here = rest % size.max(1);
                rest /= size.max(1);
                here
            })
            .collect();
        index.reverse();
        index
    }

    /// The stored elements' bytes; none for owned ones.
    fn bytes(&self) -> &[u8] {
        match &self.data {
            Data::Stored { storage, offset, dtype } => &storage.bytes()[*offset..][..self.len * dtype.size()],
            Data::Owned(_) => &[],
        }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({} {:?})", self.dtype(), self.shape)
    }
}

fn convert<const SIZE: usize>(bytes: &[u8], out: &mut [f32], element: impl Fn([u8; SIZE]) -> f32) {
    for (out, &bytes) in out.iter_mut().zip(bytes.as_chunks::<SIZE>().0) {
        *out = element(bytes);
    }
}

/// Goes through aligned blocks, which the processor's own conversion instructions can take.
fn read_f16(bytes: &[u8], out: &mut [f32]) {
    const BLOCK: usize = 256;
    let mut halves = [f16::ZERO; BLOCK];
    for (out, bytes) in out.chunks_mut(BLOCK).zip(bytes.chunks(2 * BLOCK)) {
        for (half, &bytes) in halves.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *half = f16::from_le_bytes(bytes);
        }
        halves[..out.len()].convert_to_f32_slice(out);
    }
}

/// Place of the first element for which `bad` holds.
fn first<const SIZE: usize>(bytes: &[u8], bad: impl Fn([u8; SIZE]) -> bool) -> Option<usize> {
    const BLOCK: usize = 4096;
    let elements = bytes.as_chunks::<SIZE>().0;
    for (block, elements) in elements.chunks(BLOCK).enumerate() {
        // Without an early exit inside the block, so that it vectorises.
        if elements.iter().fold(false, |any, &element| any | bad(element)) {
            return elements.iter().position(|&element| bad(element)).map(|place| block * BLOCK + place);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(dtype: Dtype, bytes: Vec<u8>) -> Tensor {
        // One byte in front: no alignment is to be relied on.
        let bytes: &'static [u8] = [vec![0], bytes].concat().leak();
        let len = (bytes.len() - 1) / dtype.size();
        Tensor::stored(Storage::Static(bytes), 1, dtype, &[len]).unwrap()
    }

    #[test]
    fn every_f16_and_bf16_converts_like_the_half_crate() {
        let bits: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let halves = stored(Dtype::F16, bits.clone()).to_vec();
        let brains = stored(Dtype::BF16, bits).to_vec();
        for bits in 0..=u16::MAX {
            let (half, brain) = (halves[usize::from(bits)], brains[usize::from(bits)]);
            let expected = f16::from_bits(bits).to_f32();
            assert!(half.to_bits() == expected.to_bits() || half.is_nan() && expected.is_nan());
            let expected = half::bf16::from_bits(bits).to_f32();
            assert!(brain.to_bits() == expected.to_bits() || brain.is_nan() && expected.is_nan());
        }
    }

    #[test]
    fn reads_from_the_middle() {
        let values: Vec<f64> = (0..1000).map(f64::from).collect();
        let tensor = stored(Dtype::F64, values.iter().flat_map(|v| v.to_le_bytes()).collect());
        let mut out = [0.0; 3];
        tensor.read(997, &mut out);
        assert_eq!(out, [997.0, 998.0, 999.0]);
        tensor.read(1000, &mut []);
    }

    #[test]
    fn knows_what_fits_f16() {
        let fits = |values: Vec<f32>| Tensor::from_f32(&[values.len()], values).fits_f16_exactly();
        assert!(fits(vec![0.0, -0.0, 1.0, -65504.0, 0.5f32.powi(24), 1023.0 * 0.5f32.powi(24)]));
        assert!(!fits(vec![65520.0]));
        assert!(!fits(vec![0.5f32.powi(25)]));
        assert!(!fits([vec![0.0; 5000], vec![0.1]].concat()));
    }

    #[test]
    fn finds_what_is_not_finite() {
        let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let mut values = vec![f32::MAX; 9000];
        assert_eq!(stored(Dtype::F32, bytes(&values)).first_non_finite(), None);
        values[8999] = f32::INFINITY;
        assert_eq!(stored(Dtype::F32, bytes(&values)).first_non_finite(), Some((8999, f64::INFINITY)));
        let doubles = [1.0f64, 1e39, f64::NAN].map(f64::to_le_bytes).concat();
        assert_eq!(stored(Dtype::F64, doubles).first_non_finite(), Some((1, 1e39)));
        let halves = [0x7bffu16, 0xfc00].map(u16::to_le_bytes).concat();
        assert_eq!(stored(Dtype::F16, halves).first_non_finite(), Some((1, f64::NEG_INFINITY)));
        let brains = [0x7f7fu16, 0x7f80].map(u16::to_le_bytes).concat();
        assert_eq!(stored(Dtype::BF16, brains).first_non_finite(), Some((1, f64::INFINITY)));
        assert_eq!(Tensor::from_f32(&[2, 3], vec![0.0; 6]).index(5), [1, 2]);
    }

    #[test]
    fn refuses_views_past_the_end() {
        let view = |offset, shape: &[usize]| Tensor::stored(Storage::Static(&[0; 8]), offset, Dtype::F32, shape);
        assert!(view(0, &[2]).is_some());
        assert!(view(1, &[2]).is_none());
        assert!(view(0, &[usize::MAX, 2]).is_none());
        assert!(view(usize::MAX, &[1]).is_none());
    }
}
