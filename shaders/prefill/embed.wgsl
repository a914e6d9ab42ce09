// The first layer's residual stream: x <- LN(embedding), scaled <- x write_scale.
//
// Workgroup (token of the chunk's tiles). Twin: `src/backend/cpu/prefill/reference.rs`.
// Experiments: `docs/performance/prefill.md#prefillembed`.

#import prefill::residual
#import shared::norm

// The embedding's rows.
@group(0) @binding(2) var<storage, read> embedding: array<vec4<u32>>;

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
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
