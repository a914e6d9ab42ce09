// logits <- x . lm_head for a chunk. Results: logits [CHUNK][VOCAB_BLOCKS][BLOCK / 4].
// Twin: `src/backend/cpu/prefill/reference.rs`.
// Experiments: `docs/performance/prefill.md#prefilllogits`.

#import prefill::dense

fn keep(t: u32, local_block: u32, column: u32, sum: vec4<f32>) {
    results[(t * VOCAB_BLOCKS + params.block_begin + local_block) * (BLOCK / 4u) + column] = sum;
}
