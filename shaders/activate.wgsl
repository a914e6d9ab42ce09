// What a block of neurons does before it meets the past: the part that `encode.wgsl` and
// `beam_encode.wgsl` share. Each of the two binds its memory at 7 and provides `meet_past`, which runs for
// every active slot when `products` holds x . encoder and `rows` holds x.

struct EncodeParams {
    // First slot of the page of states that is bound, and one past its last.
    slot_begin: u32,
    slot_end: u32,
    // First block of the segment of weights that is bound.
    block_begin: u32,
    // Vectors from one slot's memory in the page to the next one's.
    slot_stride: u32,
    // Which half of `residual` this layer writes; it reads the other.
    parity: u32,
    // Vectors from the beginning of a slot's memory to its window's residuals.
    recent_begin: u32,
}

@group(0) @binding(0) var<uniform> params: EncodeParams;
// The sampler's `Step` and `Control`, [slots].
@group(0) @binding(1) var<storage, read> steps: array<Step>;
@group(0) @binding(2) var<storage, read> control: array<Control>;
// Entry `first`: the embedding's rows; entry `main`: the blocks' updates [slots][BLOCKS][ROW4].
@group(0) @binding(3) var<storage, read> embedding: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> partials: array<vec4<f32>>;
fn partial_at(at: u32) -> vec4<f32> {
    return partials[at];
}
// [slots][2][ROW4]
@group(0) @binding(4) var<storage, read_write> residual: array<vec4<f32>>;
// The segment's tiles [block_count][ROW][BLOCK].
@group(0) @binding(5) var<storage, read> dense_weights: array<vec4<u32>>;
fn dense_weight(at: u32) -> vec4<u32> {
    return dense_weights[at];
}
// Frequencies in 2^-64 turns per position (low, high), [BLOCKS_PER_HEAD * BLOCK].
@group(0) @binding(6) var<storage, read> turns: array<vec2<u32>>;
// Per slot: activations [BLOCKS][BLOCK / 4], then partial attention outputs [BLOCKS][ROW4].
@group(0) @binding(8) var<storage, read_write> neurons: array<vec4<f32>>;
fn set_neurons(at: u32, value: vec4<f32>) {
    neurons[at] = value;
}

const SLOT_NEURONS: u32 = BLOCKS * (BLOCK / 4u + ROW4);

@compute @workgroup_size(W)
fn first(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    var any = false;
    for (var s = 0u; s < SLOT_TILE; s++) {
        let slot = params.slot_begin + group.x * SLOT_TILE + s;
        if (slot < params.slot_end && is_active(slot)) {
            any = true;
            embed(i, slot, s * ROW4);
            keep_residual(i, slot, s * ROW4, group.y);
        } else {
            clear_row(i, s * ROW4);
        }
    }
    if (any) {
        encode(i, group);
    }
}

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    var any = false;
    for (var s = 0u; s < SLOT_TILE; s++) {
        let slot = params.slot_begin + group.x * SLOT_TILE + s;
        if (slot < params.slot_end && is_active(slot)) {
            any = true;
            finish_residual(i, slot, s * ROW4, 1u - params.parity);
            keep_residual(i, slot, s * ROW4, group.y);
        } else {
            clear_row(i, s * ROW4);
        }
    }
    if (any) {
        encode(i, group);
    }
}

fn clear_row(i: u32, at: u32) {
    for (var c = i; c < ROW4; c += W) {
        rows[at + c] = vec4(0.0);
    }
}

// rows[at..] <- LN(embedding of the slot's token)
fn embed(i: u32, slot: u32, at: u32) {
    var token = steps[slot].input;
    if (token == INPUT_PREVIOUS) {
        token = control[slot].token;
    }
    let per_row = ROW4 * 4u / PER_VECTOR;
    for (var c = i; c < ROW4; c += W) {
        if (F16) {
            let packed = embedding[token * per_row + c / 2u];
            rows[at + c] = select(weights_low(packed), weights_high(packed), c % 2u == 1u);
        } else {
            rows[at + c] = weights_low(embedding[token * per_row + c]);
        }
    }
    store_columns(i, at, normalized(i, load_columns(i, at)));
}

// The first block's workgroup leaves x for the layer after this one.
fn keep_residual(i: u32, slot: u32, at: u32, local_block: u32) {
    if (params.block_begin + local_block == 0u) {
        for (var c = i; c < ROW4; c += W) {
            residual[(slot * 2u + params.parity) * ROW4 + c] = rows[at + c];
        }
    }
}

fn encode(i: u32, group: vec3<u32>) {
    workgroupBarrier();
    dense_product(i, group.y);
    let block = params.block_begin + group.y;
    for (var s = 0u; s < SLOT_TILE; s++) {
        let slot = params.slot_begin + group.x * SLOT_TILE + s;
        if (slot < params.slot_end && is_active(slot)) {
            meet_past(i, slot, s, block, group.y);
        }
    }
}
