// u <- relu(x . encoder) for a chunk. Results: activations [CHUNK][block_count][BLOCK / 4].
// Twin: `src/backend/cpu/prefill/reference.rs`.
// Experiments: `docs/performance/prefill.md#prefillencode`.

#import prefill::dense

fn keep(t: u32, local_block: u32, column: u32, sum: vec4<f32>) {
    results[(t * params.block_count + local_block) * (BLOCK / 4u) + column] = relu(sum);
}
