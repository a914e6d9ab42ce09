// Folds nodes that all beams share into the base state, oldest first:
//
//   state <- state + write_scale_a q_a x_a
//
// Workgroup (block of the segment). No other workgroup touches the block's rows.
// Twin: `src/backend/cpu/beam/fold.rs`.
// Experiments: `docs/performance/beams.md#beamfold`.

#import shared::vectors
#import shared::compact
#import shared::magnitudes

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
#store(3, read_write) memory: vec4<u32>

const NODE: u32 = BLOCKS * (BLOCK / 4u) + ROW4;

// Vectors of a row per invocation.
const OWN: u32 = (STATE_ROW + STATE_TEAM - 1u) / STATE_TEAM;
// Each team rounds a row.
const ROUNDED_ROWS: u32 = STATE_TEAMS;

#ifdef CODES
// Scales are written four at a time, but rows in any order.
var<workgroup> new_scales: array<f32, BLOCK>;
#endif

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

    let base = group.x * BLOCK_MEMORY;
#ifdef CODES
    for (var n = i; n < BLOCK; n += W) {
        new_scales[n] = row_scales(base, n / 4u)[n % 4u];
    }
    workgroupBarrier();
#endif
    let lane = i % STATE_TEAM;
    let team = i / STATE_TEAM;
    for (var first = 0u; first < firing; first += STATE_TEAMS) {
        // Idle teams repeat the last row.
        let inside = team < STATE_TEAMS && first + team < firing;
        let n = list[min(first + team, firing - 1u)];
        let at = base + n * STATE_ROW;
        let scale = row_scales(base, n / 4u)[n % 4u];
        var row: array<array<vec4<f32>, PACK>, OWN>;
        for (var v = 0u; v < OWN; v++) {
            let own = min(lane + v * STATE_TEAM, STATE_ROW - 1u);
            let packed = load_memory(at + own);
            for (var p = 0u; p < PACK; p++) {
                row[v][p] = state_column(packed, p) * scale;
                for (var a = 1u; a <= count; a++) {
                    let node = folds[a].x * NODE;
                    let x = nodes[node + BLOCKS * (BLOCK / 4u) + own * PACK + p] * bitcast<f32>(folds[a].y);
                    row[v][p] = add_scaled(row[v][p], nodes[node + block_q + n / 4u][n % 4u], x);
                }
            }
        }
#ifdef CODES
        clear_magnitudes(i);
        for (var v = 0u; v < OWN; v++) {
            for (var p = 0u; p < PACK; p++) {
                note_magnitude(min(team, STATE_TEAMS - 1u), select(0u, magnitude(row[v][p]), inside));
            }
        }
        scale_rows(i);
        if (inside) {
            for (var v = 0u; v < OWN; v++) {
                for (var p = 0u; p < PACK; p++) {
                    row[v][p] = codes_of(row[v][p], rounded[team].y);
                }
                if (lane + v * STATE_TEAM < STATE_ROW) {
                    store_memory(at + lane + v * STATE_TEAM, packed_codes(row[v]));
                }
            }
            if (lane == 0u) {
                new_scales[n] = rounded[team].x;
            }
        }
        workgroupBarrier();
#else
        for (var v = 0u; v < OWN; v++) {
            if (inside && lane + v * STATE_TEAM < STATE_ROW) {
                store_floats(at + lane + v * STATE_TEAM, row[v][0]);
            }
        }
#endif
    }
#ifdef CODES
    for (var k = i; k < BLOCK / 4u; k += W) {
        let scales = vec4(new_scales[4u * k], new_scales[4u * k + 1u], new_scales[4u * k + 2u], new_scales[4u * k + 3u]);
        store_floats(base + BLOCK_STATE + k, scales);
    }
#endif
}
