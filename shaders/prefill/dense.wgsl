// A dense product of the chunk's residuals with tiles of weights [ROW][BLOCK].
//
// Invocation (tile of tokens, columns) of workgroup (…, block of the segment).
// Twin: `src/backend/cpu/prefill/reference.rs`.
// Experiments: `docs/performance/prefill.md#register-tile`.

#import prefill::params
#import shared::vectors
#import shared::exchange
#ifdef CLAMPED
#import shared::bias
#endif

// Stores four results of a token.
#needs fn keep(t: u32, local_block: u32, column: u32, sum: vec4<f32>) {}

// x [CHUNK][ROW4]
#store(1, read) chunk_residual: vec4<f32>
// The segment's tiles [block_count][ROW][BLOCK]; a tile's scales behind it.
#store(2, read) dense_weights: vec4<u32>
@group(0) @binding(3) var<storage, read_write> results: array<vec4<f32>>;

// Packed vectors in a line of the tile.
const LINE: u32 = BLOCK / PER_VECTOR;
#ifdef CLAMPED
const TILE_VECTORS: u32 = ROW4 * 4u * LINE + SCALE_VECTORS + BIAS_VECTORS;
#else
const TILE_VECTORS: u32 = ROW4 * 4u * LINE + SCALE_VECTORS;
#endif
// Fours of a packed vector that an invocation multiplies; invocations that share the vector; such
// vectors of an invocation; invocations that share a line.
const TAKEN: u32 = min(COLUMNS, WEIGHT_FOURS);
const SHARERS: u32 = WEIGHT_FOURS / TAKEN;
const VECTORS: u32 = COLUMNS / TAKEN;
const LINE_LANES: u32 = BLOCK / (4u * COLUMNS);
// Whether all invocations of a workgroup have the same tile of tokens and each load one token's
// vector.
const TOGETHER: bool = SHARED >= TILE && LINE_LANES % W == 0u;

// Weights of the line at `at`, as far as they are the lane's.
fn line(at: u32, lane: u32) -> array<vec4<f32>, COLUMNS> {
    var weights: array<vec4<f32>, COLUMNS>;
    for (var v = 0u; v < VECTORS; v++) {
        var packed = load_dense_weights(at + lane / SHARERS + v * LINE_LANES);
        if (SHARERS == 2u) {
            packed = select(packed, packed.zwxy, lane % 2u == 1u);
        }
        for (var f = 0u; f < TAKEN; f++) {
            weights[TAKEN * v + f] = four_weights(packed, f);
        }
    }
    return weights;
}

// Column of the block whose sums are the lane's c-th.
fn column(lane: u32, c: u32) -> u32 {
    return (lane + c / TAKEN * LINE_LANES) * TAKEN + c % TAKEN;
}

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let job = group.x * W + i;
    let inside = job / LINE_LANES < params.tiles;
    // Idle invocations repeat the last tile: all invocations must take part in the exchange of
    // vectors.
    let tile = min(job / LINE_LANES, params.tiles - 1u);
    let lane = job % LINE_LANES;
    var sums: array<array<vec4<f32>, COLUMNS>, TILE>;
    for (var t = 0u; t < TILE; t++) {
        for (var c = 0u; c < COLUMNS; c++) {
            sums[t][c] = vec4(0.0);
        }
    }
    for (var d = 0u; d < ROW4; d++) {
        let at = group.y * TILE_VECTORS + d * 4u * LINE;
        var w0 = line(at, lane);
        var w1 = line(at + LINE, lane);
        var w2 = line(at + 2u * LINE, lane);
        var w3 = line(at + 3u * LINE, lane);
        var x: vec4<f32>;
        if (TOGETHER) {
            x = load_chunk_residual((tile * TILE + i % TILE) * ROW4 + d);
        }
        let own = x;
        for (var t = 0u; t < TILE; t++) {
            if (TOGETHER) {
                x = shared_vector(own, t);
            } else {
                x = load_chunk_residual((tile * TILE + t) * ROW4 + d);
            }
            for (var c = 0u; c < COLUMNS; c++) {
                var sum = add_scaled(sums[t][c], x.x, w0[c]);
                sum = add_scaled(sum, x.y, w1[c]);
                sum = add_scaled(sum, x.z, w2[c]);
                sums[t][c] = add_scaled(sum, x.w, w3[c]);
            }
        }
    }
    var scales: array<vec4<f32>, COLUMNS>;
    if (SCALED) {
        for (var c = 0u; c < COLUMNS; c++) {
            let at = group.y * TILE_VECTORS + ROW4 * 4u * LINE + column(lane, c);
            scales[c] = bitcast<vec4<f32>>(load_dense_weights(at));
        }
    }
#ifdef CLAMPED
    var biases: array<vec4<f32>, COLUMNS>;
    for (var c = 0u; c < COLUMNS; c++) {
        biases[c] = neuron_bias(group.y, column(lane, c));
    }
#endif
    for (var t = 0u; t < TILE; t++) {
        for (var c = 0u; c < COLUMNS; c++) {
            if (inside) {
                let sum = select(sums[t][c], sums[t][c] * scales[c], SCALED);
#ifdef CLAMPED
                keep(tile * TILE + t, group.y, column(lane, c), sum + biases[c]);
#else
                keep(tile * TILE + t, group.y, column(lane, c), sum);
#endif
            }
        }
    }
}
