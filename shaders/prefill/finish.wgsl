// The residual stream of a later layer, or after the last one: x <- LN(x + LN(sum of the parts'
// updates)), scaled <- x write_scale.
//
// Workgroup (token of the chunk's tiles). Twin: `src/backend/cpu/prefill/reference.rs`.
// Experiments: `docs/performance/prefill.md#prefillfinish`.

#import prefill::residual
#import shared::norm
#import shared::gather

// The parts' shares of the update, [CHUNK][PARTS][ROW4].
@group(0) @binding(2) var<storage, read> partials: array<vec4<f32>>;
fn load_partials(at: u32) -> vec4<f32> {
    return partials[at];
}

@compute @workgroup_size(W)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) i: u32) {
    let t = group.x;
    if (t < params.tokens) {
        var columns = normalized(i, gather(i, t * PARTS * ROW4, PARTS));
        for (var k = 0u; k < OWN_COLUMNS; k++) {
            let c = i + k * W;
            if (c < ROW4) {
                columns[k] += load_chunk_residual(t * ROW4 + c);
            }
        }
        store_columns(i, 0u, normalized(i, columns));
    }
    keep(i, t);
}
