// Attention output through the gated neurons of a block, back to the residual width.
//
//   y <- LN(sum of the head's partial attention outputs)     redundantly in every workgroup of a head
//   z <- relu(y . encoder_v), g <- u z                       only where u > 0
//   update <- sum of g decoder                               only where g > 0; a partial result
//
// Workgroup (slot, block of the segment). The sparse products are in `project_workgroup.wgsl` or `project_subgroup.wgsl`: `gate`
// and `decode`. Twin: `src/backend/cpu/project.rs`.

struct ProjectParams {
    // First block of the segment of weights that is bound.
    block_begin: u32,
}

@group(0) @binding(0) var<uniform> params: ProjectParams;
@group(0) @binding(1) var<storage, read> steps: array<Step>;
@group(0) @binding(2) var<storage, read> control: array<Control>;
// Per slot: activations [BLOCKS][BLOCK / 4], then partial attention outputs [BLOCKS][ROW4].
@group(0) @binding(3) var<storage, read> partials: array<vec4<f32>>;
fn partial_at(at: u32) -> vec4<f32> {
    return partials[at];
}
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
fn set_update(at: u32, value: vec4<f32>) {
    updates[at] = value;
}

const SLOT_NEURONS: u32 = BLOCKS * (BLOCK / 4u + ROW4);
// Packed vectors in a row of weights.
const ROW_VECTORS: u32 = ROW4 * 4u / PER_VECTOR;

var<workgroup> activations: array<vec4<f32>, BLOCK / 4u>;
// Numbers, not vectors: several invocations write those of a vector, and whoever writes a part of a vector may write all of it.
var<workgroup> gates: array<f32, BLOCK>;
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
    store_columns(i, 0u, normalized(i, gather(i, y_base, BLOCKS_PER_HEAD)));
    clear_flags(i);
    for (var t = 0u; t < OWN_VECTORS; t++) {
        let p = own_vector(i, t);
        if (p < BLOCK / 4u) {
            let u = partial_at(slot * SLOT_NEURONS + block * (BLOCK / 4u) + p);
            activations[p] = u;
            flag_four(i, t, u);
            for (var c = 0u; c < 4u; c++) {
                gates[4u * p + c] = 0.0;
            }
        }
    }
    let firing = list_flagged(i, 4u);
    if (i == 0u) {
        count = firing;
    }
    gate(i, slot, block, group.y, workgroupUniformLoad(&count));

    clear_flags(i);
    for (var t = 0u; t < OWN_VECTORS; t++) {
        let p = own_vector(i, t);
        if (p < BLOCK / 4u) {
            flag_four(i, t, vec4(gates[4u * p], gates[4u * p + 1u], gates[4u * p + 2u], gates[4u * p + 3u]));
        }
    }
    let open = list_flagged(i, 4u);
    decode(i, slot, block, group.y, open);
}

fn store_update(to: u32, v: u32, low: vec4<f32>, high: vec4<f32>) {
    if (F16) {
        set_update(to + 2u * v, low);
        set_update(to + 2u * v + 1u, high);
    } else {
        set_update(to + v, low);
    }
}
