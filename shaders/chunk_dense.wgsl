// A dense product of the chunk's residuals with tiles of weights [ROW][BLOCK]. A kernel provides `keep`, which
// takes four results of a token.
//
// Invocation (tile of tokens, columns) of workgroup (…, block of the segment).

// x [CHUNK][ROW4]
@group(0) @binding(1) var<storage, read> chunk_residual: array<vec4<f32>>;
fn residual_at(at: u32) -> vec4<f32> {
    return chunk_residual[at];
}
// The segment's tiles [block_count][ROW][BLOCK].
@group(0) @binding(2) var<storage, read> dense_weights: array<vec4<u32>>;
fn dense_weight(at: u32) -> vec4<u32> {
    return dense_weights[at];
}
@group(0) @binding(3) var<storage, read_write> results: array<vec4<f32>>;

// Packed vectors in a line of the tile; how many an invocation multiplies; invocations that share a line.
const LINE: u32 = BLOCK / PER_VECTOR;
const VECTORS: u32 = COLUMNS * 4u / PER_VECTOR;
const LINE_LANES: u32 = LINE / VECTORS;
// Whether a workgroup's invocations, which then have the same tile of tokens, load a vector of one token each.
const TOGETHER: bool = SHARED >= TILE && LINE_LANES % W == 0u;

// Weights of one line.
fn line(at: u32) -> array<vec4<f32>, COLUMNS> {
    var weights: array<vec4<f32>, COLUMNS>;
    for (var v = 0u; v < VECTORS; v++) {
        let packed = dense_weight(at + v * LINE_LANES);
        if (F16) {
            weights[2u * v] = weights_low(packed);
            weights[2u * v + 1u] = weights_high(packed);
        } else {
            weights[v] = weights_low(packed);
        }
    }
    return weights;
}

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let job = group.x * W + i;
    let tile = job / LINE_LANES;
    let lane = job % LINE_LANES;
    if (tile >= params.tiles) {
        return;
    }
    var sums: array<array<vec4<f32>, COLUMNS>, TILE>;
    for (var t = 0u; t < TILE; t++) {
        for (var c = 0u; c < COLUMNS; c++) {
            sums[t][c] = vec4(0.0);
        }
    }
    for (var d = 0u; d < ROW4; d++) {
        let at = (group.y * ROW4 + d) * 4u * LINE + lane;
        var w0 = line(at);
        var w1 = line(at + LINE);
        var w2 = line(at + 2u * LINE);
        var w3 = line(at + 3u * LINE);
        var x: vec4<f32>;
        if (TOGETHER) {
            x = residual_at((tile * TILE + i % TILE) * ROW4 + d);
        }
        let own = x;
        for (var t = 0u; t < TILE; t++) {
            if (TOGETHER) {
                x = shared_vector(own, t);
            } else {
                x = residual_at((tile * TILE + t) * ROW4 + d);
            }
            for (var c = 0u; c < COLUMNS; c++) {
                var sum = add_scaled(sums[t][c], x.x, w0[c]);
                sum = add_scaled(sum, x.y, w1[c]);
                sum = add_scaled(sum, x.z, w2[c]);
                sums[t][c] = add_scaled(sum, x.w, w3[c]);
            }
        }
    }
    for (var t = 0u; t < TILE; t++) {
        for (var c = 0u; c < COLUMNS; c++) {
            let vector = lane + c / (PER_VECTOR / 4u) * LINE_LANES;
            keep(tile * TILE + t, group.y, vector * (PER_VECTOR / 4u) + c % (PER_VECTOR / 4u), sums[t][c]);
        }
    }
}
