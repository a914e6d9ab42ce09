// state <- state + sum of q_t scaled_t over the tokens of a chunk, in order.
//
// Invocation (tile of neurons, columns) of workgroup (…, block of the segment).
// No other invocation touches its part of the state.
// Twin: `src/backend/cpu/prefill/reference.rs`.
// Experiments: `docs/performance/prefill.md#prefillwrite`.

#import prefill::params
#import shared::vectors
#import shared::exchange
#import shared::memory

// q [CHUNK][block_count][BLOCK / 4]
@group(0) @binding(1) var<storage, read> rotated: array<vec4<f32>>;
// x [CHUNK][ROW4], then scaled [CHUNK][ROW4].
#store(2, read) chunk_residual: vec4<f32>
// A page's memory of this layer. Only the state rows of the slot's segment
// [block_count][BLOCK_MEMORY] change.
#store(3, read_write) state: vec4<f32>

// Invocations that share a row of the state: columns lane, lane + ROW_SHARE, ...
const ROW_SHARE: u32 = (ROW4 + COLUMNS - 1u) / COLUMNS;
// Neurons per invocation, in fours.
const FOURS: u32 = WRITTEN / 4u;
// Tokens that are added at once.
const STEP: u32 = 4u;
// Whether all invocations of a workgroup have the same tile of neurons and each load one vector of
// q.
const TOGETHER: bool = SHARED >= STEP * FOURS && ROW_SHARE % W == 0u;

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let job = group.x * W + i;
    let inside = job / ROW_SHARE < BLOCK / 4u / FOURS;
    // Idle invocations repeat the last tile: all invocations must take part in the exchange of
    // vectors.
    let tile = min(job / ROW_SHARE, BLOCK / 4u / FOURS - 1u);
    let lane = job % ROW_SHARE;
    let at = params.state_begin + group.y * BLOCK_MEMORY + tile * FOURS * 4u * ROW4;
    var rows: array<array<array<vec4<f32>, COLUMNS>, 4>, FOURS>;
    for (var f = 0u; f < FOURS; f++) {
        for (var k = 0u; k < 4u; k++) {
            for (var c = 0u; c < COLUMNS; c++) {
                rows[f][k][c] = load_state(at + (4u * f + k) * ROW4 + min(lane + c * ROW_SHARE, ROW4 - 1u));
            }
        }
    }
    let stride = params.block_count * (BLOCK / 4u);
    for (var t = 0u; t < params.tiles * TILE; t += STEP) {
        var x: array<array<vec4<f32>, COLUMNS>, STEP>;
        for (var k = 0u; k < STEP; k++) {
            for (var c = 0u; c < COLUMNS; c++) {
                x[k][c] = load_chunk_residual((CHUNK + t + k) * ROW4 + min(lane + c * ROW_SHARE, ROW4 - 1u));
            }
        }
        let q_at = t * stride + group.y * (BLOCK / 4u) + tile * FOURS;
        var own: vec4<f32>;
        if (TOGETHER) {
            own = rotated[q_at + i % STEP * stride + i / STEP % FOURS];
        }
        for (var f = 0u; f < FOURS; f++) {
            var q0: vec4<f32>;
            var q1: vec4<f32>;
            var q2: vec4<f32>;
            var q3: vec4<f32>;
            if (TOGETHER) {
                q0 = shared_vector(own, STEP * f);
                q1 = shared_vector(own, STEP * f + 1u);
                q2 = shared_vector(own, STEP * f + 2u);
                q3 = shared_vector(own, STEP * f + 3u);
            } else {
                q0 = rotated[q_at + f];
                q1 = rotated[q_at + stride + f];
                q2 = rotated[q_at + 2u * stride + f];
                q3 = rotated[q_at + 3u * stride + f];
            }
            for (var c = 0u; c < COLUMNS; c++) {
                for (var k = 0u; k < 4u; k++) {
                    var row = add_scaled(rows[f][k][c], q0[k], x[0][c]);
                    row = add_scaled(row, q1[k], x[1][c]);
                    row = add_scaled(row, q2[k], x[2][c]);
                    rows[f][k][c] = add_scaled(row, q3[k], x[3][c]);
                }
            }
        }
    }
    for (var f = 0u; f < FOURS; f++) {
        for (var k = 0u; k < 4u; k++) {
            for (var c = 0u; c < COLUMNS; c++) {
                let column = lane + c * ROW_SHARE;
                if (inside && column < ROW4) {
                    store_state(at + (4u * f + k) * ROW4 + column, rows[f][k][c]);
                }
            }
        }
    }
}
