//! Weights as they lie in their file, converted to f32 when read.

use std::fmt;
use std::sync::Arc;

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::error::ModelError;
use super::storage::{PIECE, Storage, pieces};
use super::streamed;

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
    /// 8-bit codes with a scale for each output.
    I8,
}

impl Dtype {
    /// Size of one element in bytes.
    pub fn size(self) -> usize {
        match self {
            Self::F16 | Self::BF16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
            Self::I8 => 1,
        }
    }

    /// Converts little-endian elements.
    fn convert(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            Self::F16 => read_f16(bytes, out),
            Self::BF16 => convert(bytes, out, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16)),
            Self::F32 => convert(bytes, out, f32::from_le_bytes),
            Self::F64 => convert(bytes, out, |b| f64::from_le_bytes(b) as f32),
            Self::I8 => unreachable!("codes have scales elsewhere"),
        }
    }

    /// Place of the first element that is not finite as f32.
    fn first_non_finite(self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::F16 => first(bytes, |b| u16::from_le_bytes(b) & 0x7c00 == 0x7c00),
            Self::BF16 => first(bytes, |b| u16::from_le_bytes(b) & 0x7f80 == 0x7f80),
            Self::F32 => first(bytes, |b| u32::from_le_bytes(b) & 0x7f80_0000 == 0x7f80_0000),
            Self::F64 => first(bytes, |b| !(f64::from_le_bytes(b) as f32).is_finite()),
            Self::I8 => None,
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
            Self::I8 => "int8",
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
        offset: u64,
        dtype: Dtype,
    },
    Owned(Arc<Vec<f32>>),
    /// Finite elements in somebody else's order.
    Elsewhere {
        elements: Arc<dyn Elements>,
        dtype: Dtype,
    },
}

/// Elements of a tensor that somebody else holds, in an order of their own.
pub(crate) trait Elements: Send + Sync {
    /// As [`Tensor::read`].
    fn read(&self, start: usize, out: &mut [f32]);
    /// Scales of 8-bit codes, one per output; see [`Tensor::eight_bit_scales`].
    fn scales(&self) -> Option<&[f32]> {
        None
    }
    /// As [`Tensor::is_streamed`].
    fn is_streamed(&self) -> bool {
        false
    }
    /// As [`Tensor::failure`].
    fn failure(&self) -> Option<ModelError> {
        None
    }
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
    pub(crate) fn stored(storage: Storage, offset: u64, dtype: Dtype, shape: &[usize]) -> Option<Self> {
        let len = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size))?;
        let end = (len as u64).checked_mul(dtype.size() as u64)?.checked_add(offset)?;
        if end > storage.len() {
            return None;
        }
        Some(Self { shape: shape.into(), len, data: Data::Stored { storage, offset, dtype } })
    }

    /// Copies a view with strides into row-major order. Offset and strides count elements of `bytes`, which
    /// are little-endian. `None` if the view reaches beyond them.
    pub(crate) fn gather(
        bytes: &[u8],
        dtype: Dtype,
        offset: usize,
        shape: &[usize],
        strides: &[usize],
    ) -> Option<Self> {
        let len = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size))?;
        let mut copy = Vec::new();
        if len > 0 {
            let last = shape.iter().zip(strides).try_fold(offset, |last, (&size, &stride)| {
                (size - 1).checked_mul(stride).and_then(|reach| last.checked_add(reach))
            })?;
            if last >= bytes.len() / dtype.size() {
                return None;
            }
            copy = vec![0; len.checked_mul(dtype.size())?];
            match dtype.size() {
                2 => gather::<2>(bytes, &mut copy, offset, shape, strides),
                4 => gather::<4>(bytes, &mut copy, offset, shape, strides),
                _ => gather::<8>(bytes, &mut copy, offset, shape, strides),
            }
        }
        Self::stored(Storage::Owned(Arc::new(copy)), 0, dtype, shape)
    }

    /// The same numbers, read from somewhere else from now on: the tensor's own memory is let go.
    pub(crate) fn moved_to(&self, elements: Arc<dyn Elements>) -> Self {
        Self { shape: self.shape.clone(), len: self.len, data: Data::Elsewhere { elements, dtype: self.dtype() } }
    }

    /// A tensor that somebody else holds.
    pub(crate) fn elsewhere(shape: &[usize], dtype: Dtype, elements: Arc<dyn Elements>) -> Self {
        Self { shape: shape.into(), len: shape.iter().product(), data: Data::Elsewhere { elements, dtype } }
    }

    /// The scales that the tensor came with, if it is made of codes.
    pub(crate) fn own_scales(&self) -> Option<&[f32]> {
        match &self.data {
            Data::Elsewhere { elements, .. } => elements.scales(),
            Data::Stored { .. } | Data::Owned(_) => None,
        }
    }

    /// The transpose of a matrix, of the same element type where the elements are the tensor's own.
    ///
    /// # Panics
    /// If the tensor is not of rank 2.
    pub(crate) fn transposed(&self) -> Self {
        let &[rows, columns] = self.shape() else { panic!("a transpose of shape {:?}", self.shape) };
        let (shape, strides) = ([columns, rows], [1, columns]);
        if let Data::Stored { storage, offset, dtype } = &self.data
            && self.is_streamed()
        {
            let copy = streamed::transposed(storage, *offset, dtype.size(), rows, columns);
            let storage = Storage::Owned(Arc::new(copy));
            return Self {
                shape: shape.into(),
                len: self.len,
                data: Data::Stored { storage, offset: 0, dtype: *dtype },
            };
        }
        self.gathered(&shape, &strides).unwrap_or_else(|| unreachable!("every element of a matrix is in it"))
    }

    /// The same neurons in another order: in each of `blocks` blocks of `neurons` rows of `width` elements, row j and
    /// row j + `neurons`/2 become neighbours.
    ///
    /// # Panics
    /// If the tensor has another number of elements, or `neurons` is odd.
    pub(crate) fn interleaved(&self, blocks: usize, neurons: usize, width: usize) -> Self {
        let half = neurons / 2;
        assert_eq!(self.len, blocks * 2 * half * width, "elements of shape {:?}", self.shape);
        let (shape, strides) = ([blocks, half, 2, width], [neurons * width, width, half * width, 1]);
        if let Data::Stored { .. } = &self.data
            && self.is_streamed()
        {
            return self.moved_to(Arc::new(streamed::Interleaved { tensor: self.clone(), neurons, width }));
        }
        let copy = self.gathered(&shape, &strides).unwrap_or_else(|| unreachable!("every element of a block is in it"));
        Self { shape: self.shape.clone(), ..copy }
    }

    /// Copies a view of the tensor, as [`Tensor::gather`].
    fn gathered(&self, shape: &[usize], strides: &[usize]) -> Option<Self> {
        match &self.data {
            Data::Stored { storage, offset, dtype } => {
                let bytes = storage.read_or_zeros(*offset..*offset + self.bytes());
                Self::gather(&bytes, *dtype, 0, shape, strides)
            }
            Data::Owned(_) | Data::Elsewhere { .. } => {
                Self::gather(bytemuck::cast_slice(&self.to_vec()), Dtype::F32, 0, shape, strides)
            }
        }
    }

    /// Whether the elements are fetched from a source when they are read: one long read is then
    /// faster than many short ones.
    pub(crate) fn is_streamed(&self) -> bool {
        match &self.data {
            Data::Stored { storage, .. } => storage.memory().is_none(),
            Data::Owned(_) => false,
            Data::Elsewhere { elements, .. } => elements.is_streamed(),
        }
    }

    /// Why elements could not be read, if that has happened to this tensor or to another of its
    /// model. Those were read as zeros. Only models from a [`FileSet`](super::FileSet) can fail,
    /// and they fail for good: whoever has read the weights of one asks here before it uses them.
    pub fn failure(&self) -> Option<ModelError> {
        match &self.data {
            Data::Stored { storage, .. } => storage.failure(),
            Data::Owned(_) => None,
            Data::Elsewhere { elements, .. } => elements.failure(),
        }
    }

    /// Element type in the file.
    pub fn dtype(&self) -> Dtype {
        match self.data {
            Data::Stored { dtype, .. } | Data::Elsewhere { dtype, .. } => dtype,
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

    /// Bytes that the elements take in their file, scales included.
    pub fn stored_bytes(&self) -> u64 {
        let scales = self.own_scales().map_or(0, <[f32]>::len);
        self.bytes() + 4 * scales as u64
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Converts the `out.len()` elements from element `start` on to f32, in row-major order. Zeros
    /// take the place of elements that cannot be read, see [`Tensor::failure`].
    ///
    /// # Panics
    /// If the tensor ends before element `start + out.len()`.
    pub fn read(&self, start: usize, out: &mut [f32]) {
        match &self.data {
            Data::Owned(values) => out.copy_from_slice(&values[start..][..out.len()]),
            Data::Elsewhere { elements, .. } => {
                assert!(start + out.len() <= self.len, "elements {start} and on of {}", self.len);
                elements.read(start, out);
            }
            Data::Stored { storage, offset, dtype } => {
                assert!(start + out.len() <= self.len, "elements {start} and on of {}", self.len);
                let mut at = offset + start as u64 * dtype.size() as u64;
                // Packing reads in rows of 64: they must cost little.
                if let Some(bytes) = storage.memory() {
                    return dtype.convert(&bytes[at as usize..][..out.len() * dtype.size()], out);
                }
                for out in out.chunks_mut(PIECE / dtype.size()) {
                    let end = at + (out.len() * dtype.size()) as u64;
                    dtype.convert(&storage.read_or_zeros(at..end), out);
                    at = end;
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

    /// A copy of element type f16, each value rounded to the nearest; those of 65520 or more become infinite.
    pub fn to_f16(&self) -> Self {
        const BLOCK: usize = 1024;
        let mut bytes = Vec::with_capacity(self.len * Dtype::F16.size());
        let mut values = [0.0; BLOCK];
        let mut halves = [f16::ZERO; BLOCK];
        for start in (0..self.len).step_by(BLOCK) {
            let count = BLOCK.min(self.len - start);
            self.read(start, &mut values[..count]);
            halves[..count].convert_from_f32_slice(&values[..count]);
            bytes.extend(halves[..count].iter().flat_map(|half| half.to_le_bytes()));
        }
        let storage = Storage::Owned(Arc::new(bytes));
        Self { data: Data::Stored { storage, offset: 0, dtype: Dtype::F16 }, ..self.clone() }
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

    /// The first element that f16 cannot hold: its place in row-major order and its value, of 65520 or more.
    pub(crate) fn first_beyond_f16(&self) -> Option<(usize, f32)> {
        const BLOCK: usize = 1024;
        /// The least number that does not round to 65504.
        const BEYOND: f32 = 65520.0;
        if self.dtype() == Dtype::F16 {
            return None;
        }
        let mut values = [0.0f32; BLOCK];
        (0..self.len).step_by(BLOCK).find_map(|start| {
            let values = &mut values[..BLOCK.min(self.len - start)];
            self.read(start, values);
            let place = values.iter().position(|value| value.abs() >= BEYOND)?;
            Some((start + place, values[place]))
        })
    }

    /// The first element that is a NaN, an infinity or, in f64, too large for f32: its place in
    /// row-major order and its value.
    pub(crate) fn first_non_finite(&self) -> Option<(usize, f64)> {
        // Tests of the exponent's bits alone: several times faster than converting.
        let place = match &self.data {
            Data::Owned(values) => values.iter().position(|value| !value.is_finite()),
            Data::Elsewhere { .. } => None,
            Data::Stored { storage, offset, dtype } => {
                let mut pieces = (0..).step_by(PIECE / dtype.size()).zip(pieces(*offset..*offset + self.bytes()));
                pieces.find_map(|(start, piece)| {
                    dtype.first_non_finite(&storage.read_or_zeros(piece)).map(|place: usize| start + place)
                })
            }
        }?;
        let value = match &self.data {
            Data::Stored { storage, offset, dtype: Dtype::F64 } => {
                let at = offset + 8 * place as u64;
                storage.read_or_zeros(at..at + 8).first_chunk().map_or(f64::NAN, |&b| f64::from_le_bytes(b))
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

    /// Bytes of the elements, without scales.
    fn bytes(&self) -> u64 {
        self.len as u64 * self.dtype().size() as u64
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({} {:?})", self.dtype(), self.shape)
    }
}

/// Copies elements of `SIZE` bytes. Offset, sizes and strides fit into `bytes`.
fn gather<const SIZE: usize>(bytes: &[u8], copy: &mut [u8], offset: usize, shape: &[usize], strides: &[usize]) {
    /// Columns at a time, so that neighbours in the source, where a matrix is transposed, stay in the cache.
    const TILE: usize = 32;
    let (from, to) = (bytes.as_chunks::<SIZE>().0, copy.as_chunks_mut::<SIZE>().0);
    // The two innermost dimensions make planes, which are copied in strips of a few columns.
    let outer = shape.len().saturating_sub(2);
    let (rows, row_stride) = if shape.len() > 1 { (shape[outer], strides[outer]) } else { (1, 0) };
    let (columns, column_stride) = shape.last().zip(strides.last()).map_or((1, 0), |(&size, &stride)| (size, stride));
    let mut index = vec![0; outer];
    for plane in to.chunks_mut(rows * columns) {
        let start: usize = offset + index.iter().zip(strides).map(|(&index, &stride)| index * stride).sum::<usize>();
        for first in (0..columns).step_by(TILE) {
            let strip = first..columns.min(first + TILE);
            for (row, to) in plane.chunks_mut(columns).enumerate() {
                let start = start + row * row_stride;
                for (column, to) in strip.clone().zip(&mut to[strip.clone()]) {
                    *to = from[start + column * column_stride];
                }
            }
        }
        // Advances like an odometer.
        for (place, &size) in index.iter_mut().zip(shape).rev() {
            *place += 1;
            if *place < size {
                break;
            }
            *place = 0;
        }
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
    fn rounds_to_f16() {
        let values: Vec<f32> = (0..3000).map(|i| (i as f32 - 1500.0) / 7.0).collect();
        let rounded = Tensor::from_f32(&[30, 100], values.clone()).to_f16();
        assert_eq!((rounded.shape(), rounded.dtype(), rounded.fits_f16_exactly()), (&[30, 100][..], Dtype::F16, true));
        let expected: Vec<f32> = values.iter().map(|&value| f16::from_f32(value).to_f32()).collect();
        assert_eq!(rounded.to_vec(), expected);
    }

    #[test]
    fn finds_what_f16_cannot_hold() {
        let first = |values: Vec<f32>| Tensor::from_f32(&[values.len()], values).first_beyond_f16();
        assert_eq!(first(vec![65504.0, -65519.99, 1e-30]), None);
        assert_eq!(first([vec![0.0; 2000], vec![-65520.0]].concat()), Some((2000, -65520.0)));
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
    fn views_with_strides_are_copied() {
        let values: Vec<f32> = (0..24).map(|value| value as f32).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let gather = |offset, shape: &[usize], strides: &[usize]| {
            Tensor::gather(&bytes, Dtype::F32, offset, shape, strides).map(|tensor| tensor.to_vec())
        };
        // As numpy.lib.stride_tricks.as_strided gives them.
        assert_eq!(gather(0, &[2, 3], &[1, 2]).unwrap(), [0.0, 2.0, 4.0, 1.0, 3.0, 5.0]);
        assert_eq!(gather(1, &[2, 2, 2], &[12, 1, 4]).unwrap(), [1.0, 5.0, 2.0, 6.0, 13.0, 17.0, 14.0, 18.0]);
        assert_eq!(gather(5, &[3], &[0]).unwrap(), [5.0; 3]);
        assert_eq!(gather(23, &[], &[]).unwrap(), [23.0]);
        assert_eq!(gather(99, &[0, 3], &[1, 2]).unwrap(), [0.0; 0]);
        assert!(gather(24, &[], &[]).is_none() && gather(0, &[2, 3], &[12, 6]).is_none());
        assert!(gather(0, &[2, 2], &[usize::MAX, 1]).is_none() && gather(usize::MAX, &[2], &[1]).is_none());
    }

    #[test]
    fn transposes_of_any_size_are_right() {
        for (rows, columns) in [(1, 1), (3, 5), (33, 70), (100, 31)] {
            let values: Vec<f32> = (0..rows * columns).map(|value| value as f32).collect();
            let tensor = Tensor::from_f32(&[rows, columns], values.clone());
            let transposed = tensor.transposed();
            assert_eq!(transposed.shape(), [columns, rows]);
            let found = transposed.to_vec();
            for (place, value) in values.iter().enumerate() {
                assert_eq!(found[place % columns * rows + place / columns], *value);
            }
            assert_eq!(transposed.transposed().to_vec(), values);
        }
    }

    #[test]
    fn refuses_views_past_the_end() {
        let view = |offset, shape: &[usize]| Tensor::stored(Storage::Static(&[0; 8]), offset, Dtype::F32, shape);
        assert!(view(0, &[2]).is_some());
        assert!(view(1, &[2]).is_none());
        assert!(view(0, &[usize::MAX, 2]).is_none());
        assert!(view(u64::MAX, &[1]).is_none());
    }
}
