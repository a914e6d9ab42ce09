// logits <- x . head for a chunk: `chunk_dense.wgsl`. Results: logits [CHUNK][VOCAB_BLOCKS][BLOCK / 4].
// Twin: `logits` in `src/backend/cpu/chunk_stages.rs`.

fn keep(t: u32, local_block: u32, column: u32, sum: vec4<f32>) {
    results[(t * VOCAB_BLOCKS + params.block_begin + local_block) * (BLOCK / 4u) + column] = sum;
}
