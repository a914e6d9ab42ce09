// The residual stream of a chunk, and what of it the state will hold.
//
//   x <- LN(embedding) in the first layer, else LN(x + LN(sum of the parts' updates))
//   scaled <- x write_scale
//
// Workgroup (token of the chunk's tiles). Twin: `finish` in `src/backend/cpu/chunk_stages.rs`.

// Mirrors `GpuChunkToken`.
struct ChunkToken {
    token: u32,
    read_scale: f32,
    write_scale: f32,
    pad: u32,
}

// [CHUNK]
@group(0) @binding(1) var<storage, read> tokens: array<ChunkToken>;
// Entry `first`: the embedding's rows; entry `main`: the updates [CHUNK][PARTS][ROW4].
@group(0) @binding(2) var<storage, read> embedding: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> parts: array<vec4<f32>>;
fn partial_at(at: u32) -> vec4<f32> {
    return parts[at];
}
// x [CHUNK][ROW4], then scaled [CHUNK][ROW4].
@group(0) @binding(3) var<storage, read_write> chunk_residual: array<vec4<f32>>;
fn residual_at(at: u32) -> vec4<f32> {
    return chunk_residual[at];
}
fn set_residual(at: u32, value: vec4<f32>) {
    chunk_residual[at] = value;
}

@compute @workgroup_size(W)
fn first(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let t = group.x;
    if (t < params.tokens) {
        let row = tokens[t].token * (ROW4 * 4u / PER_VECTOR);
        for (var c = i; c < ROW4; c += W) {
            if (F16) {
                let packed = embedding[row + c / 2u];
                rows[c] = select(weights_low(packed), weights_high(packed), c % 2u == 1u);
            } else {
                rows[c] = weights_low(embedding[row + c]);
            }
        }
        store_columns(i, 0u, normalized(i, load_columns(i, 0u)));
    }
    keep(i, t);
}

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let t = group.x;
    if (t < params.tokens) {
        var columns = normalized(i, gather(i, t * PARTS * ROW4, PARTS));
        for (var k = 0u; k < OWN_COLUMNS; k++) {
            let c = i + k * W;
            if (c < ROW4) {
                columns[k] += residual_at(t * ROW4 + c);
            }
        }
        store_columns(i, 0u, normalized(i, columns));
    }
    keep(i, t);
}

fn keep(i: u32, t: u32) {
    for (var c = i; c < ROW4; c += W) {
        var x = vec4(0.0);
        var scaled = vec4(0.0);
        if (t < params.tokens) {
            x = rows[c];
            scaled = x * tokens[t].write_scale;
        }
        set_residual(t * ROW4 + c, x);
        set_residual((CHUNK + t) * ROW4 + c, scaled);
    }
}
