// state <- state + sum of q_t scaled_t over the tokens of a chunk, in order.
//
// Invocation (tile of neurons, columns) of workgroup (…, block of the segment).
// No other invocation touches its part of the state.
// Twin: `src/backend/cpu/prefill/reference.rs`.
// Experiments: `docs/performance/prefill.md#prefillwrite`.

#import prefill::params
#import shared::vectors
#import shared::exchange
#import shared::magnitudes

// q [CHUNK][block_count][BLOCK / 4]
@group(0) @binding(1) var<storage, read> rotated: array<vec4<f32>>;
// x [CHUNK][ROW4], then scaled [CHUNK][ROW4].
#store(2, read) chunk_residual: vec4<f32>
// A page's memory of this layer. Only the state rows of the slot's segment
// [block_count][BLOCK_MEMORY] change.
#store(3, read_write) memory: vec4<u32>

// Columns of an invocation, and invocations that share a row of the state.
#ifdef CODES
// A row's scale depends on all of it: a workgroup holds whole rows.
const NEEDED: u32 = max(COLUMNS, (ROW4 + W - 1u) / W);
const OWN: u32 = (NEEDED + PACK - 1u) / PACK * PACK;
#else
const OWN: u32 = COLUMNS;
#endif
const ROW_SHARE: u32 = (ROW4 + OWN - 1u) / OWN;
// Invocations of a workgroup that have work.
const BUSY: u32 = select(W / ROW_SHARE * ROW_SHARE, W, PACK == 1u);
// Neurons per invocation, in fours.
const FOURS: u32 = WRITTEN / 4u;
// Tokens that are added at once.
const STEP: u32 = 4u;
// Whether all invocations of a workgroup have the same tile of neurons and each load one vector of
// q.
const TOGETHER: bool = SHARED >= STEP * FOURS && ROW_SHARE % W == 0u;

// Rows of a workgroup.
const ROUNDED_ROWS: u32 = BUSY / ROW_SHARE * WRITTEN;

// The c-th column of an invocation. Columns of codes are adjacent, for they share vectors.
fn own_column(lane: u32, c: u32) -> u32 {
    return select(lane * OWN + c, lane + c * ROW_SHARE, PACK == 1u);
}

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let job = group.x * BUSY + min(i, BUSY - 1u);
    let inside = i < BUSY && job / ROW_SHARE < BLOCK / 4u / FOURS;
    // Idle invocations repeat the last tile: all invocations must take part in the exchange of
    // vectors.
    let tile = min(job / ROW_SHARE, BLOCK / 4u / FOURS - 1u);
    let lane = job % ROW_SHARE;
    let base = params.state_begin + group.y * BLOCK_MEMORY;
    let at = base + tile * WRITTEN * STATE_ROW;
    var rows: array<array<array<vec4<f32>, OWN>, 4>, FOURS>;
    for (var f = 0u; f < FOURS; f++) {
        let scales = row_scales(base, tile * FOURS + f);
        for (var k = 0u; k < 4u; k++) {
            for (var c = 0u; c < OWN; c += PACK) {
                let column = min(own_column(lane, c), ROW4 - PACK);
                let packed = load_memory(at + (4u * f + k) * STATE_ROW + column / PACK);
                for (var p = 0u; p < PACK; p++) {
                    rows[f][k][c + p] = state_column(packed, p) * scales[k];
                }
            }
        }
    }
#ifdef CODES
    // Whether anything enters a row.
    var enters: array<vec4<bool>, FOURS>;
    for (var f = 0u; f < FOURS; f++) {
        enters[f] = vec4(false);
    }
#endif
    let stride = params.block_count * (BLOCK / 4u);
    for (var t = 0u; t < params.tiles * TILE; t += STEP) {
        var x: array<array<vec4<f32>, OWN>, STEP>;
        for (var k = 0u; k < STEP; k++) {
            for (var c = 0u; c < OWN; c++) {
                let column = min(own_column(lane, c - c % PACK), ROW4 - PACK) + c % PACK;
                x[k][c] = load_chunk_residual((CHUNK + t + k) * ROW4 + column);
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
#ifdef CODES
            let zero = vec4(0.0);
            enters[f] = enters[f] | (q0 != zero) | (q1 != zero) | (q2 != zero) | (q3 != zero);
#endif
            for (var c = 0u; c < OWN; c++) {
                for (var k = 0u; k < 4u; k++) {
                    var row = add_scaled(rows[f][k][c], q0[k], x[0][c]);
                    row = add_scaled(row, q1[k], x[1][c]);
                    row = add_scaled(row, q2[k], x[2][c]);
                    rows[f][k][c] = add_scaled(row, q3[k], x[3][c]);
                }
            }
        }
    }
#ifdef CODES
    let own_rows = min(i, BUSY - 1u) / ROW_SHARE * WRITTEN;
    clear_magnitudes(i);
    for (var f = 0u; f < FOURS; f++) {
        for (var k = 0u; k < 4u; k++) {
            var own_largest = 0u;
            for (var c = 0u; c < OWN; c++) {
                own_largest = max(own_largest, magnitude(rows[f][k][c]));
            }
            // Columns past the row's end repeat others, invocations without work whole rows.
            note_magnitude(own_rows + 4u * f + k, select(UNTOUCHED, own_largest, enters[f][k]));
        }
    }
    scale_rows(i);
    for (var f = 0u; f < FOURS; f++) {
        var scales = row_scales(base, tile * FOURS + f);
        for (var k = 0u; k < 4u; k++) {
            let r = own_rows + 4u * f + k;
            if (inside && !is_untouched(r)) {
                scales = with_component(scales, k, rounded[r].x);
                for (var c = 0u; c < OWN; c += PACK) {
                    var codes: array<vec4<f32>, PACK>;
                    for (var p = 0u; p < PACK; p++) {
                        codes[p] = codes_of(rows[f][k][c + p], rounded[r].y);
                    }
                    let column = own_column(lane, c);
                    if (column < ROW4) {
                        store_memory(at + (4u * f + k) * STATE_ROW + column / PACK, packed_codes(codes));
                    }
                }
            }
        }
        if (inside && lane == 0u) {
            store_floats(base + BLOCK_STATE + tile * FOURS + f, scales);
        }
    }
#else
    for (var f = 0u; f < FOURS; f++) {
        for (var k = 0u; k < 4u; k++) {
            for (var c = 0u; c < OWN; c++) {
                let column = own_column(lane, c);
                if (inside && column < ROW4) {
                    store_floats(at + (4u * f + k) * STATE_ROW + column, rows[f][k][c]);
                }
            }
        }
    }
#endif
}
