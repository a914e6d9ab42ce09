// update <- sum of g decoder over a part of the neurons, only where g > 0, for every token of a
// chunk.
//
// Workgroup (token, part of the segment). Twin: `src/backend/cpu/prefill/reference.rs`.
// Experiments: `docs/performance/prefill.md#prefilldecode`.

#import prefill::params
#import shared::vectors

// g [CHUNK][block_count][BLOCK / 4]
@group(0) @binding(1) var<storage, read> gates: array<vec4<f32>>;
// The segment's rows of the decoder, [block_count][BLOCK][ROW]; a block's scales behind its rows.
#store(2, read) decoder_rows: vec4<u32>
// The parts' shares, [CHUNK][PARTS][ROW4].
@group(0) @binding(3) var<storage, read_write> part_updates: array<vec4<f32>>;

// Packed vectors in a row of weights, and in a block; invocations that share a row; teams of them.
const ROW_VECTORS: u32 = ROW4 * 4u / PER_VECTOR;
const BLOCK_VECTORS: u32 = BLOCK * ROW_VECTORS + SCALE_VECTORS;
const LANES: u32 = min(ROW_VECTORS, W);
const TEAMS: u32 = W / LANES;

// The part's open gates, one bit each.
var<workgroup> open: array<u32, PART_BLOCKS * BLOCK / 32u>;

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let t = group.x;
    let first_block = group.y * PART_BLOCKS;
    let words = min(PART_BLOCKS, params.block_count - first_block) * (BLOCK / 32u);
    let gates_at = (t * params.block_count + first_block) * (BLOCK / 4u);
    for (var word = i; word < words; word += W) {
        var bits = 0u;
        for (var k = 0u; k < 8u; k++) {
            let g = gates[gates_at + 8u * word + k];
            let four = select(vec4(0u), vec4(1u, 2u, 4u, 8u), g != vec4(0.0));
            bits |= ((four.x | four.y) | (four.z | four.w)) << (4u * k);
        }
        open[word] = bits;
    }
    workgroupBarrier();

    let lane = i % LANES;
    let team = i / LANES;
    let to = (t * PARTS + params.part_begin + group.y) * ROW4;
    var sums: array<vec4<f32>, WEIGHT_FOURS>;
    if (team < TEAMS) {
        for (var v = lane; v < ROW_VECTORS; v += LANES) {
            for (var f = 0u; f < WEIGHT_FOURS; f++) {
                sums[f] = vec4(0.0);
            }
            for (var word = team; word < words; word += TEAMS) {
                var bits = open[word];
                while (bits != 0u) {
                    let n = 32u * word + countTrailingZeros(bits);
                    bits &= bits - 1u;
                    let g = gates[gates_at + n / 4u][n % 4u];
                    let packed = load_decoder_rows(row_at(first_block, n) + v);
                    let factor = g * scale_of(first_block, n);
                    for (var f = 0u; f < WEIGHT_FOURS; f++) {
                        sums[f] = add_scaled(sums[f], factor, four_weights(packed, f));
                    }
                }
            }
            if (TEAMS == 1u) {
                for (var f = 0u; f < WEIGHT_FOURS; f++) {
                    part_updates[to + WEIGHT_FOURS * v + f] = sums[f];
                }
            }
        }
    }
    // A team covers a row: the invocation has one vector of it.
    if (TEAMS > 1u) {
        add_teams(i, to, sums, 0u);
        if (POOLED < WEIGHT_FOURS) {
            workgroupBarrier();
            add_teams(i, to, sums, POOLED);
        }
    }
}

// The row of the n-th neuron from a block on.
fn row_at(first_block: u32, n: u32) -> u32 {
    return (first_block * BLOCK + n) * ROW_VECTORS + (first_block + n / BLOCK) * SCALE_VECTORS;
}

// The scale of the n-th neuron from a block on; 1 for weights without scales.
fn scale_of(first_block: u32, n: u32) -> f32 {
    if (SCALED) {
        let block = first_block + n / BLOCK;
        let four = load_decoder_rows(block * BLOCK_VECTORS + BLOCK * ROW_VECTORS + n % BLOCK / 4u);
        return bitcast<f32>(four[n % 4u]);
    }
    return 1.0;
}

// Adds up the teams' sums for the update at `to`; the fours from `f` on take part.
fn add_teams(i: u32, to: u32, own: array<vec4<f32>, WEIGHT_FOURS>, f: u32) {
    if (W == TEAMS * LANES || i < TEAMS * LANES) {
        to_pool(i, own, f);
    }
    workgroupBarrier();
    for (var p = i; p < ROW_VECTORS * POOLED; p += W) {
        var sum = vec4(0.0);
        for (var k = 0u; k < TEAMS; k++) {
            sum += pool[k * ROW_VECTORS * POOLED + p];
        }
        part_updates[to + pooled_column(p, f)] = sum;
    }
}
