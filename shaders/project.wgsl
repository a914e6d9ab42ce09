// Attention output through the gated neurons of a block, back to the residual width.
//
//   y <- LN(sum of the head's partial attention outputs)     redundantly in every workgroup of a head
//   z <- relu(y . encoder_v), g <- u z                       only where u > 0
//   update <- sum of g decoder                               only where g > 0; a partial result
//
// Workgroup (slot, block of the segment). Twin: `src/backend/cpu/project.rs`.

struct ProjectParams {
    // First block of the segment of weights that is bound.
    block_begin: u32,
}

@group(0) @binding(0) var<uniform> params: ProjectParams;
@group(0) @binding(1) var<storage, read> steps: array<Step>;
@group(0) @binding(2) var<storage, read> control: array<Control>;
// Per slot: activations [BLOCKS][BLOCK / 4], then partial attention outputs [BLOCKS][ROW4].
@group(0) @binding(3) var<storage, read> partials: array<vec4<f32>>;
// The segment's rows of encoder_v and decoder, [block_count][BLOCK][ROW].
@group(0) @binding(4) var<storage, read> value_rows: array<vec4<u32>>;
fn value_row(at: u32) -> vec4<u32> {
    return value_rows[at];
}
@group(0) @binding(5) var<storage, read> decoder_rows: array<vec4<u32>>;
fn decoder_row(at: u32) -> vec4<u32> {
    return decoder_rows[at];
}
// The blocks' updates, [slots][BLOCKS][ROW4].
@group(0) @binding(6) var<storage, read_write> updates: array<vec4<f32>>;

const SLOT_NEURONS: u32 = BLOCKS * (BLOCK / 4u + ROW4);
// Packed vectors in a row of weights.
const ROW_VECTORS: u32 = ROW4 * 4u / PER_VECTOR;
// Rows of encoder_v that all teams multiply at once.
const ALL_ROWS: u32 = W / ROW_LANES * TEAM_ROWS;
// Vectors of a row that an invocation of the team takes.
const LANE_VECTORS: u32 = (ROW_VECTORS + ROW_LANES - 1u) / ROW_LANES;
// Invocations that share a row of the decoder, and how many rows are added at once.
const DECODER_LANES: u32 = min(ROW_VECTORS, W);
const DECODER_TEAMS: u32 = W / DECODER_LANES;
// Vectors of a row of the decoder that an invocation takes at once.
const DECODER_SHARE: u32 = min(4u, (ROW_VECTORS + DECODER_LANES - 1u) / DECODER_LANES);

var<workgroup> activations: array<vec4<f32>, BLOCK / 4u>;
var<workgroup> gates: array<f32, BLOCK>;
var<workgroup> lane_sums: array<f32, W * TEAM_ROWS>;
var<workgroup> count: u32;

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let slot = group.x;
    if (!is_active(slot)) {
        return;
    }
    let block = params.block_begin + group.y;
    let head = block / BLOCKS_PER_HEAD;
    let y_base = slot * SLOT_NEURONS + BLOCKS * (BLOCK / 4u) + head * BLOCKS_PER_HEAD * ROW4;
    gather(i, y_base, BLOCKS_PER_HEAD, 0u);
    layer_norm(i, 0u);
    clear_mask(i);
    for (var p = i; p < BLOCK / 4u; p += W) {
        let u = partials[slot * SLOT_NEURONS + block * (BLOCK / 4u) + p];
        activations[p] = u;
        flag_four(p, u);
        for (var k = 0u; k < 4u; k++) {
            gates[4u * p + k] = 0.0;
        }
    }
    let firing = list_flagged(i);
    if (i == 0u) {
        count = firing;
    }
    gate(i, group.y, workgroupUniformLoad(&count));

    clear_mask(i);
    for (var p = i; p < BLOCK / 4u; p += W) {
        flag_four(p, vec4(gates[4u * p], gates[4u * p + 1u], gates[4u * p + 2u], gates[4u * p + 3u]));
    }
    let open = list_flagged(i);
    decode(i, slot, block, group.y, open);
}

// gates[n] <- u z for the firing neurons.
fn gate(i: u32, local_block: u32, firing: u32) {
    let lane = i % ROW_LANES;
    let team = i / ROW_LANES;
    // The invocation's part of y; zeros past its end.
    var low: array<vec4<f32>, LANE_VECTORS>;
    var high: array<vec4<f32>, LANE_VECTORS>;
    for (var c = 0u; c < LANE_VECTORS; c++) {
        let v = lane + c * ROW_LANES;
        let inside = min(v, ROW_VECTORS - 1u);
        if (F16) {
            low[c] = select(vec4(0.0), rows[2u * inside], v < ROW_VECTORS);
            high[c] = select(vec4(0.0), rows[2u * inside + 1u], v < ROW_VECTORS);
        } else {
            low[c] = select(vec4(0.0), rows[inside], v < ROW_VECTORS);
        }
    }
    for (var first = 0u; first < firing; first += ALL_ROWS) {
        for (var r = 0u; r < TEAM_ROWS; r++) {
            let k = min(first + team * TEAM_ROWS + r, firing - 1u);
            let at = (local_block * BLOCK + list[k]) * ROW_VECTORS;
            var sum = 0.0;
            for (var c = 0u; c < LANE_VECTORS; c++) {
                let packed = value_row(at + min(lane + c * ROW_LANES, ROW_VECTORS - 1u));
                sum += dot(weights_low(packed), low[c]);
                if (F16) {
                    sum += dot(weights_high(packed), high[c]);
                }
            }
            lane_sums[r * W + i] = sum;
        }
        workgroupBarrier();
        // Each row's sum by an invocation of its team.
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
    if (team < DECODER_TEAMS) {
        for (var first = lane; first < ROW_VECTORS; first += DECODER_SHARE * DECODER_LANES) {
            var low: array<vec4<f32>, DECODER_SHARE>;
            var high: array<vec4<f32>, DECODER_SHARE>;
            for (var c = 0u; c < DECODER_SHARE; c++) {
                low[c] = vec4(0.0);
                high[c] = vec4(0.0);
            }
            for (var k = team; k < open; k += DECODER_TEAMS) {
                let n = list[k];
                let gate = gates[n];
                let at = (local_block * BLOCK + n) * ROW_VECTORS;
                for (var c = 0u; c < DECODER_SHARE; c++) {
                    let packed = decoder_row(at + min(first + c * DECODER_LANES, ROW_VECTORS - 1u));
                    low[c] = add_scaled(low[c], gate, weights_low(packed));
                    if (F16) {
                        high[c] = add_scaled(high[c], gate, weights_high(packed));
                    }
                }
            }
            for (var c = 0u; c < DECODER_SHARE; c++) {
                let v = first + c * DECODER_LANES;
                if (v < ROW_VECTORS) {
                    if (DECODER_TEAMS == 1u) {
                        store_update(to, v, low[c], high[c]);
                    } else if (F16) {
                        pool[(team * ROW_VECTORS + v) * 2u] = low[c];
                        pool[(team * ROW_VECTORS + v) * 2u + 1u] = high[c];
                    } else {
                        pool[team * ROW_VECTORS + v] = low[c];
                    }
                }
            }
        }
    }
    if (DECODER_TEAMS > 1u) {
        workgroupBarrier();
        for (var c = i; c < ROW4; c += W) {
            var sum = vec4(0.0);
            for (var k = 0u; k < DECODER_TEAMS; k++) {
                sum += pool[k * ROW4 + c];
            }
            updates[to + c] = sum;
        }
    }
}

fn store_update(to: u32, v: u32, low: vec4<f32>, high: vec4<f32>) {
    if (F16) {
        updates[to + 2u * v] = low;
        updates[to + 2u * v + 1u] = high;
    } else {
        updates[to + v] = low;
    }
}
