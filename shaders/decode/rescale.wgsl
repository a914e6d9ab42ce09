// state <- state * factor, and the same for the window's residuals: forgetting's rare
// renormalisation, with one factor per slot. Of codes only the scales change.
//
// Workgroup (stripe, slot of the page). Twin: `src/backend/cpu/decode/rescale.rs`.
// Experiments: `docs/performance/decode.md#decoderescale`.

#import shared::slots
#import shared::rounding

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
#store(3, read_write) memory: vec4<u32>

// Vectors of a block that change, and the offset of the first.
const RESCALED: u32 = select(BLOCK / 4u, BLOCK_STATE, PACK == 1u);
const FIRST_RESCALED: u32 = select(BLOCK_STATE, 0u, PACK == 1u);

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let slot = params.slot_begin + group.y;
    if (!is_active(slot) || steps[slot].rescale == 1.0) {
        return;
    }
    let factor = steps[slot].rescale;
    let own = group.y * params.slot_stride;
    for (var k = group.x * W + i; k < params.block_count * RESCALED; k += params.stripes * W) {
        let at = own + k / RESCALED * BLOCK_MEMORY + FIRST_RESCALED + k % RESCALED;
        store_floats(at, load_floats(at) * factor);
    }
    for (var k = group.x * W + i; k < RECENT_ROWS * ROW4; k += params.stripes * W) {
        let at = own + params.recent_begin + k;
        store_floats(at, load_floats(at) * factor);
    }
}
