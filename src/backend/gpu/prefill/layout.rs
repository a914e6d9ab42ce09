//! Layout of a chunk in an adapter's memory: pure arithmetic, no device needed.
//!
//! Experiments: `docs/performance/prefill.md#chunk-length`,
//! `docs/performance/prefill.md#register-tile`.

use crate::backend::gpu::allowance::Allowance;
use crate::backend::pack::Geometry;
use std::ops::Range;

/// Tokens per invocation.
const TILE: usize = 8;
/// Approximate number of parts. The next layer adds up their shares of an update.
const PARTS: usize = 32;
/// Most neurons in a part: its kernel holds one bit per neuron in workgroup memory.
const PART_NEURONS: usize = 8192;
/// Workgroup memory of the most demanding prefill kernel, besides that of all kernels, in bytes.
pub(in crate::backend::gpu) const WORKGROUP_MEMORY: usize = PART_NEURONS / 8;

/// Sizes that the prefill kernels are compiled for; see `shaders/shared/constants.wgsl`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::backend::gpu) struct PrefillLayout {
    /// Most tokens in a chunk, a multiple of `tile`; zero if not even one tile fits a binding.
    pub tokens: usize,
    /// Tokens per invocation.
    pub tile: usize,
    /// vec4 of outputs per token that one invocation computes.
    pub columns: usize,
    /// Neurons whose gates one invocation computes for a tile of tokens.
    pub gate_neurons: usize,
    /// Neurons whose rows of the state one invocation writes, a multiple of four.
    pub written_neurons: usize,
    /// Blocks in a part.
    pub part_blocks: usize,
    /// Parts of each segment, numbered through all segments.
    pub parts: Vec<Range<usize>>,
}

impl PrefillLayout {
    /// Lays out the longest chunks that pay off and fit.
    pub fn new(g: &Geometry, segments: &[Range<usize>], padded_vocab: usize, allowance: &Allowance) -> Self {
        // The sums fit a processor's vector registers, or the registers of a hardware invocation:
        // with twice as many gates or rows, compilers for Intel and Apple spill.
        let (most, columns, gate_neurons, written_neurons) =
            if allowance.software { (64, 4, 16, 8) } else { (128, 2, 4, 4) };
        let part_blocks = (g.blocks() / PARTS).clamp(1, (PART_NEURONS / g.block).max(1));
        let mut parts = Vec::with_capacity(segments.len());
        for segment in segments {
            let first = parts.last().map_or(0, |last: &Range<usize>| last.end);
            parts.push(first..first + segment.len().div_ceil(part_blocks));
        }
        let segment = segments.iter().map(Range::len).max().unwrap_or(0);
        let all_parts = parts.last().map_or(0, |last| last.end);
        let fits = |tokens: usize| {
            let numbers = [
                segment * g.block,
                g.blocks() * tokens,
                g.blocks() * g.row,
                g.heads * g.row,
                all_parts * g.row,
                2 * g.row,
                padded_vocab,
            ];
            let largest = numbers.into_iter().max().unwrap_or(0) as u64;
            4 * largest * tokens as u64 <= allowance.max_binding
        };
        let tokens = (1..=most / TILE).rev().map(|tiles| tiles * TILE).find(|&tokens| fits(tokens)).unwrap_or(0);
        Self { tokens, tile: TILE, columns, gate_neurons, written_neurons, part_blocks, parts }
    }

    /// Parts of all segments.
    pub fn all_parts(&self) -> usize {
        self.parts.last().map_or(0, |last| last.end)
    }
}
