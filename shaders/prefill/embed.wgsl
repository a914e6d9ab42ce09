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
        let first = tokens[t].token * (ROW4 / EMBEDDING_FOURS);
        for (var c = i; c < ROW4; c += W) {
            rows[c] = unpacked(embedding[first + c / EMBEDDING_FOURS], EMBEDDING_FOURS, c % EMBEDDING_FOURS);
        }
        store_columns(i, 0u, normalized(i, load_columns(i, 0u)));
    }
    keep(i, t);
}
