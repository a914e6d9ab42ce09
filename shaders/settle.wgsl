// The whole window enters the state and is empty afterwards.
//
// Workgroup (slot of the page, block of the segment). Nobody else touches the block's memory.
// Twin: `Settle` in `src/backend/cpu/encode.rs`.

struct SettleParams {
    // First slot of the page that is bound.
    slot_begin: u32,
    // Vectors from one slot's memory in the page to the next one's.
    slot_stride: u32,
    // Where in `residual` the first slot's residuals of this layer are, in vec4.
    recent_begin: u32,
}

@group(0) @binding(0) var<uniform> params: SettleParams;
@group(0) @binding(1) var<storage, read> steps: array<Step>;
@group(0) @binding(2) var<storage, read> control: array<Control>;
@group(0) @binding(3) var<storage, read> residual: array<vec4<f32>>;
// The page's memory of this layer, [slots of the page][block_count][BLOCK_MEMORY].
@group(0) @binding(4) var<storage, read_write> state: array<vec4<f32>>;

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let slot = params.slot_begin + group.x;
    if (!is_active(slot)) {
        return;
    }
    let base = group.x * params.slot_stride + group.y * BLOCK_MEMORY;
    let recent = params.recent_begin + slot * RECENT;
    let position = u32(residual[recent + RECENT_ROWS * ROW4].x) + 1u;
    for (var turn = 0u; turn < WINDOW; turn++) {
        fold_turn(i, base, recent, turn, position);
    }
}
