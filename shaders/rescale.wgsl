// state <- state * factor, and the window's residuals too: forgetting's rare renormalisation, one factor per slot.
//
// Workgroup (stripe, slot of the page). Twin: `rescale` in `src/backend/cpu/mod.rs`.

struct RescaleParams {
    // First slot of the page that is bound.
    slot_begin: u32,
    // The segment's number of blocks.
    block_count: u32,
    // Workgroups that share a slot.
    stripes: u32,
    // Vectors from the beginning of a slot's memory to its window's residuals.
    recent_begin: u32,
    // Vectors from one slot's memory in the page to the next one's.
    slot_stride: u32,
}

@group(0) @binding(0) var<uniform> params: RescaleParams;
@group(0) @binding(1) var<storage, read> steps: array<Step>;
@group(0) @binding(2) var<storage, read> control: array<Control>;
@group(0) @binding(3) var<storage, read_write> state: array<vec4<f32>>;
fn set_state(at: u32, value: vec4<f32>) {
    state[at] = value;
}

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
        set_state(at, state_at(at) * factor);
    }
    for (var k = group.x * W + i; k < RECENT_ROWS * ROW4; k += params.stripes * W) {
        let at = memory + params.recent_begin + k;
        set_state(at, state_at(at) * factor);
    }
}
