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
// The segment's rows of encoder_v, [block_count][BLOCK][ROW]; a block's scales behind its rows.
#store(2, read) value_rows: vec4<u32>
// u, then g, [CHUNK][block_count][BLOCK]
@group(0) @binding(3) var<storage, read_write> activations: array<f32>;

// Packed vectors in a row of weights, and in a block.
const ROW_VECTORS: u32 = ROW4 * 4u / PER_VECTOR;
const BLOCK_VECTORS: u32 = BLOCK * ROW_VECTORS + SCALE_VECTORS;
// Fours of each packed vector that are multiplied at once: the registers hold no more.
const TAKEN: u32 = min(WEIGHT_FOURS, 2u);
// Invocations that share a block: each takes the neurons lane, lane + LANES, ...
const LANES: u32 = BLOCK / NEURONS;
// Whether all invocations of a workgroup have the same tile of tokens and each load one token's
// vectors.
const TOGETHER: bool = SHARED >= TILE && LANES % W == 0u;

// sums += y . weights, for the fours of the packed vectors from `first` on. `y_at` is where the
// tile's y has the first of them.
fn add_products(
    sums: ptr<function, array<array<f32, NEURONS>, TILE>>,
    packed: array<vec4<u32>, NEURONS>,
    first: u32,
    i: u32,
    y_at: u32,
) {
    var own_packed = packed;
    var weights: array<array<vec4<f32>, TAKEN>, NEURONS>;
    for (var n = 0u; n < NEURONS; n++) {
        for (var f = 0u; f < TAKEN; f++) {
            weights[n][f] = four_weights(own_packed[n], first + f);
        }
    }
    var y: array<vec4<f32>, TAKEN>;
    if (TOGETHER) {
        for (var f = 0u; f < TAKEN; f++) {
            y[f] = attention[y_at + i % TILE * ROW4 + f];
        }
    }
    let own = y;
    for (var t = 0u; t < TILE; t++) {
        for (var f = 0u; f < TAKEN; f++) {
            if (TOGETHER) {
                y[f] = shared_vector(own[f], t);
            } else {
                y[f] = attention[y_at + t * ROW4 + f];
            }
        }
        for (var n = 0u; n < NEURONS; n++) {
            var sum = dot(weights[n][0], y[0]);
            for (var f = 1u; f < TAKEN; f++) {
                sum += dot(weights[n][f], y[f]);
            }
            (*sums)[t][n] += sum;
        }
    }
}

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
        var packed: array<vec4<u32>, NEURONS>;
        for (var n = 0u; n < NEURONS; n++) {
            packed[n] = load_value_rows(group.y * BLOCK_VECTORS + (lane + n * LANES) * ROW_VECTORS + v);
        }
        // Unrolled by hand: a loop would keep the sums in memory.
        add_products(&sums, packed, 0u, i, y_at + v * WEIGHT_FOURS);
        if (TAKEN < WEIGHT_FOURS) {
            add_products(&sums, packed, TAKEN, i, y_at + v * WEIGHT_FOURS + TAKEN);
        }
    }
    if (!inside) {
        return;
    }
    var scales: array<f32, NEURONS>;
    if (SCALED) {
        for (var n = 0u; n < NEURONS; n++) {
            let neuron = lane + n * LANES;
            let four = load_value_rows(group.y * BLOCK_VECTORS + BLOCK * ROW_VECTORS + neuron / 4u);
            scales[n] = bitcast<f32>(four[neuron % 4u]);
        }
    }
    for (var t = 0u; t < TILE; t++) {
        for (var n = 0u; n < NEURONS; n++) {
            let at = ((tile * TILE + t) * params.block_count + group.y) * BLOCK + lane + n * LANES;
            let u = activations[at];
            let sum = select(sums[t][n], sums[t][n] * scales[n], SCALED);
            activations[at] = select(u * relu(vec4(sum)).x, 0.0, u == 0.0);
        }
    }
}
