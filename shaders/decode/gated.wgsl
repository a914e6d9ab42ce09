// The gated neurons of a block: from attention output back to the residual width. Shared by
// `decode/project.wgsl` and `decode/project_collected.wgsl`.
//
//   y <- the head's attention output                      `load_attention`, in every workgroup
//   z <- relu(y . encoder_v), g <- u z                    only where u > 0
//   update <- sum of g decoder                            only where g > 0; a partial result
//
// With codes, u is multiplied by both scales of its neuron at once: what takes the place of g is
// the factor of the decoder's codes.
//
// Workgroup (slot, block of the segment).
// Experiments: `docs/performance/decode.md#decodeproject`.

#import shared::slots
#import shared::vectors
#import shared::compact

#needs fn load_attention(i: u32, y_at: u32) {}

// Start of a dispatch.
#host
struct ProjectParams {
    // First block of the bound segment of weights.
    block_begin: u32,
}

@group(0) @binding(0) var<uniform> params: ProjectParams;
// Per slot: activations [BLOCKS][BLOCK / 4], then partial attention outputs [BLOCKS][ROW4].
#ifdef WATCHED
#store(3, read_write) partials: vec4<f32>
#else
#store(3, read) partials: vec4<f32>
#endif
// The segment's rows of encoder_v and decoder, [block_count][BLOCK][ROW]; a block's scales behind
// its rows.
#store(4, read) value_rows: vec4<u32>
#store(5, read) decoder_rows: vec4<u32>
// The blocks' updates, [slots][BLOCKS][ROW4].
#store(6, write) updates: vec4<f32>

const SLOT_NEURONS: u32 = BLOCKS * (BLOCK / 4u + ROW4);
// Packed vectors in a row of weights.
const ROW_VECTORS: u32 = ROW4 * 4u / PER_VECTOR;
const BLOCK_VECTORS: u32 = BLOCK * ROW_VECTORS + SCALE_VECTORS;

var<workgroup> activations: array<vec4<f32>, BLOCK / 4u>;
// Scalars, not vectors: several invocations write the components, and a store to one component may
// write the whole vector.
var<workgroup> gates: array<f32, BLOCK>;

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let slot = group.x;
    if (!is_active(slot)) {
        return;
    }
    let block = params.block_begin + group.y;
    let head = block / BLOCKS_PER_HEAD;
    let y_at = slot * SLOT_NEURONS + BLOCKS * (BLOCK / 4u) + head * BLOCKS_PER_HEAD * ROW4;
    load_attention(i, y_at);
    clear_flags(i);
    for (var t = 0u; t < OWN_VECTORS; t++) {
        let p = own_vector(i, t);
        if (p < BLOCK / 4u) {
            let u = load_partials(slot * SLOT_NEURONS + block * (BLOCK / 4u) + p);
            activations[p] = scaled(u, group.y, p);
            flag_four(i, t, u);
            for (var c = 0u; c < 4u; c++) {
                gates[4u * p + c] = 0.0;
            }
        }
    }
    let firing = list_flagged(i, 4u);
    gate(i, slot, block, group.y, firing);

    clear_flags(i);
    for (var t = 0u; t < OWN_VECTORS; t++) {
        let p = own_vector(i, t);
        if (p < BLOCK / 4u) {
            let four = vec4(gates[4u * p], gates[4u * p + 1u], gates[4u * p + 2u], gates[4u * p + 3u]);
            flag_four(i, t, four);
#ifdef WATCHED
            // In the place of the activations, for the host.
            store_partials(slot * SLOT_NEURONS + block * (BLOCK / 4u) + p, four);
#endif
        }
    }
    let open = list_flagged(i, 4u);
    decode(i, slot, block, group.y, open);
}

// Four neurons' u, times their scales.
fn scaled(u: vec4<f32>, local_block: u32, p: u32) -> vec4<f32> {
    if (SCALED) {
        let at = local_block * BLOCK_VECTORS + BLOCK * ROW_VECTORS + p;
        return u * bitcast<vec4<f32>>(load_value_rows(at)) * bitcast<vec4<f32>>(load_decoder_rows(at));
    }
    return u;
}

fn store_update(to: u32, v: u32, sums: array<vec4<f32>, WEIGHT_FOURS>) {
    var own = sums;
    for (var f = 0u; f < WEIGHT_FOURS; f++) {
        store_updates(to + WEIGHT_FOURS * v + f, own[f]);
    }
}

#ifdef SUBGROUP
#import shared::prefetch

// Every invocation loads or lists its share and broadcasts it by shuffle.

// Vectors of a decoder row that an invocation takes at once; STRIPES such groups cover a row.
const DECODER_SHARE: u32 = min(min(4u, 8u / WEIGHT_FOURS), (ROW_VECTORS + W - 1u) / W);
// Decoder rows whose cache lines are in flight together.
const ROWS_AT_ONCE: u32 = 4u;
const STRIPES: u32 = (ROW_VECTORS + DECODER_SHARE * W - 1u) / (DECODER_SHARE * W);

// Rows of encoder_v that are multiplied at once.
const ROWS_TOGETHER: u32 = 8u;
// Vectors of a row that an invocation multiplies. They are adjacent: the first loads of all
// invocations together touch every cache line of the row.
const ROW_SHARE: u32 = (ROW_VECTORS + W - 1u) / W;

// gates[n] <- u z for the firing neurons.
fn gate(i: u32, slot: u32, block: u32, local_block: u32, firing: u32) {
    // The invocation's part of y; zeros past its end.
    var y: array<array<vec4<f32>, WEIGHT_FOURS>, ROW_SHARE>;
    for (var c = 0u; c < ROW_SHARE; c++) {
        let v = i * ROW_SHARE + c;
        let inside = min(v, ROW_VECTORS - 1u);
        for (var f = 0u; f < WEIGHT_FOURS; f++) {
            y[c][f] = select(vec4(0.0), rows[WEIGHT_FOURS * inside + f], v < ROW_VECTORS);
        }
    }
    for (var k = 0u; k < firing; k += ROWS_TOGETHER) {
        let own = list[min(k + i % ROWS_TOGETHER, firing - 1u)];
        let own_row = local_block * BLOCK_VECTORS + own * ROW_VECTORS;
        for (var v = 0u; v < ROW_VECTORS; v += LINES_IN_FLIGHT * LINE_VECTORS) {
            for (var l = 0u; l < LINES_IN_FLIGHT; l++) {
                prefetch(load_value_rows(own_row + min(v + l * LINE_VECTORS, ROW_VECTORS - 1u)).x);
            }
        }
        var at: array<u32, ROWS_TOGETHER>;
        var sums: array<f32, ROWS_TOGETHER>;
        for (var r = 0u; r < ROWS_TOGETHER; r++) {
            at[r] = subgroupShuffle(own_row, r);
            sums[r] = 0.0;
        }
        for (var c = 0u; c < ROW_SHARE; c++) {
            let v = min(i * ROW_SHARE + c, ROW_VECTORS - 1u);
            for (var r = 0u; r < ROWS_TOGETHER; r++) {
                let packed = load_value_rows(at[r] + v);
                for (var f = 0u; f < WEIGHT_FOURS; f++) {
                    sums[r] += dot(four_weights(packed, f), y[c][f]);
                }
            }
        }
        let sum = own_sum(i, sums);
        if (i < ROWS_TOGETHER && k + i < firing) {
            gates[own + prefetched] = activations[own / 4u][own % 4u] * relu(vec4(sum)).x;
        }
    }
    workgroupBarrier();
}

// Sum over the subgroup of the (i mod 8)-th of eight numbers. Every exchange halves the numbers
// that an invocation still has to add up.
fn own_sum(i: u32, sums: array<f32, ROWS_TOGETHER>) -> f32 {
    let upper4 = (i & 4u) != 0u;
    var four: array<f32, 4>;
    for (var r = 0u; r < 4u; r++) {
        four[r] = select(sums[r], sums[r + 4u], upper4)
            + subgroupShuffle(select(sums[r + 4u], sums[r], upper4), i ^ 4u);
    }
    let upper2 = (i & 2u) != 0u;
    var two: array<f32, 2>;
    for (var r = 0u; r < 2u; r++) {
        two[r] = select(four[r], four[r + 2u], upper2)
            + subgroupShuffle(select(four[r + 2u], four[r], upper2), i ^ 2u);
    }
    let upper1 = (i & 1u) != 0u;
    var sum = select(two[0], two[1], upper1) + subgroupShuffle(select(two[1], two[0], upper1), i ^ 1u);
    // Larger subgroups hold several partial sums of each of the eight numbers.
    for (var other = ROWS_TOGETHER; other < W; other *= 2u) {
        sum += subgroupShuffle(sum, i ^ other);
    }
    return sum;
}

// updates <- sum of gates[n] decoder[n] over the open gates.
fn decode(i: u32, slot: u32, block: u32, local_block: u32, open: u32) {
    let to = (slot * BLOCKS + block) * ROW4;
    for (var stripe = 0u; stripe < STRIPES; stripe++) {
        let first = (stripe * W + i) * DECODER_SHARE;
        var sums: array<array<vec4<f32>, WEIGHT_FOURS>, DECODER_SHARE>;
        for (var c = 0u; c < DECODER_SHARE; c++) {
            for (var f = 0u; f < WEIGHT_FOURS; f++) {
                sums[c][f] = vec4(0.0);
            }
        }
        for (var k = 0u; k < open; k += W) {
            let n = list[min(k + i, open - 1u)];
            let own_at = local_block * BLOCK_VECTORS + n * ROW_VECTORS;
            if (stripe == 0u) {
                for (var v = 0u; v < ROW_VECTORS; v += LINES_IN_FLIGHT * LINE_VECTORS) {
                    for (var l = 0u; l < LINES_IN_FLIGHT; l++) {
                        prefetch(load_decoder_rows(own_at + min(v + l * LINE_VECTORS, ROW_VECTORS - 1u)).x);
                    }
                }
            }
            // Past the last open gate the factor is zero.
            let own_gate = select(0.0, gates[n], k + i < open);
            for (var four = 0u; four < min(W, open - k); four += ROWS_AT_ONCE) {
                var at: array<u32, ROWS_AT_ONCE>;
                var gate: array<f32, ROWS_AT_ONCE>;
                for (var j = 0u; j < ROWS_AT_ONCE; j++) {
                    at[j] = subgroupShuffle(own_at, four + j);
                    gate[j] = subgroupShuffle(own_gate, four + j);
                }
                for (var c = 0u; c < DECODER_SHARE; c++) {
                    let v = min(first + c, ROW_VECTORS - 1u);
                    for (var j = 0u; j < ROWS_AT_ONCE; j++) {
                        let packed = load_decoder_rows(at[j] + v);
                        for (var f = 0u; f < WEIGHT_FOURS; f++) {
                            sums[c][f] = add_scaled(sums[c][f], gate[j], four_weights(packed, f));
                        }
                    }
                }
            }
        }
        for (var c = 0u; c < DECODER_SHARE; c++) {
            if (first + c < ROW_VECTORS) {
                store_update(to + prefetched, first + c, sums[c]);
            }
        }
    }
}
#else
// Teams of invocations share the rows; data that all of them read lies in workgroup memory.

// Rows of encoder_v that all teams together multiply at once.
const ALL_ROWS: u32 = W / ROW_LANES * TEAM_ROWS;
// Vectors of a row per invocation of the team.
const LANE_VECTORS: u32 = (ROW_VECTORS + ROW_LANES - 1u) / ROW_LANES;
// Invocations that share a decoder row; decoder rows that are added at once.
const DECODER_LANES: u32 = min(ROW_VECTORS, W);
const DECODER_TEAMS: u32 = W / DECODER_LANES;
// Vectors of a decoder row that an invocation takes at once.
const DECODER_SHARE: u32 = min(4u, (ROW_VECTORS + DECODER_LANES - 1u) / DECODER_LANES);
// Decoder rows that an invocation has in flight.
const ROWS_AT_ONCE: u32 = 4u / DECODER_SHARE;

var<workgroup> lane_sums: array<f32, W * TEAM_ROWS>;

// gates[n] <- u z for the firing neurons.
fn gate(i: u32, slot: u32, block: u32, local_block: u32, firing: u32) {
    let lane = i % ROW_LANES;
    let team = i / ROW_LANES;
    // The invocation's part of y; zeros past its end.
    var y: array<array<vec4<f32>, WEIGHT_FOURS>, LANE_VECTORS>;
    for (var c = 0u; c < LANE_VECTORS; c++) {
        let v = lane + c * ROW_LANES;
        let inside = min(v, ROW_VECTORS - 1u);
        for (var f = 0u; f < WEIGHT_FOURS; f++) {
            y[c][f] = select(vec4(0.0), rows[WEIGHT_FOURS * inside + f], v < ROW_VECTORS);
        }
    }
    for (var first = 0u; first < firing; first += ALL_ROWS) {
        var at: array<u32, TEAM_ROWS>;
        var sums: array<f32, TEAM_ROWS>;
        for (var r = 0u; r < TEAM_ROWS; r++) {
            let n = list[min(first + team * TEAM_ROWS + r, firing - 1u)];
            at[r] = local_block * BLOCK_VECTORS + n * ROW_VECTORS;
            sums[r] = 0.0;
        }
        for (var c = 0u; c < LANE_VECTORS; c++) {
            let v = min(lane + c * ROW_LANES, ROW_VECTORS - 1u);
            var packed: array<vec4<u32>, TEAM_ROWS>;
            for (var r = 0u; r < TEAM_ROWS; r++) {
                packed[r] = load_value_rows(at[r] + v);
            }
            for (var r = 0u; r < TEAM_ROWS; r++) {
                for (var f = 0u; f < WEIGHT_FOURS; f++) {
                    sums[r] += dot(four_weights(packed[r], f), y[c][f]);
                }
            }
        }
        for (var r = 0u; r < TEAM_ROWS; r++) {
            lane_sums[r * W + i] = sums[r];
        }
        workgroupBarrier();
        // One invocation of the team adds up each row's sum.
        for (var r = lane; r < TEAM_ROWS; r += ROW_LANES) {
            var sum = 0.0;
            for (var l = 0u; l < ROW_LANES; l++) {
                sum += lane_sums[r * W + team * ROW_LANES + l];
            }
            let k = first + team * TEAM_ROWS + r;
            if (k < firing) {
                let n = list[k];
                gates[n] = activations[n / 4u][n % 4u] * relu(vec4(sum)).x;
            }
        }
        workgroupBarrier();
    }
    workgroupBarrier();
}

// updates <- sum of gates[n] decoder[n] over the open gates.
fn decode(i: u32, slot: u32, block: u32, local_block: u32, open: u32) {
    let lane = i % DECODER_LANES;
    let team = i / DECODER_LANES;
    let to = (slot * BLOCKS + block) * ROW4;
    var sums: array<array<vec4<f32>, WEIGHT_FOURS>, DECODER_SHARE>;
    if (team < DECODER_TEAMS) {
        for (var left = 0u; left < ROW_VECTORS; left += DECODER_SHARE * DECODER_LANES) {
            let first = left + lane;
            if (ROW_VECTORS % DECODER_LANES != 0u && first >= ROW_VECTORS) {
                continue;
            }
            for (var c = 0u; c < DECODER_SHARE; c++) {
                for (var f = 0u; f < WEIGHT_FOURS; f++) {
                    sums[c][f] = vec4(0.0);
                }
            }
            for (var round = 0u; round < open; round += ROWS_AT_ONCE * DECODER_TEAMS) {
                let k = round + team;
                var gate: array<f32, ROWS_AT_ONCE>;
                var packed: array<array<vec4<u32>, DECODER_SHARE>, ROWS_AT_ONCE>;
                for (var j = 0u; j < ROWS_AT_ONCE; j++) {
                    let own = k + j * DECODER_TEAMS;
                    let n = list[min(own, open - 1u)];
                    // Past the last open gate the factor is zero.
                    gate[j] = select(0.0, gates[n], own < open);
                    let at = local_block * BLOCK_VECTORS + n * ROW_VECTORS;
                    for (var c = 0u; c < DECODER_SHARE; c++) {
                        packed[j][c] = load_decoder_rows(at + min(first + c * DECODER_LANES, ROW_VECTORS - 1u));
                    }
                }
                for (var j = 0u; j < ROWS_AT_ONCE; j++) {
                    for (var c = 0u; c < DECODER_SHARE; c++) {
                        for (var f = 0u; f < WEIGHT_FOURS; f++) {
                            sums[c][f] = add_scaled(sums[c][f], gate[j], four_weights(packed[j][c], f));
                        }
                    }
                }
            }
            for (var c = 0u; c < DECODER_SHARE; c++) {
                let v = first + c * DECODER_LANES;
                if (DECODER_TEAMS == 1u && v < ROW_VECTORS) {
                    store_update(to, v, sums[c]);
                }
            }
        }
    }
    // A team covers a row: the invocation has one vector of it.
    if (DECODER_TEAMS > 1u) {
        add_teams(i, to, sums[0], 0u);
        if (POOLED < WEIGHT_FOURS) {
            workgroupBarrier();
            add_teams(i, to, sums[0], POOLED);
        }
    }
}

// Adds up the teams' sums for the update at `to`; the fours from `f` on take part.
fn add_teams(i: u32, to: u32, own: array<vec4<f32>, WEIGHT_FOURS>, f: u32) {
    if (W == DECODER_TEAMS * DECODER_LANES || i < DECODER_TEAMS * DECODER_LANES) {
        to_pool(i, own, f);
    }
    workgroupBarrier();
    for (var p = i; p < ROW_VECTORS * POOLED; p += W) {
        var sum = vec4(0.0);
        for (var k = 0u; k < DECODER_TEAMS; k++) {
            sum += pool[k * ROW_VECTORS * POOLED + p];
        }
        store_updates(to + pooled_column(p, f), sum);
    }
}
#endif
