//! Tensors whose elements stay in a source, in another order.

use super::error::ModelError;
use super::storage::{PIECE, Storage};
use super::tensor::{Elements, Tensor};

/// A tensor whose neurons are put in another order as they are read; see [`Tensor::interleaved`].
pub(super) struct Interleaved {
    pub(super) tensor: Tensor,
    /// Rows of a block.
    pub(super) neurons: usize,
    /// Elements of a row.
    pub(super) width: usize,
}

impl Elements for Interleaved {
    fn read(&self, start: usize, out: &mut [f32]) {
        let block = self.neurons * self.width;
        let (mut start, mut out) = (start, out);
        while !out.is_empty() {
            let within = start % block;
            // Rows of one element are read together, longer ones one by one.
            let count = if self.width == 1 { block - within } else { self.width - within % self.width };
            let (part, rest) = out.split_at_mut(count.min(out.len()));
            if self.width == 1 {
                self.read_pairs(start - within, within, part);
            } else {
                let row = self.source_row(within / self.width);
                self.tensor.read(start - within + row * self.width + within % self.width, part);
            }
            start += part.len();
            out = rest;
        }
    }

    fn is_streamed(&self) -> bool {
        self.tensor.is_streamed()
    }

    fn failure(&self) -> Option<ModelError> {
        self.tensor.failure()
    }
}

impl Interleaved {
    /// The row of a block in the tensor.
    fn source_row(&self, row: usize) -> usize {
        row / 2 + row % 2 * (self.neurons / 2)
    }

    /// Reads a part of a block of single elements, whose first is `block`: every other one comes
    /// from the block's second half.
    fn read_pairs(&self, block: usize, first: usize, out: &mut [f32]) {
        for skipped in 0..out.len().min(2) {
            let mut half = vec![0.0; (out.len() - skipped).div_ceil(2)];
            self.tensor.read(block + self.source_row(first + skipped), &mut half);
            out[skipped..].iter_mut().step_by(2).zip(half).for_each(|(to, from)| *to = from);
        }
    }
}

/// The bytes of the transpose of a matrix of `rows` rows, whose elements of `size` bytes begin at
/// `offset`. At most one piece of the matrix itself is in memory.
pub(super) fn transposed(storage: &Storage, offset: u64, size: usize, rows: usize, columns: usize) -> Vec<u8> {
    let row_bytes = columns * size;
    let mut copy = vec![0; rows * row_bytes];
    let together = (PIECE / row_bytes.max(1)).max(1);
    for first in (0..rows).step_by(together) {
        let count = together.min(rows - first);
        let start = offset + first as u64 * row_bytes as u64;
        let bytes = storage.read_or_zeros(start..start + (count * row_bytes) as u64);
        for column in 0..columns {
            let to = &mut copy[(column * rows + first) * size..][..count * size];
            for (row, to) in to.chunks_exact_mut(size).enumerate() {
                to.copy_from_slice(&bytes[row * row_bytes + column * size..][..size]);
            }
        }
    }
    copy
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::model::files::ReadAt;
    use crate::model::storage::{Failure, Source};
    use crate::model::tensor::Dtype;

    struct Bytes(Vec<u8>);

    impl ReadAt for Bytes {
        fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
            into.copy_from_slice(&self.0[offset as usize..][..into.len()]);
            Ok(())
        }
    }

    /// A tensor in memory and the same from a source.
    fn pair(shape: &[usize]) -> [Tensor; 2] {
        let count: usize = shape.iter().product();
        let bytes: Vec<u8> = (0..count).flat_map(|value| (value as f32).to_le_bytes()).collect();
        let len = bytes.len() as u64;
        let source = Source::new(Path::new("a"), len, Arc::new(Bytes(bytes.clone())), Failure::default());
        [Storage::Owned(Arc::new(bytes)), Storage::Source(Arc::new(source))]
            .map(|storage| Tensor::stored(storage, 0, Dtype::F32, shape).unwrap())
    }

    #[test]
    fn any_part_of_a_streamed_tensor_reads_as_in_memory() {
        for (blocks, neurons, width) in [(3, 8, 1), (2, 6, 5), (1, 2, 1)] {
            let [memory, streamed] = pair(&[blocks, neurons, width]).map(|t| t.interleaved(blocks, neurons, width));
            assert!(streamed.is_streamed() && !memory.is_streamed());
            let expected = memory.to_vec();
            for start in 0..=expected.len() {
                for end in start..=expected.len() {
                    let mut found = vec![-1.0; end - start];
                    streamed.read(start, &mut found);
                    assert_eq!(found, expected[start..end], "{start}..{end}");
                }
            }
        }
    }

    #[test]
    fn streamed_matrices_are_transposed_piece_by_piece() {
        for (rows, columns) in [(1, 1), (7, 5), (3, 300_000), (700, 600), (0, 4)] {
            let [memory, streamed] = pair(&[rows, columns]).map(|tensor| tensor.transposed());
            assert_eq!(streamed.shape(), [columns, rows]);
            assert!(streamed.to_vec() == memory.to_vec(), "{rows} {columns}");
        }
    }
}
