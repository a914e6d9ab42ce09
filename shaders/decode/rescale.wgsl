// state <- state * factor, and the same for the window's residuals: forgetting's rare
// renormalisation, with one factor per slot.
//
// Workgroup (stripe, slot of the page). Twin: `src/backend/cpu/decode/rescale.rs`.
// Experiments: `docs/performance/decode.md#decoderescale`.

#import shared::slots
#import shared::memory

// The bound page.
#host
struct RescaleParams {
    // First slot of the bound page.
    slot_begin: u32,
    // Number of blocks in the segment.
    block_count: u32,
    // Workgroups that share a slot.
    stripes: u32,
    // Offset of the window's residuals in a slot's memory, in vec4.
    recent_begin: u32,
    // Stride between slots' memories in the page, in vec4.
    slot_stride: u32,
}

@group(0) @binding(0) var<uniform> params: RescaleParams;
// This layer's memory in the page, [slots of the page][slot_stride]; see `shared/memory.wgsl`.
#store(3, read_write) state: vec4<f32>

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let slot = params.slot_begin + group.y;
    if (!is_active(slot) || steps[slot].rescale == 1.0) {
        return;
    }
    let factor = steps[slot].rescale;
    let memory = group.y * params.slot_stride;
    for (var k = group.x * W + i; k < params.block_count * BLOCK_STATE; k += params.stripes * W) {
        let at = memory + k / BLOCK_STATE * BLOCK_MEMORY + k % BLOCK_STATE;
        store_state(at, load_state(at) * factor);
    }
    for (var k = group.x * W + i; k < RECENT_ROWS * ROW4; k += params.stripes * W) {
        let at = memory + params.recent_begin + k;
        store_state(at, load_state(at) * factor);
    }
}
