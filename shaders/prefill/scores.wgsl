// scores[t][s] <- q_t . q_s over a block of neurons, for the tiles on and below the diagonal.
//
// Invocation (pair of tiles of tokens) of workgroup (…, block of the segment).
// Twin: `src/backend/cpu/prefill/reference.rs`.
// Experiments: `docs/performance/prefill.md#prefillscores`.

#import prefill::params

// q [CHUNK][block_count][BLOCK / 4]
@group(0) @binding(1) var<storage, read> rotated: array<vec4<f32>>;
// The blocks' shares, [CHUNK][BLOCKS][CHUNK].
@group(0) @binding(2) var<storage, read_write> scores: array<f32>;

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    var tile = 0u;
    var past = group.x * W + i;
    while (past > tile) {
        tile++;
        past -= tile;
    }
    if (tile >= params.tiles) {
        return;
    }
    var sums: array<array<f32, TILE>, TILE>;
    for (var t = 0u; t < TILE; t++) {
        for (var s = 0u; s < TILE; s++) {
            sums[t][s] = 0.0;
        }
    }
    let stride = params.block_count * (BLOCK / 4u);
    let at = tile * TILE * stride + group.y * (BLOCK / 4u);
    let past_at = past * TILE * stride + group.y * (BLOCK / 4u);
    for (var k = 0u; k < BLOCK / 4u; k++) {
        var keys: array<vec4<f32>, TILE>;
        for (var s = 0u; s < TILE; s++) {
            keys[s] = rotated[past_at + s * stride + k];
        }
        for (var t = 0u; t < TILE; t++) {
            let q = rotated[at + t * stride + k];
            for (var s = 0u; s < TILE; s++) {
                sums[t][s] += dot(q, keys[s]);
            }
        }
    }
    let block = params.block_begin + group.y;
    for (var t = 0u; t < TILE; t++) {
        for (var s = 0u; s < TILE; s++) {
            scores[((tile * TILE + t) * BLOCKS + block) * CHUNK + past * TILE + s] = sums[t][s];
        }
    }
}
