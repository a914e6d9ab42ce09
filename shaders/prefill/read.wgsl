// partial y <- q . state over a block of neurons, for every token of a chunk.
//
// Invocation (tile of tokens, columns) of workgroup (…, block of the segment).
// Twin: `src/backend/cpu/prefill/reference.rs`.
// Experiments: `docs/performance/prefill.md#prefillread`.

#import prefill::params
#import shared::vectors
#import shared::exchange
#import shared::memory

// q [CHUNK][block_count][BLOCK / 4]
@group(0) @binding(1) var<storage, read> rotated: array<vec4<f32>>;
// A page's memory of this layer. Only the state rows of the slot's segment
// [block_count][BLOCK_MEMORY] are read.
#store(2, read) memory: vec4<u32>
// The blocks' shares, [CHUNK][BLOCKS][ROW4].
@group(0) @binding(3) var<storage, read_write> attention: array<vec4<f32>>;

// Invocations that share a row of the state.
const ROW_SHARE: u32 = (ROW4 + COLUMNS - 1u) / COLUMNS;
// Columns that lie in one vector.
const AT_ONCE: u32 = min(PACK, COLUMNS);
// Whether all invocations of a workgroup have the same tile of tokens and each load one token's
// vector.
const TOGETHER: bool = SHARED >= TILE && ROW_SHARE % W == 0u;

// The c-th column of an invocation. Columns of codes are adjacent, for they share vectors.
fn own_column(lane: u32, c: u32) -> u32 {
    return select(lane * COLUMNS + c, lane + c * ROW_SHARE, PACK == 1u);
}

// The invocation's columns of a row of the state, without the row's scale.
fn row(at: u32, lane: u32) -> array<vec4<f32>, COLUMNS> {
    var values: array<vec4<f32>, COLUMNS>;
    for (var c = 0u; c < COLUMNS; c += AT_ONCE) {
        let column = min(own_column(lane, c), ROW4 - AT_ONCE);
        let packed = load_memory(at + column / PACK);
        for (var p = 0u; p < AT_ONCE; p++) {
            values[c + p] = state_column(packed, column % PACK + p);
        }
    }
    return values;
}

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let job = group.x * W + i;
    let inside = job / ROW_SHARE < params.tiles;
    // Idle invocations repeat the last tile: all invocations must take part in the exchange of
    // vectors.
    let tile = min(job / ROW_SHARE, params.tiles - 1u);
    let lane = job % ROW_SHARE;
    var sums: array<array<vec4<f32>, COLUMNS>, TILE>;
    for (var t = 0u; t < TILE; t++) {
        for (var c = 0u; c < COLUMNS; c++) {
            sums[t][c] = vec4(0.0);
        }
    }
    let stride = params.block_count * (BLOCK / 4u);
    let q_at = tile * TILE * stride + group.y * (BLOCK / 4u);
    for (var k = 0u; k < BLOCK / 4u; k++) {
        let base = params.state_begin + group.y * BLOCK_MEMORY;
        let at = base + 4u * k * STATE_ROW;
        var r0 = row(at, lane);
        var r1 = row(at + STATE_ROW, lane);
        var r2 = row(at + 2u * STATE_ROW, lane);
        var r3 = row(at + 3u * STATE_ROW, lane);
        let scales = row_scales(base, k);
        var q: vec4<f32>;
        if (TOGETHER) {
            q = rotated[q_at + i % TILE * stride + k] * scales;
        }
        let own = q;
        for (var t = 0u; t < TILE; t++) {
            if (TOGETHER) {
                q = shared_vector(own, t);
            } else {
                q = rotated[q_at + t * stride + k] * scales;
            }
            for (var c = 0u; c < COLUMNS; c++) {
                var sum = add_scaled(sums[t][c], q.x, r0[c]);
                sum = add_scaled(sum, q.y, r1[c]);
                sum = add_scaled(sum, q.z, r2[c]);
                sums[t][c] = add_scaled(sum, q.w, r3[c]);
            }
        }
    }
    let block = params.block_begin + group.y;
    for (var t = 0u; t < TILE; t++) {
        for (var c = 0u; c < COLUMNS; c++) {
            let column = own_column(lane, c);
            if (inside && column < ROW4) {
                attention[((tile * TILE + t) * BLOCKS + block) * ROW4 + column] = sums[t][c];
            }
        }
    }
}
