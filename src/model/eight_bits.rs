//! Weights as 8-bit codes: weight = code · scale, with one scale per output of a matrix.
//!
//! A matrix of rank 3, `[groups, D, N]`, has a scale per column, `[groups, N]`; one of rank 2,
//! `[rows, D]`, a scale per row, `[rows]`. A scale is its column's or row's largest magnitude /
//! 127, and a code weight / scale, rounded to the nearest integer, halves to even.

use std::sync::Arc;

use super::error::ModelError;
use super::storage::{PIECE, Storage};
use super::tensor::{Dtype, Elements, Tensor};

/// Which scale an element has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Axis {
    /// Its column's: matrices of so many rows and columns.
    Columns { depth: usize, outputs: usize },
    /// Its row's: rows of this length.
    Rows { width: usize },
}

impl Axis {
    /// That of a tensor, which must be of rank 2 or 3.
    fn of(shape: &[usize]) -> Option<Self> {
        match *shape {
            [_, depth, outputs] => Some(Self::Columns { depth, outputs }),
            [_, width] => Some(Self::Rows { width }),
            _ => None,
        }
    }

    /// Number of an element's scale.
    fn scale(self, index: usize) -> usize {
        match self {
            Self::Columns { depth, outputs } => index / (depth * outputs) * outputs + index % outputs,
            Self::Rows { width } => index / width,
        }
    }
}

/// The shape of a tensor's scales; `None` for one that has no codes.
pub(crate) fn scales_shape(shape: &[usize]) -> Option<Vec<usize>> {
    match *shape {
        [groups, _, outputs] => Some(vec![groups, outputs]),
        [rows, _] => Some(vec![rows]),
        _ => None,
    }
}

/// The scale of a column or row by its largest magnitude. Below 10⁻³⁰ its weights are nothing
/// beside any other.
fn scale_of(largest: f32) -> f32 {
    if largest < 1e-30 { 0.0 } else { largest / 127.0 }
}

/// The code of a weight.
pub(crate) fn code(weight: f32, scale: f32) -> i8 {
    if scale == 0.0 { 0 } else { (weight * (1.0 / scale)).round_ties_even() as i8 }
}

impl Tensor {
    /// The scales of its codes: the tensor's own, or those that its weights ask for.
    ///
    /// # Panics
    /// If the tensor is not of rank 2 or 3.
    pub(crate) fn eight_bit_scales(&self) -> Vec<f32> {
        const BLOCK: usize = 4096;
        if let Some(scales) = self.own_scales() {
            return scales.to_vec();
        }
        let axis = Axis::of(self.shape()).unwrap_or_else(|| panic!("codes of shape {:?}", self.shape()));
        let count = scales_shape(self.shape()).map_or(0, |shape| shape.iter().product());
        let mut largest = vec![0.0f32; count];
        let mut values = vec![0.0; BLOCK];
        for start in (0..self.len()).step_by(BLOCK) {
            let values = &mut values[..BLOCK.min(self.len() - start)];
            self.read(start, values);
            for (index, value) in values.iter().enumerate() {
                let own = &mut largest[axis.scale(start + index)];
                *own = own.max(value.abs());
            }
        }
        largest.into_iter().map(scale_of).collect()
    }

    /// The codes of its elements from `start` on; `scales` are its scales.
    pub(crate) fn read_codes(&self, start: usize, scales: &[f32], values: &mut [f32], codes: &mut [i8]) {
        self.read(start, values);
        let axis = Axis::of(self.shape());
        for (index, (to, &value)) in codes.iter_mut().zip(values.iter()).enumerate() {
            *to = code(value, axis.map_or(0.0, |axis| scales[axis.scale(start + index)]));
        }
    }

    /// A copy made of codes.
    ///
    /// # Panics
    /// If the tensor is not of rank 2 or 3.
    pub fn to_int8(&self) -> Self {
        const BLOCK: usize = 4096;
        let scales = self.eight_bit_scales();
        let (mut values, mut codes) = (vec![0.0; BLOCK], vec![0; BLOCK]);
        let mut bytes = Vec::with_capacity(self.len());
        for start in (0..self.len()).step_by(BLOCK) {
            let count = BLOCK.min(self.len() - start);
            self.read_codes(start, &scales, &mut values[..count], &mut codes[..count]);
            bytes.extend(codes[..count].iter().map(|code| code.cast_unsigned()));
        }
        let axis = Axis::of(self.shape()).unwrap_or_else(|| panic!("codes of shape {:?}", self.shape()));
        let codes = Codes { storage: Storage::Owned(Arc::new(bytes)), offset: 0, axis, scales };
        Self::elsewhere(self.shape(), Dtype::I8, Arc::new(codes))
    }

    /// A tensor of a file's codes from byte `offset` on, and their scales. `None` where the file
    /// has too few bytes, or the scales are not as many as the shape asks for, or one of them is no
    /// scale.
    pub(crate) fn of_codes(storage: Storage, offset: u64, shape: &[usize], scales: &Tensor) -> Option<Self> {
        let axis = Axis::of(shape)?;
        let len = shape.iter().try_fold(1usize, |product, &size| product.checked_mul(size))?;
        if offset.checked_add(len as u64)? > storage.len() || scales.shape() != scales_shape(shape)? {
            return None;
        }
        let scales = scales.to_vec();
        // No product with a code may be infinite.
        if scales.iter().any(|scale| !(0.0..=f32::MAX / 128.0).contains(scale)) {
            return None;
        }
        Some(Self::elsewhere(shape, Dtype::I8, Arc::new(Codes { storage, offset, axis, scales })))
    }
}

/// Codes in a file.
struct Codes {
    storage: Storage,
    offset: u64,
    axis: Axis,
    scales: Vec<f32>,
}

impl Elements for Codes {
    fn read(&self, start: usize, out: &mut [f32]) {
        let mut start = start;
        for out in out.chunks_mut(PIECE) {
            let first = self.offset + start as u64;
            let codes = self.storage.read_or_zeros(first..first + out.len() as u64);
            for (index, (to, &code)) in out.iter_mut().zip(&*codes).enumerate() {
                *to = f32::from(code.cast_signed()) * self.scales[self.axis.scale(start + index)];
            }
            start += out.len();
        }
    }

    fn scales(&self) -> Option<&[f32]> {
        Some(&self.scales)
    }

    fn is_streamed(&self) -> bool {
        self.storage.memory().is_none()
    }

    fn failure(&self) -> Option<ModelError> {
        self.storage.failure()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes_of(tensor: &Tensor) -> (Vec<i8>, Vec<f32>) {
        let scales = tensor.eight_bit_scales();
        let (mut values, mut codes) = (vec![0.0; tensor.len()], vec![0; tensor.len()]);
        tensor.read_codes(0, &scales, &mut values, &mut codes);
        (codes, scales)
    }

    #[test]
    fn a_scale_is_a_columns_or_a_rows() {
        let values: Vec<f32> = vec![1.0, -254.0, 0.0, 0.5, 127.0, 0.0, 3.0, 0.0, 127e-10, -1.0, 2.0, 0.0];
        let columns = Tensor::from_f32(&[2, 2, 3], values.clone());
        let (codes, scales) = codes_of(&columns);
        assert_eq!(scales, [1.0 / 127.0, 2.0, 0.0, 3.0 / 127.0, 2.0 / 127.0, 127e-10 / 127.0]);
        assert_eq!(codes, [127, -127, 0, 64, 64, 0, 127, 0, 127, -42, 127, 0]);
        let rows = Tensor::from_f32(&[6, 2], values);
        let (codes, scales) = codes_of(&rows);
        assert_eq!(scales[..2], [2.0, 0.5 / 127.0]);
        assert_eq!(codes[..4], [0, -127, 0, 127]);
    }

    #[test]
    fn codes_come_back_as_they_were() {
        let values: Vec<f32> = (0..600).map(|i| ((i * 7919 % 1000) as f32 - 500.0) * 0.0137).collect();
        for shape in [&[3, 10, 20][..], &[30, 20]] {
            let tensor = Tensor::from_f32(shape, values.clone());
            let (codes, scales) = codes_of(&tensor);
            let bytes = codes.iter().map(|code| code.cast_unsigned()).collect();
            let scales_tensor = Tensor::from_f32(&scales_shape(shape).unwrap(), scales.clone());
            let stored = Tensor::of_codes(Storage::Owned(Arc::new(bytes)), 0, shape, &scales_tensor).unwrap();
            assert_eq!((stored.dtype(), stored.shape()), (Dtype::I8, shape));
            assert_eq!(codes_of(&stored), (codes, scales.clone()));
            let worst = stored.to_vec().iter().zip(&values).fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
            let largest = scales.iter().fold(0.0f32, |a, b| a.max(*b));
            assert!(worst > 0.4 * largest && worst <= 0.5001 * largest, "{worst} {largest}");
        }
    }

    #[test]
    fn wrong_codes_are_refused() {
        let storage = || Storage::Owned(Arc::new(vec![1; 12]));
        let scales = |values: &[f32]| Tensor::from_f32(&[values.len()], values.to_vec());
        assert!(Tensor::of_codes(storage(), 0, &[3, 4], &scales(&[1.0, 0.0, 2.0])).is_some());
        assert!(Tensor::of_codes(storage(), 1, &[3, 4], &scales(&[1.0, 0.0, 2.0])).is_none());
        assert!(Tensor::of_codes(storage(), 0, &[3, 4], &scales(&[1.0, 0.0])).is_none());
        for bad in [-1.0, f32::NAN, f32::INFINITY] {
            assert!(Tensor::of_codes(storage(), 0, &[3, 4], &scales(&[1.0, bad, 2.0])).is_none());
        }
    }
}
