// g <- u relu(y . encoder_v) where u > 0, in place of u, for every token of a chunk.
//
// Invocation (tile of tokens, neurons) of workgroup (…, block of the segment).
// Twin: `src/backend/cpu/prefill/reference.rs`.
// Experiments: `docs/performance/prefill.md#prefillgate`.

#import prefill::params
#import shared::vectors
#import shared::exchange

// y [heads][CHUNK][ROW4]
@group(0) @binding(1) var<storage, read> attention: array<vec4<f32>>;
// The segment's rows of encoder_v, [block_count][BLOCK][ROW].
#store(2, read) value_rows: vec4<u32>
// u, then g, [CHUNK][block_count][BLOCK]
@group(0) @binding(3) var<storage, read_write> activations: array<f32>;

// Packed vectors in a row of weights, and vec4 of y per packed vector.
const ROW_VECTORS: u32 = ROW4 * 4u / PER_VECTOR;
const FOURS: u32 = PER_VECTOR / 4u;
// Invocations that share a block: each takes the neurons lane, lane + LANES, ...
const LANES: u32 = BLOCK / NEURONS;
// Whether all invocations of a workgroup have the same tile of tokens and each load one token's
// vectors.
const TOGETHER: bool = SHARED >= TILE && LANES % W == 0u;

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let job = group.x * W + i;
    let inside = job / LANES < params.tiles;
    // Idle invocations repeat the last tile: all invocations must take part in the exchange of
    // vectors.
    let tile = min(job / LANES, params.tiles - 1u);
    let lane = job % LANES;
    var sums: array<array<f32, NEURONS>, TILE>;
    for (var t = 0u; t < TILE; t++) {
        for (var n = 0u; n < NEURONS; n++) {
            sums[t][n] = 0.0;
        }
    }
    let head = (params.block_begin + group.y) / BLOCKS_PER_HEAD;
    let y_at = (head * CHUNK + tile * TILE) * ROW4;
    for (var v = 0u; v < ROW_VECTORS; v++) {
        var low: array<vec4<f32>, NEURONS>;
        var high: array<vec4<f32>, NEURONS>;
        for (var n = 0u; n < NEURONS; n++) {
            let packed = load_value_rows((group.y * BLOCK + lane + n * LANES) * ROW_VECTORS + v);
            low[n] = weights_low(packed);
            high[n] = weights_high(packed);
        }
        var y: vec4<f32>;
        var more: vec4<f32>;
        if (TOGETHER) {
            y = attention[y_at + i % TILE * ROW4 + v * FOURS];
            more = attention[y_at + i % TILE * ROW4 + v * FOURS + FOURS - 1u];
        }
        let own = y;
        let own_more = more;
        for (var t = 0u; t < TILE; t++) {
            if (TOGETHER) {
                y = shared_vector(own, t);
                more = shared_vector(own_more, t);
            } else {
                y = attention[y_at + t * ROW4 + v * FOURS];
                more = attention[y_at + t * ROW4 + v * FOURS + FOURS - 1u];
            }
            if (F16) {
                for (var n = 0u; n < NEURONS; n++) {
                    sums[t][n] += dot(low[n], y) + dot(high[n], more);
                }
            } else {
                for (var n = 0u; n < NEURONS; n++) {
                    sums[t][n] += dot(low[n], y);
                }
            }
        }
    }
    if (!inside) {
        return;
    }
    for (var t = 0u; t < TILE; t++) {
        for (var n = 0u; n < NEURONS; n++) {
            let at = ((tile * TILE + t) * params.block_count + group.y) * BLOCK + lane + n * LANES;
            let u = activations[at];
            activations[at] = select(u * relu(vec4(sums[t][n])).x, 0.0, u == 0.0);
        }
    }
}
