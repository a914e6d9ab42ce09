// y <- LN(read_scale (sum of the blocks' q . state + sum of scores over the earlier tokens)), for
// every head.
//
// Workgroup (token, head). Twin: `src/backend/cpu/prefill/reference.rs`.
// Experiments: `docs/performance/prefill.md#prefillattend`.

#import prefill::params
#import prefill::token
#import shared::norm
#import shared::gather

// [CHUNK]
@group(0) @binding(1) var<storage, read> tokens: array<PrefillToken>;
// x [CHUNK][ROW4], then scaled [CHUNK][ROW4].
#store(2, read) chunk_residual: vec4<f32>
// The blocks' shares of scores [CHUNK][BLOCKS][CHUNK] and of y [CHUNK][BLOCKS][ROW4].
@group(0) @binding(3) var<storage, read> scores: array<f32>;
@group(0) @binding(4) var<storage, read> partials: array<vec4<f32>>;
fn load_partials(at: u32) -> vec4<f32> {
    return partials[at];
}
// y [heads][CHUNK][ROW4]
@group(0) @binding(5) var<storage, read_write> attention: array<vec4<f32>>;

// Scores of the earlier tokens.
var<workgroup> past: array<f32, CHUNK>;

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let t = group.x;
    let blocks = t * BLOCKS + group.y * BLOCKS_PER_HEAD;
    for (var s = i; s < t; s += W) {
        var score = 0.0;
        for (var k = 0u; k < BLOCKS_PER_HEAD; k++) {
            score += scores[(blocks + k) * CHUNK + s];
        }
        past[s] = score;
    }
    var columns = gather(i, blocks * ROW4, BLOCKS_PER_HEAD);
    workgroupBarrier();
    let read_scale = tokens[t].read_scale;
    for (var k = 0u; k < OWN_COLUMNS; k++) {
        let c = i + k * W;
        if (c < ROW4) {
            var y = columns[k];
            for (var s = 0u; s < t; s++) {
                y = add_scaled(y, past[s], load_chunk_residual((CHUNK + s) * ROW4 + c));
            }
            columns[k] = y * read_scale;
        }
    }
    columns = normalized(i, columns);
    for (var k = 0u; k < OWN_COLUMNS; k++) {
        let c = i + k * W;
        if (c < ROW4) {
            attention[(group.y * CHUNK + t) * ROW4 + c] = columns[k];
        }
    }
}
