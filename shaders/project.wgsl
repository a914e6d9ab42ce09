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
// Rows of encoder_v that the workgroup multiplies at once.
const ROWS_AT_ONCE: u32 = W / ROW_LANES;
// Invocations that share a row of the decoder, and how many rows are added at once.
const DECODER_LANES: u32 = min(ROW_VECTORS, W);
const DECODER_TEAMS: u32 = W / DECODER_LANES;

var<workgroup> activations: array<vec4<f32>, BLOCK / 4u>;
var<workgroup> gates: array<f32, BLOCK>;
var<workgroup> lane_sums: array<f32, W>;
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
        flag_non_zero(p, u);
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
    for (var n = i; n < BLOCK; n += W) {
        if (gates[n] != 0.0) {
            flag_item(n);
        }
    }
    let open = list_flagged(i);
    decode(i, slot, block, group.y, open);
}

fn flag_non_zero(p: u32, u: vec4<f32>) {
    for (var k = 0u; k < 4u; k++) {
        if (u[k] != 0.0) {
            flag_item(4u * p + k);
        }
    }
}

// gates[n] <- u z for the firing neurons.
fn gate(i: u32, local_block: u32, firing: u32) {
    let lane = i % ROW_LANES;
    for (var first = 0u; first < firing; first += ROWS_AT_ONCE) {
        let k = first + i / ROW_LANES;
        var sum = 0.0;
        if (k < firing) {
            let at = (local_block * BLOCK + list[k]) * ROW_VECTORS;
            for (var v = lane; v < ROW_VECTORS; v += ROW_LANES) {
                let packed = value_row(at + v);
                if (F16) {
                    sum += dot(weights_low(packed), rows[2u * v]) + dot(weights_high(packed), rows[2u * v + 1u]);
                } else {
                    sum += dot(weights_low(packed), rows[v]);
                }
            }
        }
        if (ROW_LANES > 1u) {
            lane_sums[i] = sum;
            workgroupBarrier();
            if (lane == 0u) {
                for (var l = 1u; l < ROW_LANES; l++) {
                    sum += lane_sums[i + l];
                }
            }
            workgroupBarrier();
        }
        if (lane == 0u && k < firing) {
            let n = list[k];
            gates[n] = activations[n / 4u][n % 4u] * relu(vec4(sum)).x;
        }
    }
    workgroupBarrier();
}

// updates <- sum of gates[n] decoder[n] over the open gates.
fn decode(i: u32, slot: u32, block: u32, local_block: u32, open: u32) {
    let lane = i % DECODER_LANES;
    let team = i / DECODER_LANES;
    let to = (slot * BLOCKS + block) * ROW4;
    if (team < DECODER_TEAMS) {
        for (var v = lane; v < ROW_VECTORS; v += DECODER_LANES) {
            var low = vec4(0.0);
            var high = vec4(0.0);
            for (var k = team; k < open; k += DECODER_TEAMS) {
                let n = list[k];
                let packed = decoder_row((local_block * BLOCK + n) * ROW_VECTORS + v);
                low = add_scaled(low, gates[n], weights_low(packed));
                if (F16) {
                    high = add_scaled(high, gates[n], weights_high(packed));
                }
            }
            if (DECODER_TEAMS == 1u) {
                store_update(to, v, low, high);
            } else if (F16) {
                pool[(team * ROW_VECTORS + v) * 2u] = low;
                pool[(team * ROW_VECTORS + v) * 2u + 1u] = high;
            } else {
                pool[team * ROW_VECTORS + v] = low;
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
