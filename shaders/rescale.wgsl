// state <- state * factor: forgetting's rare renormalisation, one factor per slot.
//
// Workgroup (stripe, slot of the page). Twin: `rescale` in `src/backend/cpu/mod.rs`.

struct RescaleParams {
    // First slot of the page that is bound.
    slot_begin: u32,
    // Numbers per slot in the page, in vec4.
    slot_size: u32,
    // Workgroups that share a slot.
    stripes: u32,
}

@group(0) @binding(0) var<uniform> params: RescaleParams;
@group(0) @binding(1) var<storage, read> steps: array<Step>;
@group(0) @binding(2) var<storage, read> control: array<Control>;
@group(0) @binding(3) var<storage, read_write> state: array<vec4<f32>>;

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let slot = params.slot_begin + group.y;
    if (!is_active(slot) || steps[slot].rescale == 1.0) {
        return;
    }
    for (var k = group.x * W + i; k < params.slot_size; k += params.stripes * W) {
        state[group.y * params.slot_size + k] *= steps[slot].rescale;
    }
}
