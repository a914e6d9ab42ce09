// q <- rotary(u) for a chunk.
//
// Invocation (four neurons) of workgroup (…, token of the chunk's tiles).
// Twin: `src/backend/cpu/prefill/reference.rs`.
// Experiments: `docs/performance/prefill.md#prefillrotate`.

#import prefill::params
#import shared::rotary

// Frequencies in 2^-64 turns per position (low, high), [BLOCKS_PER_HEAD * BLOCK].
@group(0) @binding(1) var<storage, read> turns: array<vec2<u32>>;
// Both [CHUNK][block_count][BLOCK / 4].
@group(0) @binding(2) var<storage, read> activations: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> rotated: array<vec4<f32>>;

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let four = group.x * W + i;
    if (four >= params.block_count * (BLOCK / 4u)) {
        return;
    }
    let at = group.y * params.block_count * (BLOCK / 4u) + four;
    let u = activations[at];
    let neuron = (params.block_begin * BLOCK + 4u * four) % (BLOCKS_PER_HEAD * BLOCK);
    let position = params.position + group.y;
    rotated[at] = vec4(rotate(u.xy, neuron, position), rotate(u.zw, neuron + 2u, position));
}
