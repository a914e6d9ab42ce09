// The whole window settles into the state and is empty afterwards.
//
// Workgroup (slot of the page, block of the segment). No other workgroup touches the block's
// memory.
// Twin: `src/backend/cpu/decode/settle.rs`.
// Experiments: `docs/performance/decode.md#decodesettle`.

#import shared::slots
#import shared::settle

// The bound page.
#host
struct SettleParams {
    // First slot of the bound page.
    slot_begin: u32,
    // Stride between slots' memories in the page, in vec4.
    slot_stride: u32,
    // Offset of the window's residuals in a slot's memory, in vec4.
    recent_begin: u32,
}

@group(0) @binding(0) var<uniform> params: SettleParams;
// This layer's memory in the page, [slots of the page][slot_stride]; see `shared/memory.wgsl`.
#store(3, read_write) memory: vec4<u32>

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let slot = params.slot_begin + group.x;
    if (!is_active(slot)) {
        return;
    }
    let own = group.x * params.slot_stride;
    let base = own + group.y * BLOCK_MEMORY;
    let recent = own + params.recent_begin;
    let position = u32(load_floats(recent + RECENT_ROWS * ROW4).x) + 1u;
    for (var window_slot = 0u; window_slot < WINDOW; window_slot++) {
        settle_pairs(i, base, recent, window_slot, position);
    }
}
