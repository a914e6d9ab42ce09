// Folds nodes that all beams share into the base state, oldest first:
//
//   state <- state + write_scale_a q_a x_a
//
// Workgroup (block of the segment). No other workgroup touches the block's rows.
// Twin: `src/backend/cpu/beam/fold.rs`.
// Experiments: `docs/performance/beams.md#beamfold`.

#import shared::vectors
#import shared::compact
#import shared::memory

// Start of a dispatch.
#host
struct BeamFoldParams {
    // First block of the bound segment.
    block_begin: u32,
}

@group(0) @binding(0) var<uniform> params: BeamFoldParams;
// (number of nodes, 0), then (node, write_scale) of each.
@group(0) @binding(1) var<storage, read> folds: array<vec2<u32>>;
// Nodes of this layer, each q [BLOCKS][BLOCK / 4], then x [ROW4].
@group(0) @binding(2) var<storage, read> nodes: array<vec4<f32>>;
// The segment's memory of this layer's base state, [block_count][BLOCK_MEMORY]; the window is
// empty.
#store(3, read_write) state: vec4<f32>

const NODE: u32 = BLOCKS * (BLOCK / 4u) + ROW4;

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let count = folds[0].x;
    let block_q = (params.block_begin + group.x) * (BLOCK / 4u);
    clear_flags(i);
    for (var t = 0u; t < OWN_VECTORS; t++) {
        let p = own_vector(i, t);
        if (p < BLOCK / 4u) {
            var fired = vec4<bool>(false);
            for (var a = 1u; a <= count; a++) {
                fired = fired | (nodes[folds[a].x * NODE + block_q + p] != vec4(0.0));
            }
            flag_four(i, t, select(vec4(0.0), vec4(1.0), fired));
        }
    }
    let firing = list_flagged(i, 4u);

    let lane = i % ROW_TEAM;
    let team = i / ROW_TEAM;
    if (team < ROW_TEAMS) {
        for (var c = lane; c < ROW4; c += ROW_TEAM) {
            for (var k = team; k < firing; k += ROW_TEAMS) {
                let n = list[k];
                let at = group.x * BLOCK_MEMORY + n * ROW4 + c;
                var row = load_state(at);
                for (var a = 1u; a <= count; a++) {
                    let node = folds[a].x * NODE;
                    let x = nodes[node + BLOCKS * (BLOCK / 4u) + c] * bitcast<f32>(folds[a].y);
                    row = add_scaled(row, nodes[node + block_q + n / 4u][n % 4u], x);
                }
                store_state(at, row);
            }
        }
    }
}
