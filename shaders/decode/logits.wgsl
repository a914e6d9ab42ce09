// logits <- LN(x + LN(update)) . lm_head, a block of the vocabulary in each workgroup.
//
// Workgroup (slot tile, block of the segment). Twin: `src/backend/cpu/decode/logits.rs`.
// Experiments: `docs/performance/decode.md#decodelogits`.

#import shared::slots
#import shared::residual
#import shared::dense

// Bounds of a dispatch.
#host
struct LogitsParams {
    // First block of the bound segment of the LM head.
    block_begin: u32,
    // Half of `residual` that the last layer wrote.
    parity: u32,
    // One past the last slot.
    slot_end: u32,
}

@group(0) @binding(0) var<uniform> params: LogitsParams;
// The blocks' updates of the last layer, [slots][BLOCKS][ROW4].
#store(3, read) partials: vec4<f32>
// [slots][2][ROW4]
@group(0) @binding(4) var<storage, read> residual: array<vec4<f32>>;
// The segment's tiles [blocks][ROW][BLOCK].
#store(5, read) dense_weights: vec4<u32>
// [slots][VOCAB_BLOCKS * BLOCK / 4]
@group(0) @binding(6) var<storage, read_write> logits: array<vec4<f32>>;

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    var any = false;
    for (var s = 0u; s < SLOT_TILE; s++) {
        let slot = group.x * SLOT_TILE + s;
        if (wants_logits(slot)) {
            any = true;
            finish_residual(i, slot, s * ROW4, params.parity);
        } else {
            for (var c = i; c < ROW4; c += W) {
                rows[s * ROW4 + c] = vec4(0.0);
            }
        }
    }
    if (!any) {
        return;
    }
    workgroupBarrier();
    dense_product(i, group.y);
    let block = params.block_begin + group.y;
    for (var s = 0u; s < SLOT_TILE; s++) {
        let slot = group.x * SLOT_TILE + s;
        if (wants_logits(slot)) {
            for (var p = i; p < BLOCK / 4u; p += W) {
                logits[(slot * VOCAB_BLOCKS + block) * (BLOCK / 4u) + p] = products[s * (BLOCK / 4u) + p];
            }
        }
    }
}

fn wants_logits(slot: u32) -> bool {
    return slot < params.slot_end && is_active(slot) && steps[slot].logits == 1u;
}
