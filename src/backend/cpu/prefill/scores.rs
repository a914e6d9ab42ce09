//! Twin of `shaders/prefill/scores.wgsl`: products of the tokens' rotated activations.

use crate::backend::cpu::simd::{Isa, LANES, register_tiles};

/// Tokens in a register tile.
const TOKENS: usize = 6;

/// scores[t][s] ← scores[t][s] + Σ_i q[t][i] q[s][i], at least for s < t.
///
/// `q` is `[T][block]`, `transposed` is `[block][padded]`, and `scores` is `[T][padded]`.
#[inline(always)]
pub fn add_scores<I: Isa>(isa: I, q: &[f32], transposed: &[f32], block: usize, padded: usize, scores: &mut [f32]) {
    let tokens = q.len() / block;
    let widest = if I::ACCUMULATORS == 16 { 4 } else { 1 };
    let mut token = 0;
    while token < tokens {
        let count = if token + TOKENS <= tokens { TOKENS } else { 1 };
        // Columns before the tile's last token.
        let columns = (token + count).div_ceil(LANES);
        register_tiles!(columns, widest, |at, V| {
            let first = at * LANES;
            match count {
                TOKENS => score_tile::<I, TOKENS, V>(isa, q, transposed, block, padded, token, first, scores),
                _ => score_tile::<I, 1, V>(isa, q, transposed, block, padded, token, first, scores),
            }
        });
        token += count;
    }
}

/// [`add_scores`] for `S` tokens from `token` on and `V` vectors of columns from column `first` on.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "the corners of a register tile")]
fn score_tile<I: Isa, const S: usize, const V: usize>(
    isa: I,
    q: &[f32],
    transposed: &[f32],
    block: usize,
    padded: usize,
    token: usize,
    first: usize,
    scores: &mut [f32],
) {
    let q: [&[f32]; S] = std::array::from_fn(|s| &q[(token + s) * block..][..block]);
    let mut sums = [[isa.splat(0.0); V]; S];
    for (i, line) in transposed.chunks_exact(padded).enumerate() {
        let (line, _) = line[first..].as_chunks::<LANES>();
        let line = line.first_chunk::<V>().expect("tokens are padded");
        for s in 0..S {
            let q = isa.splat(q[s][i]);
            for v in 0..V {
                sums[s][v] = isa.mul_add(q, isa.load(&line[v]), sums[s][v]);
            }
        }
    }
    for (s, sums) in sums.iter().enumerate() {
        let (out, _) = scores[(token + s) * padded + first..].as_chunks_mut::<LANES>();
        for (out, &sum) in out.iter_mut().zip(sums) {
            isa.store(isa.add(isa.load(out), sum), out);
        }
    }
}
