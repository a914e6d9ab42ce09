// A block of neurons of one head fires: the part of a layer that `decode/encode.wgsl` and
// `beam/encode.wgsl` share.
//
//   x <- the layer's residual stream     `start_layer`, in every workgroup
//   u <- x . encoder                     in `products`, before relu
//   the block attends to its past        `meet_past`, for every active slot
//
// Workgroup (slot tile, block of the segment). The kernel that imports this file provides the two
// functions and binds its memory at 7.
// Experiments: `docs/performance/decode.md#decodeencode`.

#import shared::slots
#import shared::vectors
#import shared::dense

#needs fn start_layer(i: u32, slot: u32, at: u32, local_block: u32) {}
#needs fn meet_past(i: u32, slot: u32, s: u32, block: u32, local_block: u32) {}

// Bounds of an encoding kernel's dispatch.
#host
struct EncodeParams {
    // First slot of the bound page of states.
    slot_begin: u32,
    // One past its last slot.
    slot_end: u32,
    // First block of the bound segment of weights.
    block_begin: u32,
    // Stride between slots' memories in the page, in vec4.
    slot_stride: u32,
    // Half of `residual` that holds this layer's x; the other one holds the previous layer's.
    parity: u32,
    // Offset of the window's residuals in a slot's memory, in vec4.
    recent_begin: u32,
}

@group(0) @binding(0) var<uniform> params: EncodeParams;
// [slots][2][ROW4]
@group(0) @binding(4) var<storage, read_write> residual: array<vec4<f32>>;
// The segment's tiles [block_count][ROW][BLOCK].
#store(5, read) dense_weights: vec4<u32>
// Frequencies in 2^-64 turns per position (low, high), [BLOCKS_PER_HEAD * BLOCK].
@group(0) @binding(6) var<storage, read> turns: array<vec2<u32>>;
// Per slot: activations [BLOCKS][BLOCK / 4], then partial attention outputs [BLOCKS][ROW4].
#store(8, write) neurons: vec4<f32>

const SLOT_NEURONS: u32 = BLOCKS * (BLOCK / 4u + ROW4);

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    var any = false;
    for (var s = 0u; s < SLOT_TILE; s++) {
        let slot = params.slot_begin + group.x * SLOT_TILE + s;
        if (slot < params.slot_end && is_active(slot)) {
            any = true;
            start_layer(i, slot, s * ROW4, group.y);
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

// The first block's workgroup keeps x for the next layer.
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
