// A block of neurons of one head attends to a beam's past: the base state that all beams share, and
// the nodes on the beam's own path.
//
//   y <- read_scale q . state + sum of weight_a (q . q_a) x_a over the path  partial, of this block
//
// The products q . q_a are partial too: they cover this block's neurons. The state is only read.
// Workgroup (slot, block of the segment). Twin: `src/backend/cpu/beam/attend.rs`.
// Experiments: `docs/performance/beams.md#beamattend`.

#import shared::slots
#import shared::vectors
#import shared::compact
#import shared::memory

// Start of a dispatch.
#host
struct BeamAttendParams {
    // First block of the bound segment.
    block_begin: u32,
}

@group(0) @binding(0) var<uniform> params: BeamAttendParams;
// For every slot (first entry, number of entries) of its path, then the entries, oldest first:
// (node, weight).
@group(0) @binding(3) var<storage, read> paths: array<vec2<u32>>;
// Nodes of this layer, each q [BLOCKS][BLOCK / 4], then x [ROW4].
@group(0) @binding(4) var<storage, read> nodes: array<vec4<f32>>;
// The segment's memory of this layer's base state, [block_count][BLOCK_MEMORY]; the window is
// empty.
#store(5, read) memory: vec4<u32>
// Per slot: activations [BLOCKS][BLOCK / 4], then partial attention outputs [BLOCKS][ROW4].
#store(6, write) neurons: vec4<f32>

const SLOT_NEURONS: u32 = BLOCKS * (BLOCK / 4u + ROW4);
const NODE: u32 = BLOCKS * (BLOCK / 4u) + ROW4;
// Pairs whose state rows an invocation has in flight.
const PAIRS_AT_ONCE: u32 = 4u;
// Path entries that the workgroup processes at once.
const ENTRIES: u32 = W / ROW_LANES;

// q of this block.
var<workgroup> own_q: array<vec4<f32>, BLOCK / 4u>;
var<workgroup> lane_sums: array<f32, W>;
// weight_a (q . q_a) of the current entries.
var<workgroup> scores: array<f32, ENTRIES>;

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let slot = group.x;
    if (!is_active(slot)) {
        return;
    }
    let block = params.block_begin + group.y;
    let block_q = block * (BLOCK / 4u);
    clear_flags(i);
    for (var t = 0u; t < OWN_VECTORS; t++) {
        let p = own_vector(i, t);
        if (p < BLOCK / 4u) {
            let q = nodes[steps[slot].node * NODE + block_q + p];
            own_q[p] = q;
            flag_pairs(i, t, q);
        }
    }
    let pairs = list_flagged(i, 2u);
    attend_base(i, slot, group.y, pairs);

    let path = paths[slot];
    for (var first = 0u; first < path.y; first += ENTRIES) {
        let count = min(ENTRIES, path.y - first);
        score_entries(i, path.x + first, count, block_q);
        attend_entries(i, path.x + first, count);
    }

    let y_at = slot * SLOT_NEURONS + BLOCKS * (BLOCK / 4u) + block * ROW4;
    for (var c = i; c < ROW4; c += W) {
        store_neurons(y_at + c, rows[c]);
    }
}

// rows <- read_scale q . state, in the order of `decode/attend.wgsl`. Ends with a barrier.
fn attend_base(i: u32, slot: u32, local_block: u32, pairs: u32) {
    let lane = i % ROW_TEAM;
    let team = i / ROW_TEAM;
    if (team < ROW_TEAMS) {
        for (var c = lane; c < ROW4; c += ROW_TEAM) {
            var y = vec4(0.0);
            for (var k = team; k < pairs; k += PAIRS_AT_ONCE * ROW_TEAMS) {
                var q: array<vec2<f32>, PAIRS_AT_ONCE>;
                var rows_of_pair: array<array<vec4<f32>, 2>, PAIRS_AT_ONCE>;
                for (var j = 0u; j < PAIRS_AT_ONCE; j++) {
                    let own = k + j * ROW_TEAMS;
                    let pair = list[min(own, pairs - 1u)];
                    let base = local_block * BLOCK_MEMORY;
                    let four = own_q[pair / 2u];
                    // Past the last pair q is zero and adds nothing.
                    let own_pair = select(vec2(0.0), select(four.xy, four.zw, pair % 2u == 1u), own < pairs);
                    q[j] = own_pair * pair_scales(base, pair);
                    let at = base + pair * 2u * STATE_ROW + c / PACK;
                    let first_row = state_column(load_memory(at), c % PACK);
                    rows_of_pair[j] = array(first_row, state_column(load_memory(at + STATE_ROW), c % PACK));
                }
                for (var j = 0u; j < PAIRS_AT_ONCE; j++) {
                    y = add_scaled(add_scaled(y, q[j].x, rows_of_pair[j][0]), q[j].y, rows_of_pair[j][1]);
                }
            }
            if (ROW_TEAMS == 1u) {
                rows[c] = y * steps[slot].read_scale;
            } else {
                pool[team * ROW4 + c] = y;
            }
        }
    }
    workgroupBarrier();
    if (ROW_TEAMS > 1u) {
        if (team == 0u) {
            rows[lane] = pool_sum(lane) * steps[slot].read_scale;
        }
        workgroupBarrier();
    }
}

// scores[k] <- weight_a (q . q_a) for `count` entries from `first`. Ends with a barrier.
fn score_entries(i: u32, first: u32, count: u32, block_q: u32) {
    let lane = i % ROW_LANES;
    let k = i / ROW_LANES;
    var sum = 0.0;
    if (k < count) {
        let at = paths[first + k].x * NODE + block_q;
        for (var p = lane; p < BLOCK / 4u; p += ROW_LANES) {
            sum += dot(own_q[p], nodes[at + p]);
        }
    }
    lane_sums[i] = sum;
    workgroupBarrier();
    if (lane == 0u && k < count) {
        for (var l = 1u; l < ROW_LANES; l++) {
            sum += lane_sums[i + l];
        }
        scores[k] = sum * bitcast<f32>(paths[first + k].y);
    }
    workgroupBarrier();
}

// rows <- rows + sum of scores[k] x_a. Ends with a barrier.
fn attend_entries(i: u32, first: u32, count: u32) {
    let lane = i % ROW_TEAM;
    let team = i / ROW_TEAM;
    if (team < ROW_TEAMS) {
        for (var c = lane; c < ROW4; c += ROW_TEAM) {
            var y = vec4(0.0);
            for (var k = team; k < count; k += ROW_TEAMS) {
                let x_at = paths[first + k].x * NODE + BLOCKS * (BLOCK / 4u);
                y = add_scaled(y, scores[k], nodes[x_at + c]);
            }
            if (ROW_TEAMS == 1u) {
                rows[c] += y;
            } else {
                pool[team * ROW4 + c] = y;
            }
        }
    }
    workgroupBarrier();
    if (ROW_TEAMS > 1u) {
        if (team == 0u) {
            rows[lane] += pool_sum(lane);
        }
        workgroupBarrier();
    }
}
