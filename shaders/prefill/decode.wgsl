// update <- sum of g decoder over a part of the neurons, only where g > 0, for every token of a
// chunk.
//
// Workgroup (token, part of the segment). Twin: `src/backend/cpu/prefill/reference.rs`.
// Experiments: `docs/performance/prefill.md#prefilldecode`.

#import prefill::params
#import shared::vectors

// g [CHUNK][block_count][BLOCK / 4]
@group(0) @binding(1) var<storage, read> gates: array<vec4<f32>>;
// The segment's rows of the decoder, [block_count][BLOCK][ROW].
#store(2, read) decoder_rows: vec4<u32>
// The parts' shares, [CHUNK][PARTS][ROW4].
@group(0) @binding(3) var<storage, read_write> part_updates: array<vec4<f32>>;

// Packed vectors in a row of weights; invocations that share a row; teams of them.
const ROW_VECTORS: u32 = ROW4 * 4u / PER_VECTOR;
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
    if (team < TEAMS) {
        for (var v = lane; v < ROW_VECTORS; v += LANES) {
            var low = vec4(0.0);
            var high = vec4(0.0);
            for (var word = team; word < words; word += TEAMS) {
                var bits = open[word];
                while (bits != 0u) {
                    let n = 32u * word + countTrailingZeros(bits);
                    bits &= bits - 1u;
                    let g = gates[gates_at + n / 4u][n % 4u];
                    let packed = load_decoder_rows((first_block * BLOCK + n) * ROW_VECTORS + v);
                    low = add_scaled(low, g, weights_low(packed));
                    if (F16) {
                        high = add_scaled(high, g, weights_high(packed));
                    }
                }
            }
            if (TEAMS == 1u) {
                store_update(to, v, low, high);
            } else if (F16) {
                pool[(team * ROW_VECTORS + v) * 2u] = low;
                pool[(team * ROW_VECTORS + v) * 2u + 1u] = high;
            } else {
                pool[team * ROW_VECTORS + v] = low;
            }
        }
    }
    if (TEAMS > 1u) {
        workgroupBarrier();
        for (var c = i; c < ROW4; c += W) {
            var sum = vec4(0.0);
            for (var k = 0u; k < TEAMS; k++) {
                sum += pool[k * ROW4 + c];
            }
            part_updates[to + c] = sum;
        }
    }
}

fn store_update(to: u32, v: u32, low: vec4<f32>, high: vec4<f32>) {
    if (F16) {
        part_updates[to + 2u * v] = low;
        part_updates[to + 2u * v + 1u] = high;
    } else {
        part_updates[to + v] = low;
    }
}
